//! Virtual disk files without any server: what is in them, whether they are sound, and copies in other formats.
//!
//! ```sh
//! vmdk --disk web-000002.vmdk                      what it is, its links, how much each holds
//! vmdk --disk web.vmdk --check                     everything that is wrong with it (--deep: inflates every grain)
//! vmdk --disk web.vmdk --to copy.vmdk --as FORMAT  raw, flat, vmfs, sparse, split-flat, split-sparse, stream or ova
//! vmdk --simulate                                  all of it on a small chain in a scratch folder
//! ```

use std::{
    error::Error,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use examples::{
    args::Args,
    show::{Progress, bytes, table},
};
use vmdk::{
    ChildSpec, CopyOptions, CreateKind, CreateSpec, Disk, MapKind, OpenOptions,
    check::{CheckOptions, check},
    convert, create, create_child,
    ova::{Content, DiskSpec, OvaOptions, OvfSpec, Packing},
    stream::{StreamSpec, export},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&["disk=", "check", "deep", "to=", "as=", "simulate"])?;
    if args.has("simulate") {
        return simulate();
    }
    let disk = Path::new(args.need("disk")?);
    if args.has("check") || args.has("deep") {
        return report(disk, args.has("deep"));
    }
    match args.get("to") {
        Some(target) => write_copy(disk, Path::new(target), args.need("as")?),
        None => describe(disk),
    }
}

/// A base, a child over it, and everything that the program can do with them.
fn simulate() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let base = create(at("base.vmdk"), &CreateSpec::new(64 << 20, CreateKind::TwoGbMaxExtentSparse))?;
    base.write_at(5 << 20, &b"what the base holds. ".repeat(100_000))?;
    base.close()?;
    let child = create_child(at("base.vmdk"), at("child.vmdk"), &ChildSpec::new())?;
    child.write_at(6 << 20, &b"what has changed since. ".repeat(20_000))?;
    child.close()?;
    describe(&at("child.vmdk"))?;
    let original = Disk::open(at("child.vmdk"), &OpenOptions::new())?;
    for (format, name) in
        [("stream", "stream.vmdk"), ("sparse", "flattened.vmdk"), ("raw", "disk.raw"), ("ova", "vm.ova")]
    {
        write_copy(&at("child.vmdk"), &at(name), format)?;
        let copy = match format {
            "ova" => vmdk::ova::OvfPackage::open(at(name))?.open_disk("vmdisk1")?,
            _ => Disk::open(at(name), &OpenOptions::new())?,
        };
        if !same(&original, &copy)? {
            return Err(format!("the copy as {format} differs").into());
        }
    }
    println!("\nall copies hold the same bytes");
    report(&at("stream.vmdk"), true)
}

fn describe(path: &Path) -> Result<(), Box<dyn Error>> {
    let disk = Disk::open(path, &OpenOptions::new())?;
    println!("{}: {}", path.display(), bytes(disk.capacity()));
    let mut held = vec![(0, 0); disk.links().len()];
    let mut empty = 0;
    for entry in disk.map(0..disk.capacity()) {
        let entry = entry?;
        let len = entry.range.end - entry.range.start;
        match (entry.kind, entry.layer) {
            (MapKind::Data, Some(link)) => held[link].0 += len,
            (MapKind::Zero, Some(link)) => held[link].1 += len,
            _ => empty += len,
        }
    }
    let rows: Vec<_> = disk
        .links()
        .zip(held)
        .map(|(link, (data, zero))| {
            let kind = link.create_type.map_or_else(|| "raw".to_owned(), |kind| kind.name().to_owned());
            vec![link.path.display().to_string(), kind, bytes(data), bytes(zero)]
        })
        .collect();
    table(&["link", "type", "visible data", "zeroed"], &rows);
    println!("stored in no link: {}", bytes(empty));
    Ok(())
}

fn report(path: &Path, deep: bool) -> Result<(), Box<dyn Error>> {
    let report = check(path, &CheckOptions::new().deep(deep))?;
    for finding in report.findings() {
        println!("{finding}\n  {}", finding.advice());
    }
    if report.is_clean() {
        println!("{}: nothing is wrong", path.display());
        return Ok(());
    }
    Err(format!("{}: not clean", path.display()).into())
}

fn write_copy(disk: &Path, target: &Path, format: &str) -> Result<(), Box<dyn Error>> {
    let source = Disk::open(disk, &OpenOptions::new())?;
    let kind = match format {
        "raw" => CreateKind::Raw,
        "flat" => CreateKind::Flat,
        "vmfs" => CreateKind::Vmfs,
        "sparse" => CreateKind::MonolithicSparse,
        "split-flat" => CreateKind::TwoGbMaxExtentFlat,
        "split-sparse" => CreateKind::TwoGbMaxExtentSparse,
        "stream" => return write_stream(&source, target),
        "ova" => return write_ova(&source, target),
        other => return Err(format!("--as {other}: no such format").into()),
    };
    let step = Progress::begin(&format!("writing {}", target.display()));
    convert(&source, target, &CreateSpec::new(source.capacity(), kind), &CopyOptions::new())?.close()?;
    step.end();
    Ok(())
}

fn write_stream(source: &Disk, target: &Path) -> Result<(), Box<dyn Error>> {
    let step = Progress::begin(&format!("writing {}", target.display()));
    let sink = export(source, BufWriter::new(File::create_new(target)?), &StreamSpec::new(source.capacity()))?;
    sink.into_inner()?.sync_all()?;
    step.end();
    Ok(())
}

fn write_ova(source: &Disk, target: &Path) -> Result<(), Box<dyn Error>> {
    let step = Progress::begin(&format!("writing {}", target.display()));
    let name = PathBuf::from(target.file_stem().ok_or("the target has no name")?);
    let name = name.to_str().ok_or("the target's name is not UTF-8")?;
    let href = format!("{name}-disk1.vmdk");
    let spec = OvfSpec::new(name).disk(DiskSpec::new(&href, source.capacity()));
    let packing = Packing::new(spec).file(href, Content::disk(source));
    let mut sink = packing.write_ova(BufWriter::new(File::create_new(target)?), &OvaOptions::new())?;
    sink.flush()?;
    step.end();
    Ok(())
}

fn same(one: &Disk, other: &Disk) -> vmdk::Result<bool> {
    const STEP: u64 = 1 << 20;
    let (mut left, mut right) = (vec![0; STEP as usize], vec![0; STEP as usize]);
    for start in (0..one.capacity()).step_by(STEP as usize) {
        let len = STEP.min(one.capacity() - start) as usize;
        one.read_at(start, &mut left[..len])?;
        other.read_at(start, &mut right[..len])?;
        if left[..len] != right[..len] {
            return Ok(false);
        }
    }
    Ok(one.capacity() == other.capacity())
}
