//! The form in which both sides state what they read: types named, floats by their bits, instants in microseconds.

use serde_json::{Value as Json, json};
use vsphere_vim_types::xml::encode_base64;
use vsphere_vim_types::{Any, DataObject, DateTime, Shape};

pub(super) fn of_any(any: &Any) -> Json {
    match any {
        Any::Null => Json::Null,
        Any::Bool(v) => of(Shape::Bool(*v)),
        Any::Byte(v) => of(Shape::Byte(*v)),
        Any::Short(v) => of(Shape::Short(*v)),
        Any::Int(v) => of(Shape::Int(*v)),
        Any::Long(v) => of(Shape::Long(*v)),
        Any::Float(v) => of(Shape::Float(*v)),
        Any::Double(v) => of(Shape::Double(*v)),
        Any::String(v) => of(Shape::Str(v)),
        Any::Uri(v) => of(Shape::Uri(v)),
        Any::DateTime(v) => of(Shape::DateTime(*v)),
        Any::Binary(v) => of(Shape::Binary(v)),
        Any::MoRef(v) => of(Shape::MoRef(v)),
        Any::Enum { type_name, value } => of(Shape::Enum(type_name, value)),
        Any::Object(v) => of_object(&**v),
        Any::Array { item, items } => json!({"_a": item, "_l": items.iter().map(of_any).collect::<Vec<_>>()}),
        Any::Dynamic(v) => of(Shape::Element(v)),
    }
}

fn of(shape: Shape<'_>) -> Json {
    match shape {
        Shape::Absent => Json::Null,
        Shape::Bool(v) => scalar("boolean", v),
        Shape::Byte(v) => scalar("byte", v),
        Shape::Short(v) => scalar("short", v),
        Shape::Int(v) => scalar("int", v),
        Shape::Long(v) => scalar("long", v),
        Shape::Float(v) => scalar("float", format!("{:08x}", v.to_bits())),
        Shape::Double(v) => scalar("double", format!("{:016x}", v.to_bits())),
        Shape::Str(v) => scalar("string", v),
        Shape::Uri(v) => scalar("anyURI", v),
        Shape::DateTime(v) => scalar("dateTime", instant(v)),
        Shape::Binary(v) => scalar("base64Binary", encode_base64(v)),
        Shape::MoRef(v) => json!(["moref", v.type_name(), v.value(), v.server_guid().unwrap_or_default()]),
        Shape::Enum(name, v) => scalar(&format!("enum:{name}"), v),
        Shape::Object(v) => of_object(v),
        Shape::List(v) => json!({"_l": (0..v.len()).map(|at| of(v.item(at).shape())).collect::<Vec<_>>()}),
        Shape::Any(v) => of_any(v),
        // Nothing may end here that pyVmomi knows: its side never says this.
        Shape::Element(v) => json!({"_element": format!("{v:?}")}),
    }
}

fn of_object(object: &dyn DataObject) -> Json {
    let mut out = serde_json::Map::new();
    out.insert("_t".into(), object.type_name().into());
    object.visit(&mut |info, value| {
        if !value.shape().is_absent() {
            out.insert(info.name.into(), of(value.shape()));
        }
    });
    for element in object.unknown().elements() {
        out.insert(format!("_unknown {}", element.name()), of(Shape::Element(element)));
    }
    out.into()
}

pub(super) fn scalar(name: &str, text: impl ToString) -> Json {
    match name.strip_prefix("enum:") {
        Some(name) => json!(["enum", name, text.to_string()]),
        None => json!([name, text.to_string()]),
    }
}

/// Microseconds, which is all that Python keeps, and the offset in minutes.
fn instant(time: DateTime) -> String {
    let text = time.to_string();
    let sign = |text: &str| -> Option<i32> {
        let (hours, minutes) = text.split_once(':')?;
        let size: i32 = hours[1..].parse::<i32>().ok()? * 60 + minutes.parse::<i32>().ok()?;
        Some(if hours.starts_with('-') { -size } else { size })
    };
    let offset =
        text.len().checked_sub(6).and_then(|at| text.get(at..)).filter(|t| t.starts_with(['+', '-'])).and_then(sign);
    format!("{} {}", time.unix_nanos().div_euclid(1000), offset.unwrap_or(0))
}
