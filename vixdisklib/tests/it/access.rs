//! Keeping a VM in its place, and letting it go again after a crash.

use std::time::Duration;

use vixdisklib::{
    Error,
    access::{self, AccessOptions, Prepared},
};
use vsphere_sim::Power;
use vsphere_vim::method_lock::{LockOutcome, MethodLock};

use crate::{images::names, simulator::Lab};

const US: &str = "backup of example.org";

async fn is_locked(lab: &Lab) -> bool {
    lab.vim.locked_methods(&lab.vm).await.unwrap().iter().any(|method| method == "RelocateVM_Task")
}

#[tokio::test]
async fn a_vm_is_kept_in_its_place_until_access_ends() {
    let lab = Lab::new(Power::On).await;
    let options = AccessOptions::new();
    assert_eq!(access::prepare_for_access(&lab.vim, &lab.vm, US, &options).await.unwrap(), Prepared::Locked);
    assert!(is_locked(&lab).await);
    assert_eq!(access::prepare_for_access(&lab.vim, &lab.vm, US, &options).await.unwrap(), Prepared::LockedBefore);
    access::end_access(&lab.vim, &lab.vm, US, &options).await.unwrap();
    access::end_access(&lab.vim, &lab.vm, US, &options).await.unwrap();
    assert!(!is_locked(&lab).await);
    lab.end().await;
}

#[tokio::test]
async fn a_lock_of_somebody_else_is_waited_for_and_never_lifted() {
    let lab = Lab::new(Power::On).await;
    let theirs = MethodLock::against_migration(&lab.vm, "another program");
    assert_eq!(lab.vim.lock_methods(&theirs).await.unwrap(), LockOutcome::Taken);
    let journal = tempfile::tempdir().unwrap();
    let options = AccessOptions::new().retry(3, Duration::from_millis(1)).journal(journal.path());
    let error = access::prepare_for_access(&lab.vim, &lab.vm, US, &options).await.unwrap_err();
    let Error::AccessLocked { holder, attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((holder.as_deref(), *attempts), (Some("another program"), 3));
    assert!(error.is_retryable());
    assert_eq!(names(journal.path()), Vec::<String>::new(), "what was not taken is not written down");
    access::end_access(&lab.vim, &lab.vm, US, &options).await.unwrap();
    assert!(is_locked(&lab).await);

    // Released while we wait.
    let options = AccessOptions::new().retry(100, Duration::from_millis(20));
    let wait = access::prepare_for_access(&lab.vim, &lab.vm, US, &options);
    let release = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        lab.vim.unlock_methods(&theirs).await.unwrap();
    };
    let (prepared, ()) = tokio::join!(wait, release);
    assert_eq!(prepared.unwrap(), Prepared::Locked);
    access::end_access(&lab.vim, &lab.vm, US, &options).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn what_a_crash_left_locked_is_found_in_the_journal_by_its_own_program_only() {
    let lab = Lab::new(Power::On).await;
    let journal = tempfile::tempdir().unwrap();
    let options = AccessOptions::new().journal(journal.path().join("locks"));
    access::prepare_for_access(&lab.vim, &lab.vm, US, &options).await.unwrap();
    // The program dies here; the next one begins.
    let other = access::clean_up(&lab.vim, Some("another program"), &options).await.unwrap();
    assert_eq!((other.cleaned, other.remaining.len()), (0, 0));
    let without = access::clean_up(&lab.vim, Some(US), &AccessOptions::new()).await.unwrap();
    assert_eq!(without.cleaned, 0);
    assert!(is_locked(&lab).await);
    let done = access::clean_up(&lab.vim, Some(US), &options).await.unwrap();
    assert_eq!((done.cleaned, done.remaining.len()), (1, 0));
    assert!(!is_locked(&lab).await);
    assert_eq!(access::clean_up(&lab.vim, Some(US), &options).await.unwrap().cleaned, 0);

    // Whoever has the journal may also clean up after all of its programs.
    access::prepare_for_access(&lab.vim, &lab.vm, US, &options).await.unwrap();
    assert_eq!(access::clean_up(&lab.vim, None, &options).await.unwrap().cleaned, 1);
    assert!(!is_locked(&lab).await);
    lab.end().await;
}

#[tokio::test]
async fn identities_are_short_names() {
    let lab = Lab::new(Power::On).await;
    let options = AccessOptions::new();
    for identity in ["", "  ", "a\nb", &"x".repeat(51)] {
        let error = access::prepare_for_access(&lab.vim, &lab.vm, identity, &options).await.unwrap_err();
        assert!(matches!(error, Error::InvalidIdentity { .. }), "{error}");
    }
    assert!(!is_locked(&lab).await);
    let longest = "\u{e9}".repeat(50);
    access::prepare_for_access(&lab.vim, &lab.vm, &longest, &options).await.unwrap();
    access::end_access(&lab.vim, &lab.vm, &longest, &options).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_lock_that_cannot_be_written_down_is_not_taken() {
    let lab = Lab::new(Power::On).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = AccessOptions::new().journal(file.path());
    let error = access::prepare_for_access(&lab.vim, &lab.vm, US, &options).await.unwrap_err();
    assert!(matches!(error, Error::Journal { .. }) && error.hint().is_some(), "{error}");
    assert!(!is_locked(&lab).await);
    lab.end().await;
}
