//! Corrections of the model, each with its reason. One that matches nothing is an error.

use super::model::Model;

const FAULT: &str = "vmodl.MethodFault";
const LOCALIZED: &str = "vmodl.LocalizedMethodFault";

pub(super) fn apply(model: &mut Model) -> Result<(), String> {
    faults_travel_localized(model)?;
    fields_are_declared_once(model)
}

/// `VslmFault` declares `msg` again, which its base has already. An object has one field of a name: the base's.
fn fields_are_declared_once(model: &mut Model) -> Result<(), String> {
    let mut twice = Vec::new();
    for (name, own) in &model.types {
        let mut at = own.base.as_ref();
        while let Some(base) = at.and_then(|base| model.types.get(base)) {
            let again = own.fields.iter().filter(|field| base.fields.iter().any(|other| other.name == field.name));
            twice.extend(again.map(|field| (name.clone(), field.name.clone())));
            at = base.base.as_ref();
        }
    }
    for (name, field) in &twice {
        if let Some(own) = model.types.get_mut(name) {
            own.fields.retain(|own| own.name != *field);
        }
    }
    if twice.is_empty() { Err("fix-up 'fields are declared once' matches nothing".to_owned()) } else { Ok(()) }
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
