//! Virtual disks of VMware vSphere over NFC, local files and VMware's own library: RAII connections and disks.
