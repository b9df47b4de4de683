//! The layouts of the structures as a table, to be compared with those of other declarations.

use std::mem::{offset_of, size_of};

use crate::types::*;

/// A structure by VMware's name, and the layouts that it has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// VMware's name.
    pub name: &'static str,
    /// What it is called in this crate.
    pub ours: &'static str,
    /// The layouts, the newest first.
    pub versions: &'static [Version],
}

/// One layout of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its size in bytes.
    pub size: usize,
    /// Where its fields begin, in order.
    pub offsets: &'static [usize],
}

/// The structures that are passed between caller and library.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        name: "VixDiskLibConnectParams",
        ours: "ConnectParams",
        versions: &[
            Version {
                size: size_of::<ConnectParams>(),
                offsets: &[
                    offset_of!(ConnectParams, base.vmx_spec),
                    offset_of!(ConnectParams, base.server_name),
                    offset_of!(ConnectParams, base.thumbprint),
                    offset_of!(ConnectParams, base.private_use),
                    offset_of!(ConnectParams, base.cred_type),
                    offset_of!(ConnectParams, base.creds),
                    offset_of!(ConnectParams, base.port),
                    offset_of!(ConnectParams, base.nfc_host_port),
                    offset_of!(ConnectParams, base.vim_api_version),
                    offset_of!(ConnectParams, reserved),
                    offset_of!(ConnectParams, state),
                    offset_of!(ConnectParams, spec),
                    offset_of!(ConnectParams, spec_type),
                ],
            },
            Version {
                size: size_of::<ConnectParamsBase>(),
                offsets: &[
                    offset_of!(ConnectParamsBase, vmx_spec),
                    offset_of!(ConnectParamsBase, server_name),
                    offset_of!(ConnectParamsBase, thumbprint),
                    offset_of!(ConnectParamsBase, private_use),
                    offset_of!(ConnectParamsBase, cred_type),
                    offset_of!(ConnectParamsBase, creds),
                    offset_of!(ConnectParamsBase, port),
                    offset_of!(ConnectParamsBase, nfc_host_port),
                    offset_of!(ConnectParamsBase, vim_api_version),
                ],
            },
        ],
    },
    Layout {
        name: "VixDiskLibInfo",
        ours: "Info",
        versions: &[
            Version {
                size: size_of::<Info>(),
                offsets: &[
                    offset_of!(Info, base.bios_geometry),
                    offset_of!(Info, base.physical_geometry),
                    offset_of!(Info, base.capacity),
                    offset_of!(Info, base.adapter_type),
                    offset_of!(Info, base.num_links),
                    offset_of!(Info, base.parent_file_name_hint),
                    offset_of!(Info, base.uuid),
                    offset_of!(Info, logical_sector_size),
                    offset_of!(Info, physical_sector_size),
                ],
            },
            Version {
                size: size_of::<InfoBase>(),
                offsets: &[
                    offset_of!(InfoBase, bios_geometry),
                    offset_of!(InfoBase, physical_geometry),
                    offset_of!(InfoBase, capacity),
                    offset_of!(InfoBase, adapter_type),
                    offset_of!(InfoBase, num_links),
                    offset_of!(InfoBase, parent_file_name_hint),
                    offset_of!(InfoBase, uuid),
                ],
            },
        ],
    },
    Layout {
        name: "VixDiskLibCreateParams",
        ours: "CreateParams",
        versions: &[
            Version {
                size: size_of::<CreateParams>(),
                offsets: &[
                    offset_of!(CreateParams, base.disk_type),
                    offset_of!(CreateParams, base.adapter_type),
                    offset_of!(CreateParams, base.hw_version),
                    offset_of!(CreateParams, base.capacity),
                    offset_of!(CreateParams, logical_sector_size),
                    offset_of!(CreateParams, physical_sector_size),
                ],
            },
            Version {
                size: size_of::<CreateParamsBase>(),
                offsets: &[
                    offset_of!(CreateParamsBase, disk_type),
                    offset_of!(CreateParamsBase, adapter_type),
                    offset_of!(CreateParamsBase, hw_version),
                    offset_of!(CreateParamsBase, capacity),
                ],
            },
        ],
    },
    Layout {
        name: "VixDiskLibGeometry",
        ours: "Geometry",
        versions: &[Version {
            size: size_of::<Geometry>(),
            offsets: &[offset_of!(Geometry, cylinders), offset_of!(Geometry, heads), offset_of!(Geometry, sectors)],
        }],
    },
    Layout {
        name: "VixDiskLibBlock",
        ours: "Block",
        versions: &[Version {
            size: size_of::<Block>(),
            offsets: &[offset_of!(Block, offset), offset_of!(Block, length)],
        }],
    },
    Layout {
        name: "VixDiskLibBlockList",
        ours: "BlockList",
        versions: &[
            Version {
                // Declared with one block in it.
                size: size_of::<BlockList>() + size_of::<Block>(),
                offsets: &[offset_of!(BlockList, num_blocks), offset_of!(BlockList, blocks)],
            },
            Version {
                size: size_of::<BlockList>(),
                offsets: &[offset_of!(BlockList, num_blocks), offset_of!(BlockList, blocks)],
            },
        ],
    },
];
