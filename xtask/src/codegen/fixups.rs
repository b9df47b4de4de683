//! Corrections of the model, each with its reason. One that matches nothing is an error.

use super::model::Model;

const FAULT: &str = "vmodl.MethodFault";
const LOCALIZED: &str = "vmodl.LocalizedMethodFault";

pub(super) fn apply(model: &mut Model) -> Result<(), String> {
    messages_stand_beside_faults(model)?;
    faults_travel_localized(model)
}

/// pyVmomi, from which the model comes, keeps a fault's message in the fault. On the wire it stands beside it, in
/// `LocalizedMethodFault`, and a fault may have a field `msg` of its own (`VslmFault` does).
fn messages_stand_beside_faults(model: &mut Model) -> Result<(), String> {
    let fault = model.types.get_mut(FAULT).ok_or("fix-up 'messages stand beside faults' finds no fault")?;
    let before = fault.fields.len();
    fault.fields.retain(|field| field.name != "msg");
    if fault.fields.len() == before {
        Err("fix-up 'messages stand beside faults' matches nothing".to_owned())
    } else {
        Ok(())
    }
}

/// The model declares fields as `MethodFault`; on the wire they are `LocalizedMethodFault`, which pairs the
/// fault with its message. Only `LocalizedMethodFault.fault` itself and the detail of a SOAP fault are bare.
fn faults_travel_localized(model: &mut Model) -> Result<(), String> {
    let names: Vec<String> = model.types.keys().filter(|name| model.is_a(name, FAULT)).cloned().collect();
    let is_fault = |name: &String| names.contains(name);
    let mut changed = 0;
    let fields = model.types.iter_mut().filter(|(name, _)| *name != LOCALIZED).flat_map(|(_, t)| &mut t.fields);
    let props = model
        .managed
        .values_mut()
        .flat_map(|m| m.props.iter_mut().chain(m.methods.iter_mut().flat_map(|method| &mut method.params)));
    for field in fields.chain(props) {
        if is_fault(&field.type_) {
            LOCALIZED.clone_into(&mut field.type_);
            changed += 1;
        }
    }
    if changed == 0 { Err("fix-up 'faults travel localized' matches nothing".to_owned()) } else { Ok(()) }
}
