//! VMware NFC (network file copy, TCP 902): virtual disks of ESXi over the network.
