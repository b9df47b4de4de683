//! How far a restore in place came, so that the next run of it writes the rest.
//!
//! A small file beside the journals, `<instanceUuid>.restore`. It is a hint and need not be durable: what it calls
//! written is compared by hashes before it counts.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::Restore;
use crate::repository::PointId;

/// The positions of a restore's disks.
#[derive(Debug)]
pub(super) struct Positions {
    /// `None` without a folder for journals.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    point: PointId,
    /// The server and the machine's managed object id.
    server: String,
    machine: String,
    /// By device key, the first byte that may not be written yet.
    disks: BTreeMap<i32, u64>,
}

impl Positions {
    /// Reads what an earlier run of the same restore left; positions are 0 without one.
    pub(super) fn open(restore: &Restore, server: String, machine: &str) -> Self {
        let point = restore.point.id().clone();
        let path = restore.journal.as_ref().map(|folder| folder.join(format!("{}.restore", point.vm())));
        let fresh = State { point, server, machine: machine.to_owned(), disks: BTreeMap::new() };
        let read = path.as_ref().and_then(|path| std::fs::read(path).ok());
        let left: Option<State> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let same =
            |left: &State| (&left.point, &left.server, &left.machine) == (&fresh.point, &fresh.server, &fresh.machine);
        let state = left.filter(same).unwrap_or(fresh);
        Self { path, state: Mutex::new(state) }
    }

    /// Up to where a disk was written before.
    pub(super) fn of(&self, key: i32) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).disks.get(&key).copied().unwrap_or(0)
    }

    /// Notes how far a disk is, once it is much further.
    pub(super) fn note(&self, key: i32, position: u64) {
        let Some(path) = &self.path else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = state.disks.entry(key).or_insert(0);
        if position < noted.saturating_add(STEP) {
            return;
        }
        *noted = position;
        let fresh = path.with_extension("restore.tmp");
        let written = serde_json::to_vec(&*state)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&fresh, bytes))
            .and_then(|()| std::fs::rename(&fresh, path));
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "a position is not noted");
        }
    }

    /// Forgets them: all disks are written.
    pub(super) fn clear(&self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "positions stay");
        }
    }
}

/// A position is noted anew after so many bytes.
const STEP: u64 = 4 << 20;
