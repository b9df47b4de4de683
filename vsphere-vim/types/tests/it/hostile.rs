//! Input that was made to hurt: an error or a value, never a panic, never more memory than allowed.

use proptest::prelude::*;
use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::xml::Reader;
use vsphere_vim_types::*;

const ANSWER: &str = r#"<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><RetrievePropertiesExResponse xmlns="urn:vim25"><returnval><token>1</token><objects><obj type="VirtualMachine">vm-1</obj><propSet><name>config.hardware.device</name><val xsi:type="ArrayOfVirtualDevice"><VirtualDevice xsi:type="VirtualDisk"><key>2000</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] a.vmdk</fileName></backing><capacityInKB>1024</capacityInKB></VirtualDevice></val></propSet><propSet><name>name</name><val xsi:type="xsd:string">web</val></propSet><missingSet><path>snapshot</path><fault><fault xsi:type="NoPermission"><object type="VirtualMachine">vm-1</object><privilegeId>System.View</privilegeId></fault><localizedMessage/></fault></missingSet></objects></returnval></RetrievePropertiesExResponse></soapenv:Body></soapenv:Envelope>"#;

fn decode(text: &[u8]) -> Result<Option<RetrieveResult>, soap::Error> {
    soap::decode_response::<methods::RetrievePropertiesEx>(text, Limits::default())
}

#[test]
fn the_recorded_answer_is_read() {
    let result = decode(ANSWER.as_bytes()).unwrap().unwrap();
    assert_eq!(result.objects[0].prop_set.len(), 2);
    let fault = &result.objects[0].missing_set[0].fault.fault;
    assert!(fault.downcast_ref::<NoPermission>().is_some());
}

#[test]
fn many_small_elements_cannot_claim_unbounded_memory() {
    let body = "<objects/>".repeat(200_000);
    let text = format!("<Envelope><Body><R><returnval>{body}</returnval></R></Body></Envelope>");
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let error = soap::decode_response::<methods::RetrievePropertiesEx>(text.as_bytes(), limits).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn what_stands_behind_a_box_counts_too() {
    let mut config: Option<Box<VirtualMachineConfigInfo>> = None;
    let mut reader = Reader::new("<config/>", Limits { memory: 100, ..Limits::default() });
    reader.next_child().unwrap();
    assert!(config.read(&mut reader).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_answer_gives_a_value_or_an_error(at in 0..ANSWER.len(), len in 0usize..40, with in "[<>/a-z\"=& ]{0,12}") {
        let mut text = ANSWER.as_bytes().to_vec();
        let end = (at + len).min(text.len());
        text.splice(at..end, with.bytes());
        let _ = decode(&text);
    }

    #[test]
    fn a_cut_answer_is_an_error(len in 0..ANSWER.len()) {
        prop_assert!(decode(&ANSWER.as_bytes()[..len]).is_err());
    }

    #[test]
    fn other_names_and_types_give_a_value_or_an_error(from in 0usize..60, to in "[A-Za-z]{1,24}") {
        // Every name and type of the answer, replaced in turn.
        let words: Vec<&str> = ANSWER.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.len() > 2).collect();
        let text = ANSWER.replace(words[from % words.len()], &to);
        let _ = decode(text.as_bytes());
    }
}
