//! Typed data model of the vSphere Web Services API (`urn:vim25`), made for backup programs.
//!
//! The crate is the vocabulary of the family: data types, enumerations, methods and managed types of a
//! curated set, generated from VMware's public model, and the hand-written runtime that reads and writes
//! them. It does no I/O.
//!
//! ```
//! use vsphere_vim_types::{Any, MoRef, VirtualMachineConfigSpec, methods, mo, soap};
//!
//! let vm: MoRef<mo::VirtualMachine> = MoRef::new("vm-42");
//! let spec = VirtualMachineConfigSpec { change_tracking_enabled: Some(true), ..Default::default() };
//! let request = soap::encode_request(&vm.erase(), &methods::ReconfigVM_Task { spec, ..Default::default() }, Default::default());
//! assert!(request.contains("<changeTrackingEnabled>true</changeTrackingEnabled>"));
//! ```
//!
//! # What is where
//! - the crate's root: every data type and enumeration by its wire name ([`VirtualDisk`]), and the runtime's
//!   own types ([`Poly`], [`MoRef`], [`Any`], [`DateTime`], [`Element`]);
//! - [`methods`]: one struct of arguments a method; [`mo`]: managed types and their typed property paths;
//! - [`soap`]: envelopes of requests and answers, for both sides; [`xml`]: the reader and writer under it.
//!
//! # Open for what it does not know
//! A newer server sends types, fields and enum values of which this model has never heard. They are kept and
//! written again: unknown fields in [`Unknown`], unknown subtypes in their [`Poly`] slot, unknown enum values in
//! the enumeration's open arm, everything else as an [`Element`].
//!
//! # Features
//! - `serde` (default): JSON and other formats, through the same walk as XML.

mod generated;
pub mod internal;
#[cfg(feature = "serde")]
mod json;
mod rt;
pub mod soap;
pub mod xml;

pub use generated::*;
pub use rt::{
    Any, ApiVersion, DataObject, DateTime, DateTimeError, Edit, Element, FieldInfo, FromAny, Item, List, Managed,
    ManagedObjectReference, Method, Mismatch, MoRef, NotApplied, Place, Poly, PropertyPath, Shape, TypeInfo, TypeTag,
    Unknown, Uri, Value, VimEnum, enum_names, new_object, open_is_a, open_parent, type_info, type_names,
};
