//! Pax records: `length key=value` lines that extend a header.

/// What the records say about the next member.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<String>,
    pub(super) size: Option<u64>,
}

impl Records {
    /// Reads records; the error says what is wrong with them. Other keys are passed over: they say nothing that
    /// matters here. Sparse members are refused, as their bytes are not those of the file.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (record, rest) = first(bytes).ok_or("it has a record of a wrong length")?;
            bytes = rest;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("it has a record without a value")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            // Of others the value may be anything.
            let text = || std::str::from_utf8(value).map_err(|_| "it has a name or size that is no UTF-8");
            match key {
                b"path" => records.path = Some(text()?.to_owned()),
                b"size" => {
                    let value = text()?;
                    let size = value.parse().ok().filter(|size| *size <= super::header::MAX_SIZE);
                    records.size = Some(size.ok_or_else(|| format!("it has a size of {value:?}"))?);
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err("it announces a sparse member".to_owned()),
                _ => {}
            }
        }
        Ok(records)
    }
}

/// One record. Its length counts itself.
pub(super) fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    loop {
        let whole = format!("{len}{rest}");
        if whole.len() == len {
            return whole.into_bytes();
        }
        len = whole.len();
    }
}

/// The first record without its length and line end, and what follows.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    let record = bytes.get(digits + 1..len)?.strip_suffix(b"\n")?;
    Some((record, &bytes[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        let mut bytes = record("size", "8589934592");
        assert_eq!(bytes, b"19 size=8589934592\n");
        bytes.extend(record("mtime", "1.5"));
        bytes.extend(record("path", "a b.vmdk"));
        let records = Records::parse(&bytes).unwrap();
        assert_eq!(records, Records { path: Some("a b.vmdk".to_owned()), size: Some(8 << 30) });
        assert_eq!(record("k", &"x".repeat(93)).len(), 99);
        assert_eq!(record("k", &"x".repeat(94)).len(), 101);
    }

    #[test]
    fn lengths_and_sizes_that_lie_are_errors() {
        for bytes in
            ["5", "99 size=1\n", "2 size=1\n", "10 size=12x", "11 size=-12\n", "9 nothing\n", "21 GNU.sparse.map=1\n"]
        {
            assert!(Records::parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
        assert!(Records::parse(&record("size", "9223372036854775808")).is_err());
        assert!(Records::parse(b"18446744073709551615 size=1\n").is_err());
    }
}
