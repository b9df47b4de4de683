//! What names a First Class Disk and its snapshots.

use std::fmt;

use vsphere_vim_types::{ID, MoRef, mo};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[doc(alias = "ID")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes an id as a server wrote it.
            pub fn new(id: impl Into<Box<str>>) -> Self {
                Self(id.into())
            }

            /// The id as the server writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub(crate) fn to_wire(&self) -> ID {
                ID { id: self.0.as_ref().to_owned(), ..Default::default() }
            }
        }

        impl From<ID> for $name {
            fn from(wire: ID) -> Self {
                Self(wire.id.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

identity! {
    /// The id of a First Class Disk, a UUID. It stays with the disk when that is moved or attached.
    FcdId
}

identity! {
    /// The id of a snapshot of a First Class Disk, unique within the disk.
    FcdSnapshotId
}

/// A First Class Disk and, where it is known, the datastore on which it lies.
///
/// vCenter and ESXi find a disk by both; the storage lifecycle service needs the id alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FcdRef {
    /// The disk.
    pub id: FcdId,
    /// Where it lies.
    pub datastore: Option<MoRef<mo::Datastore>>,
}

impl FcdRef {
    /// A disk on that datastore.
    pub fn on(datastore: &MoRef<mo::Datastore>, id: FcdId) -> Self {
        Self { id, datastore: Some(datastore.clone()) }
    }
}

impl From<FcdId> for FcdRef {
    /// A disk whose place is not known; for the storage lifecycle service.
    fn from(id: FcdId) -> Self {
        Self { id, datastore: None }
    }
}

impl fmt::Display for FcdRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.datastore {
            Some(datastore) => write!(f, "first class disk {} on {datastore}", self.id),
            None => write!(f, "first class disk {}", self.id),
        }
    }
}
