//! `--name value` arguments, as small as examples can do with.

use std::collections::BTreeMap;

/// The arguments of the program: `--name value` and `--flag`.
#[derive(Debug, Default)]
pub struct Args(BTreeMap<String, Option<String>>);

impl Args {
    /// Reads the program's arguments; `known` names those that take a value (`name=`) and the flags (`name`).
    ///
    /// # Errors
    /// A sentence for the user: what is wrong and what is allowed.
    pub fn read(known: &[&str]) -> Result<Self, String> {
        Self::parse(std::env::args().skip(1), known)
    }

    fn parse(words: impl Iterator<Item = String>, known: &[&str]) -> Result<Self, String> {
        let usage = || {
            let list = known.iter().map(|name| match name.strip_suffix('=') {
                Some(name) => format!("[--{name} {}]", name.to_uppercase()),
                None => format!("[--{name}]"),
            });
            format!("arguments: {}", list.collect::<Vec<_>>().join(" "))
        };
        let mut out = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("what is '{word}'? {}", usage()))?;
            if known.contains(&name) {
                out.0.insert(name.to_owned(), None);
            } else if known.contains(&format!("{name}=").as_str()) {
                let value = words.next().ok_or_else(|| format!("--{name} needs a value. {}", usage()))?;
                out.0.insert(name.to_owned(), Some(value));
            } else {
                return Err(usage());
            }
        }
        Ok(out)
    }

    /// The value of `--name`, where given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }

    /// Whether `--name` was given.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value of `--name`.
    ///
    /// # Errors
    /// A sentence for the user when it is missing.
    pub fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("--{name} is needed (or --simulate for a run on the embedded simulator)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_flags_and_mistakes_are_told_apart() {
        let parse = |words: &[&str]| Args::parse(words.iter().map(ToString::to_string), &["disk=", "simulate"]);
        let args = parse(&["--disk", "a.raw", "--simulate"]).unwrap();
        assert_eq!((args.get("disk"), args.has("simulate")), (Some("a.raw"), true));
        for wrong in [&["x"][..], &["--disk"], &["--other"]] {
            assert!(parse(wrong).is_err());
        }
    }
}
