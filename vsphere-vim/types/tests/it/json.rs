//! The stored form: JSON through the same walk.

use vsphere_vim_types::*;

use crate::round_trip::read;

#[test]
fn a_configuration_survives_json_with_what_the_model_does_not_know() {
    let config: VirtualMachineConfigInfo = read(
        r#"<config xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><changeVersion>1</changeVersion><modified>2026-11-22T03:23:00.5Z</modified>
        <name>web &lt;1&gt;</name><guestFullName>Debian</guestFullName><version>vmx-19</version><uuid>u</uuid><template>false</template>
        <guestId>debian12_64Guest</guestId><alternateGuestName></alternateGuestName><futureField xsi:type="FutureType" type="x"><inner>1</inner></futureField>
        <hardware><numCPU>2</numCPU><memoryMB>2048</memoryMB>
          <device xsi:type="VirtualDisk"><key>2000</key><capacityInKB>1048576</capacityInKB></device>
          <device xsi:type="VirtualQuantumDisk"><key>2001</key><qubits>3</qubits></device></hardware>
        <extraConfig><key>a</key><value xsi:type="xsd:string">b</value></extraConfig>
        <extraConfig><key>c</key><value xsi:type="ArrayOfString"><string>d</string><string>e</string></value></extraConfig></config>"#,
    );
    assert_eq!(config.hardware.device.len(), 2);
    let text = serde_json::to_string_pretty(&config).unwrap();
    let again: VirtualMachineConfigInfo = serde_json::from_str(&text).unwrap();
    assert_eq!(again, config, "{text}");
    assert_eq!(again.unknown.elements()[0].child("inner").unwrap().text(), "1");
}

#[test]
fn stored_text_cannot_smuggle_markup() {
    let text = r#"{"_typeName":"x y=\"1\"","a><b>":"1","name":"</name><uuid>evil</uuid>"}"#;
    let config: VirtualMachineConfigInfo = serde_json::from_str(text).unwrap();
    assert_eq!(config.name, "</name><uuid>evil</uuid>");
    assert_eq!(config.uuid, "");
}
