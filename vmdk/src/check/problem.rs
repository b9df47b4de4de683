//! What a check can find: the kinds of problems, how bad each is, and what to do about it.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// All data read well; something is untidy or a safety net is gone.
    Harmless,
    /// Space of the file is used by nothing.
    Leak,
    /// Data are lost or doubtful.
    Damaged,
    /// The disk, or a link of it, cannot be opened.
    CannotOpen,
}

impl Severity {
    /// The severity in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Leak => "leak",
            Self::Damaged => "damaged data",
            Self::CannotOpen => "cannot be opened",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Defines [`Problem`] with the severity and the advice of each kind, so that none can be forgotten.
macro_rules! problems {
    ($($(#[doc = $doc:literal])+ $name:ident: $severity:ident, $advice:literal;)+) => {
        /// A kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Problem {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Problem {
            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

            /// What to do.
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)+
                }
            }
        }
    };
}

problems! {
    // ---- Files and descriptors ----

    /// The file is neither a descriptor nor an extent of a known kind.
    NotAnImage: CannotOpen, "take it from another copy; a flat extent is opened as raw";
    /// The file, or a part of it, is of a kind that this crate does not handle.
    NotSupported: CannotOpen, "use the program that made it";
    /// The descriptor cannot be understood, or lies outside of the file.
    DescriptorDamaged: CannotOpen, "restore the descriptor from a copy, or write a new one for the extents";
    /// The descriptor and the extent disagree about the size.
    SizeMismatch: CannotOpen, "correct the extent line if the extent is whole, else take the extent from another copy";
    /// The extent is larger than the descriptor says; what is behind is not part of the disk.
    ExtentLarger: Harmless, "nothing; readers use what the descriptor says";
    /// A file that the descriptor names is not there.
    FileMissing: CannotOpen, "put all files of the disk into the descriptor's directory";
    /// A descriptor names a file that the path policy forbids.
    PathRefused: CannotOpen, "if the image is trusted, check it with PathPolicy::Any";
    /// A flat extent is shorter than the descriptor says.
    ExtentTooShort: CannotOpen, "the file was cut: take it from another copy";
    /// Two extents use the same bytes of one file.
    ExtentsOverlap: Damaged, "correct the extent lines; a write to one place would change another";

    // ---- Headers ----

    /// A header contradicts its format.
    HeaderDamaged: CannotOpen, "repair it from the footer if it is a stream, else take the file from another copy";
    /// The bytes that show a transfer in text mode are changed.
    TextTransfer: CannotOpen, "transfer the file again, in binary mode: its data are changed too";
    /// The file was not closed after the last write.
    UncleanShutdown: Harmless, "repair clears the mark when nothing else is wrong";
    /// The number of sectors before the data is wrong.
    OverheadWrong: Harmless, "nothing for readers; writers may refuse grains there";

    // ---- Directories and tables ----

    /// The grain directory does not lie inside the file.
    DirectoryOutside: CannotOpen, "repair rebuilds it from the redundant one or from the markers";
    /// The redundant grain directory does not lie inside the file.
    RedundantDirectoryOutside: Damaged, "repair makes a new one; until then writers refuse the file";
    /// A grain table does not lie inside the file.
    TableOutside: Damaged, "repair takes the redundant table, or drops the entry";
    /// A grain table lies on other metadata.
    TableOverlap: Damaged, "repair gives each table its own place";
    /// The two directories share tables, so that neither is a copy of the other.
    NotRedundant: Harmless, "repair makes a copy";
    /// A grain has different places in the two tables.
    TablesDiffer: Harmless, "repair makes both tables the same; readers use the first";
    /// A redundant table is missing, outside of the file or on other metadata.
    RedundantTableLost: Harmless, "repair makes it again from the first";
    /// A redundant table has what the first has lost.
    TableMissing: Damaged, "repair takes the redundant table";

    // ---- Grains ----

    /// A grain does not lie inside the file.
    GrainOutside: Damaged, "the file was cut, or the entry is damaged: take the file from another copy, or drop the entry by a repair";
    /// A grain lies on metadata.
    GrainInMetadata: Damaged, "repair moves what the grain reads now to a place of its own";
    /// Two grains lie at one place.
    GrainOverlap: Damaged, "repair gives each its own copy; which of the two is right is known to the guest only";
    /// A grain does not start at a multiple of its size.
    GrainUnaligned: Harmless, "nothing for readers";
    /// A table has entries for grains behind the end of the disk.
    EntryBeyondEnd: Harmless, "nothing: they are never read";
    /// Space is used by nothing.
    Leaked: Leak, "copy the disk to get the space back";

    // ---- Streams ----

    /// The last sectors of the stream, its footer and end marker, are missing or damaged.
    StreamTruncated: CannotOpen, "repair rebuilds the tables from the markers; data behind the cut are lost";
    /// Header and footer describe different disks.
    FooterDiffers: CannotOpen, "repair takes the one that fits the markers";
    /// The stream has no end marker where one is due.
    EndMarkerMissing: Harmless, "nothing for random access; repair adds it";
    /// There is no marker, or the wrong one, where one is due.
    MarkerDamaged: Damaged, "repair drops what has no marker, and keeps the rest";
    /// A marker and the tables disagree about a grain's place on the disk.
    MarkerMismatch: Damaged, "repair believes the marker, which stands beside the data";
    /// A grain of the stream is in no table.
    GrainNotInTable: Damaged, "repair puts it into the tables";
    /// A grain comes twice.
    GrainTwice: Harmless, "nothing: readers use the one in the tables";
    /// Grains are not in ascending order.
    OutOfOrder: Harmless, "strict readers of streams refuse this: copy the disk to a new stream";
    /// A grain's compressed data are damaged.
    GrainDamaged: Damaged, "take the file from another copy";

    // ---- Redo logs ----

    /// The header's first free sector lies inside of used space, or outside of the file.
    FreeSectorWrong: Damaged, "do not write to it before a repair: new data would overwrite old";
    /// The journal holds changes that were not applied.
    JournalPending: CannotOpen, "let the host that wrote it open and close it once";

    // ---- Chains ----

    /// The parent was changed after the child was made, or is another disk.
    CidMismatch: CannotOpen, "restore the parent as it was; if it surely is, re-link the chain";
    /// The long content id does not end in the content id.
    LongContentIdWrong: Harmless, "re-link the chain: programs that use the long id may refuse it";
    /// The link has a parent, but does not say where.
    NoParentHint: CannotOpen, "re-link the chain, naming the parent";
    /// A file is its own ancestor.
    Cycle: CannotOpen, "correct parentFileNameHint";
    /// The chain has more links than allowed.
    TooDeep: CannotOpen, "consolidate it with the program that made it";
    /// The parent is larger than its child: its end cannot be seen.
    ParentLarger: Harmless, "check that it is the right parent";
}
