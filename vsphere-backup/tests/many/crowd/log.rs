//! What a process writes down, for whoever comes after its death.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::Path,
};

use vsphere_backup::repository::PointId;

/// What was read of a log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// In the order in which they were begun.
    pub(super) points: Vec<Logged>,
    pub(super) fenced: usize,
    /// How many packs each collection deleted.
    pub(super) collected: Vec<u64>,
}

/// A point that was about to be committed.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) point: PointId,
    /// Which chunks of the pool make up its disk.
    pub(super) chunks: Vec<u8>,
    /// The writer was told that it is committed.
    pub(super) told: bool,
}

/// The end at which lines are added. One write each: a line is there or not, whenever the process is killed.
#[derive(Debug)]
pub(super) struct Pen(File);

impl Pen {
    pub(super) fn open(path: &Path) -> Self {
        Self(File::options().create(true).append(true).open(path).unwrap())
    }

    pub(super) fn begin(&mut self, point: &PointId, chunks: &[u8]) {
        let chunks: Vec<_> = chunks.iter().map(u8::to_string).collect();
        self.line(format!("begin {point} {}", chunks.join(",")));
    }

    pub(super) fn done(&mut self, point: &PointId) {
        self.line(format!("done {point}"));
    }

    pub(super) fn fenced(&mut self) {
        self.line("fenced".into());
    }

    pub(super) fn collected(&mut self, packs: u64) {
        self.line(format!("collected {packs}"));
    }

    fn line(&mut self, text: String) {
        self.0.write_all(format!("{text}\n").as_bytes()).unwrap();
    }
}

impl Log {
    pub(super) fn read(path: &Path) -> Self {
        let text = match fs::read_to_string(path) {
            // Killed before it was begun.
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.unwrap(),
        };
        let mut log = Self::default();
        // A line that is being written is none yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["begin", point, chunks] => {
                    let chunks = chunks.split(',').map(|chunk| chunk.parse().unwrap()).collect();
                    log.points.push(Logged { point: PointId::parse(point).unwrap(), chunks, told: false });
                }
                ["done", point] => {
                    let last = log.points.last_mut().unwrap();
                    assert_eq!(last.point.to_string(), point);
                    last.told = true;
                }
                ["fenced"] => log.fenced += 1,
                ["collected", packs] => log.collected.push(packs.parse().unwrap()),
                _ => panic!("{line}"),
            }
        }
        log
    }
}
