//! A sparse disk of 62 TB, the largest of vSphere, with data at both ends.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use vmdk::stream::StreamReader;
use vmdk::{CreateKind, CreateSpec, Disk, MAX_CAPACITY, MapKind, OpenOptions, create};

use super::Bench;
use super::table::{Table, mib, seconds};
use super::work::{Kind, Work, export, step};

pub(super) fn run(bench: &Bench<'_>, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let report = Work::new(Kind::Huge, bench, DISK, STREAM).run()?;
    for (step, time) in &report.steps {
        table.note(&format!("62 TB: {step}"), seconds(*time), String::new());
    }
    table.limit("62 TB: peak memory", mib(report.peak), String::new(), BAR_OF_MEMORY, "MiB");
    for name in [DISK, STREAM] {
        fs::remove_file(bench.path(name))?;
    }
    Ok(())
}

/// All of it in one process, so that its peak is that of the worst step.
pub(super) fn work(path: &Path, stream: &Path) -> Result<(), Box<dyn Error>> {
    let ends = [0, MAX_CAPACITY - LEN as u64];
    let disk = step("create", || create(path, &CreateSpec::new(MAX_CAPACITY, CreateKind::MonolithicSparse)))?;
    step("write at both ends, close", || -> vmdk::Result<()> {
        ends.into_iter().try_for_each(|at| disk.write_at(at, &pattern(at)))?;
        disk.close()
    })?;
    let disk = step("open", || Disk::open(path, &OpenOptions::new()))?;
    step("read both ends", || -> Result<(), Box<dyn Error>> {
        for at in ends {
            let mut buf = vec![0; LEN];
            disk.read_at(at, &mut buf)?;
            same(&buf, &pattern(at))?;
        }
        Ok(())
    })?;
    let map: Vec<_> = step("map", || disk.map(0..MAX_CAPACITY).collect::<Result<_, _>>())?;
    let data: Vec<_> = map.iter().filter(|entry| entry.kind == MapKind::Data).map(|entry| entry.range.start).collect();
    same(data.as_slice(), &ends)?;
    step("export", || export(&disk, stream))?;
    step("read the export to its end", || -> Result<(), Box<dyn Error>> {
        let mut reader = StreamReader::open(File::open(stream)?, "stream")?;
        let mut starts = Vec::new();
        while let Some(grain) = reader.next_grain()? {
            same(grain.data, &pattern(ends[usize::from(grain.offset > 0)])[..grain.data.len()])?;
            starts.push(grain.offset);
        }
        same(starts.as_slice(), &ends)
    })
}

fn same<T: PartialEq + ?Sized>(found: &T, expected: &T) -> Result<(), Box<dyn Error>> {
    if found == expected { Ok(()) } else { Err("the disk of 62 TB has not the data it should".into()) }
}

/// Bytes that tell one end from the other.
fn pattern(at: u64) -> Vec<u8> {
    (0..LEN).map(|byte| (byte % 251) as u8 ^ u8::from(at > 0)).collect()
}

const DISK: &str = "huge.vmdk";
const STREAM: &str = "huge-stream.vmdk";
/// One grain at each end.
const LEN: usize = 64 << 10;
/// In MiB.
const BAR_OF_MEMORY: f64 = 128.0;
