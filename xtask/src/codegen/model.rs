//! The model file, as `derive_model.py` writes it.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Model {
    pub(super) types: BTreeMap<String, DataType>,
    pub(super) enums: BTreeMap<String, Enumeration>,
    pub(super) managed: BTreeMap<String, Managed>,
    /// Faults and events, with or without a struct, and their parents.
    pub(super) open: BTreeMap<String, String>,
    /// Methods without a struct, as `Type.Method`.
    pub(super) uncovered: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct DataType {
    pub(super) wsdl: String,
    pub(super) base: Option<String>,
    #[serde(default)]
    pub(super) since: String,
    /// The full model has subtypes.
    #[serde(default)]
    pub(super) poly: bool,
    pub(super) fields: Vec<Field>,
}

#[derive(Deserialize, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) type_: String,
    #[serde(default)]
    pub(super) array: bool,
    #[serde(default)]
    pub(super) optional: bool,
    #[serde(default)]
    pub(super) secret: bool,
    #[serde(default)]
    pub(super) since: String,
    #[serde(default)]
    pub(super) privilege: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Enumeration {
    pub(super) wsdl: String,
    #[serde(default)]
    pub(super) since: String,
    pub(super) values: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Managed {
    pub(super) wsdl: String,
    /// Of the methods; that of the main service unless stated.
    #[serde(default)]
    pub(super) namespace: Option<String>,
    pub(super) base: Option<String>,
    #[serde(default)]
    pub(super) since: String,
    pub(super) props: Vec<Field>,
    pub(super) methods: Vec<Method>,
}

#[derive(Deserialize)]
pub(super) struct Method {
    pub(super) wsdl: String,
    #[serde(default)]
    pub(super) since: String,
    pub(super) params: Vec<Field>,
    #[serde(default)]
    pub(super) privilege: Option<String>,
    #[serde(default)]
    pub(super) result: Option<Field>,
    /// What the task's `info.result` holds.
    #[serde(default)]
    pub(super) task_result: Option<String>,
    #[serde(default)]
    pub(super) faults: Vec<String>,
}

impl Model {
    /// Whether `name` is `ancestor` or extends it.
    pub(super) fn is_a(&self, name: &str, ancestor: &str) -> bool {
        let mut at = Some(name);
        while let Some(name) = at {
            if name == ancestor {
                return true;
            }
            at = self.types.get(name).and_then(|t| t.base.as_deref());
        }
        false
    }
}
