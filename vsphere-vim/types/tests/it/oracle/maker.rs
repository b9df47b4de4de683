//! Objects of every type, made from pyVmomi's own schema: their XML, and what it must be read as.
//!
//! Nothing of the crate is used to make them, so that no mistake of its own hides another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::canonical::scalar;

pub(super) struct Schema {
    pub(super) data: BTreeMap<String, Data>,
    pub(super) enums: BTreeMap<String, Vec<String>>,
    managed: BTreeMap<String, Vec<String>>,
}

pub(super) struct Data {
    /// The type itself and what it extends, nearest first.
    bases: Vec<String>,
    pub(super) fields: Vec<Field>,
    pub(super) fault: bool,
}

/// Name, declared type, kind, whether it is an array, whether it is optional.
pub(super) struct Field(pub(super) String, pub(super) String, String, bool, bool);

impl Schema {
    pub(super) fn of(json: &Json) -> Self {
        let words = |json: &Json| -> Vec<String> {
            json.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let lists =
            |json: &Json| json.as_object().unwrap().iter().map(|(name, list)| (name.clone(), words(list))).collect();
        let field = |row: &Json| {
            let text = |at: usize| row[at].as_str().unwrap().to_owned();
            Field(text(0), text(1), text(2), row[3].as_bool().unwrap(), row[4].as_bool().unwrap())
        };
        let data = |json: &Json| Data {
            bases: words(&json["bases"]),
            fields: json["fields"].as_array().unwrap().iter().map(field).collect(),
            fault: json["fault"].as_bool().unwrap(),
        };
        Self {
            data: json["data"].as_object().unwrap().iter().map(|(name, json)| (name.clone(), data(json))).collect(),
            enums: lists(&json["enums"]),
            managed: lists(&json["managed"]),
        }
    }
}

/// How full an object is made.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fill {
    Required,
    All,
    Random,
}

pub(super) struct Maker<'a> {
    schema: &'a Schema,
    subtypes: BTreeMap<&'a str, Vec<&'a str>>,
    state: u64,
}

impl<'a> Maker<'a> {
    pub(super) fn new(schema: &'a Schema, seed: u64) -> Self {
        let mut subtypes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, data) in schema.data.iter().filter(|(name, _)| *name != "LocalizedMethodFault") {
            for base in &data.bases {
                subtypes.entry(base).or_default().push(name);
            }
        }
        Self { schema, subtypes, state: seed }
    }

    /// A text and its meaning: an object of that type in a value of `anyType`.
    pub(super) fn document(&mut self, type_name: &str, fill: Fill) -> (String, Json) {
        let (attributes, content, dump) = if self.schema.data[type_name].fault {
            // A fault by itself stands on the wire in its localized wrapper.
            self.localized(type_name, 2, fill)
        } else {
            let (content, dump) = self.fields(type_name, 2, fill);
            (format!(" xsi:type=\"{type_name}\""), content, dump)
        };
        (document(&attributes, &content), dump)
    }

    fn below(&mut self, end: usize) -> usize {
        // splitmix64: small, and good enough to reach every branch.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn fields(&mut self, type_name: &str, depth: u32, fill: Fill) -> (String, Json) {
        let (mut text, mut dump) = (String::new(), serde_json::Map::new());
        dump.insert("_t".into(), type_name.into());
        let schema = self.schema;
        for Field(name, declared, kind, array, optional) in &schema.data[type_name].fields {
            let wanted = match fill {
                Fill::Required => false,
                Fill::All => depth > 0,
                Fill::Random => depth > 0 && self.below(2) == 0,
            };
            if *optional && !wanted {
                continue;
            }
            let count = if *array && depth > 0 { self.pick(&[1, 3]) } else { 1 };
            // Inside a full object the inner ones vary.
            let inner = if fill == Fill::All { Fill::Random } else { fill };
            let kind = if *array && kind == "any" { "any[]" } else { kind };
            let mut dumps = Vec::new();
            for _ in 0..count {
                let (attributes, content, value) = self.value(declared, kind, depth.saturating_sub(1), inner);
                let _ = write!(text, "<{name}{attributes}>{content}</{name}>");
                dumps.push(value);
            }
            let value = if *array { json!({"_l": dumps}) } else { dumps.remove(0) };
            dump.insert(name.clone(), value);
        }
        (text, dump.into())
    }

    /// Attributes, content and meaning of one value.
    fn value(&mut self, declared: &str, kind: &str, depth: u32, fill: Fill) -> (String, String, Json) {
        match kind {
            "any" => self.any(depth, true),
            // pyVmomi reads an array inside a list as further items of the list.
            "any[]" => self.any(depth, false),
            "data" => {
                let name = self.subtype(declared);
                let (content, dump) = self.fields(name, depth, fill);
                let differs = name != declared || self.below(8) == 0;
                (if differs { format!(" xsi:type=\"{name}\"") } else { String::new() }, content, dump)
            }
            "fault" => {
                let name = self.subtype(declared);
                let (attributes, content, dump) = self.localized(name, depth, fill);
                // The declared type on the wire is the wrapper.
                let stated = self.below(4) == 0;
                (if stated { attributes } else { String::new() }, content, dump)
            }
            "enum" => {
                let schema = self.schema;
                let values = &schema.enums[declared];
                let value = &values[self.below(values.len())];
                (String::new(), value.clone(), scalar(&format!("enum:{declared}"), value))
            }
            "moref" => self.moref(declared),
            "typename" => (String::new(), "VirtualMachine".into(), scalar("string", "VirtualMachine")),
            "method" => (String::new(), "PowerOnVM_Task".into(), scalar("string", "PowerOnVM_Task")),
            _ => {
                let (content, dump) = self.scalar(declared);
                (String::new(), content, dump)
            }
        }
    }

    fn localized(&mut self, fault: &str, depth: u32, fill: Fill) -> (String, String, Json) {
        let (inner, dump) = self.fields(fault, depth, fill);
        let (message, message_dump) = self.scalar("string");
        let content =
            format!("<fault xsi:type=\"{fault}\">{inner}</fault><localizedMessage>{message}</localizedMessage>");
        let dump = json!({"_t": "LocalizedMethodFault", "fault": dump, "localizedMessage": message_dump});
        (" xsi:type=\"LocalizedMethodFault\"".into(), content, dump)
    }

    fn subtype(&mut self, declared: &str) -> &'a str {
        let schema = self.schema;
        match self.subtypes.get(declared).cloned() {
            Some(all) => self.pick(&all),
            None => {
                schema.data.get_key_value(declared).map_or_else(|| panic!("{declared} is not there"), |(name, _)| name)
            }
        }
    }

    fn moref(&mut self, declared: &str) -> (String, String, Json) {
        let schema = self.schema;
        let types = &schema.managed[declared];
        let name = &types[self.below(types.len())];
        let id = format!("id-{}", self.below(1000));
        let guid = self.pick(&["", "", "4c4c4544-0042"]);
        let attribute = if guid.is_empty() { String::new() } else { format!(" serverGuid=\"{guid}\"") };
        (format!(" type=\"{name}\"{attribute}"), id.clone(), json!(["moref", name, id, guid]))
    }

    fn any(&mut self, depth: u32, arrays: bool) -> (String, String, Json) {
        let name = self.pick(&ANY_SCALARS);
        match self.below(8) {
            0 => {
                let (attributes, content, dump) = self.moref("ManagedEntity");
                (format!(" xsi:type=\"ManagedObjectReference\"{attributes}"), content, dump)
            }
            1 => {
                let (_, content, dump) = self.value("VirtualMachinePowerState", "enum", 0, Fill::Random);
                (" xsi:type=\"VirtualMachinePowerState\"".into(), content, dump)
            }
            2 => {
                let name = self.subtype("VirtualDevice");
                let (content, dump) = self.fields(name, depth, Fill::Random);
                (format!(" xsi:type=\"{name}\""), content, dump)
            }
            3 if arrays => self.array(),
            _ => {
                let (content, dump) = self.scalar(name);
                (format!(" xsi:type=\"xsd:{name}\""), content, dump)
            }
        }
    }

    /// `ArrayOfX` of every primitive, of objects, of references and of anything.
    fn array(&mut self) -> (String, String, Json) {
        let items: Vec<&str> =
            ANY_SCALARS.into_iter().chain(["VirtualDevice", "ManagedObjectReference", "anyType"]).collect();
        let item = self.pick(&items);
        let (mut content, mut dumps) = (String::new(), Vec::new());
        for _ in 0..self.pick(&[0, 1, 3]) {
            let (attributes, inner, dump) = match item {
                "VirtualDevice" => self.value(item, "data", 0, Fill::Required),
                "ManagedObjectReference" => self.moref("ManagedEntity"),
                "anyType" => {
                    let name = self.pick(&ANY_SCALARS);
                    let (content, dump) = self.scalar(name);
                    (format!(" xsi:type=\"xsd:{name}\""), content, dump)
                }
                scalar => {
                    let (content, dump) = self.scalar(scalar);
                    (String::new(), content, dump)
                }
            };
            let _ = write!(content, "<{item}{attributes}>{inner}</{item}>");
            dumps.push(dump);
        }
        let type_name = format!("ArrayOf{}{}", item[..1].to_uppercase(), &item[1..]);
        (format!(" xsi:type=\"{type_name}\""), content, json!({"_a": item, "_l": dumps}))
    }

    fn scalar(&mut self, name: &str) -> (String, Json) {
        let text: String = match name {
            "boolean" => {
                let value = self.below(2) == 0;
                let word =
                    if value { self.pick(&["true", "1", "TRUE", "True"]) } else { self.pick(&["false", "0", "False"]) };
                return (word.into(), scalar(name, value));
            }
            "byte" => self.pick(&[0, 1, i8::MIN, i8::MAX, -7]).to_string(),
            "short" => self.pick(&[0, -1, i16::MIN, i16::MAX, 4711]).to_string(),
            "int" => self.pick(&[0, -1, i32::MIN, i32::MAX, 2000]).to_string(),
            "long" => self.pick(&[0, -1, i64::MIN, i64::MAX, 1 << 41]).to_string(),
            "float" => {
                let value =
                    self.pick(&[0.0, -0.0, 1.5, f32::MIN_POSITIVE, 0.1, -3.4e38, f32::INFINITY, f32::NEG_INFINITY]);
                return (float_text(value.into(), value.to_string()), scalar(name, format!("{:08x}", value.to_bits())));
            }
            "double" => {
                let value =
                    self.pick(&[0.0, -0.0, 1.5, f64::MIN_POSITIVE, 0.1, f64::MAX, f64::INFINITY, f64::NEG_INFINITY]);
                return (float_text(value, value.to_string()), scalar(name, format!("{:016x}", value.to_bits())));
            }
            "dateTime" => {
                let (text, meaning) = self.pick(&DATES);
                return (text.into(), scalar(name, meaning));
            }
            "base64Binary" => {
                let (text, meaning) = self.pick(&[
                    ("", ""),
                    ("AA==", "AA=="),
                    ("AAH/gA==", "AAH/gA=="),
                    ("AAECAwQF\nBgcICQ==", "AAECAwQFBgcICQ=="),
                ]);
                return (text.into(), scalar(name, meaning));
            }
            "anyURI" => self.pick(&["ds:///vmfs/volumes/1/", "https://*/nfc/52/disk-0.vmdk?a=1&b=2"]).into(),
            _ => self.pick(&STRINGS).into(),
        };
        (escape(&text), scalar(name, text))
    }
}

pub(super) fn document(attributes: &str, content: &str) -> String {
    format!(
        "<val xmlns=\"urn:vim25\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"{attributes}>{content}</val>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "&#13;")
}

fn float_text(value: f64, shown: String) -> String {
    if value == f64::INFINITY {
        "INF".into()
    } else if value == f64::NEG_INFINITY {
        "-INF".into()
    } else {
        shown
    }
}

const ANY_SCALARS: [&str; 11] =
    ["boolean", "byte", "short", "int", "long", "float", "double", "string", "anyURI", "dateTime", "base64Binary"];

const STRINGS: [&str; 12] = [
    "",
    " ",
    "a",
    "[ds1] web & co/<web>.vmdk",
    "\u{e9}\u{4e2d}\u{1F600}",
    "two\nlines\ttab",
    "carriage\r\nreturn",
    "  edges  ",
    "]]>",
    "\"quoted\" 'twice'",
    "&amp;lt;",
    "%2f%5c%25",
];

/// Texts, and what they mean in microseconds and minutes of offset.
const DATES: [(&str, &str); 8] = [
    ("1970-01-01T00:00:00Z", "0 0"),
    ("1970-01-01T00:00:01.5Z", "1500000 0"),
    ("1970-01-01T05:30:00+05:30", "0 330"),
    ("1969-12-31T16:00:00-08:00", "0 -480"),
    ("1969-12-31T23:59:59.999999Z", "-1 0"),
    ("2000-02-29T12:00:00.123456Z", "951825600123456 0"),
    ("2038-01-19T03:14:08Z", "2147483648000000 0"),
    ("1970-01-01T00:00:00", "0 0"),
];
