//! The text of LVM2: sections, numbers, strings and lists.

use crate::error::{Error, Result};

/// What stands between braces.
#[derive(Debug, Default)]
pub(super) struct Section(Vec<(String, Node)>);

#[derive(Debug)]
enum Node {
    Section(Section),
    Value(Value),
}

/// What stands behind `=`.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
}

impl Section {
    /// Reads a text.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let mut reader = Reader { text, at: 0, values: 0 };
        let section = reader.section(0)?;
        match reader.peek() {
            None => Ok(section),
            Some(_) => Err(reader.damaged("a brace too many")),
        }
    }

    /// The sections in it, with their names.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((&**name, section)),
            Node::Value(_) => None,
        })
    }

    /// A section in it.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections().find(|(found, _)| *found == name).map(|(_, section)| section)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find_map(|(found, node)| match node {
            Node::Value(value) if found == name => Some(value),
            _ => None,
        })
    }

    /// Whether it says anything of this.
    pub(super) fn has_value(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// A number that is not negative.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list; empty when there is none.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        match self.value(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Whether a list has a string.
    pub(super) fn has(&self, list: &str, word: &str) -> bool {
        self.list(list).iter().any(|value| matches!(value, Value::Text(text) if text == word))
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    values: usize,
}

impl Reader<'_> {
    /// Everything up to the brace that closes the section, or to the end.
    fn section(&mut self, depth: usize) -> Result<Section> {
        let mut section = Section::default();
        while let Some(byte) = self.peek() {
            if byte == b'}' {
                break;
            }
            let name = self.word()?;
            self.count()?;
            let node = match self.peek() {
                Some(b'=') => {
                    self.at += 1;
                    Node::Value(self.value(0)?)
                }
                Some(b'{') if depth < MAX_DEPTH => {
                    self.at += 1;
                    let inner = self.section(depth + 1)?;
                    if self.peek() != Some(b'}') {
                        return Err(self.damaged("a section does not end"));
                    }
                    self.at += 1;
                    Node::Section(inner)
                }
                Some(b'{') => return Err(self.damaged("too many sections in each other")),
                _ => return Err(self.damaged("neither `=` nor `{`")),
            };
            section.0.push((name, node));
        }
        Ok(section)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        self.count()?;
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'[') if depth < MAX_DEPTH => {
                self.at += 1;
                let mut list = Vec::new();
                loop {
                    match self.peek() {
                        Some(b']') => break,
                        Some(b',') => self.at += 1,
                        Some(_) => list.push(self.value(depth + 1)?),
                        None => return Err(self.damaged("a list does not end")),
                    }
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            Some(_) => {
                let word = self.word()?;
                // Nothing that is needed here has a fraction.
                let whole = word.split('.').next().unwrap_or_default();
                whole.parse().map(Value::Number).map_err(|_| self.damaged("a value that is no number"))
            }
            None => Err(self.damaged("a value is missing")),
        }
    }

    fn string(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            let byte = self.text.get(self.at).copied().ok_or_else(|| self.damaged("a string does not end"))?;
            self.at += 1;
            match byte {
                b'"' => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => {
                    bytes.extend(self.text.get(self.at));
                    self.at += 1;
                }
                byte => bytes.push(byte),
            }
        }
    }

    /// A name or a number.
    fn word(&mut self) -> Result<String> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"={}[],\"#".contains(byte);
        let len = rest.iter().position(is_end).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.damaged("a name is missing"));
        }
        self.at += len;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    /// The next byte that is no space and in no comment; a NUL ends the text.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                0 => return None,
                b'#' => {
                    let rest = self.text.get(self.at..)?;
                    self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                }
                byte if byte.is_ascii_whitespace() => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn count(&mut self) -> Result<()> {
        self.values += 1;
        if self.values > MAX_VALUES { Err(self.damaged("too many values")) } else { Ok(()) }
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::damaged("LVM2 metadata", format!("{problem} at byte {}", self.at))
    }
}

/// Groups have sections four deep.
const MAX_DEPTH: usize = 8;
/// Bounds the memory that a text takes.
const MAX_VALUES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_values_lists_and_comments_are_read() {
        let text = b"vg0 {\n\tid = \"a-b\" # id\n\tflags = []\n\tpairs = [\"pv0\", 0, \"p\\\"1\", -3]\n\tin { n = 7 }\n}\n# end\nv = 1.5\n\0junk";
        let section = Section::parse(text).unwrap();
        let group = section.section("vg0").unwrap();
        assert_eq!(group.text("id"), Some("a-b"));
        assert_eq!((group.list("flags").len(), group.list("pairs").len()), (0, 4));
        assert!(group.has("pairs", "p\"1") && !group.has("pairs", "0"));
        assert_eq!(group.list("pairs")[3], Value::Number(-3));
        assert_eq!(group.section("in").unwrap().number("n"), Some(7));
        assert_eq!(section.number("v"), Some(1));
        assert_eq!((group.number("id"), group.text("none"), group.number("pairs")), (None, None, None));
    }

    #[test]
    fn what_is_no_such_text_is_refused() {
        let deep = "a { ".repeat(10);
        let lists = format!("a = {}", "[".repeat(1000));
        for text in ["a", "a =", "a = [1", "a = \"x", "a {", "}", "a = b", "= 1", "a = \"\\", &deep, &lists] {
            assert!(Section::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
