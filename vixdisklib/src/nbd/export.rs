//! What a server offers under a name.

use std::sync::Arc;

use super::{
    device::{AnyDevice, BlockDevice},
    limits::NbdLimits,
    volume::Volume,
    wire::{
        negotiation::ExportFacts,
        transmission_flag::{
            CAN_MULTI_CONN, HAS_FLAGS, READ_ONLY, SEND_CACHE, SEND_FAST_ZERO, SEND_FLUSH, SEND_FUA, SEND_TRIM,
            SEND_WRITE_ZEROES,
        },
    },
};

/// A device with the name that clients ask for it by.
#[must_use]
pub struct Export {
    name: String,
    description: String,
    device: Arc<dyn AnyDevice>,
    read_only: bool,
}

impl Export {
    /// Offers a device under a name. It is writable if the device is.
    pub fn new(name: impl Into<String>, device: Arc<impl BlockDevice>) -> Self {
        Self { name: name.into(), description: String::new(), device, read_only: false }
    }

    /// A text for people, which clients show in lists.
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// Refuses writes, although the device would take them.
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn open(self, limits: &NbdLimits) -> OpenExport {
        let Self { name, description, device, read_only } = self;
        let volume = Volume::new(device, read_only);
        let alignment = u32::try_from(volume.alignment()).unwrap_or(1);
        let facts = ExportFacts {
            name,
            description,
            size: volume.capacity(),
            flags: flags(&volume),
            min_block: alignment,
            preferred_block: PREFERRED_BLOCK.max(alignment),
            max_block: limits.max_block(alignment),
        };
        OpenExport { facts, volume }
    }
}

/// An export while the server runs.
pub(super) struct OpenExport {
    pub(super) facts: ExportFacts,
    pub(super) volume: Volume,
}

fn flags(volume: &Volume) -> u16 {
    // All connections share one device, so a flush on one of them covers the writes of all.
    let all = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_CACHE | CAN_MULTI_CONN;
    match (volume.is_read_only(), volume.zeroes_fast()) {
        (true, _) => all | READ_ONLY,
        (false, false) => all | SEND_WRITE_ZEROES | SEND_FAST_ZERO,
        (false, true) => all | SEND_WRITE_ZEROES | SEND_FAST_ZERO | SEND_TRIM,
    }
}

/// Pages of clients, and a whole number of the sectors of any disk.
const PREFERRED_BLOCK: u32 = 4096;
