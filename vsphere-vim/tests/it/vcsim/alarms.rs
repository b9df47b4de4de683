//! Alarms of vcsim: its manager implements no method, and its entities have none.

use vsphere_vim::mo::VirtualMachine;

use super::Vcsim;

#[tokio::test]
async fn no_alarm_is_set_up_and_none_has_gone_off() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let rows = vim.properties::<VirtualMachine>().select((VirtualMachine::NAME,)).collect().await.unwrap();
    let vm = &rows[0].object;
    assert!(vim.triggered_alarms(vm).await.unwrap().is_empty());
    assert!(vim.triggered_alarms(&vim.root()).await.unwrap().is_empty());
    assert!(vim.declared_alarms(vm).await.unwrap().is_empty());
    let error = vim.alarms(Some(vm)).await.unwrap_err();
    assert!(error.is_fault("MethodNotFound"), "{error}");
}
