//! Payloads that open and close a disk.

use super::{WireError, put_u32, put_u64, u32_at, u64_at};

/// Bytes of an open request and of its reply. The path follows the request as extra, without NUL.
pub const OPEN_FILE_LEN: usize = 60;
/// Bytes of a close request.
pub const CLOSE_FILE_LEN: usize = 8;
/// The file type of a disk.
pub const TYPE_DISK: u32 = 2;
/// The longest path that is taken, in bytes.
pub const MAX_PATH: u32 = 4096;

/// Open flags as VDDK sends them.
pub mod flags {
    /// Opens for reading.
    pub const READ_ONLY: u32 = 0x1E;
    /// Opens for reading and writing.
    pub const READ_WRITE: u32 = 0x1A;
    /// The bit that makes the difference.
    pub const READ_ONLY_BIT: u32 = 0x04;
    /// Opens the parents too. Inferred from the flags of the synchronous layer.
    pub const PARENTS_BIT: u32 = 0x08;
    /// A bit of both whose meaning is not known.
    pub const UNKNOWN_BIT: u32 = 0x10;
}

/// A request to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFile {
    /// Bytes of the path that follows.
    pub path_len: u32,
    /// [`TYPE_DISK`].
    pub file_type: u32,
    /// See [`flags`].
    pub flags: u32,
}

impl OpenFile {
    /// Reads the payload.
    ///
    /// # Errors
    /// When the path is longer than [`MAX_PATH`].
    pub fn decode(bytes: &[u8; OPEN_FILE_LEN]) -> Result<Self, WireError> {
        let path_len = u32_at(bytes, 0);
        if path_len > MAX_PATH {
            return Err(WireError::field("the path length of an open request", path_len));
        }
        Ok(Self { path_len, file_type: u32_at(bytes, 16), flags: u32_at(bytes, 20) })
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; OPEN_FILE_LEN] {
        let mut bytes = [0; OPEN_FILE_LEN];
        put_u32(&mut bytes, 0, self.path_len);
        put_u32(&mut bytes, 16, self.file_type);
        put_u32(&mut bytes, 20, self.flags);
        bytes
    }
}

/// The physical geometry of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Geometry {
    /// Cylinders; hosts cap it at 65535.
    pub cylinders: u32,
    /// Heads.
    pub heads: u32,
    /// Sectors in a track.
    pub sectors: u32,
}

impl Geometry {
    /// The usual geometry of a disk of `capacity` bytes: 255 heads, 63 sectors.
    pub fn for_capacity(capacity: u64) -> Self {
        let cylinders = (capacity / 512 / (255 * 63)).clamp(1, 65535);
        Self { cylinders: u32::try_from(cylinders).unwrap_or(65535), heads: 255, sectors: 63 }
    }
}

/// The answer to an open request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFileReply {
    /// The handle that later requests carry. Opaque.
    pub handle: u64,
    /// [`TYPE_DISK`].
    pub file_type: u32,
    /// The flags of the request.
    pub flags: u32,
    /// The disk's size in bytes.
    pub capacity: u64,
    /// Bytes of a sector; 0 stands for 512.
    pub sector_size: u32,
    /// The physical geometry.
    pub geometry: Geometry,
}

impl OpenFileReply {
    /// Reads the payload.
    pub fn decode(bytes: &[u8; OPEN_FILE_LEN]) -> Self {
        Self {
            handle: u64_at(bytes, 8),
            file_type: u32_at(bytes, 16),
            flags: u32_at(bytes, 20),
            capacity: u64_at(bytes, 28),
            sector_size: u32_at(bytes, 36),
            geometry: Geometry { cylinders: u32_at(bytes, 40), heads: u32_at(bytes, 44), sectors: u32_at(bytes, 48) },
        }
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; OPEN_FILE_LEN] {
        let mut bytes = [0; OPEN_FILE_LEN];
        put_u64(&mut bytes, 8, self.handle);
        put_u32(&mut bytes, 16, self.file_type);
        put_u32(&mut bytes, 20, self.flags);
        put_u64(&mut bytes, 28, self.capacity);
        put_u32(&mut bytes, 36, self.sector_size);
        put_u32(&mut bytes, 40, self.geometry.cylinders);
        put_u32(&mut bytes, 44, self.geometry.heads);
        put_u32(&mut bytes, 48, self.geometry.sectors);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::aio::{Kind, message};
    use super::super::hex;
    use super::*;

    /// The annotated example E4.
    #[test]
    fn open_request_decodes_and_encodes() {
        let mut bytes = hex("7ada00a1040000003c00000003000000 0f000000 000000000000000000000000");
        bytes.extend(hex("02000000 1e000000"));
        bytes.resize(76, 0);
        bytes.extend(b"[ds] vm/vm.vmdk");
        let request = OpenFile::decode(bytes[16..76].try_into().unwrap()).unwrap();
        assert_eq!(request, OpenFile { path_len: 15, file_type: TYPE_DISK, flags: flags::READ_ONLY });
        assert_eq!(&message(Kind::OpenFile, 3, &request.encode(), b"[ds] vm/vm.vmdk")[..], bytes);
    }

    /// The annotated example E5.
    #[test]
    fn open_reply_of_a_62_tib_disk_decodes_and_encodes() {
        let mut bytes = hex("0000000000000000 c3b2a10000000000 02000000 1e000000 00000000");
        bytes.extend(hex("00000000003e0000 00020000 ffff0000 ff000000 3f000000"));
        bytes.resize(OPEN_FILE_LEN, 0);
        let reply = OpenFileReply::decode(bytes.as_slice().try_into().unwrap());
        assert_eq!(reply.handle, 0xA1_B2C3);
        assert_eq!(reply.capacity, 62 << 40);
        assert_eq!(reply.sector_size, 512);
        assert_eq!(reply.geometry, Geometry { cylinders: 65535, heads: 255, sectors: 63 });
        assert_eq!(reply.encode().as_slice(), bytes);
    }

    /// The first half of the annotated example E15.
    #[test]
    fn close_request_encodes() {
        let bytes = hex("7ada00a1050000000800000007000000 c3b2a10000000000");
        let handle = 0xA1_B2C3u64.to_le_bytes();
        assert_eq!(&message(Kind::CloseFile, 7, &handle, b"")[..], bytes);
        let bytes = hex("7ada00a1030000000400000008000000 00000000");
        assert_eq!(&message(Kind::CloseSession, 8, &[0; 4], b"")[..], bytes);
    }

    #[test]
    fn path_of_four_gigabytes_is_refused() {
        let bytes = OpenFile { path_len: u32::MAX, file_type: 2, flags: 0 }.encode();
        assert!(OpenFile::decode(&bytes).is_err());
    }
}
