//! Patterns of paths, held against them name by name.

use crate::error::{Error, Result};

/// A pattern of paths, as shells have them: names with `/` between, from the directory on in which is searched.
///
/// | | matches |
/// |---|---|
/// | `*` | any characters of a name, none as well |
/// | `?` | one character |
/// | `[a-z_]`, `[!0-9]` | one of these, or none of these |
/// | `{jpg,png}` | either |
/// | `**` | any directories, none as well; at the end, all that is below |
/// | `\*` | the character itself |
///
/// A character is one of UTF-8; where a name is none, each byte is one. So `?` is `é` as well as a byte of Latin-1, and a
/// pattern can hold any bytes. Names that begin with a dot are like others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    alternatives: Vec<Vec<Part>>,
}

/// Whether `a` and `A` are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They are not.
    Regarded,
    /// They are, as are the letters of other scripts, one by one.
    Ignored,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty, a class or braces are not closed, `\` ends it, or it is larger than any search
    /// needs.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self> {
        let pattern = pattern.as_ref();
        let invalid = |why: &str| Error::Invalid(format!("the pattern \"{}\" {why}", pattern.escape_ascii()));
        if pattern.len() > MAX_LEN {
            return Err(Error::Invalid(format!("a pattern is longer than {MAX_LEN} bytes")));
        }
        let mut alternatives = Vec::new();
        // What is still to be expanded, the first one last.
        let mut open = vec![units(pattern)];
        while let Some(text) = open.pop() {
            match Braces::find(&text).map_err(invalid)? {
                Some(braces) => open.extend(braces.expand(&text).rev()),
                None => alternatives.push(parts(&text).map_err(invalid)?),
            }
            if open.len() + alternatives.len() > MAX_ALTERNATIVES {
                return Err(invalid("has too many alternatives"));
            }
        }
        Ok(Self { alternatives })
    }

    /// What may match at the start.
    pub(super) fn start(&self) -> Vec<State> {
        let mut states = Vec::new();
        (0..self.alternatives.len()).for_each(|alternative| self.reach(State { alternative, part: 0 }, &mut states));
        states
    }

    /// What may match after one more name.
    pub(super) fn step(&self, states: &[State], name: &Units, case: Case) -> Vec<State> {
        let mut after = Vec::new();
        for state in states {
            match self.part(state) {
                Some(Part::Directories) => self.reach(*state, &mut after),
                Some(Part::Name(tokens)) if is_match(tokens, &name.0, case) => self.reach(state.next(), &mut after),
                _ => {}
            }
        }
        after
    }

    /// Whether the path so far matches.
    pub(super) fn is_match(&self, states: &[State]) -> bool {
        states.iter().any(|state| self.part(state).is_none())
    }

    /// Whether longer paths may match.
    pub(super) fn goes_on(&self, states: &[State]) -> bool {
        states.iter().any(|state| self.part(state).is_some())
    }

    /// Adds a state, and those that need no further name.
    fn reach(&self, mut state: State, states: &mut Vec<State>) {
        while !states.contains(&state) {
            states.push(state);
            if self.part(&state) != Some(&Part::Directories) {
                break;
            }
            state = state.next();
        }
    }

    fn part(&self, state: &State) -> Option<&Part> {
        self.alternatives.get(state.alternative)?.get(state.part)
    }
}

/// How far an alternative has come: the part that the next name is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    alternative: usize,
    part: usize,
}

impl State {
    fn next(self) -> Self {
        Self { part: self.part + 1, ..self }
    }
}

/// A name as characters, and bytes that are none.
pub(super) struct Units(Vec<u32>);

impl Units {
    pub(super) fn new(name: &[u8], case: Case) -> Self {
        let mut units = units(name);
        if case == Case::Ignored {
            units.iter_mut().for_each(|unit| *unit = folded(*unit));
        }
        Self(units)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `**`
    Directories,
    Name(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Is(u32),
    Class { none_of: bool, ranges: Vec<(u32, u32)> },
}

impl Token {
    fn matches(&self, unit: u32, case: Case) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Is(wanted) if case == Case::Ignored => folded(*wanted) == unit,
            Self::Is(wanted) => *wanted == unit,
            Self::Class { none_of, ranges } => {
                let within = |unit| ranges.iter().any(|(first, last)| (*first..=*last).contains(&unit));
                let either = within(unit)
                    || case == Case::Ignored
                        && char::from_u32(unit).is_some_and(|upper| {
                            let mut lower = upper.to_lowercase();
                            lower.len() == 1 && lower.next().is_some_and(|lower| within(lower.into()))
                        });
                either != *none_of
            }
        }
    }
}

/// Where braces are: the first ones that are not in others.
struct Braces {
    open: usize,
    commas: Vec<usize>,
    close: usize,
}

impl Braces {
    fn find(text: &[u32]) -> Result<Option<Self>, &'static str> {
        let mut depth = 0_usize;
        let (mut open, mut commas) = (0, Vec::new());
        let mut at = 0;
        while let Some(unit) = text.get(at) {
            match char::from_u32(*unit) {
                Some('\\') => at += 1,
                Some('[') => at = class_end(text, at).ok_or(OPEN_CLASS)?,
                Some('{') => {
                    if depth == 0 {
                        open = at;
                    }
                    depth += 1;
                }
                Some(',') if depth == 1 => commas.push(at),
                Some('}') if depth == 1 => return Ok(Some(Self { open, commas, close: at })),
                Some('}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        if depth > 0 { Err("has braces that are not closed") } else { Ok(None) }
    }

    fn expand<'t>(&'t self, text: &'t [u32]) -> impl DoubleEndedIterator<Item = Vec<u32>> + 't {
        let starts: Vec<_> = [self.open].iter().chain(&self.commas).map(|start| start + 1).collect();
        let ends: Vec<_> = self.commas.iter().chain([&self.close]).copied().collect();
        starts
            .into_iter()
            .zip(ends)
            .map(|(start, end)| [&text[..self.open], &text[start..end], &text[self.close + 1..]].concat())
    }
}

fn parts(text: &[u32]) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    for name in split(text)? {
        let tokens = tokens(name)?;
        match &*tokens {
            [] => {}
            [Token::Any, Token::Any] => {
                if parts.last() != Some(&Part::Directories) {
                    parts.push(Part::Directories);
                }
            }
            _ => parts.push(Part::Name(tokens)),
        }
    }
    match parts.last() {
        None => return Err("names nothing"),
        // `a/**` is all that is in `a`, and not `a`.
        Some(Part::Directories) => parts.push(Part::Name(vec![Token::Any])),
        Some(Part::Name(_)) => {}
    }
    Ok(parts)
}

/// Cuts at the slashes.
fn split(text: &[u32]) -> Result<Vec<&[u32]>, &'static str> {
    let mut names = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(unit) = text.get(at) {
        match char::from_u32(*unit) {
            Some('\\') => at += 1,
            Some('[') => at = class_end(text, at).ok_or(OPEN_CLASS)?,
            Some('/') => {
                names.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    names.push(text.get(start..).unwrap_or_default());
    Ok(names)
}

fn tokens(name: &[u32]) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(unit) = name.get(at) {
        tokens.push(match char::from_u32(*unit) {
            Some('*') => Token::Any,
            Some('?') => Token::One,
            Some('\\') => {
                at += 1;
                Token::Is(
                    *name.get(at).ok_or("ends with a backslash, which stands for nothing; \"/\" is between names")?,
                )
            }
            Some('[') => {
                let end = class_end(name, at).ok_or(OPEN_CLASS)?;
                let class = class(&name[at + 1..end]);
                at = end;
                class
            }
            _ => Token::Is(*unit),
        });
        at += 1;
    }
    Ok(tokens)
}

/// Where the class ends that begins at `start`. `]` is one of its characters where it comes first.
fn class_end(text: &[u32], start: usize) -> Option<usize> {
    let mut first = start + 1;
    if matches!(text.get(first).copied().and_then(char::from_u32), Some('!' | '^')) {
        first += 1;
    }
    let end = text.get(first + 1..)?.iter().position(|unit| *unit == u32::from(']'))?;
    Some(first + 1 + end)
}

fn class(inside: &[u32]) -> Token {
    let (none_of, mut rest) = match inside {
        [first, rest @ ..] if matches!(char::from_u32(*first), Some('!' | '^')) => (true, rest),
        _ => (false, inside),
    };
    let mut ranges = Vec::new();
    loop {
        rest = match rest {
            [] => break,
            [first, dash, last, rest @ ..] if *dash == u32::from('-') => {
                ranges.push((*first, *last));
                rest
            }
            [one, rest @ ..] => {
                ranges.push((*one, *one));
                rest
            }
        };
    }
    Token::Class { none_of, ranges }
}

/// After a mismatch only the last `*` takes one more: that is enough, and bounds the work by the product of both lengths.
fn is_match(tokens: &[Token], name: &[u32], case: Case) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut retry = None;
    loop {
        match (tokens.get(token), name.get(at)) {
            (Some(Token::Any), _) => {
                retry = Some((token + 1, at));
                token += 1;
                continue;
            }
            (Some(wanted), Some(unit)) if wanted.matches(*unit, case) => {
                (token, at) = (token + 1, at + 1);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match retry {
            Some((after, from)) if from < name.len() => {
                retry = Some((after, from + 1));
                (token, at) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

fn units(bytes: &[u8]) -> Vec<u32> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        units.extend(chunk.valid().chars().map(u32::from));
        units.extend(chunk.invalid().iter().map(|byte| NO_CHARACTER + u32::from(*byte)));
    }
    units
}

/// The capital letter, where there is just one: that is how NTFS compares.
fn folded(unit: u32) -> u32 {
    let Some(char) = char::from_u32(unit) else { return unit };
    let mut upper = char.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) => upper.into(),
        _ => unit,
    }
}

/// Bytes that are no characters come after all characters.
const NO_CHARACTER: u32 = 0x11_0000;
/// As long as a path can be.
const MAX_LEN: usize = 4096;
const MAX_ALTERNATIVES: usize = 1000;
const OPEN_CLASS: &str = "has a class that is not closed";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches_with(pattern: &[u8], path: &[u8], case: Case) -> bool {
        let pattern = Pattern::new(pattern).unwrap();
        let states = path
            .split(|byte| *byte == b'/')
            .fold(pattern.start(), |states, name| pattern.step(&states, &Units::new(name, case), case));
        pattern.is_match(&states)
    }

    fn matches(pattern: &str, path: &str) -> bool {
        matches_with(pattern.as_bytes(), path.as_bytes(), Case::Regarded)
    }

    #[test]
    fn stars_stay_in_their_name_and_two_of_them_do_not() {
        assert!(matches("*.conf", "a.conf") && matches("a*b*c", "aXbXbc") && matches("*", ".hidden"));
        assert!(!matches("*.conf", "etc/a.conf") && !matches("a*", "ba") && !matches("*a", "ab"));
        assert!(matches("**/*.conf", "a.conf") && matches("**/*.conf", "etc/x/y/a.conf"));
        assert!(matches("a/**/z", "a/z") && matches("a/**/z", "a/b/z/z") && !matches("a/**/z", "b/z"));
        assert!(matches("a/**", "a/b/c") && !matches("a/**", "a") && !matches("a/**", "b/c"));
        assert!(matches("/etc//passwd/", "etc/passwd"));
    }

    #[test]
    fn a_character_is_one_of_utf_8_or_a_byte() {
        assert!(matches("caf?", "caf\u{e9}") && matches("[\u{e0}-\u{ff}]", "\u{e9}") && !matches("caf?", "caf"));
        assert!(matches_with(b"caf?", b"caf\xe9", Case::Regarded) && matches_with(b"\xff*", b"\xffx", Case::Regarded));
        assert!(!matches_with(b"caf??", b"caf\xe9", Case::Regarded));
    }

    #[test]
    fn classes_and_alternatives_hold_what_they_name() {
        assert!(
            matches("[a-c]1", "b1") && !matches("[a-c]1", "d1") && matches("[!a-c]1", "d1") && matches("[]-]", "-")
        );
        assert!(matches("[]-]", "]") && matches("[{,}]", "{") && !matches("a[/]b", "a"));
        assert!(matches("*.{jpg,p{n,pn}g}", "x.png") && matches("*.{jpg,p{n,pn}g}", "x.ppng") && matches("{a,}b", "b"));
        assert!(!matches("*.{jpg,png}", "x.gif") && matches("{etc,var/**}/x", "var/a/b/x"));
        assert!(matches(r"\*\{a", "*{a") && !matches(r"\*", "a"));
    }

    #[test]
    fn case_is_ignored_where_it_is_to_be() {
        let matches = |pattern: &str, path: &str| matches_with(pattern.as_bytes(), path.as_bytes(), Case::Ignored);
        assert!(matches("windows/*.DLL", "Windows/a.dll") && matches("[a-z]\u{c9}", "Q\u{e9}"));
        assert!(matches("[A-Z]", "q") && !matches("[!A-Z]", "q"));
    }

    #[test]
    fn a_pattern_that_cannot_be_is_refused() {
        for bad in ["", "/", "[a", "[", "[!]", "{a,b", r"a\", &"{a,b}".repeat(12), &"a".repeat(5000)] {
            assert!(matches!(Pattern::new(bad), Err(Error::Invalid(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_read_or_refused_and_held_against_any_path(pattern in ".{0,12}", path in ".{0,12}") {
            if let Ok(read) = Pattern::new(&pattern) {
                let name = Units::new(path.as_bytes(), Case::Ignored);
                let _ = read.is_match(&read.step(&read.start(), &name, Case::Ignored));
            }
        }

        #[test]
        fn a_name_matches_itself_when_it_is_escaped(name in "[^/\0]{1,20}") {
            let escaped: String = name.chars().flat_map(|char| ['\\', char]).collect();
            prop_assert!(matches(&escaped, &name));
        }

        #[test]
        fn stars_are_what_a_search_by_recursion_finds(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], []) => true,
                    ([b'*', rest @ ..], name) => (0..=name.len()).any(|cut| slow(rest, &name[cut..])),
                    ([b'?', rest @ ..], [_, name @ ..]) => slow(rest, name),
                    ([wanted, rest @ ..], [byte, name @ ..]) => wanted == byte && slow(rest, name),
                    _ => false,
                }
            }
            prop_assume!(pattern != "**" && !name.is_empty());
            prop_assert_eq!(matches(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
