//! A vCenter/ESXi simulator with changed block tracking, snapshots and real disks.

mod ids;
pub mod storage;
