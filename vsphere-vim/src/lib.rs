//! Async client for the vSphere Web Services API, made for backup programs.
