//! Answers with random damage: a value or an error, never a panic, and never a hang.

use std::time::Duration;

use proptest::prelude::*;
use vsphere_vim::{
    DeviceKey, MoRef, Poly, PropertyPath,
    methods::{QueryChangedDiskAreas, RetrieveProperties, RetrievePropertiesEx},
    mo::VirtualMachine,
    types::{Any, DiskChangeExtent, DiskChangeInfo, RetrieveResult, VirtualDevice, VirtualDisk, soap},
};

use crate::fake::{Fake, Reply, object, session_lives};

const DEVICES: PropertyPath<VirtualMachine, Vec<Poly<VirtualDevice>>> = PropertyPath::new("config.hardware.device");

fn page() -> String {
    let mut disk = VirtualDisk { capacity_in_kb: 1 << 20, ..Default::default() };
    disk.key = 2000;
    let devices = Any::Array { item: "VirtualDevice".into(), items: vec![Any::Object(Box::new(disk))] };
    let rows = vec![
        object("vm-1", &[("config.hardware.device", devices), ("name", Any::from("web"))]),
        object("vm-2", &[("name", Any::from("db"))]),
    ];
    soap::encode_response::<RetrievePropertiesEx>(&Some(RetrieveResult { objects: rows, ..Default::default() }))
}

fn areas() -> String {
    let area = DiskChangeExtent { start: 65536, length: 65536, ..Default::default() };
    let info = DiskChangeInfo { start_offset: 0, length: 1 << 30, changed_area: vec![area], ..Default::default() };
    soap::encode_response::<QueryChangedDiskAreas>(&info)
}

/// One kind of damage.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Replace(usize, u8),
    Insert(usize, String),
    Double(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        Just("<".to_owned()),
        Just("</returnval>".to_owned()),
        Just("<x xsi:type=\"NewThing\"><y/></x>".to_owned()),
        Just("<![CDATA[".to_owned()),
        Just("&bomb;".to_owned()),
        Just("<a>".repeat(500)),
        "\\PC{0,8}",
    ];
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<usize>(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (any::<usize>(), 1..200_usize).prop_map(|(at, len)| Damage::Double(at, len)),
    ]
}

fn apply(text: &str, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for damage in damages {
        let place = |at: usize| at % (bytes.len() + 1);
        match damage {
            Damage::Cut(at) => bytes.truncate(place(*at)),
            Damage::Replace(at, byte) => {
                let at = place(*at);
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = *byte;
                }
            }
            Damage::Insert(at, piece) => {
                let at = place(*at);
                bytes.splice(at..at, piece.bytes());
            }
            Damage::Double(at, len) => {
                let from = place(*at);
                let copy = bytes[from..(from + len).min(bytes.len())].to_vec();
                bytes.splice(from..from, copy);
            }
        }
    }
    bytes
}

async fn ask(answer: Vec<u8>) {
    let server = Fake::new(move |call| match call.method {
        "RetrieveProperties" => Reply::Soap(soap::encode_response::<RetrieveProperties>(&session_lives())),
        // Whatever token the damage made, the walk goes on with the same page a few times, then the server refuses.
        _ if call.before > 3 => Reply::Fault(crate::fake::fault("InvalidArgument"), ""),
        _ => Reply::Raw(answer.clone()),
    });
    let vim = server.connect().await;
    let work = async {
        let query = vim.properties::<VirtualMachine>().select((VirtualMachine::NAME, DEVICES));
        let _ = query.collect().await;
        let _ = vim.query_changed_disk_areas(&MoRef::new("vm-1"), None, DeviceKey(2000), 0, "*").await;
    };
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("the client hangs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn damaged_answers_are_values_or_errors(
        pages in any::<bool>(),
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let text = if pages { page() } else { areas() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(ask(apply(&text, &damages)));
    }
}

#[tokio::test]
async fn a_row_with_a_type_that_is_not_known_does_not_hide_the_others() {
    let strange = page().replace("xsi:type=\"VirtualDisk\"", "xsi:type=\"VirtualDiskOfTomorrow\"");
    let server = Fake::new(move |_| Reply::Raw(strange.clone().into_bytes()));
    let vim = server.connect().await;
    let rows = vim.properties::<VirtualMachine>().select((VirtualMachine::NAME, DEVICES)).collect().await.unwrap();
    let names: Vec<_> = rows.iter().map(|row| row.values.0.as_present().unwrap().as_str()).collect();
    assert_eq!(names, ["web", "db"]);
    let devices = rows[0].values.1.as_present().expect("the list came through with its unknown item");
    assert_eq!((devices[0].type_name(), devices[0].key), ("VirtualDiskOfTomorrow", 2000));
}
