//! Options: what a client asks for before it transfers data.

use super::{MAX_STRING, OPTION_MAGIC};

/// The fixed part of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub number: u32,
    /// Bytes that follow.
    pub len: u32,
}

impl OptionHeader {
    /// Its length.
    pub const LEN: usize = 16;

    /// Reads it.
    ///
    /// # Errors
    /// A sentence, when it does not begin with the magic word: whoever sends that does not speak NBD.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, &'static str> {
        let mut fields = Fields(bytes);
        match (fields.u64(), fields.u32(), fields.u32()) {
            (Some(OPTION_MAGIC), Some(number), Some(len)) => Ok(Self { number, len }),
            _ => Err("an option does not begin with the magic word"),
        }
    }
}

/// An option with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOption {
    /// Take an export and begin; cannot be refused but by hanging up.
    ExportName(String),
    /// End the negotiation.
    Abort,
    /// Name all exports.
    List,
    /// Go on inside TLS.
    StartTls,
    /// Describe an export.
    Info(InfoRequest),
    /// Describe an export and begin.
    Go(InfoRequest),
    /// Use structured replies.
    StructuredReply,
    /// Name the metadata contexts of an export.
    ListMetaContext(MetaRequest),
    /// Choose the metadata contexts of an export.
    SetMetaContext(MetaRequest),
    /// One that is not known here.
    Unknown(u32),
}

/// Data of `INFO` and `GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export.
    pub export: String,
    /// The numbers of what is to be told.
    pub wishes: Vec<u16>,
}

/// Data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRequest {
    /// The export.
    pub export: String,
    /// Names of contexts.
    pub queries: Vec<String>,
}

impl ClientOption {
    /// Reads the data of option `number`.
    ///
    /// # Errors
    /// A sentence for the client, when the data does not have the form that the option needs.
    pub fn decode(number: u32, data: &[u8]) -> Result<Self, &'static str> {
        let bare = |option: Self| if data.is_empty() { Ok(option) } else { Err("this option takes no data") };
        match number {
            number::EXPORT_NAME => Ok(Self::ExportName(string(data)?)),
            number::ABORT => Ok(Self::Abort), // Whatever it carries: the client is leaving.
            number::LIST => bare(Self::List),
            number::STARTTLS => bare(Self::StartTls),
            number::INFO => Ok(Self::Info(InfoRequest::decode(data)?)),
            number::GO => Ok(Self::Go(InfoRequest::decode(data)?)),
            number::STRUCTURED_REPLY => bare(Self::StructuredReply),
            number::LIST_META_CONTEXT => Ok(Self::ListMetaContext(MetaRequest::decode(data)?)),
            number::SET_META_CONTEXT => Ok(Self::SetMetaContext(MetaRequest::decode(data)?)),
            other => Ok(Self::Unknown(other)),
        }
    }
}

impl InfoRequest {
    fn decode(data: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Fields(data);
        let export = string(fields.counted().ok_or(SHORT)?)?;
        let count = fields.u16().ok_or(SHORT)?;
        let wishes = (0..count).map(|_| fields.u16()).collect::<Option<_>>().ok_or(SHORT)?;
        fields.end(Self { export, wishes })
    }
}

impl MetaRequest {
    fn decode(data: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Fields(data);
        let export = string(fields.counted().ok_or(SHORT)?)?;
        let count = fields.u32().ok_or(SHORT)?;
        let mut queries = Vec::new(); // Grows with the data, not with what the count claims.
        for _ in 0..count {
            queries.push(string(fields.counted().ok_or(SHORT)?)?);
        }
        fields.end(Self { export, queries })
    }
}

/// The numbers of options.
pub mod number {
    /// `NBD_OPT_EXPORT_NAME`
    pub const EXPORT_NAME: u32 = 1;
    /// `NBD_OPT_ABORT`
    pub const ABORT: u32 = 2;
    /// `NBD_OPT_LIST`
    pub const LIST: u32 = 3;
    /// `NBD_OPT_STARTTLS`
    pub const STARTTLS: u32 = 5;
    /// `NBD_OPT_INFO`
    pub const INFO: u32 = 6;
    /// `NBD_OPT_GO`
    pub const GO: u32 = 7;
    /// `NBD_OPT_STRUCTURED_REPLY`
    pub const STRUCTURED_REPLY: u32 = 8;
    /// `NBD_OPT_LIST_META_CONTEXT`
    pub const LIST_META_CONTEXT: u32 = 9;
    /// `NBD_OPT_SET_META_CONTEXT`
    pub const SET_META_CONTEXT: u32 = 10;
}

/// The numbers of what `INFO` and `GO` tell.
pub mod info {
    /// Size and flags; always told.
    pub const EXPORT: u16 = 0;
    /// The export's name.
    pub const NAME: u16 = 1;
    /// A text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Least, best and most bytes of a request.
    pub const BLOCK_SIZE: u16 = 3;
}

/// What is left to read of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// Bytes after their number.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn end<T>(self, whole: T) -> Result<T, &'static str> {
        if self.0.is_empty() { Ok(whole) } else { Err("the option has more data than it says") }
    }
}

fn string(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.len() > MAX_STRING {
        return Err("a string has more than 4096 bytes");
    }
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        Ok(_) => Err("a string has a NUL in it"),
        Err(_) => Err("a string is not UTF-8"),
    }
}

const SHORT: &str = "the option has less data than it says";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_and_contexts_are_read_and_their_counts_checked() {
        let go = [&[0, 0, 0, 3][..], b"web", &[0, 2, 0, 0, 0, 3]].concat();
        let info = InfoRequest { export: "web".into(), wishes: vec![info::EXPORT, info::BLOCK_SIZE] };
        assert_eq!(ClientOption::decode(number::GO, &go), Ok(ClientOption::Go(info)));
        for cut in 0..go.len() {
            assert!(ClientOption::decode(number::GO, &go[..cut]).is_err(), "{cut}");
        }
        assert!(ClientOption::decode(number::INFO, &[&go[..], &[0]].concat()).is_err());

        let set = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5][..], b"base:"].concat();
        let request = MetaRequest { export: String::new(), queries: vec!["base:".into()] };
        assert_eq!(ClientOption::decode(number::SET_META_CONTEXT, &set), Ok(ClientOption::SetMetaContext(request)));
        let endless = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert!(ClientOption::decode(number::SET_META_CONTEXT, &endless).is_err());
    }

    #[test]
    fn names_are_short_text() {
        for wrong in [&b"a\0b"[..], &[0xff], &[b'a'; 4097]] {
            assert!(ClientOption::decode(number::EXPORT_NAME, wrong).is_err());
        }
        assert!(ClientOption::decode(number::EXPORT_NAME, "ü".as_bytes()).is_ok());
        assert!(ClientOption::decode(number::LIST, b"x").is_err());
    }
}
