//! What a new machine shall be.

use std::{fmt, sync::Arc};

use vsphere_vim::{
    MoRef, Vim,
    config_spec::{
        ConfigConversion, DatastoreTarget, Identity, MacAddresses, NetworkSource, NetworkTarget, Provisioning,
    },
    mo,
};

use crate::{error::Result, server};

/// A machine that a recovery point is restored to as a new one.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, point: vsphere_backup::repository::RecoveryPoint) -> Result<(), Box<dyn std::error::Error>> {
/// use vsphere_backup::{NewVm, Restore, UnmappedNetworks};
/// use vsphere_vim::{MoRef, config_spec::{NetworkSource, NetworkTarget}};
///
/// let place = NewVm::named("web, restored", MoRef::new("group-v3"), MoRef::new("resgroup-8"))
///     .datastore("ds2")
///     .network(NetworkSource::Network("VM Network".into()), NetworkTarget::standard("Quarantine"))
///     .unmapped(UnmappedNetworks::Disconnect)
///     .power_on(true);
/// let restored = Restore::of(&point).journal("/var/lib/backup/journal").to_new_vm(&vim, place).await?;
/// println!("{}", restored.vm);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct NewVm {
    pub(super) name: Option<String>,
    pub(super) folder: MoRef<mo::Folder>,
    pub(super) pool: MoRef<mo::ResourcePool>,
    pub(super) host: Option<MoRef<mo::HostSystem>>,
    pub(super) identity: VmIdentity,
    datastore: Option<DatastoreTarget>,
    provisioning: Provisioning,
    networks: Vec<(NetworkSource, NetworkChoice)>,
    pub(super) unmapped: UnmappedNetworks,
    pub(super) power_on: bool,
    adjust: Option<Arc<Adjust>>,
}

/// Whether the restored machine is the old one again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VmIdentity {
    /// Another machine: new uuids and new MAC addresses. The old one may live on.
    #[default]
    New,
    /// The old one: its `uuid`, `instanceUuid`, MAC addresses and, where the server lets them be set, the uuids of its
    /// disks. Refused while the server has a machine of that `instanceUuid`.
    Original,
}

/// A network for adapters of a new machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkChoice {
    /// As adapters name it.
    Target(NetworkTarget),
    /// By its reference, on the server that is restored to.
    Reference(MoRef<mo::Network>),
}

/// What becomes of adapters that no rule of [`NewVm::network`] is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmappedNetworks {
    /// They are plugged into the network of the old name. The server refuses the machine where there is none.
    #[default]
    Keep,
    /// The same, but they start disconnected.
    Disconnect,
    /// The restore is refused.
    Refuse,
}

type Adjust = dyn for<'a> Fn(ConfigConversion<'a>) -> ConfigConversion<'a> + Send + Sync;

impl NewVm {
    /// A machine of that name in that folder and resource pool.
    pub fn named(name: impl Into<String>, folder: MoRef<mo::Folder>, pool: MoRef<mo::ResourcePool>) -> Self {
        Self { name: Some(name.into()), ..Self::of_old_name(folder, pool) }
    }

    /// A machine of its old name in that folder and resource pool.
    pub fn of_old_name(folder: MoRef<mo::Folder>, pool: MoRef<mo::ResourcePool>) -> Self {
        Self {
            name: None,
            folder,
            pool,
            host: None,
            identity: VmIdentity::default(),
            datastore: None,
            provisioning: Provisioning::default(),
            networks: Vec::new(),
            unmapped: UnmappedNetworks::default(),
            power_on: false,
            adjust: None,
        }
    }

    /// Registers it at that host; by default the server chooses one of the resource pool.
    pub fn host(mut self, host: MoRef<mo::HostSystem>) -> Self {
        self.host = Some(host);
        self
    }

    /// States whether it is the old machine again: [`VmIdentity::New`] by default.
    pub fn identity(mut self, identity: VmIdentity) -> Self {
        self.identity = identity;
        self
    }

    /// Puts the machine and its disks on that datastore. By default, each goes to where it was.
    pub fn datastore(mut self, datastore: impl Into<DatastoreTarget>) -> Self {
        self.datastore = Some(datastore.into());
        self
    }

    /// States how the blocks of its disks are allocated: as they were, by default.
    pub fn provisioning(mut self, provisioning: Provisioning) -> Self {
        self.provisioning = provisioning;
        self
    }

    /// Plugs adapters into a network. The first rule that is about an adapter counts.
    pub fn network(mut self, from: NetworkSource, to: impl Into<NetworkChoice>) -> Self {
        self.networks.push((from, to.into()));
        self
    }

    /// States what becomes of adapters that no rule is about: [`UnmappedNetworks::Keep`] by default.
    pub fn unmapped(mut self, unmapped: UnmappedNetworks) -> Self {
        self.unmapped = unmapped;
        self
    }

    /// Powers the machine on when it is whole: no by default.
    pub fn power_on(mut self, yes: bool) -> Self {
        self.power_on = yes;
        self
    }

    /// Has the last word on how the stored configuration becomes the new machine's: disk by disk, file names, TPM,
    /// passed-through devices, boot order.
    ///
    /// A disk that is given as existing, or left out, is not restored.
    pub fn adjust(
        mut self,
        adjust: impl for<'a> Fn(ConfigConversion<'a>) -> ConfigConversion<'a> + Send + Sync + 'static,
    ) -> Self {
        self.adjust = Some(Arc::new(adjust));
        self
    }

    /// Applies all choices. Networks that are given by reference are asked for.
    pub(super) async fn apply<'a>(&self, vim: &Vim, conversion: ConfigConversion<'a>) -> Result<ConfigConversion<'a>> {
        let (identity, macs) = match self.identity {
            VmIdentity::New => (Identity::Renew, MacAddresses::Renew),
            VmIdentity::Original => (Identity::Keep, MacAddresses::Keep),
        };
        let mut conversion = conversion
            .identity(identity)
            .mac_addresses(macs)
            .provisioning(self.provisioning)
            .disconnect_unmapped(self.unmapped == UnmappedNetworks::Disconnect);
        if let Some(name) = &self.name {
            conversion = conversion.name(name);
        }
        if let Some(datastore) = &self.datastore {
            conversion = conversion.datastore(datastore.clone());
        }
        for (from, to) in &self.networks {
            let to = match to {
                NetworkChoice::Target(target) => target.clone(),
                NetworkChoice::Reference(network) => {
                    vim.network_target(network).await.map_err(server::failed("reading the network", network.value()))?
                }
            };
            conversion = conversion.network(from.clone(), to);
        }
        Ok(match &self.adjust {
            Some(adjust) => adjust(conversion),
            None => conversion,
        })
    }
}

impl From<NetworkTarget> for NetworkChoice {
    fn from(target: NetworkTarget) -> Self {
        Self::Target(target)
    }
}

impl From<MoRef<mo::Network>> for NetworkChoice {
    fn from(network: MoRef<mo::Network>) -> Self {
        Self::Reference(network)
    }
}

impl fmt::Debug for NewVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewVm")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .field("pool", &self.pool)
            .field("identity", &self.identity)
            .field("datastore", &self.datastore)
            .field("networks", &self.networks)
            .field("unmapped", &self.unmapped)
            .finish_non_exhaustive()
    }
}
