//! What the server is too old for: found here, before anything is sent.
//!
//! A server answers a method or a field that it does not know with a fault that names neither. The model knows since
//! when everything exists, and the negotiated version is what the server knows.

use vsphere_vim_types::{ApiVersion, DataObject, Method, Shape, Value};

use crate::error::{Error, Result};

/// What becomes of a method that is newer than the negotiated version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewerMethods {
    /// It is refused with [`Error::Unsupported`] and not sent.
    #[default]
    Refuse,
    /// It is sent all the same.
    Send,
}

/// What becomes of fields that are newer than the negotiated version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewerFields {
    /// They are left out.
    #[default]
    Drop,
    /// The call is refused with [`Error::Unsupported`] and not sent.
    Refuse,
    /// They are sent all the same.
    Send,
}

/// Refuses what the settings do not let through to a server of this version.
pub(crate) fn check<M: Method>(args: &M, spoken: ApiVersion, methods: NewerMethods, fields: NewerFields) -> Result<()> {
    if methods == NewerMethods::Refuse && M::SINCE > spoken {
        return Err(too_new(M::NAME.into(), M::SINCE, spoken));
    }
    if fields == NewerFields::Refuse
        && let Some((path, since)) = newer_field(args, spoken)
    {
        return Err(too_new(format!("{}.{path}", M::NAME), since, spoken));
    }
    Ok(())
}

fn too_new(what: String, since: ApiVersion, spoken: ApiVersion) -> Error {
    Error::unsupported(what, format!("it came with version {since} of the API; this server speaks {spoken}"))
}

/// The first field with a value that is newer than `version`.
fn newer_field(object: &dyn DataObject, version: ApiVersion) -> Option<(String, ApiVersion)> {
    let mut found = None;
    object.visit(&mut |info, value| {
        if found.is_some() || matches!(value.shape(), Shape::Absent) {
            return;
        }
        found = if info.since > version { Some((info.name.to_owned(), info.since)) } else { below(value, version) }
            .map(
                |(path, since)| {
                    if path == info.name { (path, since) } else { (format!("{}.{path}", info.name), since) }
                },
            );
    });
    found
}

fn below(value: &dyn Value, version: ApiVersion) -> Option<(String, ApiVersion)> {
    match value.shape() {
        Shape::Object(object) => newer_field(object, version),
        Shape::List(list) => (0..list.len()).find_map(|at| below(list.item(at), version)),
        Shape::Any(any) => newer_field(any.as_object()?, version),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{MoRef, Poly, VirtualDevice, VirtualDeviceConfigSpec, VirtualMachineConfigSpec, methods};

    use super::*;

    fn version(id: &str) -> ApiVersion {
        ApiVersion::parse(id).unwrap()
    }

    #[test]
    fn a_method_is_refused_by_servers_older_than_it_and_named() {
        let args = methods::LoginByToken::default();
        for (id, refused) in [("4.1", true), ("5.0", true), ("5.1", false), ("8.0.3.0", false)] {
            let outcome = check(&args, version(id), NewerMethods::Refuse, NewerFields::Drop);
            assert_eq!(outcome.is_err(), refused, "{id}");
            if let Err(error) = outcome {
                let text = error.to_string();
                assert!(text.contains("LoginByToken") && text.contains("5.1") && text.contains(id), "{text}");
            }
            check(&args, version(id), NewerMethods::Send, NewerFields::Drop).unwrap();
        }
    }

    #[test]
    fn a_newer_field_deep_in_the_arguments_is_found_only_when_it_has_a_value() {
        let mut spec = VirtualMachineConfigSpec { name: Some("web".into()), ..Default::default() };
        let args =
            |spec: &VirtualMachineConfigSpec| methods::ReconfigVM_Task { spec: spec.clone(), ..Default::default() };
        let refuse = |spec: &VirtualMachineConfigSpec, id: &str| {
            check(&args(spec), version(id), NewerMethods::Refuse, NewerFields::Refuse)
        };
        refuse(&spec, "4.0").unwrap();
        spec.device_change.push(Poly::new(VirtualDeviceConfigSpec {
            device: Poly::new(VirtualDevice { numa_node: Some(1), ..Default::default() }),
            ..Default::default()
        }));
        refuse(&spec, "8.0.3.0").unwrap();
        let error = refuse(&spec, "6.0").unwrap_err().to_string();
        assert!(error.contains("ReconfigVM_Task.spec.deviceChange.device.numaNode"), "{error}");
        let _ = MoRef::<vsphere_vim_types::mo::VirtualMachine>::new("vm-1");
    }
}
