//! Small grains do not become small reads.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use vmdk::{Access, Disk, Handle, MemSource, OpenOptions, ReadAt, Resolver};

use crate::support::snapshot::{Snapshot, Stored};

/// Offset and length of each range that was read, a list for each call.
type Calls = Vec<Vec<(u64, usize)>>;

/// A source that notes how it is read.
#[derive(Debug)]
struct Noting {
    source: MemSource,
    calls: Arc<Mutex<Calls>>,
}

impl ReadAt for Noting {
    fn len(&self) -> io::Result<u64> {
        self.source.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.calls.lock().unwrap().push(vec![(offset, buf.len())]);
        self.source.read_exact_at(buf, offset)
    }
    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.calls.lock().unwrap().push(ranges.iter().map(|(offset, buf)| (*offset, buf.len())).collect());
        ranges.iter_mut().try_for_each(|(offset, buf)| self.source.read_exact_at(buf, *offset))
    }
}

struct NotingFiles {
    files: HashMap<PathBuf, Vec<u8>>,
    calls: Arc<Mutex<Calls>>,
}

impl Resolver for NotingFiles {
    fn open(&self, path: &Path, _access: Access) -> io::Result<Handle> {
        let source = MemSource::new(self.files.get(path).ok_or(io::ErrorKind::NotFound)?.clone());
        Ok(Handle::ReadOnly(Arc::new(Noting { source, calls: Arc::clone(&self.calls) })))
    }
    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// Reads all of a redo log with grains of a sector; the calls that read data.
fn calls(file: Vec<u8>, expected: &[u8]) -> Calls {
    let calls = Arc::<Mutex<Calls>>::default();
    let files = NotingFiles { files: [("d.img".into(), file)].into(), calls: Arc::clone(&calls) };
    let disk = Disk::open("d.img", &OpenOptions::new().resolver(Arc::new(files))).unwrap();
    let mut buf = vec![0xee; expected.len()];
    // The tables come now.
    assert_eq!(disk.map(0..u64::MAX).count(), 1);
    calls.lock().unwrap().clear();
    disk.read_at(0, &mut buf).unwrap();
    assert!(buf == expected);
    std::mem::take(&mut *calls.lock().unwrap())
}

#[test]
fn grains_of_a_sector_in_order_are_one_read() {
    let grains: BTreeMap<_, _> = (0..2048).map(|grain| (grain, Stored::Data(grain))).collect();
    let snapshot = Snapshot { sectors: 2048, grain_sectors: 1, grains, order: 1 };
    let content = snapshot.over(Vec::new());
    // As the host would have written them: a table, then one after the other.
    let mut file = snapshot.cowd();
    let table = u32::from_le_bytes(file[2048..2052].try_into().unwrap()) as usize * 512;
    let first = table / 512 + 32;
    for grain in 0..2048 {
        let entry = table + grain * 4;
        file[entry..entry + 4].copy_from_slice(&((first + grain) as u32).to_le_bytes());
    }
    file.truncate(first * 512);
    file.extend_from_slice(&content);
    assert_eq!(calls(file, &content), [[(first as u64 * 512, content.len())]]);
}

#[test]
fn grains_in_disorder_are_one_call_in_the_order_of_the_file() {
    let grains = (0..2048).map(|grain| (grain, Stored::Data(grain))).collect();
    let snapshot = Snapshot { sectors: 2048, grain_sectors: 1, grains, order: 5 };
    let calls = calls(snapshot.cowd(), &snapshot.over(Vec::new()));
    assert_eq!(calls.len(), 1);
    assert!(calls[0].len() > 1000 && calls[0].is_sorted());
}
