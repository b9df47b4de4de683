//! What of a type matters to a caller in machine code.
//!
//! Names and `const` differ between declarations of the same function; sizes and levels of pointers must not.
//! `cargo xtask abi-check` compares these shapes with those of a user's own headers.

use std::{ffi::c_void, fmt};

use crate::{code::VixError, constants::*, types::*};

/// A type, reduced to what passes between caller and callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Void,
    /// An integer or enumeration of so many bits. Signs do not change how it travels.
    Integer(u32),
    /// A pointer to something.
    Pointer(&'static Self),
    /// A structure that is only pointed to; the name is ours.
    Struct(&'static str),
    /// A pointer to a function.
    Function,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Void => write!(f, "void"),
            Self::Integer(bits) => write!(f, "i{bits}"),
            Self::Pointer(to) => write!(f, "{to}*"),
            Self::Struct(name) => write!(f, "{name}"),
            Self::Function => write!(f, "function*"),
        }
    }
}

/// Types that have a [`Shape`].
pub trait HasShape {
    /// The shape.
    const SHAPE: Shape;
}

impl<T: HasShape> HasShape for *const T {
    const SHAPE: Shape = Shape::Pointer(&T::SHAPE);
}

impl<T: HasShape> HasShape for *mut T {
    const SHAPE: Shape = Shape::Pointer(&T::SHAPE);
}

/// Functions may be null in this interface.
impl HasShape for Option<LogFunc> {
    const SHAPE: Shape = Shape::Function;
}

impl HasShape for Option<ProgressFunc> {
    const SHAPE: Shape = Shape::Function;
}

impl HasShape for Option<CompletionFunc> {
    const SHAPE: Shape = Shape::Function;
}

macro_rules! shapes {
    ($($type:ty => $shape:expr),* $(,)?) => { $(impl HasShape for $type { const SHAPE: Shape = $shape; })* };
}

shapes! {
    () => Shape::Void,
    c_void => Shape::Void,
    i8 => Shape::Integer(8),
    u8 => Shape::Integer(8),
    u32 => Shape::Integer(32),
    u64 => Shape::Integer(64),
    usize => Shape::Integer(usize::BITS),
    VixError => Shape::Integer(64),
    DiskType => Shape::Integer(32),
    ConnectionObject => Shape::Struct("ConnectionObject"),
    DiskObject => Shape::Struct("DiskObject"),
    ConnectParams => Shape::Struct("ConnectParams"),
    CreateParams => Shape::Struct("CreateParams"),
    Info => Shape::Struct("Info"),
    BlockList => Shape::Struct("BlockList"),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_keep_pointers_and_drop_const() {
        assert_eq!(<*const *mut Info>::SHAPE, <*mut *mut Info>::SHAPE);
        assert_eq!(<*mut *mut Info>::SHAPE.to_string(), "Info**");
        assert_eq!(<Option<LogFunc>>::SHAPE.to_string(), "function*");
    }
}
