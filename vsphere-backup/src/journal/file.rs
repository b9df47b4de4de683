//! The file of a journal.
//!
//! It is an eight-byte magic, then records: length (4 bytes, little endian), CRC-32 of
//! length and payload (4 bytes), payload (JSON). A record counts once it was synced. A torn tail,
//! which a power cut leaves, is cut off; nothing behind a bad record is believed. A whole record that is not known here,
//! and a magic of another version, are another version's: such a file is refused and stays as it is. No crash leaves a
//! file without a first record; one whose first record is bad is set aside as `<instanceUuid>.journal.damaged`, for
//! people and the [reaper](crate::reaper).

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use super::{Leftover, Record};

/// Writes a journal's file beside and renames it, so that no crash leaves one without its first record.
pub(super) fn write_anew(path: &Path, leftover: &Leftover) -> io::Result<File> {
    let fresh = path.with_extension("journal.tmp");
    let mut file = File::create(&fresh)?;
    file.write_all(MAGIC)?;
    file.write_all(&encode(&Record::Begin(leftover.job.clone()))?)?;
    for record in leftover.records() {
        file.write_all(&encode(&record)?)?;
    }
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    sync_folder(path)?;
    Ok(file)
}

/// Reads a journal's file; `None` when there is none, or none with a first record.
pub(super) fn read(path: &Path) -> io::Result<Option<Leftover>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut state: Option<Leftover> = None;
    scan(&bytes, |record| match (&mut state, record) {
        (None, Record::Begin(job)) => state = Some(Leftover::new(job)),
        (None, _) => {}
        (Some(state), record) => state.apply(record),
    })?;
    Ok(state)
}

/// Decodes records up to the first that is not whole, and returns how long the part of the file is that is sound.
///
/// # Errors
/// When another version wrote the file: what it says is not known, and must not be forgotten.
pub(super) fn scan(bytes: &[u8], mut each: impl FnMut(Record)) -> io::Result<usize> {
    let foreign = |what: String| {
        let next = "let the version that wrote it undo its job, or remove the file and let the reaper look for the job";
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}; {next}"))
    };
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return match bytes.strip_prefix(FAMILY) {
            Some([version, ..]) => Err(foreign(format!("it is a journal of version {:?}", char::from(*version)))),
            _ => Ok(0),
        };
    };
    while let Some((payload, after)) = next(rest) {
        each(serde_json::from_slice(payload).map_err(|error| foreign(format!("it has an unknown record: {error}")))?);
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

/// Renames a file that says nothing, so that no later journal overwrites what it may have said.
pub(super) fn set_aside(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let aside = path.with_extension("journal.damaged");
    tracing::warn!(journal = %path.display(), aside = %aside.display(), "a damaged journal is set aside; what its job left on the server is the reaper's to find");
    std::fs::rename(path, aside)?;
    sync_folder(path)
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(8)?;
    let len = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
    let sum = u32::from_le_bytes(head[4..].try_into().expect("4 bytes"));
    let (payload, after) = rest.split_at_checked(len as usize)?;
    (checksum(len, payload) == sum).then_some((payload, after))
}

pub(super) fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(record)?;
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(&checksum(len, &payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Makes the names in the folder of `path` durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

const MAGIC: &[u8; 8] = b"VSBKJRN1";
/// What the magics of all versions begin with.
const FAMILY: &[u8] = b"VSBKJRN";
/// No more than this is read: what is to be undone stands at the beginning.
pub(super) const MAX_FILE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::{
        super::{Journal, SnapshotState, sample_job},
        *,
    };
    use crate::repository::VmId;

    fn vm() -> VmId {
        VmId::parse("5029c440").unwrap()
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(Record::SnapshotIntent).unwrap();
        let path = folder.path().join("5029c440.journal");
        let good = std::fs::read(&path).unwrap();
        journal.append(Record::SnapshotCreated { snapshot: "snapshot-1".into() }).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for len in good.len()..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let mut journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Possible);
            journal.append(Record::SnapshotRemoved).unwrap();
            drop(journal);
            let journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Absent);
        }
        // A flipped bit hides what is behind it, never what is before it.
        for at in good.len()..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Possible);
        }
    }

    #[test]
    fn a_file_that_is_not_a_journal_is_none_and_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("5029c440.journal");
        let aside = folder.path().join("5029c440.journal.damaged");
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(Record::SnapshotIntent).unwrap();
        drop(journal);
        let mut flipped = std::fs::read(&path).unwrap();
        flipped[30] ^= 1;
        for bytes in [&b""[..], b"VSBK", b"VSBKJRN1", b"something else entirely", &flipped] {
            std::fs::write(&path, bytes).unwrap();
            let mut journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover(), None);
            journal.begin(sample_job()).unwrap();
            journal.clear().unwrap();
            assert!(bytes.is_empty() || std::fs::read(&aside).unwrap() == bytes);
            assert_eq!(Journal::leftovers(folder.path()).unwrap(), []);
        }
    }

    #[test]
    fn what_another_version_wrote_is_refused_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("5029c440.journal");
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        drop(journal);
        let sound = std::fs::read(&path).unwrap();
        let payload = br#"{"step":"hostIntent","host":"host-9"}"#;
        let len = payload.len() as u32;
        let later = [&sound[..], &len.to_le_bytes(), &checksum(len, payload).to_le_bytes(), payload].concat();
        for bytes in [later, [&b"VSBKJRN2"[..], &sound[8..]].concat()] {
            std::fs::write(&path, &bytes).unwrap();
            let refused = Journal::open(folder.path(), &vm()).unwrap_err();
            assert!(crate::error::in_one_line(&refused).contains("version that wrote it"), "{refused:?}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}
