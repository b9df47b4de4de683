//! Copying one point.

use std::{ops::Range, pin::pin};

use futures_util::{TryStreamExt, stream};

use super::{
    super::{
        id::PointId,
        manifest::{BackupMode, DiskRecord},
        point::RecoveryPoint,
        reader::{DiskReader, ExtentKind},
    },
    CopyOptions, Repository,
};
use crate::{
    cancel::CancelToken,
    engine::{DiskBackup, Parent, compare_areas},
    error::{Error, Result},
};

/// Copies a point, on the base of an earlier one and its copy.
pub(super) async fn copy(
    point: &RecoveryPoint,
    base: Option<(RecoveryPoint, RecoveryPoint)>,
    target: &Repository,
    options: &CopyOptions,
) -> Result<(PointId, u64, u64)> {
    let mut writer = target.begin_copy(point, options.writer).await?;
    for name in point.manifest().objects.keys() {
        if let Some(body) = point.object(name).await? {
            writer.put_object(name, body).await?;
        }
    }
    let mut read = 0;
    for record in point.disks() {
        let source = point.disk(record.key).await?;
        let base = match &base {
            Some((earlier, copy)) => base_of(record, earlier, copy, &options.cancel).await?,
            None => None,
        };
        let (areas, allocated) = areas(&source, base.as_ref().map(|(earlier, _)| earlier), &options.cancel).await?;
        let parent = base.map(|(_, copy)| Parent::new(copy));
        let mode = if parent.is_some() { BackupMode::Incremental } else { BackupMode::Full };
        let done = DiskBackup::new(record.key, &source, writer.writer())
            .parent(parent)
            .allocated(Some(allocated))
            .budget(&options.budget)
            .cancel(&options.cancel)
            .run(stream::iter(areas.clone().into_iter().map(Ok)))
            .await
            .map_err(in_the_source)?;
        read += done.bytes.read;
        let copied = DiskRecord {
            root: done.root,
            bytes: done.bytes,
            mode,
            change_id: None,
            reason: "copied from another repository".into(),
            ..record.clone()
        };
        if options.verify {
            // What was not copied now is as in the earlier copy, which was compared when it was made.
            writer.writer().finish().await?;
            let copy = DiskReader::new(target.clone(), writer.id().clone(), copied.clone());
            let differ = compare_areas(&copy, &source, areas, &options.budget, &options.cancel, None).await;
            if let Some(difference) = differ.map_err(in_the_source)?.first() {
                let (start, end) = (difference.range.start, difference.range.end);
                let reason = format!("disk {}: bytes {start} to {end} are not those of the original", record.key);
                return Err(Error::damaged(format!("the copy of {}", point.id()), reason));
            }
        }
        writer.add_disk(copied)?;
    }
    let (copy, totals) = writer.commit().await?;
    Ok((copy.id().clone(), read, totals.bytes_written))
}

/// Returns the disk of the earlier point and of its copy, when the copy can be built on.
async fn base_of(
    record: &DiskRecord,
    earlier: &RecoveryPoint,
    copy: &RecoveryPoint,
    cancel: &CancelToken,
) -> Result<Option<(DiskReader, DiskReader)>> {
    let (Ok(earlier), Ok(copy)) = (earlier.disk(record.key).await, copy.disk(record.key).await) else {
        return Ok(None);
    };
    let fits = earlier.capacity() == copy.capacity() && copy.capacity() <= record.capacity;
    if !fits || earlier.first_damage(cancel).await?.is_some() || copy.first_damage(cancel).await?.is_some() {
        return Ok(None);
    }
    Ok(Some((earlier, copy)))
}

/// Damage of the original, which is read as a disk, is told as what it is.
fn in_the_source(error: Error) -> Error {
    match error {
        Error::Disk { disk, offset, source, .. }
            if source.inner().downcast_ref::<Error>().is_some_and(Error::is_damage) =>
        {
            Error::damaged(format!("disk {disk} at offset {offset}"), source.to_string())
        }
        other => other,
    }
}

/// Returns where a disk differs from an earlier one, or where it has anything when there is none; and the latter.
async fn areas(
    disk: &DiskReader,
    earlier: Option<&DiskReader>,
    cancel: &CancelToken,
) -> Result<(Vec<Range<u64>>, Vec<Range<u64>>)> {
    let (mut changed, mut allocated) = (Vec::new(), Vec::new());
    let mut extents = pin!(disk.extents(0..disk.capacity()));
    while let Some(extent) = extents.try_next().await? {
        cancel.check()?;
        if extent.kind != ExtentKind::Unallocated {
            push(&mut allocated, extent.range);
        }
    }
    let Some(earlier) = earlier else { return Ok((allocated.clone(), allocated)) };
    let mut differing = pin!(disk.changed_since(earlier));
    while let Some(area) = differing.try_next().await? {
        cancel.check()?;
        push(&mut changed, area);
    }
    Ok((changed, allocated))
}

/// Appends a range, joined with the last when they touch.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
