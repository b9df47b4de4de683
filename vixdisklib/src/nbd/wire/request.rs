//! Requests: what a client wants done with its export, checked before anything is done.

use std::ops::Range;

use super::{
    Errno, REQUEST_MAGIC,
    command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, REQ_ONE},
    negotiation::{ExportFacts, Modes},
    transmission_flag::{READ_ONLY, SEND_TRIM},
};

/// A request as it arrives, without the data of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// [Command flags](super::command_flag).
    pub flags: u16,
    /// The command's number.
    pub command: u16,
    /// What the client knows the request by.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl RequestHeader {
    /// Its length.
    pub const LEN: usize = 28;

    /// Reads it.
    ///
    /// # Errors
    /// A sentence, when it does not begin with the magic word: the two sides are out of step.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, &'static str> {
        let [m0, m1, m2, m3, f0, f1, c0, c1, rest @ ..] = *bytes;
        if u32::from_be_bytes([m0, m1, m2, m3]) != REQUEST_MAGIC {
            return Err("a request does not begin with the magic word");
        }
        let [k0, k1, k2, k3, k4, k5, k6, k7, o0, o1, o2, o3, o4, o5, o6, o7, len @ ..] = rest;
        Ok(Self {
            flags: u16::from_be_bytes([f0, f1]),
            command: u16::from_be_bytes([c0, c1]),
            cookie: u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            len: u32::from_be_bytes(len),
        })
    }

    /// The bytes of data that follow, whether the request is any good or not.
    pub fn payload(&self) -> u32 {
        if self.command == number::WRITE { self.len } else { 0 }
    }

    /// True when the client says goodbye.
    pub fn is_goodbye(&self) -> bool {
        self.command == number::DISC
    }

    /// What is to be done, if it is allowed and makes sense.
    ///
    /// # Errors
    /// What the client is told.
    pub fn check(&self, export: &ExportFacts, modes: Modes) -> Result<Command, Refusal> {
        let fua = self.flags & FUA != 0;
        let flag = |flag: u16| self.flags & flag != 0;
        match self.command {
            number::READ => {
                self.allow_flags(if modes.structured { FUA | DF } else { FUA })?;
                let range = self.range(export, Errno::Invalid)?;
                let too_long = if flag(DF) { Errno::Overflow } else { Errno::Invalid };
                self.check_length(export, too_long)?;
                Ok(Command::Read { range, whole: flag(DF) })
            }
            number::WRITE => {
                self.allow_flags(FUA)?;
                check_writable(export)?;
                let range = self.range(export, Errno::NoSpace)?;
                self.check_length(export, Errno::Invalid)?;
                Ok(Command::Write { range, fua })
            }
            number::FLUSH => {
                self.allow_flags(FUA)?;
                if (self.offset, self.len) != (0, 0) {
                    return Err(Refusal::new(Errno::Invalid, "a flush has neither offset nor length"));
                }
                Ok(Command::Flush)
            }
            number::TRIM if export.flags & (SEND_TRIM | READ_ONLY) != 0 => {
                self.allow_flags(FUA)?;
                check_writable(export)?;
                Ok(Command::Trim { range: self.range(export, Errno::NoSpace)?, fua })
            }
            number::CACHE => {
                self.allow_flags(FUA)?;
                Ok(Command::Cache { range: self.range(export, Errno::Invalid)? })
            }
            number::WRITE_ZEROES => {
                self.allow_flags(FUA | NO_HOLE | FAST_ZERO)?;
                check_writable(export)?;
                let range = self.range(export, Errno::NoSpace)?;
                Ok(Command::WriteZeroes { range, fua, hole: !flag(NO_HOLE), fast: flag(FAST_ZERO) })
            }
            number::BLOCK_STATUS => {
                self.allow_flags(FUA | REQ_ONE)?;
                if !modes.allocation {
                    return Err(Refusal::new(Errno::Invalid, "no metadata context was chosen"));
                }
                let range = self.range(export, Errno::Invalid)?;
                if range.is_empty() {
                    return Err(Refusal::new(Errno::Invalid, "nothing has no status"));
                }
                Ok(Command::BlockStatus { range, one: flag(REQ_ONE) })
            }
            _ => Err(Refusal::new(Errno::Invalid, "this server does not know the command")),
        }
    }

    fn allow_flags(&self, known: u16) -> Result<(), Refusal> {
        if self.flags & !known == 0 {
            return Ok(());
        }
        Err(Refusal::new(Errno::Invalid, "the command does not have these flags"))
    }

    fn range(&self, export: &ExportFacts, outside: Errno) -> Result<Range<u64>, Refusal> {
        match self.offset.checked_add(u64::from(self.len)) {
            Some(end) if end <= export.size => Ok(self.offset..end),
            _ => Err(Refusal::new(outside, "the range goes beyond the end of the export")),
        }
    }

    fn check_length(&self, export: &ExportFacts, too_long: Errno) -> Result<(), Refusal> {
        if self.len <= export.max_block {
            return Ok(());
        }
        Err(Refusal::new(too_long, "the request is longer than the most that was announced"))
    }
}

fn check_writable(export: &ExportFacts) -> Result<(), Refusal> {
    if export.flags & READ_ONLY == 0 {
        return Ok(());
    }
    Err(Refusal::new(Errno::NotPermitted, "the export is read-only"))
}

/// A request that may be carried out: inside the export, with flags that it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send bytes; `whole` means in one chunk.
    Read {
        /// Which.
        range: Range<u64>,
        /// In one chunk.
        whole: bool,
    },
    /// Store the bytes that came along.
    Write {
        /// Where.
        range: Range<u64>,
        /// Durably, before the reply.
        fua: bool,
    },
    /// Make everything durable that was replied to.
    Flush,
    /// The bytes are no longer needed.
    Trim {
        /// Which.
        range: Range<u64>,
        /// Durably, before the reply.
        fua: bool,
    },
    /// The bytes will be needed soon.
    Cache {
        /// Which.
        range: Range<u64>,
    },
    /// Store zeros.
    WriteZeroes {
        /// Where.
        range: Range<u64>,
        /// Durably, before the reply.
        fua: bool,
        /// Without storage behind them, where that can be.
        hole: bool,
        /// Or not at all, if it takes as long as writing them.
        fast: bool,
    },
    /// Tell what is allocated.
    BlockStatus {
        /// Where.
        range: Range<u64>,
        /// The first extent is enough.
        one: bool,
    },
}

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the client's program.
    pub errno: Errno,
    /// For people; told to clients that have structured replies.
    pub message: String,
}

impl Refusal {
    /// Puts the two together.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }
}

/// The numbers of commands.
pub mod number {
    /// `NBD_CMD_READ`
    pub const READ: u16 = 0;
    /// `NBD_CMD_WRITE`
    pub const WRITE: u16 = 1;
    /// `NBD_CMD_DISC`
    pub const DISC: u16 = 2;
    /// `NBD_CMD_FLUSH`
    pub const FLUSH: u16 = 3;
    /// `NBD_CMD_TRIM`
    pub const TRIM: u16 = 4;
    /// `NBD_CMD_CACHE`
    pub const CACHE: u16 = 5;
    /// `NBD_CMD_WRITE_ZEROES`
    pub const WRITE_ZEROES: u16 = 6;
    /// `NBD_CMD_BLOCK_STATUS`
    pub const BLOCK_STATUS: u16 = 7;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: Modes = Modes { structured: true, allocation: true };

    fn export(flags: u16) -> ExportFacts {
        ExportFacts {
            name: String::new(),
            description: String::new(),
            size: 1 << 20,
            flags,
            min_block: 512,
            preferred_block: 4096,
            max_block: 65536,
        }
    }

    fn request(command: u16, flags: u16, offset: u64, len: u32) -> RequestHeader {
        RequestHeader { flags, command, cookie: 7, offset, len }
    }

    fn refused(request: RequestHeader, flags: u16) -> Option<Errno> {
        request.check(&export(flags), MODES).err().map(|refusal| refusal.errno)
    }

    #[test]
    fn a_header_is_read_field_by_field() {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[5] = 1;
        bytes[7] = 6;
        bytes[15] = 9;
        bytes[23] = 3;
        bytes[27] = 2;
        let expected = RequestHeader { flags: 1, command: 6, cookie: 9, offset: 3, len: 2 };
        assert_eq!(RequestHeader::decode(&bytes), Ok(expected));
        bytes[0] = 0;
        assert!(RequestHeader::decode(&bytes).is_err());
    }

    #[test]
    fn what_leaves_the_export_is_refused_by_the_number_that_the_command_has_for_it() {
        for (command, errno) in [
            (number::READ, Errno::Invalid),
            (number::BLOCK_STATUS, Errno::Invalid),
            (number::CACHE, Errno::Invalid),
            (number::WRITE, Errno::NoSpace),
            (number::TRIM, Errno::NoSpace),
            (number::WRITE_ZEROES, Errno::NoSpace),
        ] {
            assert_eq!(refused(request(command, 0, (1 << 20) - 511, 512), SEND_TRIM), Some(errno), "{command}");
            assert_eq!(refused(request(command, 0, u64::MAX, 512), SEND_TRIM), Some(errno), "{command}");
            assert_eq!(refused(request(command, 0, (1 << 20) - 512, 512), SEND_TRIM), None, "{command}");
        }
    }

    #[test]
    fn a_read_only_export_takes_no_writes() {
        for command in [number::WRITE, number::TRIM, number::WRITE_ZEROES] {
            assert_eq!(refused(request(command, 0, 0, 512), READ_ONLY), Some(Errno::NotPermitted));
        }
        assert_eq!(refused(request(number::FLUSH, 0, 0, 0), READ_ONLY), None);
    }

    #[test]
    fn flags_belong_to_commands_and_fua_to_all() {
        for command in [number::READ, number::WRITE, number::TRIM, number::CACHE, number::WRITE_ZEROES] {
            assert_eq!(refused(request(command, FUA, 0, 512), SEND_TRIM), None);
            assert_eq!(refused(request(command, REQ_ONE, 0, 512), SEND_TRIM), Some(Errno::Invalid));
            assert_eq!(refused(request(command, 1 << 15, 0, 512), SEND_TRIM), Some(Errno::Invalid));
        }
        let plain = Modes::default();
        assert!(request(number::READ, DF, 0, 512).check(&export(0), MODES).is_ok());
        assert!(request(number::READ, DF, 0, 512).check(&export(0), plain).is_err());
        assert!(request(number::BLOCK_STATUS, 0, 0, 512).check(&export(0), plain).is_err());
    }

    #[test]
    fn lengths_count_only_where_bytes_travel() {
        assert_eq!(refused(request(number::READ, 0, 0, 65537), 0), Some(Errno::Invalid));
        assert_eq!(refused(request(number::READ, DF, 0, 65537), 0), Some(Errno::Overflow));
        assert_eq!(refused(request(number::WRITE, 0, 0, 65537), 0), Some(Errno::Invalid));
        assert_eq!(refused(request(number::WRITE_ZEROES, 0, 0, 65537), 0), None);
        assert_eq!(refused(request(number::FLUSH, 0, 0, 1), 0), Some(Errno::Invalid));
        assert_eq!(refused(request(number::BLOCK_STATUS, 0, 0, 0), 0), Some(Errno::Invalid));
        assert_eq!(refused(request(99, 0, 0, 0), 0), Some(Errno::Invalid));
        assert_eq!(request(number::WRITE, 0, u64::MAX, 5).payload(), 5);
    }
}
