//! The machine that is looked at, one of its disks, and the point in time that can be read.

use std::error::Error;
use std::sync::Arc;

use examples::addresses::without_addresses;
use vixdisklib::{Access, VmTickets};
use vsphere_nfc::trace::Recorder;
use vsphere_nfc::{Mode, NfcDisk, NfcOptions, TicketSource};
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, PowerState, PropertyPath, RemoveSnapshotOptions, Vim, VirtualDiskInfo, VmRef, mo,
};

use crate::report::{Report, Verdict};

/// The mark by which a snapshot of ours is known.
const MARK: &str = "live_check of a backup library; may be removed";

/// What is asked about.
pub(crate) struct Subject {
    pub(crate) vim: Vim,
    pub(crate) vm: VmRef,
    pub(crate) disk: VirtualDiskInfo,
    pub(crate) power: PowerState,
    /// A file that may be opened for reading: of a snapshot, or of a machine that is off.
    pub(crate) path: Option<String>,
    pub(crate) snapshot: Option<MoRef<mo::VirtualMachineSnapshot>>,
    /// Whether a snapshot was asked for, whatever came of it.
    asked: bool,
    /// Names that are nobody else's business: of the host, of the user.
    hidden: Vec<(String, &'static str)>,
    pub(crate) recorder: Recorder,
}

impl Subject {
    /// Reads what is known before anything is tried.
    pub(crate) async fn find(vim: &Vim, vm: &VmRef, report: &mut Report) -> Result<Self, Box<dyn Error>> {
        const TOPIC: &str = "The server";
        let about = &vim.content().about;
        report.seen(TOPIC, "release", format!("{} {} build {}", about.name, about.version, about.build));
        let host = vim.host_of(&vm.moref).await?;
        let version = match vim.nfc_version(&host).await {
            Ok(version) => version.to_string(),
            Err(error) => error.to_string(),
        };
        report.seen(TOPIC, "NFC library version of the host (11: 8.0, 7: 7.0, 2: 6.7, 0: 6.5)", version);
        let disk = vim.disks(&vm.moref).await?.into_iter().next().ok_or("the machine has no disk")?;
        let power = vim.power_state(&vm.moref).await?;
        report.seen(TOPIC, "the machine", format!("{power:?}, first disk of {} bytes", disk.capacity));
        let snapshot = vim.snapshots(&vm.moref).await?.current().map(|snapshot| snapshot.snapshot.clone());
        let mut subject = Self {
            vim: vim.clone(),
            vm: vm.clone(),
            path: (power == PowerState::Off).then(|| disk.backing.file_name.clone()).flatten(),
            disk,
            power,
            snapshot: None,
            asked: false,
            hidden: Vec::new(),
            recorder: Recorder::new(),
        };
        if let Ok(name) = vim.get::<_, String>(&host, PropertyPath::new("name")).await {
            subject.hidden.push((name, "host"));
        }
        if let Some(snapshot) = snapshot {
            subject.read_from(snapshot).await?;
        }
        Ok(subject)
    }

    /// Takes a snapshot and reads from it.
    pub(crate) async fn take_snapshot(&mut self, report: &mut Report) -> Result<(), Box<dyn Error>> {
        let options = CreateSnapshotOptions::new("live-check").description(MARK);
        self.asked = true;
        let snapshot = self.vim.create_snapshot(&self.vm.moref, options).await?;
        self.snapshot = Some(snapshot.clone());
        report.seen("The server", "a snapshot was taken", "it is removed at the end");
        self.read_from(snapshot).await
    }

    /// Removes the snapshot that was taken, also when nobody heard that it was. It is known by its mark.
    pub(crate) async fn remove_snapshot(&mut self, report: &mut Report) -> Result<(), Box<dyn Error>> {
        if !std::mem::take(&mut self.asked) {
            return Ok(());
        }
        let snapshots = self.vim.snapshots(&self.vm.moref).await?;
        let ours: Vec<_> = snapshots.described(MARK).map(|snapshot| snapshot.snapshot.clone()).collect();
        for snapshot in &ours {
            self.vim.remove_snapshot(snapshot, RemoveSnapshotOptions::default()).await?;
        }
        let left = self.vim.snapshots(&self.vm.moref).await?.described(MARK).count();
        report.holds("The server", "the snapshot is gone again", left == 0, format!("{left} left"));
        Ok(())
    }

    /// Keeps the user's name out of what is written.
    pub(crate) fn hide(&mut self, user: Option<&str>) {
        // What stands before or behind a domain is the name, too.
        let parts = user.into_iter().flat_map(|user| std::iter::once(user).chain(user.split(['@', '\\'])));
        self.hidden.extend(parts.map(|part| (part.to_owned(), "user")));
    }

    async fn read_from(&mut self, snapshot: MoRef<mo::VirtualMachineSnapshot>) -> Result<(), Box<dyn Error>> {
        let disks = self.vim.snapshot_disks(&snapshot).await?;
        if let Some(disk) = disks.into_iter().find(|disk| disk.key == self.disk.key) {
            self.path = disk.backing.file_name.clone();
            self.disk = disk;
            self.snapshot = Some(snapshot);
        }
        Ok(())
    }

    /// Tickets for the disk.
    pub(crate) fn tickets(&self, access: Access) -> Arc<dyn TicketSource> {
        Arc::new(VmTickets::of_disk(&self.vim, &self.vm.moref, self.disk.key, access))
    }

    /// Options whose conversations are kept for the report.
    pub(crate) fn options(&self) -> NfcOptions {
        NfcOptions::default().trace(&self.recorder)
    }

    /// Opens the readable file.
    pub(crate) async fn open(&self, options: NfcOptions) -> vsphere_nfc::Result<NfcDisk> {
        let path = self.path.clone().unwrap_or_default();
        NfcDisk::open(self.tickets(Access::ReadOnly), &path, Mode::ReadOnly, options).await
    }

    /// The readable file; a question that needs one is not asked without it.
    pub(crate) fn readable(&self, topic: &'static str, report: &mut Report) -> Option<&str> {
        if self.path.is_none() {
            let why = "the machine runs and has no snapshot: try --snapshot";
            report.add(topic, "reading", Verdict::NotAsked, why);
        }
        self.path.as_deref()
    }

    /// Takes the names of the user's things out of a text.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut words = vec![(self.vim.endpoint().host().to_owned(), "server".to_owned())];
        words.push((self.vm.name.clone(), "machine".to_owned()));
        words.extend(self.hidden.iter().map(|(word, stand_in)| (word.clone(), (*stand_in).to_owned())));
        let files = self.disk.backing.file_name.iter().chain(&self.disk.backing.parents).chain(&self.path);
        for (number, file) in files.enumerate() {
            if let Some((datastore, path)) = file.trim_start_matches('[').split_once("] ") {
                words.push((path.to_owned(), format!("folder/disk-{number}.vmdk")));
                words.push((datastore.to_owned(), "datastore".to_owned()));
                words.extend(path.split_once('/').map(|(folder, _)| (folder.to_owned(), "folder".to_owned())));
            }
        }
        // Longer ones first: a name may be part of another.
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        let words = words.into_iter().filter(|(word, _)| word.len() > 1);
        let text = words.fold(text.to_owned(), |text, (word, stand_in)| text.replace(&word, &stand_in));
        without_addresses(&text)
    }
}
