//! One link: its descriptor, and the extents that it names.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    chain::Checker,
    cowd::check_cowd,
    problem::Problem,
    report::Place,
    sesparse::check_sesparse,
    sparse::{ExtentFacts, check_sparse},
};
use crate::{
    SECTOR,
    descriptor::{Cid, Descriptor, ExtentAccess, ExtentLine, ExtentType},
    disk::{Access, read_descriptor},
    error::{Error, Result},
    extent::Backing,
    layout::Magic,
};

/// What a link says about itself and its parent.
#[derive(Debug)]
pub(super) struct LinkFacts {
    pub(super) cid: Option<Cid>,
    pub(super) parent_cid: Cid,
    pub(super) hint: Option<String>,
    /// Size in bytes.
    pub(super) capacity: Option<u64>,
}

impl Default for LinkFacts {
    fn default() -> Self {
        Self { cid: None, parent_cid: Cid::NONE, hint: None, capacity: None }
    }
}

impl Checker<'_> {
    /// Checks one link, whatever kind of file it is.
    pub(super) fn link(&mut self, path: &Path, backing: &Backing) -> Result<LinkFacts> {
        self.report.usage_mut().links += 1;
        let start = first_bytes(backing)?;
        if Magic::of(&start).is_some() {
            let facts = self.extent_file(path, backing)?;
            return Ok(self.embedded(&backing.name, &facts));
        }
        if Descriptor::probe(&start) {
            return match read_descriptor(backing, 0, backing.len()?) {
                Ok(descriptor) => self.described(path, &descriptor),
                Err(error) => {
                    self.found(Problem::DescriptorDamaged, &backing.name, error.to_string());
                    Ok(LinkFacts::default())
                }
            };
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("vmdk")) {
            self.found(Problem::NotAnImage, &backing.name, "neither a descriptor nor a sparse extent");
        }
        Ok(LinkFacts { capacity: Some(backing.len()?), ..LinkFacts::default() })
    }

    /// Checks a file by itself.
    pub(super) fn single(&mut self, backing: &Backing) -> Result<()> {
        self.report.usage_mut().links += 1;
        if Magic::of(&first_bytes(backing)?).is_none() {
            self.found(Problem::NotAnImage, &backing.name, "no sparse extent");
            return Ok(());
        }
        let facts = self.by_magic(backing)?;
        self.embedded(&backing.name, &facts);
        Ok(())
    }

    /// A link whose descriptor, if any, is inside of its only extent.
    fn embedded(&mut self, name: &str, facts: &ExtentFacts) -> LinkFacts {
        let Some(descriptor) = &facts.descriptor else {
            return LinkFacts { capacity: facts.capacity_sectors.map(|size| size * SECTOR), ..LinkFacts::default() };
        };
        let link = self.texts(name, descriptor);
        match descriptor.extents() {
            Ok(lines) if lines.len() > 1 => {
                self.found(Problem::NotSupported, name, "an embedded descriptor with several extents");
            }
            Ok(lines) => {
                if let Some((line, size)) = lines.first().zip(facts.capacity_sectors) {
                    self.compare_sizes(name, line, size);
                }
            }
            Err(_) => {} // Said by `texts`.
        }
        link
    }

    /// A link with a text descriptor of its own.
    fn described(&mut self, path: &Path, descriptor: &Descriptor) -> Result<LinkFacts> {
        let name = path.display().to_string();
        let facts = self.texts(&name, descriptor);
        let lines = descriptor.extents().unwrap_or_default();
        if lines.is_empty() && facts.capacity.is_some() {
            self.found(Problem::DescriptorDamaged, &name, "there are no extents");
        }
        let mut flat = Vec::new();
        for line in &lines {
            self.extent(path, &name, line, &mut flat)?;
        }
        flat.sort_by(|(file, range), (other, next)| (file, range.start).cmp(&(other, next.start)));
        // The extent before that reaches farthest: a long one may lie under many.
        let mut farthest: Option<(&Path, u64)> = None;
        for (file, range) in &flat {
            let before = farthest.filter(|(other, _)| file == other);
            if let Some((_, end)) = before
                && range.start < end
            {
                let detail = format!("bytes from {} on of {} are used twice", range.start, file.display());
                self.found(Problem::ExtentsOverlap, &name, detail);
            }
            farthest = Some((file, before.map_or(range.end, |(_, end)| end.max(range.end))));
        }
        Ok(facts)
    }

    /// Checks what the lines of a descriptor say.
    fn texts(&mut self, name: &str, descriptor: &Descriptor) -> LinkFacts {
        let mut value = |result: Result<Cid>| {
            result
                .map_err(|error| self.report.add(Problem::DescriptorDamaged, name, Place::default(), error.to_string()))
        };
        let cid = descriptor.value("CID").and_then(|text| value(Cid::parse(&text)).ok());
        let parent_cid = value(descriptor.parent_cid()).unwrap_or(Cid::NONE);
        let capacity = match descriptor.capacity() {
            Ok(capacity) => Some(capacity),
            Err(error) => {
                self.found(Problem::DescriptorDamaged, name, error.to_string());
                None
            }
        };
        if let Some((long, cid)) = descriptor.ddb_get("longContentID").zip(cid) {
            let low = long.trim().get(24..).and_then(|digits| Cid::parse(digits).ok());
            if low.is_none_or(|low| low != cid && cid != Cid::LONG) {
                let detail = format!("longContentID {long:?} does not end in {cid}");
                self.found(Problem::LongContentIdWrong, name, detail);
            }
        }
        let hint = match descriptor.parent_file_name_hint() {
            Ok(hint) => hint.map(|hint| hint.into_owned()),
            Err(error) => {
                self.found(Problem::DescriptorDamaged, name, error.to_string());
                None
            }
        };
        LinkFacts { cid, parent_cid, hint, capacity }
    }

    fn extent(
        &mut self,
        descriptor: &Path,
        name: &str,
        line: &ExtentLine,
        flat: &mut Vec<(PathBuf, Range<u64>)>,
    ) -> Result<()> {
        let is_sparse = match line.kind {
            ExtentType::Zero => return Ok(()),
            ExtentType::Flat | ExtentType::Vmfs => false,
            ExtentType::Sparse | ExtentType::VmfsSparse | ExtentType::SeSparse => true,
            _ => {
                let detail = format!("an extent of type {}: its bytes are out of reach", line.kind.name());
                self.found(Problem::NotSupported, name, detail);
                return Ok(());
            }
        };
        if line.access == ExtentAccess::NoAccess {
            self.found(Problem::NotSupported, name, "a NOACCESS extent: its bytes must not be read");
            return Ok(());
        }
        let Some(path) = self.locate(descriptor, line.file_name.as_deref().unwrap_or_default()) else {
            return Ok(());
        };
        let backing = match self.options.resolver.open(&path, Access::ReadOnly) {
            Ok(handle) => Backing::new(path.display().to_string(), handle),
            Err(error) => return self.missing(name, &path, error),
        };
        if is_sparse {
            let identity = self.identity(&path)?;
            if self.walked.contains(&identity) {
                self.found(Problem::ExtentsOverlap, name, format!("{} is an extent twice", path.display()));
                return Ok(());
            }
            let facts = self.extent_file(&path, &backing)?;
            if let Some(size) = facts.capacity_sectors {
                self.compare_sizes(&backing.name, line, size);
            }
            return Ok(());
        }
        let len = backing.len()?;
        let end = line.offset().saturating_add(line.len());
        if end > len {
            let detail = format!("it has {len} bytes, its descriptor needs {end}");
            self.found(Problem::ExtentTooShort, &backing.name, detail);
        }
        flat.push((self.identity(&path)?, line.offset()..end));
        Ok(())
    }

    /// Checks an extent file that was not checked before.
    fn extent_file(&mut self, path: &Path, backing: &Backing) -> Result<ExtentFacts> {
        let identity = self.identity(path)?;
        self.walked.insert(identity);
        self.by_magic(backing)
    }

    fn by_magic(&mut self, backing: &Backing) -> Result<ExtentFacts> {
        let name = &*backing.name;
        let outcome = match Magic::of(&first_bytes(backing)?) {
            Some(Magic::Kdmv) => check_sparse(backing, self.options, &mut self.report),
            Some(Magic::Cowd) => check_cowd(backing, self.options, &mut self.report),
            Some(Magic::SeSparse) => check_sesparse(backing, self.options, &mut self.report),
            None => {
                self.found(Problem::NotAnImage, name, "its descriptor calls it sparse, but it has no such header");
                return Ok(ExtentFacts::default());
            }
        };
        match outcome {
            // A file that shrinks under the check, or a claim that only a read could disprove.
            Err(error @ Error::Malformed { .. }) => {
                self.found(Problem::HeaderDamaged, name, error.to_string());
                Ok(ExtentFacts::default())
            }
            other => other,
        }
    }

    fn compare_sizes(&mut self, name: &str, line: &ExtentLine, size: u64) {
        let detail = format!("it has {size} sectors, its descriptor says {}", line.size_sectors);
        if size < line.size_sectors {
            self.found(Problem::SizeMismatch, name, detail);
        } else if size > line.size_sectors {
            self.found(Problem::ExtentLarger, name, detail);
        }
    }

    fn found(&mut self, problem: Problem, name: &str, detail: impl Into<String>) {
        self.report.add(problem, name, Place::default(), detail);
    }
}

fn first_bytes(backing: &Backing) -> Result<Vec<u8>> {
    const PROBE_BYTES: u64 = 4096;
    let mut start = vec![0; backing.len()?.min(PROBE_BYTES) as usize];
    backing.read(0, &mut start)?;
    Ok(start)
}
