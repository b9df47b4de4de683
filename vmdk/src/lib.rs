//! VMDK virtual disks: read, map, write and check.
