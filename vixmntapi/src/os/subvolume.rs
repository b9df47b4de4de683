//! Systems whose root directory is a subvolume of Btrfs other than the one that is mounted when none is named.

use super::{Look, OsInfo, linux};
use crate::{
    error::Error,
    fs::{FileName, Subvolume},
    set::Problem,
};

/// Looks into all subvolumes. Of a system and its snapshots only the system is told.
pub(super) fn find(look: &mut Look<'_>) -> Vec<OsInfo> {
    let all = look.mounted.file_system().subvolumes();
    let all = look.note("the list of subvolumes", all).unwrap_or_default();
    if all.len() > MOST {
        let error = Error::unsupported("a search for systems", format!("there are more than {MOST} subvolumes"));
        look.problems.push(Problem { place: look.mounted.volume().id().to_string(), error });
    }
    let mut found = Vec::new();
    for subvolume in all.iter().filter(|subvolume| !subvolume.is_default).take(MOST) {
        let mounted = look.mounted.at(subvolume.root);
        let mut look = Look { mounted: &mounted, names: look.names, problems: look.problems };
        if let Some(system) = linux::find(&mut look) {
            found.push((rank(&system, subvolume), subvolume.path.clone(), system));
        }
    }
    // A snapshot mounts as its root what it was made of; where none says what it mounts, its name has to tell.
    let best = found.iter().map(|(rank, ..)| *rank).max();
    found.retain(|(rank, ..)| Some(*rank) == best);
    let named = found.into_iter().map(|(_, path, system)| OsInfo { subvolume: Some(path), ..system });
    named.collect()
}

/// How sure it is that a subvolume is the root of a system rather than a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It mounts another.
    Copy,
    /// It is in another directory.
    Below,
    Above,
    /// Distributions call their root so.
    UsualName,
    /// It mounts itself.
    Own,
}

fn rank(system: &OsInfo, subvolume: &Subvolume) -> Rank {
    let root = system.mounts.iter().find(|mount| mount.point == *"/");
    let options = root.map(|root| root.options.as_str()).unwrap_or_default();
    let named = options.split(',').find_map(|option| option.strip_prefix("subvol="));
    if let Some(named) = named {
        return if is_path(named, &subvolume.path) { Rank::Own } else { Rank::Copy };
    }
    let id = options.split(',').find_map(|option| option.strip_prefix("subvolid="));
    if let Some(id) = id.and_then(|id| id.parse::<u64>().ok()) {
        return if id == subvolume.root.tree { Rank::Own } else { Rank::Copy };
    }
    match subvolume.path.as_bytes() {
        b"@" | b"root" | b"@rootfs" | b"@root" => Rank::UsualName,
        path if path.contains(&b'/') => Rank::Below,
        _ => Rank::Above,
    }
}

fn is_path(named: &str, path: &FileName) -> bool {
    named.trim_matches('/').as_bytes() == path.as_bytes()
}

/// Subvolumes that are looked into.
const MOST: usize = 2000;
