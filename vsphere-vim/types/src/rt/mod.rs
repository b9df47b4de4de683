//! The hand-written runtime under the generated model.
//!
//! Generated code names fields and types; everything that reads, writes, compares or walks them is here,
//! once. The one idea: a value shows its [`Shape`], and an object lets itself be walked field by field
//! ([`DataObject::visit`]). XML, JSON, `Debug` and property paths are all visitors of that one walk.

mod any;
mod datetime;
mod edit;
mod element;
mod enums;
mod fault;
mod info;
mod kind;
mod managed;
mod names;
mod object;
mod path;
mod poly;
mod value;

pub use any::Any;
pub use datetime::{DateTime, DateTimeError};
pub use edit::{Edit, NotApplied};
pub use element::Element;
pub use enums::VimEnum;
pub use fault::{open_is_a, open_parent};
pub use info::{ApiVersion, FieldInfo, Method, TypeInfo};
pub use managed::{Managed, ManagedObjectReference, MoRef, TypeTag};
pub use object::{DataObject, Unknown, enum_names, new_object, type_info, type_names};
pub use path::PropertyPath;
pub use poly::Poly;
pub use value::{FromAny, Item, List, Mismatch, Place, Shape, Uri, Value};

pub(crate) use any::array_item_name;
pub(crate) use enums::enum_value;
pub(crate) use info::{all_fields, count_fields};
pub(crate) use managed::managed_type;
pub(crate) use object::{Registered, data_object, debug_object, object_from_any, read_plain};
