//! Memory that the library gives to programs and gets back from them.
//!
//! What was given is remembered, so that giving back something else, or the same twice, is noticed and harmless. So is
//! what a child gives back that its parent was given.

use std::{
    collections::HashMap,
    ffi::{CString, c_char},
    mem::zeroed,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vixdisklib_sys::{Block, BlockList, ConnectParams, Info};

use crate::fork::PerProcess;

/// What is at an address that a program was given.
enum Given {
    Text(#[allow(dead_code)] CString),
    Info(#[allow(dead_code)] Box<Keep<Info>>),
    Params(#[allow(dead_code)] Box<Keep<ConnectParams>>),
    /// The list's words: its head is one, each block two.
    Blocks(#[allow(dead_code)] Box<[u64]>),
}

/// A structure and the texts that it points to.
#[repr(C)]
struct Keep<T> {
    structure: T,
    texts: Vec<CString>,
}

// SAFETY: the pointers in the structures are null or point into texts of the same value, which nobody writes to.
unsafe impl Send for Given {}

/// What a pointer that comes back has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Info,
    Params,
    Blocks,
}

impl Given {
    fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Info(_) => Kind::Info,
            Self::Params(_) => Kind::Params,
            Self::Blocks(_) => Kind::Blocks,
        }
    }
}

/// Texts of a structure on their way into it.
#[derive(Default)]
pub(crate) struct Texts(Vec<CString>);

impl Texts {
    /// A pointer to a copy of `text`, or null. What follows a NUL in it is lost.
    pub(crate) fn pointer(&mut self, text: Option<&str>) -> *mut c_char {
        let Some(text) = text else { return std::ptr::null_mut() };
        self.0.push(c_string(text));
        self.0.last().map_or(std::ptr::null_mut(), |text| text.as_ptr().cast_mut())
    }
}

/// The text for C, up to the first NUL in it.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

pub(crate) fn text(text: &str) -> *mut c_char {
    let text = c_string(text);
    let address = text.as_ptr().cast_mut();
    keep(address as usize, Given::Text(text));
    address
}

pub(crate) fn info(info: Info, texts: Texts) -> *mut Info {
    let mut kept = Box::new(Keep { structure: info, texts: texts.0 });
    let address = &raw mut kept.structure;
    keep(address as usize, Given::Info(kept));
    address
}

/// Parameters with everything null or 0.
pub(crate) fn no_params() -> ConnectParams {
    // SAFETY: the structure has numbers and raw pointers only, for which all bits 0 is a value.
    unsafe { zeroed() }
}

pub(crate) fn params(params: ConnectParams, texts: Texts) -> *mut ConnectParams {
    let mut kept = Box::new(Keep { structure: params, texts: texts.0 });
    let address = &raw mut kept.structure;
    keep(address as usize, Given::Params(kept));
    address
}

pub(crate) fn blocks(blocks: &[Block]) -> *mut BlockList {
    let mut words = Vec::with_capacity(1 + 2 * blocks.len());
    // Little-endian: the count is the first half of the first word, the rest of which is padding.
    let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX).to_ne_bytes();
    words.push(u64::from_ne_bytes([count[0], count[1], count[2], count[3], 0, 0, 0, 0]));
    words.extend(blocks.iter().flat_map(|block| [block.offset, block.length]));
    let mut words = words.into_boxed_slice();
    let address: *mut BlockList = words.as_mut_ptr().cast();
    keep(address as usize, Given::Blocks(words));
    address
}

/// Frees what is at `address`. `false` when nothing of the kind was given there, or it came back before.
pub(crate) fn take_back<T>(address: *const T, kind: Kind) -> bool {
    let mut all = all();
    match all.get(&(address as usize)) {
        Some(given) if given.kind() == kind => all.remove(&(address as usize)).is_some(),
        _ => false,
    }
}

/// Whether parameters were made by [`params`], and so are of full size.
pub(crate) fn are_ours(params: *const ConnectParams) -> bool {
    all().get(&(params as usize)).is_some_and(|given| given.kind() == Kind::Params)
}

fn keep(address: usize, given: Given) {
    all().insert(address, given);
}

fn all() -> MutexGuard<'static, HashMap<usize, Given>> {
    static ALL: PerProcess<Mutex<HashMap<usize, Given>>> = PerProcess::new(Mutex::default);
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn what_was_given_comes_back_once_and_as_what_it_is() {
        let given = text("words\0and what C does not see");
        // SAFETY: just given, ends in NUL.
        assert_eq!(unsafe { CStr::from_ptr(given) }.to_str(), Ok("words"));
        assert!(!take_back(given, Kind::Info), "another kind");
        assert!(take_back(given, Kind::Text));
        assert!(!take_back(given, Kind::Text), "twice");
        assert!(!take_back(std::ptr::null::<u8>(), Kind::Text));
    }

    #[test]
    fn block_lists_are_laid_out_as_in_c() {
        let list = blocks(&[Block { offset: 128, length: 256 }, Block { offset: 1024, length: 128 }]);
        // SAFETY: the list was just given; two blocks follow its head.
        let (count, first) = unsafe { ((*list).num_blocks, (&raw const (*list).blocks).cast::<Block>()) };
        // SAFETY: as above.
        let read = unsafe { std::slice::from_raw_parts(first, 2) };
        assert_eq!((count, read[1]), (2, Block { offset: 1024, length: 128 }));
        assert!(take_back(list, Kind::Blocks));
    }

    #[test]
    fn only_parameters_made_here_are_of_full_size() {
        let foreign = no_params();
        assert!(!are_ours(&foreign));
        let mut texts = Texts::default();
        let mut filled = no_params();
        filled.base.server_name = texts.pointer(Some("host"));
        let given = params(filled, texts);
        assert!(are_ours(given));
        assert!(take_back(given, Kind::Params) && !are_ours(given));
    }
}
