//! Every function of VMware's library can be found here by its name.

use std::{fs, path::Path};

/// The functions of `vixDiskLib.h`, without their prefix.
const FUNCTIONS: [&str; 43] = [
    "Init",
    "InitEx",
    "Exit",
    "ListTransportModes",
    "Cleanup",
    "Connect",
    "PrepareForAccess",
    "ConnectEx",
    "Disconnect",
    "EndAccess",
    "Create",
    "CreateChild",
    "Open",
    "QueryAllocatedBlocks",
    "FreeBlockList",
    "GetInfo",
    "FreeInfo",
    "GetTransportMode",
    "Close",
    "Read",
    "ReadAsync",
    "Write",
    "WriteAsync",
    "Flush",
    "Wait",
    "ReadMetadata",
    "WriteMetadata",
    "GetMetadataKeys",
    "Unlink",
    "Grow",
    "Shrink",
    "Defragment",
    "Rename",
    "Clone",
    "GetErrorText",
    "FreeErrorText",
    "IsAttachPossible",
    "Attach",
    "SpaceNeededForClone",
    "CheckRepair",
    "GetConnectParams",
    "FreeConnectParams",
    "AllocateConnectParams",
];

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_function_has_an_alias_and_a_place_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = String::new();
    sources(&folder, &mut all);
    let guide = fs::read_to_string(folder.join("lib.rs")).unwrap();
    let table = guide.lines().filter_map(|line| line.strip_prefix("//! | ")?.split('|').next());
    let listed: Vec<&str> = table.flat_map(|cell| cell.split(',')).map(str::trim).collect();
    for function in FUNCTIONS {
        assert!(all.contains(&format!("doc(alias = \"VixDiskLib_{function}\")")), "{function} has no alias");
        assert!(listed.contains(&function), "{function} is not in the table");
    }
}
