//! First contact.

use super::Vcsim;
use vsphere_vim::Credentials;

#[tokio::test]
async fn both_kinds_of_server_let_us_in_and_out() {
    for (options, vcenter) in [(&[][..], true), (&["-esx"][..], false)] {
        let Some(vcsim) = Vcsim::start(options) else { return };
        let vim = vcsim.connect().await;
        assert_eq!(vim.is_vcenter(), vcenter);
        assert!(vim.version().is_at_least("6.5"), "{}", vim.version());
        assert!(vim.virtual_machines().try_next().await.unwrap().is_some());
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_typed_fault() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let wrong = Credentials::password(&vcsim.user, "wrong");
    let error = vcsim.builder().credentials(wrong).connect().await.unwrap_err();
    assert!(error.fault::<vsphere_vim::types::InvalidLogin>().is_some(), "{error}");
}
