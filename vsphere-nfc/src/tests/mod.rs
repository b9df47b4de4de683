//! The client against a server in memory: every byte and every second can be placed exactly.

mod aftermath;
mod classic;
mod every_byte;
mod server;
mod slowness;
