//! What may happen in a history.

use proptest::{
    option,
    prelude::{Just, Strategy, any},
    prop_oneof, sample,
};
use vsphere_sim::Power;

use crate::world::KIB;

/// One step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(Write),
    /// By others than this crate.
    Snapshot(SnapshotOp),
    /// As after a crash of the host.
    ResetTracking(sample::Index),
    SwitchTracking(bool),
    Power(Power),
    Disk(DiskOp),
    Backup(Plan),
    InPlace(InPlace),
    NewVm {
        point: sample::Index,
        stop: Option<Stop>,
    },
    Prune {
        keep: u32,
        /// The storage is cut off at this operation.
        cut: Option<u64>,
    },
    Collect {
        cut: Option<u64>,
    },
}

/// The guest writes.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) disk: sample::Index,
    /// Where, as a share of the disk.
    pub(crate) at: sample::Index,
    pub(crate) sectors: u64,
    /// Zeros when it is 0.
    pub(crate) fill: u8,
}

#[derive(Clone, Debug)]
pub(crate) enum SnapshotOp {
    Make,
    /// Its layers are merged, or wait for it.
    Remove {
        which: sample::Index,
        merge: bool,
    },
    /// All of them, also that of an interrupted backup.
    RemoveAll,
    Revert(sample::Index),
}

#[derive(Clone, Debug)]
pub(crate) enum DiskOp {
    Grow {
        disk: sample::Index,
        kib: u64,
    },
    Add {
        unit: i32,
        kib: u64,
    },
    /// Its files stay.
    Remove(sample::Index),
    /// One that was removed comes back, maybe at another place.
    Attach {
        which: sample::Index,
        unit: i32,
    },
}

/// A backup as it will be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) base: Base,
    pub(crate) belief: Belief,
    pub(crate) resumes: bool,
    pub(crate) enables_tracking: bool,
    pub(crate) excluded: Option<sample::Index>,
    pub(crate) stop: Option<Stop>,
    /// What the guest writes while it runs, each before the step with this number.
    pub(crate) meanwhile: Vec<(u64, Write)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Base {
    Latest,
    /// Differential.
    Full,
    Nothing,
    Point(sample::Index),
}

/// How far change tracking is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Belief {
    All,
    Half,
    Nothing,
}

/// A restore in place.
#[derive(Clone, Debug)]
pub(crate) struct InPlace {
    pub(crate) point: sample::Index,
    pub(crate) way: Way,
    pub(crate) stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    All,
    OnlyDifferences,
    ByTracking,
}

/// A job is stopped before or after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Counted from 0, each step having two of these moments.
    pub(crate) moment: u64,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Its process dies.
    Kill,
    Abandon,
    Cancel,
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let index = any::<sample::Index>;
    let snapshot = prop_oneof![
        3 => Just(SnapshotOp::Make),
        3 => (index(), any::<bool>()).prop_map(|(which, merge)| SnapshotOp::Remove { which, merge }),
        1 => Just(SnapshotOp::RemoveAll),
        1 => index().prop_map(SnapshotOp::Revert),
    ];
    let kib = || prop_oneof![Just(64_u64), Just(1), 1..300_u64];
    let disk = prop_oneof![
        2 => (index(), kib()).prop_map(|(disk, kib)| DiskOp::Grow { disk, kib }),
        1 => (0..6, kib()).prop_map(|(unit, kib)| DiskOp::Add { unit, kib }),
        1 => index().prop_map(DiskOp::Remove),
        2 => (index(), 0..6).prop_map(|(which, unit)| DiskOp::Attach { which, unit }),
    ];
    let power = prop_oneof![3 => Just(Power::On), 1 => Just(Power::Off), 1 => Just(Power::Suspended)];
    let way = prop_oneof![Just(Way::All), Just(Way::OnlyDifferences), Just(Way::ByTracking)];
    let in_place = (index(), way, stop(0.3)).prop_map(|(point, way, stop)| InPlace { point, way, stop });
    let cut = || option::weighted(0.3, 0..40_u64);
    prop_oneof![
        14 => write().prop_map(Op::Write),
        4 => snapshot.prop_map(Op::Snapshot),
        1 => index().prop_map(Op::ResetTracking),
        1 => any::<bool>().prop_map(Op::SwitchTracking),
        3 => power.prop_map(Op::Power),
        4 => disk.prop_map(Op::Disk),
        14 => plan().prop_map(Op::Backup),
        4 => in_place.prop_map(Op::InPlace),
        1 => (index(), stop(0.3)).prop_map(|(point, stop)| Op::NewVm { point, stop }),
        2 => (1..5_u32, cut()).prop_map(|(keep, cut)| Op::Prune { keep, cut }),
        4 => cut().prop_map(|cut| Op::Collect { cut }),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let sectors = prop_oneof![1..9_u64, Just(CHUNK_SECTORS), 1..4 * CHUNK_SECTORS];
    // Few different fills: chunks that are equal come again.
    (any::<sample::Index>(), any::<sample::Index>(), sectors, 0..5_u8).prop_map(|(disk, at, sectors, fill)| Write {
        disk,
        at,
        sectors,
        fill,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let base = prop_oneof![
        6 => Just(Base::Latest),
        1 => Just(Base::Full),
        1 => Just(Base::Nothing),
        1 => any::<sample::Index>().prop_map(Base::Point),
    ];
    let belief = prop_oneof![3 => Just(Belief::All), 1 => Just(Belief::Half), 1 => Just(Belief::Nothing)];
    let resumes = prop_oneof![3 => Just(true), 1 => Just(false)];
    let meanwhile = proptest::collection::vec((0..40_u64, write()), 0..3);
    let excluded = option::weighted(0.1, any::<sample::Index>());
    (base, belief, resumes, any::<bool>(), excluded, stop(0.5), meanwhile).prop_map(
        |(base, belief, resumes, enables_tracking, excluded, stop, meanwhile)| Plan {
            base,
            belief,
            resumes,
            enables_tracking,
            excluded,
            stop,
            meanwhile,
        },
    )
}

fn stop(share: f64) -> impl Strategy<Value = Option<Stop>> {
    let how = prop_oneof![4 => Just(How::Kill), 1 => Just(How::Abandon), 1 => Just(How::Cancel)];
    // Many while disks are read: what is stored of them is gone on with.
    let moment = prop_oneof![2 => 0..110_u64, 3 => 46..90_u64];
    option::weighted(share, (moment, how).prop_map(|(moment, how)| Stop { moment, how }))
}

const CHUNK_SECTORS: u64 = crate::world::CHUNK / 512;
/// No disk grows beyond it.
pub(crate) const LARGEST: u64 = 1024 * KIB;
