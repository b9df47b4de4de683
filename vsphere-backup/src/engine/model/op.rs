//! What may happen in a history.

use proptest::{
    option,
    prelude::{Just, Strategy, any},
    prop_oneof, sample,
};

use super::guest::{CAPACITY, CHUNK, SECTOR};
use crate::repository::storage::Fault;

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Write {
        at: u64,
        sectors: u64,
        fill: u8,
    },
    Trim {
        at: u64,
        sectors: u64,
    },
    Grow {
        sectors: u64,
    },
    ResetTracking,
    Backup(Plan),
    /// Goes on with an interrupted backup, when there is one.
    Resume(Plan),
    Prune {
        keep: u32,
        broken: Option<Broken>,
    },
    Collect {
        broken: Option<Broken>,
    },
    Restore {
        point: sample::Index,
        way: RestoreWay,
    },
    /// Another process opens the repository.
    Reopen,
}

impl Op {
    /// Tells whether the repository may be another one after it.
    pub(super) fn is_of_the_repository(&self) -> bool {
        !matches!(self, Self::Write { .. } | Self::Trim { .. } | Self::Grow { .. } | Self::ResetTracking)
    }
}

/// A backup as it will be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) full: bool,
    pub(super) distrust: bool,
    pub(super) broken: Option<Broken>,
    /// It ends when it has read up to there.
    pub(super) dies_at: Option<u64>,
}

/// The storage meets a fault at an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    pub(super) at: u64,
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum RestoreWay {
    All,
    OnlyDifferences,
    /// Only what changed since, when that is known.
    OnlyChanges,
}

pub(super) fn any_op() -> impl Strategy<Value = Op> {
    let sectors = || prop_oneof![1..9_u64, Just(CHUNK / SECTOR), 1..4 * CHUNK / SECTOR];
    let fault = prop_oneof![
        Just(Fault::Error),
        Just(Fault::LostAnswer),
        Just(Fault::Cut),
        Just(Fault::CutAfter),
        (1..6_usize).prop_map(Fault::CutLosing),
    ];
    let broken = (prop_oneof![0..15_u64, 10..30_u64, 0..80_u64], fault).prop_map(|(at, fault)| Broken { at, fault });
    let maybe = option::weighted(0.4, broken);
    // Few different fills: chunks that are equal come again.
    let write =
        (0..CAPACITY / SECTOR, sectors(), 0..5_u8).prop_map(|(at, sectors, fill)| Op::Write { at, sectors, fill });
    let trim = (0..CAPACITY / SECTOR, sectors()).prop_map(|(at, sectors)| Op::Trim { at, sectors });
    let dies_at = option::weighted(0.5, 0..CAPACITY);
    let plan = (any::<bool>(), any::<bool>(), maybe.clone(), dies_at).prop_map(|(full, distrust, broken, dies_at)| {
        let (full, distrust) = (full && distrust, full ^ distrust);
        Plan { full, distrust, broken, dies_at }
    });
    let way = prop_oneof![Just(RestoreWay::All), Just(RestoreWay::OnlyDifferences), Just(RestoreWay::OnlyChanges)];
    prop_oneof![
        16 => write,
        2 => trim,
        1 => (1..3 * CHUNK / SECTOR).prop_map(|sectors| Op::Grow { sectors }),
        1 => Just(Op::ResetTracking),
        9 => plan.clone().prop_map(Op::Backup),
        9 => plan.prop_map(Op::Resume),
        2 => (1..4_u32, maybe.clone()).prop_map(|(keep, broken)| Op::Prune { keep, broken }),
        8 => maybe.prop_map(|broken| Op::Collect { broken }),
        2 => (any::<sample::Index>(), way).prop_map(|(point, way)| Op::Restore { point, way }),
        1 => Just(Op::Reopen),
    ]
}
