//! What a request needs: pieces where everything is known, else the metadata that are missing.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    ops::{ControlFlow, Range},
};

use super::{AsyncDisk, Piece, Stop, Wanted};
use crate::{
    cache::{Block, FileId, Table},
    error::{Error, Result},
    extent::words,
    grains,
    source::AsyncReadAt,
};

/// A block of metadata of a file.
type Key = (FileId, Block);

/// Blocks that a request has fetched. It keeps them itself: the cache may drop them before they were used.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    got: HashMap<Key, Table>,
    /// Blocks that no file can have. Only a walk that needs them fails.
    beyond: BTreeSet<Key>,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Plan {
    /// Right up to the first place where something is missing.
    pub(super) pieces: Vec<Piece>,
    pub(super) missing: BTreeSet<Key>,
}

/// Blocks for one walk.
struct Asking<'a, S> {
    disk: &'a AsyncDisk<S>,
    blocks: &'a Blocks,
    missing: RefCell<BTreeSet<Key>>,
    most: usize,
}

/// Large tables are fetched in parts: who reads here and there needs few entries of each, and a whole table of
/// `seSparse` has 32 KiB. Of small tables a part is all.
const PART_BYTES: u64 = 4096;

/// A map asks for so many blocks at a time (8 MiB), and shows so many pieces.
const MAP_BLOCKS: usize = 2048;
const MAP_PIECES: usize = 4096;

impl<S: AsyncReadAt> AsyncDisk<S> {
    /// Walks through `range` as far as the blocks that are known go, and on to find out what else is missing. `bounded`
    /// walks end early; the others need all of the range at once.
    pub(super) fn plan(&self, range: Range<u64>, blocks: &Blocks, bounded: bool) -> Result<Plan> {
        let most = if bounded { MAP_BLOCKS } else { usize::MAX };
        let asking = Asking { disk: self, blocks, missing: RefCell::default(), most };
        let mut pieces = Vec::new();
        let walked = self.chain.walk(0, range, &asking, &mut |piece| {
            // Behind what is missing everything is void.
            if asking.missing.borrow().is_empty() {
                pieces.push(piece);
            }
            Ok(if bounded && pieces.len() >= MAP_PIECES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        let missing = asking.missing.into_inner();
        match walked {
            // What was found before a failure is told first.
            Err(Stop::Failed(error)) if missing.is_empty() && (pieces.is_empty() || !bounded) => Err(error),
            _ => Ok(Plan { pieces, missing }),
        }
    }

    /// Fetches missing blocks, all at once.
    pub(super) async fn fetch_blocks(&self, missing: BTreeSet<Key>, blocks: &mut Blocks) -> Result<()> {
        let range = |block: &Block| block.offset..block.offset.saturating_add(block.len.into());
        let inside = |(file, block): &Key| range(block).end <= self.files[*file as usize].len;
        let (inside, beyond): (Vec<Key>, Vec<Key>) = missing.into_iter().partition(inside);
        blocks.beyond.extend(beyond);
        let wanted = inside.iter().map(|(file, block)| Wanted { file: *file, range: range(block) }).collect();
        let fetched = self.fetch(wanted).await?;
        let mut bytes = Vec::new();
        for (file, block) in inside {
            bytes.resize(block.len as usize, 0);
            fetched.copy(file, block.offset, &mut bytes)?;
            let table = words(&bytes);
            self.cache.insert(file, block, Table::clone(&table));
            blocks.got.insert((file, block), table);
        }
        Ok(())
    }
}

impl Blocks {
    /// Forgets blocks when there are many. Only when a walk came forward with them: one that needs a page and a table
    /// must find both.
    pub(super) fn trim(&mut self) {
        if self.got.len() > 4 * MAP_BLOCKS {
            self.got.clear();
        }
    }
}

impl<S: AsyncReadAt> grains::Blocks for Asking<'_, S> {
    type Stop = Stop;

    const PART_BYTES: u64 = PART_BYTES;

    fn block(&self, file: FileId, block: Block) -> Result<Table, Stop> {
        let key = (file, block);
        if let Some(table) = self.blocks.got.get(&key) {
            return Ok(Table::clone(table));
        }
        if let Some(table) = self.disk.cache.get(file, block) {
            return Ok(table);
        }
        if self.blocks.beyond.contains(&key) {
            let problem = format!("of {} bytes at offset {} some lie beyond its end", block.len, block.offset);
            return Err(Error::malformed(&*self.disk.files[file as usize].name, problem).into());
        }
        self.missing.borrow_mut().insert(key);
        Err(Stop::Missing)
    }

    fn go_on(&self, stop: Stop) -> Result<(), Stop> {
        // A failure behind something missing may be none.
        let missing = self.missing.borrow().len();
        if missing > 0 && missing < self.most { Ok(()) } else { Err(stop) }
    }
}
