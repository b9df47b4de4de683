//! Where files were seen: a folder of this machine finds files by names, and not by their numbers.

use std::collections::{HashMap, VecDeque};

use crate::{
    error::{Error, Result},
    fs::{FileName, NodeId},
};

/// The directory and name by which each file was seen last.
///
/// Directories are kept, as the way to everything below them; of other files the latest.
#[derive(Debug, Default)]
pub(super) struct Seen {
    directories: HashMap<NodeId, Step>,
    files: HashMap<NodeId, Step>,
    /// Files in the order in which they were seen first.
    order: VecDeque<NodeId>,
}

/// A name, and the directory that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) parent: NodeId,
    pub(super) name: FileName,
}

impl Seen {
    pub(super) fn note(&mut self, node: NodeId, is_directory: bool, parent: NodeId, name: FileName) -> Result<()> {
        let step = Step { parent, name };
        if is_directory {
            self.directories.insert(node, step);
            if self.directories.len() > MOST_DIRECTORIES {
                return Err(Error::Invalid(format!("more than {MOST_DIRECTORIES} directories of one mounted volume")));
            }
            return Ok(());
        }
        if self.files.insert(node, step).is_none() {
            self.order.push_back(node);
        }
        if self.order.len() > MOST_FILES
            && let Some(oldest) = self.order.pop_front()
        {
            self.files.remove(&oldest);
        }
        Ok(())
    }

    /// The steps that lead to a file from the root on, the last one first; `None` for what was not seen, or forgotten.
    pub(super) fn way(&self, root: NodeId, node: NodeId) -> Option<Vec<Step>> {
        let (mut at, mut steps) = (node, Vec::new());
        while at != root {
            let step = self.directories.get(&at).or_else(|| self.files.get(&at))?;
            steps.push(step.clone());
            if steps.len() > DEEPEST {
                return None;
            }
            at = step.parent;
        }
        Some(steps)
    }
}

/// With their names some 30 MB.
const MOST_FILES: usize = 1 << 18;
const MOST_DIRECTORIES: usize = 1 << 20;
/// Levels below each other: more than paths of Linux have, and an end of any circle.
const DEEPEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId { tree: 0, number }
    }

    #[test]
    fn the_way_to_a_file_is_that_of_its_directories_and_a_circle_is_none() {
        let mut seen = Seen::default();
        seen.note(node(2), true, node(1), "a".into()).unwrap();
        seen.note(node(3), false, node(2), "b".into()).unwrap();
        let step = |parent, name: &str| Step { parent: node(parent), name: name.into() };
        assert_eq!(seen.way(node(1), node(3)).unwrap(), [step(2, "b"), step(1, "a")]);
        assert_eq!(seen.way(node(1), node(1)), Some(Vec::new()));
        assert_eq!(seen.way(node(1), node(9)), None);
        seen.note(node(4), true, node(5), "c".into()).unwrap();
        seen.note(node(5), true, node(4), "d".into()).unwrap();
        assert_eq!(seen.way(node(1), node(4)), None);
    }

    #[test]
    fn the_oldest_files_are_forgotten_and_directories_are_not() {
        let mut seen = Seen::default();
        seen.note(node(2), true, node(1), "a".into()).unwrap();
        for number in 0..MOST_FILES as u64 + 10 {
            seen.note(node(100 + number), false, node(2), "f".into()).unwrap();
        }
        assert_eq!((seen.files.len(), seen.order.len()), (MOST_FILES, MOST_FILES));
        assert!(seen.way(node(1), node(109)).is_none() && seen.way(node(1), node(110)).is_some());
        assert!(seen.way(node(1), node(2)).is_some());
    }
}
