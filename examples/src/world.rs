//! Where an example runs: a server of the user's, or a simulator started for it.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vsphere_backup::Backup;
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_sim::{DiskHandle, DiskSpec, Simulator, VmSpec};
use vsphere_vim::transport::{HttpOptions, HttpTransport, Recorder, Scrub};
use vsphere_vim::{Credentials, Endpoint, Thumbprint, TlsTrust, Vim, VmLookup, VmRef};

use crate::args::Args;
use crate::guest_fs::{GuestDisk, Noise, format_and_fill};

/// The arguments that [`World::open`] reads, to be given to [`Args::read`] with the example's own.
pub const WORLD_ARGS: [&str; 7] = ["url=", "user=", "password-file=", "thumbprint=", "ca-file=", "vm=", "simulate"];

/// A connection, a virtual machine, and the simulator behind them where there is one.
pub struct World {
    /// The connection.
    pub vim: Vim,
    /// The virtual machine that the example works on.
    pub vm: VmRef,
    /// The simulator, when the example runs on one.
    pub simulator: Option<Simulator>,
    // Holds the simulated machine's disk; goes last.
    _folder: Option<tempfile::TempDir>,
}

impl World {
    /// Opens the server that the arguments name, or with `--simulate` a simulator with a small machine.
    ///
    /// # Errors
    /// What is missing or what the server said.
    pub async fn open(args: &Args) -> Result<Self, Box<dyn Error>> {
        Self::open_recorded(args, None::<std::io::Sink>).await
    }

    /// The same; what is said over SOAP is written to `record`, without secrets.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_recorded(
        args: &Args,
        record: Option<impl Write + Send + 'static>,
    ) -> Result<Self, Box<dyn Error>> {
        if args.has("simulate") {
            return Self::simulated(record).await;
        }
        let password = std::fs::read_to_string(args.need("password-file")?)?;
        let credentials = Credentials::password(args.need("user")?, password.trim_end());
        let trust = match (args.get("thumbprint"), args.get("ca-file")) {
            (Some(pin), _) => TlsTrust::from(pin.parse::<Thumbprint>()?),
            (None, Some(file)) => TlsTrust::CaFile(file.into()),
            (None, None) => TlsTrust::SystemRoots,
        };
        let vim = recorded(args.need("url")?, credentials, trust, record).await?;
        let vm = vim.find_vm(&VmLookup::InventoryPath(args.need("vm")?.to_owned())).await?;
        Ok(Self { vim, vm, simulator: None, _folder: None })
    }

    async fn simulated(record: Option<impl Write + Send + 'static>) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("web.img");
        make_image(&image, 64 << 20, 200)?;
        let machine = VmSpec::new("web").disk(DiskSpec::raw_file(&image));
        let simulator = Simulator::builder().vm(machine).start().await?;
        let trust = TlsTrust::from(simulator.thumbprint_sha256().parse::<Thumbprint>()?);
        let credentials = Credentials::password(simulator.username(), simulator.password());
        let vim = recorded(&simulator.url(), credentials, trust, record).await?;
        let vm = vim.find_vm(&VmLookup::InventoryPath(simulator.vm("web")?.inventory_path())).await?;
        Ok(Self { vim, vm, simulator: Some(simulator), _folder: Some(folder) })
    }

    /// Makes a repository in `folder` with one backup of the machine: what the examples that need one begin with.
    ///
    /// # Errors
    /// What the backup says.
    pub async fn back_up_once(&self, folder: &Path) -> Result<Repository, Box<dyn Error>> {
        let repository = Repository::create_local(folder.join("repository"), CreateOptions::default()).await?;
        Backup::of(&self.vim, self.vm.moref.clone()).journal(folder.join("journal")).run(&repository).await?;
        Ok(repository)
    }

    /// Logs out, and stops the simulator where there is one.
    ///
    /// # Errors
    /// What the server said; and anything that the example left behind on the simulator.
    pub async fn close(self) -> Result<(), Box<dyn Error>> {
        self.vim.logout().await?;
        if let Some(simulator) = self.simulator {
            let left = simulator.settled(Duration::from_secs(2)).await;
            simulator.shutdown().await;
            if !left.is_clean() {
                return Err(format!("left behind on the server: {left:?}").into());
            }
        }
        Ok(())
    }
}

async fn recorded(
    url: &str,
    credentials: Credentials,
    trust: TlsTrust,
    record: Option<impl Write + Send + 'static>,
) -> Result<Vim, Box<dyn Error>> {
    let builder = Vim::builder(url).credentials(credentials);
    let Some(record) = record else { return Ok(builder.trust(trust).connect().await?) };
    let endpoint = Endpoint::parse(url)?;
    let real = HttpTransport::new(endpoint.clone(), &trust, HttpOptions::default())?;
    let recorder = Recorder::new(Arc::new(real), record, Scrub::identities(&endpoint));
    // Trust is of the transport; file transfers make connections of their own.
    Ok(builder.trust(trust).transport(Arc::new(recorder)).connect().await?)
}

/// Connects to a simulator, its certificate pinned.
///
/// # Errors
/// What the client says.
pub async fn connect(simulator: &Simulator) -> Result<Vim, Box<dyn Error>> {
    Ok(Vim::builder(simulator.url())
        .credentials(Credentials::password(simulator.username(), simulator.password()))
        .thumbprint(simulator.thumbprint_sha256().parse()?)
        .connect()
        .await?)
}

/// Makes a raw image with a file system and files on it.
///
/// # Errors
/// What the file says.
pub fn make_image(path: &Path, capacity: u64, files: u32) -> std::io::Result<()> {
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_len(capacity)?;
    format_and_fill(&file, files, &mut Noise::new(2026))
}

impl GuestDisk for DiskHandle {
    fn capacity(&self) -> u64 {
        DiskHandle::capacity(self)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        DiskHandle::read_at(self, offset, buffer).map_err(std::io::Error::other)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        DiskHandle::write_at(self, offset, bytes).map_err(std::io::Error::other)
    }
}
