//! A vCenter/ESXi simulator with changed block tracking, snapshots and real disks.
