//! What a repair does, counted by kind.

use std::{collections::BTreeMap, fmt};

use crate::check::Place;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action {
    /// What is done.
    pub kind: ActionKind,
    /// The file that is changed.
    pub file: String,
    /// To how many grains, tables or places.
    pub count: u64,
    /// The first of them.
    pub first: Place,
}

/// Defines [`ActionKind`] with what each kind means in words.
macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident: $words:literal;)+) => {
        /// A kind of change. None of them takes away what could be read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ActionKind {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ActionKind {
            /// What is done, in words.
            pub fn describe(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

actions! {
    /// The file is made longer, so that a grain that was cut has its size again: its lost end reads as zero.
    CompleteGrains: "fill up grains that were cut, with zeros";
    /// Entries of the first table that are lost or impossible are taken from the redundant one, or from a marker.
    RestoreEntries: "take entries from the redundant table or from markers";
    /// Entries that point outside of the file are emptied: their grains could not be read.
    DropEntries: "empty entries that point outside of the file or at no grain";
    /// Grains that share their place with another grain or with metadata get a copy of what they read now. The grain
    /// that comes first on the disk keeps the place.
    MoveGrains: "give grains that share their place a copy of their own";
    /// Tables that are lost are made again from their copies.
    RestoreTables: "make tables again from their copies";
    /// Tables that lie on other metadata get a place of their own.
    MoveTables: "give tables that lie on other metadata a place of their own";
    /// Directory entries that lead nowhere are emptied: their tables could not be read, and there is no copy.
    DropTables: "empty directory entries that lead to no table";
    /// Redundant tables are made the same as the first.
    MatchCopies: "make redundant tables the same as the first";
    /// Redundant tables that are lost are made again.
    MakeCopies: "make lost redundant tables again";
    /// The grain directory is made again from the redundant one.
    RestoreDirectory: "make the grain directory again";
    /// The redundant grain directory is made again.
    MakeRedundantDirectory: "make the redundant grain directory again";
    /// The mark of a file that was not closed is taken away.
    ClearUnclean: "clear the mark of an unclean shutdown";
    /// The header of a stream is made again from its footer, or told where the grains begin.
    RestoreHeader: "make the header again from the footer and the markers";
    /// Tables, directory, footer and end marker of a stream are made again from the markers.
    RebuildTail: "make tables, footer and end marker again from the markers";
    /// Grains of a stream that claim the place of others are told to end before them.
    TrimGrains: "end grains of a stream where the next one begins";
    /// Damaged places of a stream are covered by markers, so that forward readers get over them.
    BridgeDamage: "cover damaged places with markers that readers skip";
    /// The end of a stream that holds no whole grain is cut off.
    CutTail: "cut off a last grain that is not whole";
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}, the first{}", self.file, self.kind.describe(), self.count, self.first)
    }
}

/// Counts changes of one file while they are made or planned.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    counts: BTreeMap<ActionKind, (u64, Place)>,
}

impl Ledger {
    pub(super) fn note(&mut self, kind: ActionKind, place: Place) {
        self.counts.entry(kind).or_insert((0, place)).0 += 1;
    }

    pub(super) fn into_actions(self, file: &str) -> impl Iterator<Item = Action> {
        self.counts.into_iter().map(move |(kind, (count, first))| Action { kind, file: file.to_owned(), count, first })
    }
}
