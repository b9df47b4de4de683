//! Locks on methods: a machine that is being backed up must not move away.
//!
//! vCenter only, and not part of the public model. The server does not release a lock when its holder dies: whoever
//! takes one writes that down first and releases it from the note after a crash, with the same source id.

use vsphere_vim_types::{
    ManagedObjectReference, MethodAlreadyDisabledFault, MoRef,
    internal::{DisableMethods, DisabledMethodRequest, EnableMethods},
    mo,
};

use crate::{
    client::Vim,
    error::{Error, Result},
};

/// A lock on methods of one object. Everything needed to release it is plain text, to be kept in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct MethodLock {
    /// The object.
    pub entity: ManagedObjectReference,
    /// The methods by wire name, such as `RelocateVM_Task`.
    pub methods: Vec<String>,
    /// Who holds the lock. Only the same source releases it.
    pub source: String,
    /// Why, as an id; shown to those who find the method locked.
    pub reason: String,
}

impl MethodLock {
    /// The lock of a backup: the machine stays where it is.
    pub fn against_migration(vm: &MoRef<mo::VirtualMachine>, source: impl Into<String>) -> Self {
        Self {
            entity: vm.erase(),
            methods: vec!["RelocateVM_Task".to_owned()],
            source: source.into(),
            reason: "backup".to_owned(),
        }
    }
}

/// What came of taking a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockOutcome {
    /// The lock is taken now.
    Taken,
    /// The methods were locked already, possibly by an earlier run of the same source that died.
    AlreadyLocked {
        /// The holder, as far as the server says.
        by: Option<String>,
    },
    /// The server knows no such locks (an ESXi host, where nothing migrates by itself).
    NotOffered,
}

impl Vim {
    /// Locks methods of an object.
    ///
    /// # Errors
    /// As [`Vim::invoke`]; methods that are locked already and servers without locks are outcomes, not errors.
    ///
    /// # Privileges
    /// `Global.DisableMethods`.
    ///
    /// # Cancel safety
    /// A dropped future may have taken the lock.
    #[doc(alias = "DisableMethods")]
    pub async fn lock_methods(&self, lock: &MethodLock) -> Result<LockOutcome> {
        if lock.source.trim().is_empty() || lock.methods.is_empty() {
            return Err(Error::invalid_input(
                "method lock",
                "names no source or no method, and so could not be released",
            ));
        }
        let Some(manager) = self.lock_manager() else { return Ok(LockOutcome::NotOffered) };
        let request = |method: &String| DisabledMethodRequest {
            method: method.clone(),
            reason_id: lock.reason.clone(),
            ..Default::default()
        };
        let args = DisableMethods {
            entity: vec![lock.entity.clone()],
            method: lock.methods.iter().map(request).collect(),
            source_id: lock.source.clone(),
            // A lock that ends with the session would be lost at the next login again.
            session_scope: Some(false),
            ..Default::default()
        };
        match self.invoke(&manager, args).await {
            Ok(()) => Ok(LockOutcome::Taken),
            Err(error) if error.is_fault("MethodAlreadyDisabledFault") => {
                let by = error.fault::<MethodAlreadyDisabledFault>().map(|fault| fault.source_id.clone());
                Ok(LockOutcome::AlreadyLocked { by: by.filter(|source| !source.is_empty()) })
            }
            Err(error) => Err(error),
        }
    }

    /// Releases a lock. Methods that are not locked are no error, so that a clean-up may be repeated.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Privileges
    /// `Global.DisableMethods`.
    ///
    /// # Cancel safety
    /// Safe to repeat.
    #[doc(alias = "EnableMethods")]
    pub async fn unlock_methods(&self, lock: &MethodLock) -> Result<()> {
        let Some(manager) = self.lock_manager() else { return Ok(()) };
        let args = EnableMethods {
            entity: vec![lock.entity.clone()],
            method: lock.methods.clone(),
            source_id: lock.source.clone(),
            ..Default::default()
        };
        match self.invoke(&manager, args).await {
            // The object is gone and its locks with it.
            Err(error) if error.is_fault("ManagedObjectNotFound") => Ok(()),
            other => other,
        }
    }

    /// The methods of an object that are locked now, by wire name.
    ///
    /// # Errors
    /// As [`Vim::get_optional`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "disabledMethod")]
    pub async fn locked_methods(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<Vec<String>> {
        Ok(self.get_optional(vm, mo::VirtualMachine::DISABLED_METHOD).await?.unwrap_or_default())
    }

    fn lock_manager(&self) -> Option<MoRef<mo::AuthorizationManager>> {
        if self.is_vcenter() { self.content().authorization_manager.clone() } else { None }
    }
}
