//! Data types and enumerations, one file a VMODL package.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use super::model::{DataType, Enumeration, Field, Model};
use super::names;

/// A field's Rust type, and the wire name of its declared type.
pub(super) struct FieldType {
    pub(super) rust: String,
    pub(super) declared: String,
}

pub(super) fn emit(model: &Model, files: &mut BTreeMap<PathBuf, String>) -> Result<(), String> {
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for (vmodl, data) in &model.types {
        modules.entry(names::module(vmodl)).or_default().push_str(&data_type(model, vmodl, data)?);
    }
    for (vmodl, e) in &model.enums {
        modules.entry(names::module(vmodl)).or_default().push_str(&enumeration(vmodl, e));
    }
    let mut index = String::from("//! Data types and enumerations, one module a VMODL package.\n\n");
    for name in modules.keys() {
        let _ = writeln!(index, "pub(crate) mod {name};");
    }
    for name in modules.keys() {
        let _ = writeln!(index, "pub use {name}::*;");
    }
    for (name, body) in modules {
        let text = format!(
            "//! Types of the VMODL package `{}`.\n\nuse crate::rt::{{Any, DateTime, ManagedObjectReference, MoRef, Poly, Unknown, data_object, enum_value}};\n\n{body}",
            name.replace('_', ".")
        );
        files.insert(PathBuf::from(format!("data/{name}.rs")), text);
    }
    files.insert(PathBuf::from("data/mod.rs"), index);
    Ok(())
}

/// The Rust type of a field of `owner` (empty for a method's argument).
pub(super) fn field_type(model: &Model, owner: &str, field: &Field) -> Result<FieldType, String> {
    let (item, declared) = match field.type_.as_str() {
        "string" | "vmodl.TypeName" | "vmodl.PropertyPath" | "vmodl.MethodName" => {
            ("String".to_owned(), "string".to_owned())
        }
        "boolean" => ("bool".into(), "boolean".into()),
        "byte" => ("i8".into(), "byte".into()),
        "short" => ("i16".into(), "short".into()),
        "int" => ("i32".into(), "int".into()),
        "long" => ("i64".into(), "long".into()),
        "float" => ("f32".into(), "float".into()),
        "double" => ("f64".into(), "double".into()),
        "anyType" => ("Any".into(), "anyType".into()),
        "vmodl.DateTime" => ("DateTime".into(), "dateTime".into()),
        "vmodl.Binary" => ("Vec<u8>".into(), "base64Binary".into()),
        "vmodl.ManagedObject" => ("ManagedObjectReference".into(), "ManagedObjectReference".into()),
        name => {
            if let Some(managed) = model.managed.get(name) {
                (format!("MoRef<crate::generated::mo::{}>", managed.wsdl), "ManagedObjectReference".into())
            } else if let Some(e) = model.enums.get(name) {
                (names::data_path(name, &e.wsdl), e.wsdl.clone())
            } else if let Some(data) = model.types.get(name) {
                let path = names::data_path(name, &data.wsdl);
                let rust = if data.poly {
                    format!("Poly<{path}>")
                } else if !field.array && contains(model, name, owner) {
                    format!("Box<{path}>")
                } else {
                    path
                };
                (rust, data.wsdl.clone())
            } else {
                return Err(format!("{owner}.{} has the unknown type {name}", field.name));
            }
        }
    };
    let rust = if field.array {
        format!("Vec<{item}>")
    } else if field.optional {
        format!("Option<{item}>")
    } else {
        item
    };
    Ok(FieldType { rust, declared })
}

/// Whether a value of `outer` holds one of `inner` without a list or an open slot between.
fn contains(model: &Model, outer: &str, inner: &str) -> bool {
    let mut seen = HashSet::new();
    let mut todo = vec![outer];
    while let Some(name) = todo.pop() {
        if name == inner {
            return true;
        }
        if let Some(data) = model.types.get(name)
            && seen.insert(name)
        {
            todo.extend(data.base.as_deref());
            let held = data.fields.iter().filter(|f| !f.array).map(|f| f.type_.as_str());
            todo.extend(held.filter(|held| model.types.get(*held).is_some_and(|t| !t.poly)));
        }
    }
    false
}

pub(super) fn since(version: &str) -> String {
    if version.is_empty() { String::new() } else { format!(" Since API {version}.") }
}

/// The fields of a struct as text: declarations, and rows for the walk.
pub(super) fn fields(model: &Model, owner: &str, list: &[Field]) -> Result<(String, String), String> {
    let (mut declarations, mut rows) = (String::new(), String::new());
    for field in list {
        let FieldType { rust, declared } = field_type(model, owner, field)?;
        let name = names::snake(&field.name);
        let secret = if field.secret { "secret" } else { "public" };
        let note = if field.secret { " Secret: `Debug` masks it." } else { "" };
        let _ = writeln!(declarations, "/// `{}`.{}{note}\npub {name}: {rust},", field.name, since(&field.since));
        let _ = writeln!(rows, "{name}: {:?} {declared:?} {} {secret},", field.name, names::version(&field.since));
    }
    Ok((declarations, rows))
}

fn data_type(model: &Model, vmodl: &str, data: &DataType) -> Result<String, String> {
    let (declarations, rows) = fields(model, vmodl, &data.fields)?;
    let wsdl = &data.wsdl;
    let base =
        data.base.as_ref().map(|base| (names::data_path(base, &model.types[base].wsdl), &model.types[base].wsdl));
    let (extends, tail) = match &base {
        Some((path, name)) => {
            (format!(" extends {path}"), format!("/// The part that it extends: `{name}`.\npub base: {path},"))
        }
        None => (String::new(), "/// What the peer sent beyond this model.\npub unknown: Unknown,".to_owned()),
    };
    Ok(format!(
        "/// `{wsdl}`: `{vmodl}`.{}\n#[doc(alias = {vmodl:?})]\n#[derive(Clone, Default, PartialEq)]\npub struct {wsdl} {{\n{declarations}{tail}\n}}\n\
         data_object! {{ {wsdl}{extends}, {wsdl:?}, {vmodl:?}, {};\n{rows} }}\n\n",
        since(&data.since),
        names::version(&data.since),
    ))
}

fn enumeration(vmodl: &str, e: &Enumeration) -> String {
    let mut seen = HashSet::new();
    let mut variants = Vec::new();
    for value in &e.values {
        let mut name = names::camel(value);
        while !seen.insert(name.clone()) {
            name.push('_');
        }
        variants.push((name, value));
    }
    // Some enumerations have a value of their own called "other".
    let open = if seen.contains("Other") { "Unrecognized" } else { "Other" };
    let wsdl = &e.wsdl;
    let list: String = variants.iter().map(|(name, value)| format!("/// `{value}`.\n{name},\n")).collect();
    let rows: String = variants.iter().map(|(name, value)| format!("{name} = {value:?},\n")).collect();
    let first = variants.first().map_or("", |(name, _)| name.as_str());
    format!(
        "/// `{wsdl}`: `{vmodl}`.{}\n#[doc(alias = {vmodl:?})]\n#[derive(Clone, Debug, PartialEq, Eq, Hash)]\npub enum {wsdl} {{\n{list}\
         /// A value that this model does not know.\n{open}(Box<str>),\n}}\n\
         enum_value! {{ {wsdl}, {wsdl:?}, {first}, {open};\n{rows} }}\n\n",
        since(&e.since)
    )
}
