//! Managed types with their property paths, and methods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::data::{field_type, fields, since};
use super::model::{Managed, Method, Model};
use super::names;

pub(super) fn emit(model: &Model, files: &mut BTreeMap<PathBuf, String>) -> Result<(), String> {
    files.insert(PathBuf::from("mo.rs"), managed_types(model)?);
    let mut index = String::from("//! Arguments of methods, one struct each; one module a managed type.\n\n");
    let mut modules = Vec::new();
    for (vmodl, managed) in model.managed.iter().filter(|(_, m)| !m.methods.is_empty()) {
        let name = names::snake(&managed.wsdl);
        let mut text = format!(
            "//! Methods of `{}` (`{vmodl}`).\n\nuse crate::rt::{{Any, ApiVersion, DateTime, ManagedObjectReference, Method, MoRef, Poly, Unknown, data_object}};\n\n",
            managed.wsdl
        );
        for one in &managed.methods {
            text.push_str(&method(model, managed, one)?);
        }
        files.insert(PathBuf::from(format!("methods/{name}.rs")), text);
        modules.push(name);
    }
    for name in &modules {
        let _ = writeln!(index, "mod {name};");
    }
    for name in &modules {
        let _ = writeln!(index, "pub use {name}::*;");
    }
    files.insert(PathBuf::from("methods/mod.rs"), index);
    Ok(())
}

fn bases<'a>(model: &'a Model, managed: &'a Managed) -> Vec<&'a Managed> {
    let mut out = Vec::new();
    let mut at = managed.base.as_ref();
    while let Some(base) = at.and_then(|name| model.managed.get(name)) {
        out.push(base);
        at = base.base.as_ref();
    }
    out
}

fn managed_types(model: &Model) -> Result<String, String> {
    let mut text = String::from(
        "//! Managed types: what a [`MoRef`](crate::MoRef) points at, and the typed paths of their properties.\n\n\
         use crate::rt::{Any, DateTime, Managed, ManagedObjectReference, MoRef, Poly, PropertyPath};\n\n",
    );
    let mut rows = BTreeMap::new();
    for (vmodl, managed) in &model.managed {
        let wsdl = &managed.wsdl;
        let up = bases(model, managed);
        let alias = if vmodl == wsdl { String::new() } else { format!("#[doc(alias = {vmodl:?})]\n") };
        let base_names: Vec<&str> = up.iter().map(|base| base.wsdl.as_str()).collect();
        let _ = writeln!(
            text,
            "/// `{wsdl}`: `{vmodl}`.{}\n{alias}#[derive(Debug, Clone, Copy)]\npub enum {wsdl} {{}}\n\
             impl Managed for {wsdl} {{ const TYPE: &'static str = {wsdl:?}; const BASES: &'static [&'static str] = &{base_names:?}; }}\n",
            since(&managed.since)
        );
        let mut paths = String::new();
        for prop in up.iter().rev().flat_map(|base| &base.props).chain(&managed.props) {
            let rust = field_type(model, "", &super::model::Field { optional: false, ..prop.clone() })?.rust;
            let privilege = prop.privilege.as_ref().map(|p| format!(" Privilege: `{p}`.")).unwrap_or_default();
            let _ = writeln!(
                paths,
                "/// `{0}`.{1}{privilege}\npub const {2}: PropertyPath<{wsdl}, {rust}> = PropertyPath::new({0:?});",
                prop.name,
                since(&prop.since),
                names::constant(&prop.name)
            );
        }
        if !paths.is_empty() {
            let _ = writeln!(text, "impl {wsdl} {{\n{paths}}}\n");
        }
        rows.insert(wsdl, base_names.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    let table: String = rows.iter().map(|(name, bases)| format!("({name:?}, &{bases:?}),\n")).collect();
    let _ = writeln!(
        text,
        "/// Every managed type with the types that it extends, nearest first; sorted by name.\n\
         pub(crate) static TYPES: &[(&str, &[&str])] = &[\n{table}];\n\n\
         /// The name of a managed type of the model, as static text.\n#[must_use]\n\
         pub fn known_type(name: &str) -> Option<&'static str> {{ crate::rt::managed_type(name).map(|(own, _)| own) }}\n\n\
         /// The managed types that `name` extends, nearest first; empty where the model does not know it.\n#[must_use]\n\
         pub fn bases(name: &str) -> &'static [&'static str] {{ crate::rt::managed_type(name).map_or(&[], |(_, bases)| bases) }}\n"
    );
    Ok(text)
}

fn method(model: &Model, managed: &Managed, method: &Method) -> Result<String, String> {
    let (declarations, rows) = fields(model, "", &method.params)?;
    let name = names::method(&method.wsdl);
    let wire = &method.wsdl;
    let (output, returns) = match &method.result {
        None => ("()".to_owned(), String::new()),
        Some(result) => {
            let t = field_type(model, "", result)?;
            (t.rust, t.declared)
        }
    };
    let mut docs = format!("/// Arguments of `{}.{wire}`.{}\n", managed.wsdl, since(&method.since));
    if let Some(result) = &method.task_result {
        let _ = writeln!(docs, "///\n/// The task's result: `{result}`.");
    }
    if !method.faults.is_empty() {
        let list: Vec<String> = method.faults.iter().map(|fault| format!("`{fault}`")).collect();
        let _ = writeln!(docs, "/// # Errors\n/// Declared faults: {}.", list.join(", "));
    }
    if let Some(privilege) = &method.privilege {
        let _ = writeln!(docs, "/// # Privileges\n/// `{privilege}`.");
    }
    let alias = if name == *wire { String::new() } else { format!("#[doc(alias = {wire:?})]\n") };
    Ok(format!(
        "{docs}{alias}#[derive(Clone, Default, PartialEq)]\npub struct {name} {{\n{declarations}\
         /// Arguments beyond this model.\npub unknown: Unknown,\n}}\n\
         data_object! {{ {name}, {wire:?}, {wire:?}, {version};\n{rows} }}\n\
         impl Method for {name} {{\n\
             const NAME: &'static str = {wire:?};\n\
             const NAMESPACE: &'static str = {namespace:?};\n\
             const SINCE: ApiVersion = {name}::INFO.since;\n\
             const RETURNS: &'static str = {returns:?};\n\
             type Target = crate::generated::mo::{};\n\
             type Output = {output};\n}}\n\n",
        managed.wsdl,
        namespace = managed.namespace.as_deref().unwrap_or("urn:vim25"),
        version = names::version(&method.since),
    ))
}
