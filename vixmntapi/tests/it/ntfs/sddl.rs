//! The text of security descriptors: Samba has to read it as the descriptor that it was made of.

use std::{io::Write, process::Command};

use vixmntapi::fs::{SecurityDescriptor, open};

use super::kept;
use crate::{
    compare::walk,
    disks::Memory,
    peers::{missing, run},
};

/// Runs a script with Samba's module, with a file of lines as its argument; `None` where that is missing, which is said.
fn samba(script: &str, lines: &[String]) -> Option<Vec<String>> {
    // Debian's modules are those of its own Python.
    let python = "/usr/bin/python3";
    let is_there = Command::new(python).args(["-c", "import samba.dcerpc.security"]).output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        missing("python3-samba");
        return None;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.join("\n").as_bytes()).unwrap();
    Some(run(python, &[&"-c", &format!("{HEAD}{script}"), &file.path()]).lines().map(str::to_owned).collect())
}

const HEAD: &str = "import sys
from samba.dcerpc import security
from samba.ndr import ndr_pack, ndr_unpack
domain = security.dom_sid('S-1-5-21-1-2-3')
lines = open(sys.argv[1]).read().split('\\n')
";

const PACK: &str = "
for line in lines:
    print(ndr_pack(security.descriptor.from_sddl(line, domain)).hex())
";

const SAME: &str = "
def acl(list):
    if list is None: return None
    return [(a.type, a.flags, a.access_mask, str(a.trustee), str(getattr(a.object, 'type', '')),
        str(getattr(a.object, 'inherited_type', ''))) for a in list.aces]
def all(d):
    return (str(d.owner_sid), str(d.group_sid), d.type & 0x3f14, acl(d.dacl), acl(d.sacl))
for line in lines:
    stored, text = line.split(' ')
    one = all(ndr_unpack(security.descriptor, bytes.fromhex(stored)))
    other = all(security.descriptor.from_sddl(text, domain))
    print('same' if one == other else (text, one, other))
";

#[test]
fn samba_reads_the_text_as_the_descriptor_it_was_made_of() {
    let made: Vec<String> = [
        "O:BAG:SYD:PAI(A;OICI;FA;;;BA)(A;OICIIO;GA;;;CO)(D;;0x1200a9;;;S-1-5-21-1-2-3-1000)",
        "O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464G:WDS:(AU;SAFA;FA;;;WD)",
        "D:(OA;CI;0x30;bf967aba-0de6-11d0-a285-00aa003049e2;;AU)(OD;;0x1;;bf967aba-0de6-11d0-a285-00aa003049e2;BU)",
        "D:(OA;CI;0x3;bf967aba-0de6-11d0-a285-00aa003049e2;bf9679c0-0de6-11d0-a285-00aa003049e2;RC)",
        "D:",
        "D:P",
        "O:LAD:ARAI(A;NPIOID;0x3;;;IU)",
        "S:PARAI(AU;IDSA;GA;;;LS)",
        "D:(A;;FR;;;NS)(A;;FW;;;CG)(A;;FX;;;AN)(A;;GR;;;RC)(A;;GW;;;OW)(A;;GX;;;PS)(A;;0x1;;;BG)(A;;0x2;;;PU)(A;;0x4;;;BO)",
        "D:(A;;FA;;;NU)(A;;FA;;;SU)(A;;FA;;;ED)(A;;FA;;;AO)(A;;FA;;;SO)(A;;FA;;;PO)(A;;FA;;;RE)(A;;FA;;;RU)(A;;FA;;;RD)\
         (A;;FA;;;NO)(A;;FA;;;AC)(A;;FA;;;LW)(A;;FA;;;ME)(A;;FA;;;HI)(A;;FA;;;SI)",
    ]
    .map(String::from)
    .to_vec();
    // Samba 4.17 takes `FA` for the rights of directory services: it gets them as a number.
    let for_samba = |text: &str| text.replace(";FA;;;", ";0x1f01ff;;;");
    let Some(packed) = samba(PACK, &made.iter().map(|text| for_samba(text)).collect::<Vec<_>>()) else { return };
    let mut descriptors: Vec<Vec<u8>> = packed.iter().map(|hex| unhex(hex)).collect();
    assert_eq!(descriptors.len(), made.len());
    // And those that ntfs-3g has written.
    let device: std::sync::Arc<dyn vixmntapi::device::Device> = std::sync::Arc::new(Memory(kept::image()));
    let fs = open(&device).unwrap().unwrap();
    descriptors.extend(walk(&fs).into_values().map(|node| fs.security_descriptor(node).unwrap().unwrap()));
    let text = |bytes: &[u8]| SecurityDescriptor::parse(bytes).unwrap().to_sddl().unwrap();
    assert_eq!(text(&descriptors[0]), made[0]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<_> = descriptors.iter().map(|bytes| format!("{} {}", hex(bytes), for_samba(&text(bytes)))).collect();
    let said = samba(SAME, &lines).unwrap();
    assert_eq!(said.len(), descriptors.len());
    for said in said {
        assert_eq!(said, "same");
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
