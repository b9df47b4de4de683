//! Which volume a guest means by the name of a device.

use crate::{
    part::{Guid, Scheme},
    set::{Contents, DiskSet, Volume, VolumeId, VolumeKind},
};

/// The volumes of a set, by what guests call them.
pub(super) struct Names {
    volumes: Vec<Named>,
}

struct Named {
    id: VolumeId,
    kind: VolumeKind,
    uuid: Option<String>,
    /// The id of what it was encrypted as.
    encrypted: Option<String>,
    label: Option<String>,
    /// Whether it may be one of several devices of its file system.
    spans_devices: bool,
    /// Disk, number, PARTUUID and name of a partition, and where it begins.
    disk: Option<usize>,
    number: Option<u32>,
    part_uuid: Option<String>,
    part_label: Option<String>,
    start: u64,
    /// The id of the disk in its MBR.
    disk_id: Option<String>,
}

impl Names {
    /// Looks at all volumes; what cannot be read has no name but that of its place.
    pub(super) fn of(set: &DiskSet, volumes: &[Volume]) -> Self {
        let named = |volume: &Volume| {
            let (uuid, label, devices) = match volume.contents() {
                Ok(Contents::FileSystem(info)) => (info.uuid, info.label, info.devices),
                Ok(Contents::Swap { uuid, label, .. }) => (uuid, label, 1),
                _ => (None, None, 1),
            };
            let place = volume.partition();
            let disk = place.and_then(|place| place.disk);
            let table = disk.and_then(|disk| set.disks().get(disk)?.table.as_ref());
            let mbr = table.filter(|table| table.scheme == Scheme::Mbr);
            Named {
                id: volume.id().clone(),
                kind: volume.kind().clone(),
                uuid,
                encrypted: volume.encryption().map(|encryption| encryption.uuid.clone()),
                label,
                spans_devices: devices > 1,
                disk,
                number: place.map(|place| place.partition.number),
                part_uuid: place.and_then(|place| place.partition.id.clone()),
                part_label: place.and_then(|place| Some(place.partition.name.as_ref()?.to_string_lossy().into_owned())),
                start: place.map_or(0, |place| place.partition.range.start),
                disk_id: mbr.and_then(|table| table.id.clone()),
            }
        };
        Self { volumes: volumes.iter().map(named).collect() }
    }

    /// The volume that the first field of a line of `/etc/fstab` names; `None` when none is, or when several are.
    /// `opened` is what `/etc/crypttab` says.
    pub(super) fn of_linux(&self, source: &str, opened: &[(String, String)]) -> Option<VolumeId> {
        let unquoted = |text: &str| text.trim_matches('"').to_owned();
        for (tag, folder, kind) in [
            ("UUID=", "/dev/disk/by-uuid/", By::Uuid),
            ("LABEL=", "/dev/disk/by-label/", By::Label),
            ("PARTUUID=", "/dev/disk/by-partuuid/", By::PartUuid),
            ("PARTLABEL=", "/dev/disk/by-partlabel/", By::PartLabel),
        ] {
            if let Some(wanted) = source.strip_prefix(tag) {
                return self.by(kind, &unquoted(wanted));
            }
            if let Some(wanted) = source.strip_prefix(folder) {
                return self.by(kind, &unescaped(wanted));
            }
        }
        let device = source.strip_prefix("/dev/")?;
        if let Some(mapped) = device.strip_prefix("mapper/") {
            if let Some((_, source)) = opened.iter().find(|(name, _)| name == mapped) {
                let uuid = source.strip_prefix("UUID=").or_else(|| source.strip_prefix("/dev/disk/by-uuid/"));
                return uuid.map_or_else(|| self.of_linux(source, &[]), |uuid| self.encrypted(uuid.trim_matches('"')));
            }
            if let Some(found) = mapped.strip_prefix("luks-").and_then(|uuid| self.encrypted(uuid)) {
                return Some(found);
            }
            let (group, name) = mapped_name(mapped)?;
            return self.logical(&group, &name);
        }
        if let Some((group, name)) = device.split_once('/') {
            return if group == "md" { self.array(name) } else { self.logical(group, name) };
        }
        if device.starts_with("md") {
            return self.array(device.trim_start_matches("md"));
        }
        let (disk, number) = disk_name(device)?;
        self.only(|volume| volume.disk == Some(disk) && volume.number == number)
    }

    /// The volume that a value of `MountedDevices` names.
    pub(super) fn of_windows(&self, data: &[u8]) -> Option<VolumeId> {
        if let Some(guid) = data.strip_prefix(b"DMIO:ID:") {
            let raw: [u8; 16] = *guid.first_chunk()?;
            let guid = Guid::from_disk(raw).to_string();
            let partition =
                self.only(|volume| volume.part_uuid.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(&guid)));
            return partition.or_else(|| self.dynamic(raw));
        }
        let (signature, start) = data.split_first_chunk::<4>()?;
        let start = u64::from_le_bytes(start.try_into().ok()?);
        let id = format!("{:08x}", u32::from_le_bytes(*signature));
        self.only(|volume| volume.start == start && volume.disk_id.as_ref() == Some(&id))
    }

    /// The volume of dynamic disks with an id, which Windows writes in the one order of bytes or the other.
    fn dynamic(&self, wanted: [u8; 16]) -> Option<VolumeId> {
        let mut other = wanted;
        other[..4].reverse();
        other[4..6].reverse();
        other[6..8].reverse();
        let is_it =
            |kind: &VolumeKind| matches!(kind, VolumeKind::Dynamic { guid, .. } if *guid == wanted || *guid == other);
        self.only(|volume| is_it(&volume.kind))
    }

    fn by(&self, by: By, wanted: &str) -> Option<VolumeId> {
        let is_it = |volume: &Named| match by {
            By::Uuid => volume.uuid.as_ref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(wanted)),
            By::Label => volume.label.as_deref() == Some(wanted),
            By::PartUuid => volume.part_uuid.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(wanted)),
            By::PartLabel => volume.part_label.as_deref() == Some(wanted),
        };
        // Btrfs on several devices is one file system, whichever of them is named.
        let mut found = self.volumes.iter().filter(|volume| is_it(volume)).peekable();
        let first = *found.peek()?;
        let is_one = first.spans_devices && found.all(|other| other.spans_devices && other.uuid == first.uuid);
        if is_one { Some(first.id.clone()) } else { self.only(is_it) }
    }

    fn encrypted(&self, uuid: &str) -> Option<VolumeId> {
        self.only(|volume| volume.encrypted.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(uuid)))
    }

    fn logical(&self, wanted_group: &str, wanted: &str) -> Option<VolumeId> {
        let is_it = |kind: &VolumeKind| matches!(kind, VolumeKind::Lvm { group, name, .. } if group == wanted_group && name == wanted);
        self.only(|volume| is_it(&volume.kind))
    }

    fn array(&self, wanted: &str) -> Option<VolumeId> {
        self.only(|volume| matches!(&volume.kind, VolumeKind::Md { name, .. } if name == wanted))
    }

    fn only(&self, is_it: impl Fn(&Named) -> bool) -> Option<VolumeId> {
        let mut found = self.volumes.iter().filter(|volume| is_it(volume));
        let first = found.next()?;
        found.next().is_none().then(|| first.id.clone())
    }
}

/// What a volume is named by.
#[derive(Clone, Copy)]
enum By {
    Uuid,
    Label,
    PartUuid,
    PartLabel,
}

/// Group and name of a logical volume from the name of device mapper, in which `-` divides them and stands twice for
/// itself.
fn mapped_name(mapped: &str) -> Option<(String, String)> {
    let mut rest = mapped;
    let mut at = 0;
    loop {
        let dash = rest.find('-')?;
        if rest[dash + 1..].starts_with('-') {
            at += dash + 2;
            rest = &rest[dash + 2..];
            continue;
        }
        let (group, name) = (&mapped[..at + dash], &mapped[at + dash + 1..]);
        return Some((group.replace("--", "-"), name.replace("--", "-")));
    }
}

/// Disk, from 0 on, and partition of a name such as `sda1` or `nvme0n1p2`.
fn disk_name(device: &str) -> Option<(usize, Option<u32>)> {
    let parsed = |text: &str| text.parse::<u32>().ok();
    for prefix in ["nvme", "mmcblk"] {
        let Some(rest) = device.strip_prefix(prefix) else { continue };
        let (disk, part) = rest.split_once('p').map_or((rest, None), |(disk, part)| (disk, Some(part)));
        // The first namespace of each controller is a disk.
        let disk = disk.split_once('n').map_or(disk, |(controller, _)| controller);
        return Some((parsed(disk)? as usize, part.map(parsed)?));
    }
    let rest = ["xvd", "sd", "vd", "hd"].iter().find_map(|prefix| device.strip_prefix(prefix))?;
    let letters = rest.len() - rest.trim_start_matches(|char: char| char.is_ascii_lowercase()).len();
    let (letters, number) = rest.split_at(letters);
    if letters.is_empty() || letters.len() > 3 {
        return None;
    }
    let disk = letters.bytes().fold(0, |disk, letter| disk * 26 + usize::from(letter - b'a') + 1) - 1;
    Some((disk, if number.is_empty() { None } else { Some(parsed(number)?) }))
}

/// The name of a link that udev made, with its `\x20` for what is not plain.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.extend(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend(rest.bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_disks_are_numbers_of_disks_and_partitions() {
        for (name, expected) in [
            ("sda", Some((0, None))),
            ("sda1", Some((0, Some(1)))),
            ("vdz12", Some((25, Some(12)))),
            ("sdaa3", Some((26, Some(3)))),
            ("nvme1n1p2", Some((1, Some(2)))),
            ("mmcblk0p1", Some((0, Some(1)))),
            ("sd1", None),
            ("sdax", Some((49, None))),
            ("loop0", None),
            ("sda1x", None),
        ] {
            assert_eq!(disk_name(name), expected, "{name}");
        }
    }

    #[test]
    fn names_of_device_mapper_are_divided_at_the_single_dash() {
        let pair = |group: &str, name: &str| Some((group.to_owned(), name.to_owned()));
        assert_eq!(mapped_name("vg0-root"), pair("vg0", "root"));
        assert_eq!(mapped_name("my--group-my--root"), pair("my-group", "my-root"));
        assert_eq!(mapped_name("control"), None);
        assert_eq!(unescaped("my\\x20disk\\x"), "my disk\\x");
    }
}
