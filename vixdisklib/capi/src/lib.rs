//! `libvixDiskLib.so.8`: the C interface of VMware's disk library, over the transports of the crate `vixdisklib`.
//!
//! Programs that expect VMware's library load this one instead. There is nothing in it for Rust programs, which use
//! `vixdisklib` itself. The header is `include/vixDiskLib.h`; `README.md` says how programs are made to find the
//! library, and what it lacks.
//!
//! # What is promised beyond the documented interface
//! - Every function may be called from every thread, those of callbacks included; handles may be shared by threads.
//! - A handle that is not (any more) valid, a foreign one or a null pointer is an error, never undefined behaviour.
//! - Nothing that the program passes is kept beyond the call, but for buffers of asynchronous calls, until completion.
//! - A panic does not cross into the program: it becomes `VIX_E_FAIL`, and a line for the panic log.
//! - No thread exists before `InitEx` and none after `Exit`; a process that forked after `InitEx` is told
//!   `VIX_E_DISK_NOINIT` in the child.
//!
//! # Modules
//! - `exports`: the 43 functions, by topic
//! - `call`: what every function does around its work; `code`: errors as numbers
//! - `library`: what `InitEx` makes and `Exit` ends; `config`: the file that `InitEx` names; `log`: the log functions
//! - `handle`: what handles stand for; `connection`, `disk`: those things; `target`: `ConnectParams`
//! - `completion`: completion functions of programs; `fork`: what is not handed down to child processes
//! - `access`: `PrepareForAccess` and `EndAccess`
//! - `given`: memory that programs give back; `text`: strings of C; `progress`: progress functions

#![allow(non_snake_case)] // The library's name, and those of its functions, are VMware's.
#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("handles and structures are laid out for 64 bits");

mod access;
mod call;
mod code;
mod completion;
mod config;
mod connection;
mod disk;
pub mod exports;
mod fork;
mod given;
mod handle;
mod library;
mod log;
mod progress;
mod target;
mod text;
