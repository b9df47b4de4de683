//! An open slot: a field whose declared type has subtypes.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use super::{Any, DataObject, FromAny, Item, Mismatch, Place, Shape, Value, new_object, open_parent};
use crate::xml::{Malformed, Reader};

/// A `B` or any subtype of it, the ones that this model does not know included.
///
/// It reads as its base (`device.key`), tells its type, and gives the subtype on request:
///
/// ```
/// use vsphere_vim_types::{Poly, VirtualDevice, VirtualDisk};
/// let mut disk = VirtualDisk { capacity_in_kb: 1024, ..Default::default() };
/// disk.key = 2000;
/// let device: Poly<VirtualDevice> = Poly::new(disk);
/// assert_eq!(device.key, 2000);
/// assert_eq!(device.type_name(), "VirtualDisk");
/// assert_eq!(device.downcast_ref::<VirtualDisk>().map(|disk| disk.capacity_in_kb), Some(1024));
/// ```
///
/// A subtype of a newer server is held as its nearest known base with the rest kept in
/// [`Unknown`](super::Unknown), and is written again as it came.
pub struct Poly<B> {
    inner: Box<dyn DataObject>,
    base: PhantomData<fn() -> B>,
}

impl<B: DataObject> Poly<B> {
    /// Puts a value of the base type or of a subtype into the slot.
    ///
    /// # Panics
    /// When `value` is neither: a mistake of the program, not of its input.
    #[must_use]
    #[track_caller]
    pub fn new(value: impl DataObject) -> Self {
        Self::from_boxed(Box::new(value)).expect("the value is of the slot's type or of a subtype")
    }

    /// The same for a value whose type is known at run time only; `None` when it does not fit.
    #[must_use]
    pub fn from_boxed(inner: Box<dyn DataObject>) -> Option<Self> {
        inner.upcast(TypeId::of::<B>())?;
        Some(Self { inner, base: PhantomData })
    }

    /// The wire name of the value's own type, known to the model or not.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.inner.type_name()
    }

    /// Whether the value is of that type or extends it.
    #[must_use]
    pub fn is_a(&self, name: &str) -> bool {
        self.inner.is_a(name)
    }

    /// The value as a `T`: its own type or one of its bases.
    #[must_use]
    pub fn downcast_ref<T: DataObject>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }

    /// The same, to be changed.
    #[must_use]
    pub fn downcast_mut<T: DataObject>(&mut self) -> Option<&mut T> {
        self.inner.upcast_mut(TypeId::of::<T>())?.downcast_mut()
    }

    /// The value as an object of unknown type.
    #[must_use]
    pub fn as_object(&self) -> &dyn DataObject {
        &*self.inner
    }

    /// Gives up the slot for its value.
    #[must_use]
    pub fn into_boxed(self) -> Box<dyn DataObject> {
        self.inner
    }
}

impl<B: DataObject> Deref for Poly<B> {
    type Target = B;
    fn deref(&self) -> &B {
        self.inner.downcast_ref().expect("checked when the slot was filled")
    }
}

impl<B: DataObject> DerefMut for Poly<B> {
    fn deref_mut(&mut self) -> &mut B {
        let base = self.inner.upcast_mut(TypeId::of::<B>()).and_then(|base| base.downcast_mut());
        base.expect("checked when the slot was filled")
    }
}

impl<B: DataObject> From<B> for Poly<B> {
    fn from(value: B) -> Self {
        Self::new(value)
    }
}

impl<B> Clone for Poly<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), base: PhantomData }
    }
}

impl<B> PartialEq for Poly<B> {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq_object(&*other.inner)
    }
}

impl<B> fmt::Debug for Poly<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<B: DataObject + Default> Default for Poly<B> {
    fn default() -> Self {
        Self { inner: Box::new(B::default()), base: PhantomData }
    }
}

impl<B: DataObject + Default> Value for Poly<B> {
    fn shape(&self) -> Shape<'_> {
        Shape::Object(&*self.inner)
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        match reader.xsi_type() {
            Some(name) => self.read_named(name, reader),
            None => self.read_content(reader),
        }
    }

    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = Self::from_any(any)?;
        Ok(())
    }

    fn place(&mut self) -> Place<'_> {
        Place::Object(&mut *self.inner)
    }
}

impl<B: DataObject + Default> Poly<B> {
    /// Takes in the current element as an object of the named type.
    pub(crate) fn read_named(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        if name != self.inner.info().name {
            let fits = |made: &dyn DataObject| made.upcast(TypeId::of::<B>()).is_some();
            if let Some(made) = named(name, fits, || Some(Box::new(B::default()))) {
                self.inner = made;
            }
        }
        self.read_content(reader)
    }

    fn read_content(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        reader.charge(size_of_val(&*self.inner))?;
        super::object::read_fields(&mut *self.inner, reader)
    }
}

/// An empty object of the named type: of the nearest type that the model has and that fits, or else what `otherwise`
/// makes. A name that is not the object's own type is kept with it.
pub(super) fn named(
    name: &str,
    fits: impl Fn(&dyn DataObject) -> bool,
    otherwise: impl FnOnce() -> Option<Box<dyn DataObject>>,
) -> Option<Box<dyn DataObject>> {
    let mut made = nearest(name).filter(|made| fits(&**made)).or_else(otherwise)?;
    if made.info().name != name {
        made.unknown_mut().set_type_name(name);
    }
    Some(made)
}

/// The type of that name, or for a fault outside the model's set its nearest ancestor inside.
fn nearest(name: &str) -> Option<Box<dyn DataObject>> {
    let mut at = name;
    loop {
        if let Some(made) = new_object(at) {
            return Some(made);
        }
        at = open_parent(at)?;
    }
}

impl<B: DataObject + Default + Item> Item for Poly<B> {
    const NAME: &'static str = B::NAME;
}

impl<B: DataObject + Default> FromAny for Poly<B> {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        match any {
            // A subtype that the model does not know: what is known of it is its base.
            Any::Dynamic(element) => {
                let mut slot = Self::default();
                match super::element::reread(&element, &mut slot) {
                    Ok(()) => Ok(slot),
                    Err(_) => Err(Mismatch::new(std::any::type_name::<B>(), element.xsi_type().unwrap_or_default())),
                }
            }
            Any::Object(object) => {
                if object.upcast(TypeId::of::<B>()).is_none() {
                    return Err(Mismatch::new(std::any::type_name::<B>(), object.type_name()));
                }
                Ok(Self { inner: object, base: PhantomData })
            }
            other => Err(Mismatch::new(std::any::type_name::<B>(), other.kind())),
        }
    }
}
