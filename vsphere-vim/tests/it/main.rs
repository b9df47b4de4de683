//! Behaviour of the client against a scripted server, a small TLS server and the simulator.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod alarms;
mod calls;
mod collect;
mod config_spec;
mod events;
mod fake;
mod fcd;
mod files;
mod hostile;
mod leases;
mod logins;
mod machines;
mod network;
mod recording;
mod restarts;
mod sessions;
mod simulated;
mod simulator;
mod streams;
mod tasks;
mod traces;
mod vcsim;
mod watch;
