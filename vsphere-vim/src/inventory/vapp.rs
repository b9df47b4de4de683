//! vApps: what is in them, and in which order it starts.

use vsphere_vim_types::{ManagedObjectReference, MoRef, PropertyPath, VAppConfigInfo, VAppEntityConfigInfo, mo};

use crate::{client::Vim, error::Result};

/// A vApp with what is directly in it; a vApp within is a member, and stands in the list itself.
#[doc(alias = "VirtualApp")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VApp {
    /// The reference.
    pub moref: MoRef<mo::VirtualApp>,
    /// The name.
    pub name: String,
    /// The id that is unique within a vCenter Server; `None` while the configuration is not readable.
    pub instance_uuid: Option<String>,
    /// The vApp or resource pool that it is in.
    pub parent: Option<ManagedObjectReference>,
    /// Its machines and vApps, in the order in which they start; those without an order come last.
    pub members: Vec<VAppMember>,
}

/// A machine or vApp in a vApp.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VAppMember {
    /// The machine or vApp.
    pub object: ManagedObjectReference,
    /// Members start from the lowest number on; those with one number start together.
    pub start_order: Option<i32>,
    /// Seconds between its start and the next.
    pub start_delay_seconds: Option<i32>,
    /// Whether the next may start as soon as VMware Tools answer.
    pub waits_for_guest: bool,
}

impl Vim {
    /// All vApps of the inventory, nested ones included.
    ///
    /// # Errors
    /// As [`Rows::try_next`](crate::property::Rows::try_next).
    ///
    /// # Privileges
    /// `System.Read` on the vApps.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vSphere 4.0.
    pub async fn vapps(&self) -> Result<Vec<VApp>> {
        const CONFIG: PropertyPath<mo::VirtualApp, VAppConfigInfo> = PropertyPath::new("vAppConfig");
        const PARENT: PropertyPath<mo::VirtualApp, MoRef<mo::ManagedEntity>> = PropertyPath::new("parent");
        const NAME: PropertyPath<mo::VirtualApp, String> = PropertyPath::new("name");
        const VMS: PropertyPath<mo::VirtualApp, Vec<MoRef<mo::ManagedEntity>>> = PropertyPath::new("vm");
        const POOLS: PropertyPath<mo::VirtualApp, Vec<MoRef<mo::ManagedEntity>>> = PropertyPath::new("resourcePool");
        let query = self.properties::<mo::VirtualApp>().under(self.root()).select((NAME, PARENT, VMS, POOLS, CONFIG));
        let mut rows = query.stream();
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let (name, parent, vms, pools, config) = row.values;
            let config = config.present();
            let order = config.as_ref().map(|config| &config.entity_config[..]).unwrap_or_default();
            let objects = vms.present().unwrap_or_default().into_iter().chain(pools.present().unwrap_or_default());
            let mut members: Vec<_> = objects.map(|object| VAppMember::of(object.erase(), order)).collect();
            members.sort_by_key(|member| member.start_order.unwrap_or(i32::MAX));
            found.push(VApp {
                name: name.present().unwrap_or_else(|| row.object.value().to_owned()),
                moref: row.object,
                instance_uuid: config.and_then(|config| config.instance_uuid).filter(|uuid| !uuid.is_empty()),
                parent: parent.present().map(|parent| parent.erase()),
                members,
            });
        }
        Ok(found)
    }
}

impl VAppMember {
    fn of(object: ManagedObjectReference, order: &[VAppEntityConfigInfo]) -> Self {
        let own = order.iter().find(|entry| entry.key.as_ref().is_some_and(|key| *key.as_untyped() == object));
        Self {
            start_order: own.and_then(|entry| entry.start_order),
            start_delay_seconds: own.and_then(|entry| entry.start_delay),
            waits_for_guest: own.and_then(|entry| entry.waiting_for_guest).unwrap_or(false),
            object,
        }
    }
}
