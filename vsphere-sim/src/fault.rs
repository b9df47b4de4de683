//! Faults as the simulator sends them: a name, fields, a message.

use vsphere_vim_types::{DataObject, Element, LocalizedMethodFault, ManagedObjectReference, MethodFault, Poly};

/// A vSphere fault, by its wire name. What tests inject and what the simulator itself answers.
///
/// ```
/// use vsphere_sim::Fault;
/// let fault = Fault::new("FileFault", "File [ds1] web/web.vmdk was not found").field("file", "[ds1] web/web.vmdk");
/// assert_eq!(fault.name(), "FileFault");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    name: String,
    message: String,
    fields: Vec<Element>,
}

impl Fault {
    /// A fault without fields. `name` is the wire name (`InvalidPowerState`), `message` what people read.
    pub fn new(name: &str, message: &str) -> Self {
        Self { name: name.into(), message: message.into(), fields: Vec::new() }
    }

    /// The same with a simple field more. Fields go out in the order given.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push(Element::new(name, value));
        self
    }

    /// The wire name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn object_field(mut self, name: &str, object: &ManagedObjectReference) -> Self {
        self.fields.push(Element::new(name, object.value()).with_attribute("type", object.type_name()));
        self
    }

    /// The fault as SOAP carries it.
    pub(crate) fn to_wire(&self) -> Poly<MethodFault> {
        let mut fault = MethodFault::default();
        fault.unknown_mut().set_type_name(&self.name);
        for field in &self.fields {
            fault.unknown_mut().push(field.clone());
        }
        Poly::new(fault)
    }

    /// The fault inside a data object.
    pub(crate) fn localized(&self) -> LocalizedMethodFault {
        LocalizedMethodFault {
            fault: self.to_wire(),
            localized_message: Some(self.message.clone()),
            ..Default::default()
        }
    }

    pub(crate) fn not_authenticated(object: &ManagedObjectReference) -> Self {
        Self::new("NotAuthenticated", "The session is not authenticated.")
            .object_field("object", object)
            .field("privilegeId", "System.View")
    }

    pub(crate) fn no_permission(object: &ManagedObjectReference, privilege: &str) -> Self {
        Self::new("NoPermission", "Permission to perform this operation was denied.")
            .object_field("object", object)
            .field("privilegeId", privilege)
    }

    pub(crate) fn not_found(object: &ManagedObjectReference) -> Self {
        let text = format!(
            "The object '{}:{}' has already been deleted or has not been completely created",
            object.type_name(),
            object.value()
        );
        Self::new("ManagedObjectNotFound", &text).object_field("obj", object)
    }

    pub(crate) fn method_not_found(object: &ManagedObjectReference, method: &str) -> Self {
        Self::new("MethodNotFound", "The method is not available on this object.")
            .object_field("receiver", object)
            .field("method", method)
    }

    pub(crate) fn not_supported(what: &str) -> Self {
        Self::new("NotSupported", &format!("The operation is not supported on the object: {what}"))
    }

    pub(crate) fn invalid_argument(property: &str) -> Self {
        Self::new("InvalidArgument", &format!("A specified parameter was not correct: {property}"))
            .field("invalidProperty", property)
    }

    pub(crate) fn invalid_property(name: &str) -> Self {
        Self::new("InvalidProperty", &format!("The property '{name}' does not exist")).field("name", name)
    }

    pub(crate) fn invalid_request(reason: &str) -> Self {
        Self::new("InvalidRequest", reason)
    }

    pub(crate) fn file_fault(file: &str, reason: &str) -> Self {
        Self::new("FileFault", &format!("Error caused by file {file}: {reason}")).field("file", file)
    }

    pub(crate) fn file_locked(file: &str) -> Self {
        Self::new("FileLocked", &format!("Unable to access file {file} since it is locked")).field("file", file)
    }

    pub(crate) fn power_state(requested: Option<&str>, existing: &str) -> Self {
        let fault = Self::new("InvalidPowerState", "The attempted operation cannot be performed in the current state.");
        let fault = match requested {
            Some(requested) => fault.field("requestedState", requested),
            None => fault,
        };
        fault.field("existingState", existing)
    }

    pub(crate) fn storage(error: &crate::storage::Error) -> Self {
        match error {
            crate::storage::Error::Refused { disk, reason } => {
                Self::new("InvalidDeviceSpec", &format!("Invalid configuration for device '0': {disk}: {reason}"))
                    .field("property", "virtualDeviceSpec.device.capacityInKB")
                    .field("deviceIndex", "0")
            }
            other => Self::new("GenericVmConfigFault", &format!("An error occurred: {other}"))
                .field("reason", &other.to_string()),
        }
    }
}
