//! Files of a folder that were to become objects, and whose writers ended before.
//!
//! Objects are written into `name#1` (or `#2`, where that is taken) and then renamed or linked to `name`. No key has a `#`.

use std::{
    fs::{self, DirEntry},
    io,
    path::PathBuf,
    time::SystemTime,
};

use super::is_segment;

/// Removes such files that were last written before `before`, in a folder and in those below it; returns how many.
///
/// # Errors
/// Those of the file system, but for what goes meanwhile.
pub(super) fn remove(root: PathBuf, before: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        let Some(entries) = still_there(fs::read_dir(folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            // Of the entry itself: a link is followed to nowhere.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_unfinished(&entry) && is_older(&entry, before)? {
                removed += u64::from(still_there(fs::remove_file(entry.path()))?.is_some());
            }
        }
    }
    Ok(removed)
}

fn is_unfinished(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let parts = name.to_str().and_then(|name| name.split_once('#'));
    parts.is_some_and(|(name, number)| {
        is_segment(name) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn is_older(entry: &DirEntry, before: SystemTime) -> io::Result<bool> {
    let file = still_there(entry.metadata())?;
    file.map_or(Ok(false), |file| Ok(file.modified()? < before))
}

fn still_there<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_crash_left_goes_when_it_is_old_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("packs/ab#1")).unwrap();
        fs::create_dir_all(at("elsewhere")).unwrap();
        let all = ["config#1", "packs/x#12", "packs/x", "packs/x#", "packs/x#1a", "packs/not ours#1", "packs/ab#1/y#1"];
        for name in all {
            fs::write(at(name), "half").unwrap();
        }
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("z#1"), "of others").unwrap();
        std::os::unix::fs::symlink(outside.path(), at("elsewhere/link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("z#1"), at("elsewhere/link#1")).unwrap();

        let now = SystemTime::now();
        assert_eq!(remove(folder.path().into(), now - Duration::from_secs(60)).unwrap(), 0, "they are young");
        assert_eq!(remove(folder.path().into(), now + Duration::from_secs(60)).unwrap(), 3);
        let left: Vec<_> = all.into_iter().filter(|name| at(name).exists()).collect();
        assert_eq!(left, ["packs/x", "packs/x#", "packs/x#1a", "packs/not ours#1"]);
        assert!(outside.path().join("z#1").exists() && at("elsewhere/link#1").exists());
        assert_eq!(remove(at("gone"), now).unwrap(), 0);
    }
}
