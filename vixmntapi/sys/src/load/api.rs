//! The functions of a loaded library.

use std::{fmt, path::Path};

use libloading::os::unix as dl;

use super::error::{Error, Result};
use crate::functions::*;

macro_rules! api {
    ($(
        $(#[$doc:meta])*
        $need:ident $name:ident: $type:ident = $symbol:literal
        ($($parameter:ident: $parameter_type:ty),*) -> $returns:ty;
    )*) => {
        /// The functions of a loaded library. What Linux lacks is `None` there.
        ///
        /// Calling them is up to the caller in every way; see [`crate::functions`] for the rules, and
        /// [`Library`](super::Library) for calls that cannot go wrong.
        #[derive(Clone, Copy)]
        #[non_exhaustive]
        pub struct Api {
            $($(#[$doc])* pub $name: api!(@field $need $type),)*
        }

        impl Api {
            /// Opens a shared library and finds the functions in it. Nothing of it is called but its initialisers.
            ///
            /// It stays loaded for the life of the process: VMware's library makes threads of its own, which would
            /// lose their code.
            ///
            /// # Errors
            /// [`Error::NotLoaded`] with the words of the dynamic linker, [`Error::MissingSymbol`].
            ///
            /// # Safety
            /// The file is a VixMntapi: its initialisers may be run, and functions of these names have the types
            /// that [`crate::functions`] declares.
            pub unsafe fn load(file: &Path) -> Result<Self> {
                // SAFETY: the caller promises that the initialisers may be run.
                let opened = unsafe { dl::Library::open(Some(file), dl::RTLD_NOW | dl::RTLD_LOCAL) };
                let library = opened.map_err(|error| Error::NotLoaded {
                    file: file.to_owned(),
                    reason: plain(&error),
                })?;
                let api = Self {
                    $(
                        $name: {
                            // SAFETY: the caller promises that the function, if it is there, has this type. It is
                            // copied out of the symbol's lifetime; the library is never unloaded.
                            let symbol = unsafe { library.get::<$type>($symbol) }.ok().map(|symbol| *symbol);
                            api!(@take $need symbol, file, $symbol)
                        },
                    )*
                };
                std::mem::forget(library);
                Ok(api)
            }
        }
    };
    (@field mandatory $type:ident) => { $type };
    (@field optional $type:ident) => { Option<$type> };
    (@take mandatory $found:ident, $file:ident, $symbol:literal) => {
        $found.ok_or_else(|| Error::MissingSymbol { file: $file.to_owned(), symbol: $symbol })?
    };
    (@take optional $found:ident, $file:ident, $symbol:literal) => { $found };
}

with_functions!(api);

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("open_disk_set", &self.open_disk_set.is_some()).finish_non_exhaustive()
    }
}

/// The dynamic linker's words, without the wrapper's.
fn plain(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
