//! One answer to the question which areas of a disk have changed.
//!
//! The walk over all answers, with the checks that keep it from losing data, is in the crate `vsphere-cbt`.

use std::ops::Range;

use vsphere_vim_types::{DiskChangeInfo, MoRef, methods, mo};

use crate::{
    client::Vim,
    device::DeviceKey,
    error::{Call, Error, Result},
};

/// One answer: what was looked at, and the changed areas within. Offsets and lengths are bytes.
///
/// The areas are as the server sent them; nothing about their order is checked here.
#[doc(alias = "DiskChangeInfo")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedAreas {
    /// The part of the disk that the answer speaks about; the next question begins at its end.
    pub window: Range<u64>,
    /// The changed areas.
    pub areas: Vec<Range<u64>>,
}

impl Vim {
    /// Asks once which areas of a disk changed since `change_id`, from `start` on.
    ///
    /// Ask on the endpoint that issued the snapshot's reference. `change_id` is what an earlier snapshot's disk
    /// carried, or `*` for the allocated areas.
    ///
    /// # Errors
    /// `FileFault` when the change id is unusable: take a full backup. `InvalidArgument` when `start` is not below the
    /// snapshot disk's capacity. [`Error::Protocol`] when the answer holds impossible numbers.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomRead`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vSphere 4.0.
    #[doc(alias = "QueryChangedDiskAreas")]
    pub async fn query_changed_disk_areas(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        snapshot: Option<&MoRef<mo::VirtualMachineSnapshot>>,
        disk: DeviceKey,
        start: u64,
        change_id: &str,
    ) -> Result<ChangedAreas> {
        let start_offset = i64::try_from(start)
            .map_err(|_| Error::invalid_input("start", "beyond what the API can express (2^63)"))?;
        let args = methods::QueryChangedDiskAreas {
            snapshot: snapshot.cloned(),
            device_key: disk.0,
            start_offset,
            change_id: change_id.to_owned(),
            ..Default::default()
        };
        let answer = self.invoke(vm, args).await?;
        ChangedAreas::from_wire(&answer)
            .map_err(|what| Error::protocol(Call::on("QueryChangedDiskAreas", vm.as_untyped()), what))
    }
}

impl ChangedAreas {
    pub(crate) fn from_wire(answer: &DiskChangeInfo) -> Result<Self, String> {
        let areas = answer.changed_area.iter().map(|area| range("an area", area.start, area.length));
        Ok(Self {
            window: range("the window", answer.start_offset, answer.length)?,
            areas: areas.collect::<Result<_, _>>()?,
        })
    }
}

fn range(what: &str, start: i64, length: i64) -> Result<Range<u64>, String> {
    let checked = || {
        let start = u64::try_from(start).ok()?;
        Some(start..start.checked_add(u64::try_from(length).ok()?)?)
    };
    checked().ok_or_else(|| format!("{what} starts at {start} and is {length} bytes long"))
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::DiskChangeExtent;

    use super::*;

    fn info(start_offset: i64, length: i64, areas: &[(i64, i64)]) -> DiskChangeInfo {
        let changed_area = areas
            .iter()
            .map(|(start, length)| DiskChangeExtent { start: *start, length: *length, ..Default::default() })
            .collect();
        DiskChangeInfo { start_offset, length, changed_area, ..Default::default() }
    }

    #[test]
    fn extents_become_byte_ranges() {
        let areas = ChangedAreas::from_wire(&info(0, 1 << 42, &[(65536, 131072)])).unwrap();
        assert_eq!(areas.window, 0..1 << 42);
        assert_eq!((areas.areas.len(), areas.areas.first()), (1, Some(&(65536..196608))));
    }

    #[test]
    fn impossible_numbers_are_errors_not_wrapped_values() {
        for bad in [info(-1, 5, &[]), info(0, -5, &[]), info(0, 5, &[(-1, 2)]), info(0, 5, &[(0, i64::MIN)])] {
            assert!(ChangedAreas::from_wire(&bad).is_err(), "{bad:?}");
        }
        assert!(ChangedAreas::from_wire(&info(i64::MAX, i64::MAX, &[])).is_ok());
    }
}
