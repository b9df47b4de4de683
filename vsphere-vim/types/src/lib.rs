//! Typed data model of the vSphere Web Services API (vim25).
