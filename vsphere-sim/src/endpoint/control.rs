//! `/sim/...`: the inside of the simulator for tests in other processes and languages.
//!
//! ```text
//! PUT  /sim/vm/NAME/disk/KEY/OFFSET         the guest writes the body
//! GET  /sim/vm/NAME/disk/KEY/OFFSET/LENGTH  the guest reads
//! POST /sim/vm/NAME/disk/KEY/reset-tracking change ids become stale
//! POST /sim/expire-sessions
//! GET  /sim/leftovers                       what clients left behind, one line each; empty when nothing
//! ```

use std::sync::Arc;

use hyper::Method;

use crate::handle::{DiskHandle, VmHandle};
use crate::report::Leftovers;
use crate::world::World;

/// Most bytes in one read.
const MAX_READ: usize = 16 << 20;

/// Answers one request, or says what is wrong with it. Blocks.
pub(super) fn answer(world: &Arc<World>, method: &Method, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    match (method.as_str(), parts.as_slice()) {
        ("PUT", ["vm", name, "disk", key, offset]) => {
            let disk = disk(world, name, key)?;
            disk.write_at(number(offset)?, body).map_err(|error| error.to_string())?;
            Ok(Vec::new())
        }
        ("GET", ["vm", name, "disk", key, offset, length]) => {
            let length = usize::try_from(number(length)?).ok().filter(|length| *length <= MAX_READ);
            let mut buffer = vec![0; length.ok_or("more than 16 MiB at once")?];
            let disk = disk(world, name, key)?;
            disk.read_at(number(offset)?, &mut buffer).map_err(|error| error.to_string())?;
            Ok(buffer)
        }
        ("POST", ["vm", name, "disk", key, "reset-tracking"]) => {
            disk(world, name, key)?.reset_tracking();
            Ok(Vec::new())
        }
        ("POST", ["expire-sessions"]) => {
            world.lock().end_all_sessions();
            world.touch();
            Ok(Vec::new())
        }
        ("GET", ["leftovers"]) => {
            // Connections are the 902 server's to count; open layers tell the same here.
            Ok(Leftovers::of(world, 0).to_string().into_bytes())
        }
        _ => Err("no such operation".into()),
    }
}

fn disk(world: &Arc<World>, name: &str, key: &str) -> Result<DiskHandle, String> {
    let id = world.lock().vms.values().find(|vm| vm.name() == name).map(|vm| vm.id.clone());
    let vm = VmHandle::new(world.clone(), id.ok_or("no such VM")?);
    vm.disk(key.parse().map_err(|_| "the disk's key is not a number")?).map_err(|error| error.to_string())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}
