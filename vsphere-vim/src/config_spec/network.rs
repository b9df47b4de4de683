//! What network adapters are plugged into, and their addresses.

use vsphere_vim_types::{
    DistributedVirtualSwitchPortConnection, MoRef, Poly, PropertyPath, VirtualDevice, VirtualDeviceBackingInfo,
    VirtualDeviceConnectInfo, VirtualDeviceDeviceBackingInfo, VirtualEthernetCard,
    VirtualEthernetCardDistributedVirtualPortBackingInfo, VirtualEthernetCardNetworkBackingInfo,
    VirtualEthernetCardOpaqueNetworkBackingInfo, mo,
};

use super::{
    note::Notes,
    options::{Identity, MacAddresses, Options},
};
use crate::{client::Vim, device::DeviceKey, error::Result};

/// A network to plug an adapter into.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkTarget {
    /// A network of standard switches, by its name on the host.
    #[doc(alias = "VirtualEthernetCardNetworkBackingInfo")]
    Standard {
        /// The name, such as `VM Network`.
        name: String,
    },
    /// A port group of a distributed switch.
    #[doc(alias = "VirtualEthernetCardDistributedVirtualPortBackingInfo")]
    Portgroup {
        /// The switch's uuid.
        switch_uuid: String,
        /// The port group's key, such as `dvportgroup-42`.
        portgroup_key: String,
    },
    /// A network of another manager, such as NSX.
    #[doc(alias = "VirtualEthernetCardOpaqueNetworkBackingInfo")]
    Opaque {
        /// Its id.
        id: String,
        /// Its type, such as `nsx.LogicalSwitch`.
        kind: String,
    },
}

/// Which adapters a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkSource {
    /// The adapter with that key in the old machine.
    Adapter(DeviceKey),
    /// Adapters on the network of that name, on the port group of that key or on the opaque network of that id.
    Network(String),
    /// All adapters.
    Any,
}

/// Adapters that match go to the target.
#[derive(Clone, Debug)]
pub(super) struct NetworkRule {
    pub(super) from: NetworkSource,
    pub(super) to: NetworkTarget,
}

impl NetworkTarget {
    /// The network of standard switches with that name.
    pub fn standard(name: impl Into<String>) -> Self {
        Self::Standard { name: name.into() }
    }

    /// The port group with that key on the distributed switch with that uuid.
    pub fn portgroup(switch_uuid: impl Into<String>, portgroup_key: impl Into<String>) -> Self {
        Self::Portgroup { switch_uuid: switch_uuid.into(), portgroup_key: portgroup_key.into() }
    }

    /// What an adapter carries to be plugged in there.
    pub fn backing(&self) -> Poly<VirtualDeviceBackingInfo> {
        match self {
            Self::Standard { name } => Poly::new(VirtualEthernetCardNetworkBackingInfo {
                base: VirtualDeviceDeviceBackingInfo { device_name: name.clone(), ..Default::default() },
                ..Default::default()
            }),
            Self::Portgroup { switch_uuid, portgroup_key } => {
                Poly::new(VirtualEthernetCardDistributedVirtualPortBackingInfo {
                    port: DistributedVirtualSwitchPortConnection {
                        switch_uuid: switch_uuid.clone(),
                        portgroup_key: Some(portgroup_key.clone()),
                        ..Default::default()
                    },
                    ..Default::default()
                })
            }
            Self::Opaque { id, kind } => Poly::new(VirtualEthernetCardOpaqueNetworkBackingInfo {
                opaque_network_id: id.clone(),
                opaque_network_type: kind.clone(),
                ..Default::default()
            }),
        }
    }
}

impl Vim {
    /// The network behind a reference, as adapters name it.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Privileges
    /// `System.Read` on the network, and on its distributed switch.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn network_target(&self, network: &MoRef<mo::Network>) -> Result<NetworkTarget> {
        const SWITCH: PropertyPath<mo::DistributedVirtualPortgroup, MoRef<mo::DistributedVirtualSwitch>> =
            PropertyPath::new("config.distributedVirtualSwitch");
        if network.type_name() == "DistributedVirtualPortgroup" {
            let portgroup = network.erase().cast::<mo::DistributedVirtualPortgroup>();
            let portgroup_key = self.get(&portgroup, mo::DistributedVirtualPortgroup::KEY).await?;
            let switch = self.get(&portgroup, SWITCH).await?;
            let switch_uuid = self.get(&switch, mo::DistributedVirtualSwitch::UUID).await?;
            return Ok(NetworkTarget::Portgroup { switch_uuid, portgroup_key });
        }
        Ok(NetworkTarget::Standard { name: self.get(network, mo::Network::NAME).await? })
    }
}

/// The adapters that no rule is about.
pub(super) fn unmapped(devices: &[Poly<VirtualDevice>], options: &Options) -> Vec<DeviceKey> {
    let adapters = devices.iter().filter(|device| device.downcast_ref::<VirtualEthernetCard>().is_some());
    let keyed = adapters.map(|device| (DeviceKey(device.key), device));
    keyed.filter(|(key, device)| rule_for(device, *key, options).is_none()).map(|(key, _)| key).collect()
}

/// The first rule that is about an adapter.
fn rule_for<'a>(device: &Poly<VirtualDevice>, old: DeviceKey, options: &'a Options) -> Option<&'a NetworkRule> {
    let names = device.backing.as_ref().map(names_of).unwrap_or_default();
    let matches = |from: &NetworkSource| match from {
        NetworkSource::Adapter(key) => *key == old,
        NetworkSource::Network(name) => names.contains(name),
        NetworkSource::Any => true,
    };
    options.networks.iter().find(|rule| matches(&rule.from))
}

/// Plugs an adapter in where it belongs on the new machine.
pub(super) fn adapter(device: &mut Poly<VirtualDevice>, old: DeviceKey, options: &Options, notes: &mut Notes) {
    let rule = rule_for(device, old, options);
    match rule {
        Some(rule) => device.backing = Some(rule.to.backing()),
        None => unplug_from_server(device, notes),
    }
    if options.start_disconnected || (options.disconnect_unmapped && rule.is_none()) {
        // Without a word on it a server plugs an adapter in.
        let connectable = device
            .connectable
            .get_or_insert_with(|| VirtualDeviceConnectInfo { allow_guest_control: true, ..Default::default() });
        connectable.start_connected = false;
        connectable.connected = false;
    }
    let Some(card) = device.downcast_mut::<VirtualEthernetCard>() else { return };
    match options.macs {
        MacAddresses::Keep => {}
        MacAddresses::KeepAsManual if card.mac_address.is_some() => card.address_type = Some("manual".to_owned()),
        MacAddresses::KeepAsManual => {}
        MacAddresses::Renew => {
            card.address_type = Some("generated".to_owned());
            card.mac_address = None;
        }
    }
    if options.identity == Identity::Renew {
        // The port that another manager keeps for the old adapter.
        card.external_id = None;
    }
}

/// Every name by which a rule may mean this backing.
fn names_of(backing: &Poly<VirtualDeviceBackingInfo>) -> Vec<String> {
    if let Some(port) = backing.downcast_ref::<VirtualEthernetCardDistributedVirtualPortBackingInfo>() {
        return port.port.portgroup_key.clone().into_iter().collect();
    }
    if let Some(opaque) = backing.downcast_ref::<VirtualEthernetCardOpaqueNetworkBackingInfo>() {
        return vec![opaque.opaque_network_id.clone()];
    }
    backing
        .downcast_ref::<VirtualDeviceDeviceBackingInfo>()
        .map(|named| named.device_name.clone())
        .into_iter()
        .collect()
}

/// Takes out of an adapter's backing what holds on the old server only.
fn unplug_from_server(device: &mut Poly<VirtualDevice>, notes: &mut Notes) {
    let Some(backing) = &mut device.backing else { return };
    if let Some(standard) = backing.downcast_mut::<VirtualEthernetCardNetworkBackingInfo>() {
        // The name decides; the reference is of the old server.
        standard.network = None;
    } else if let Some(distributed) = backing.downcast_mut::<VirtualEthernetCardDistributedVirtualPortBackingInfo>() {
        let port = &mut distributed.port;
        port.connection_cookie = None;
        if port.portgroup_key.is_some() {
            // The old adapter's port may still be taken; the port group has others.
            port.port_key = None;
        }
        let group = port.portgroup_key.as_deref().unwrap_or("a port");
        let text = format!("{group} of switch {} exists on its own vCenter only", port.switch_uuid);
        notes.info("backing.port", text);
    }
}
