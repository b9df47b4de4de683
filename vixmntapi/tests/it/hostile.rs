//! Walks over file systems that may be damaged; shared with the fuzz targets.

use std::{collections::BTreeSet, sync::Arc};

use vixmntapi::fs::{FileSystem, SecurityDescriptor};

/// Walks whatever can be walked of a file system that may be damaged and reads everything, up to a bound; errors are
/// fine, panics and endless work are not. Tells how many things were read without an error.
pub(crate) fn walk_hostile(fs: &Arc<dyn FileSystem>) -> usize {
    let mut open = vec![fs.root()];
    let mut seen = BTreeSet::from([fs.root()]);
    let mut fine = 0;
    let mut budget = 64_u64 << 20;
    while let Some(node) = open.pop() {
        if let Ok(entries) = fs.clone().read_dir(node) {
            for entry in entries.take(10_000).map_while(Result::ok) {
                fine += 1;
                drop(fs.lookup(node, &entry.name));
                if seen.len() < 10_000 && seen.insert(entry.node) {
                    open.push(entry.node);
                }
            }
        }
        fine += usize::from(fs.metadata(node).is_ok());
        fine += usize::from(fs.xattrs(node).is_ok());
        fine += usize::from(fs.read_link(node).is_ok());
        if let Ok(descriptor) = fs.security_descriptor(node) {
            fine += 1;
            let read = descriptor.map(|bytes| SecurityDescriptor::parse(&bytes).and_then(|read| read.to_sddl()));
            drop(read);
        }
        for (stream, _) in fs.streams(node).unwrap_or_default() {
            let Ok(content) = fs.clone().open(node, Some(&stream)) else { continue };
            fine += usize::from(content.read_at(0, &mut [0; 4096]).is_ok());
        }
        let Ok(content) = fs.clone().open(node, None) else { continue };
        drop(content.extents(0..content.size().min(1 << 30)));
        drop(content.read_at(content.size().saturating_sub(1), &mut [0; 16]));
        let mut buffer = vec![0; 64 << 10];
        let mut at = 0;
        while at < content.size() && budget > 0 {
            match content.read_at(at, &mut buffer) {
                Ok(len) if len > 0 => at += len as u64,
                _ => break,
            }
            budget = budget.saturating_sub(buffer.len() as u64);
            fine += 1;
        }
    }
    fine
}
