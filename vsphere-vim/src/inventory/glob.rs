//! Patterns of names: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character that means itself.

/// A pattern of a path: one element for each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `**`: any number of levels, none included.
    AnyDepth,
    /// A name without wildcards.
    Name(String),
    /// A name with wildcards.
    Pattern(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(char),
    AnyOne,
    AnyText,
    OneOf { ranges: Vec<(char, char)>, except: bool },
}

/// Reads `dc*/vm/**/web-?`; the error says what is wrong.
pub(super) fn parse(path: &str) -> Result<Vec<Step>, String> {
    path.split('/').filter(|part| !part.is_empty()).map(step).collect()
}

fn step(part: &str) -> Result<Step, String> {
    if part == "**" {
        return Ok(Step::AnyDepth);
    }
    let mut tokens = Vec::new();
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::AnyText,
            '?' => Token::AnyOne,
            '\\' => Token::Text(chars.next().ok_or_else(|| format!("{part:?} ends with a backslash"))?),
            '[' => class(&mut chars).ok_or_else(|| format!("{part:?} has a bracket that does not close"))?,
            '%' => Token::Text(escaped(&mut chars)),
            other => Token::Text(other),
        });
    }
    let plain: Option<String> =
        tokens.iter().map(|token| if let Token::Text(c) = token { Some(*c) } else { None }).collect();
    Ok(plain.map_or(Step::Pattern(tokens), Step::Name))
}

fn class(chars: &mut std::str::Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let mut except = false;
    let mut first = true;
    loop {
        let from = match chars.next()? {
            '!' | '^' if first && !except => {
                except = true;
                continue;
            }
            // A bracket that comes first means itself.
            ']' if !first => return Some(Token::OneOf { ranges, except }),
            '\\' => chars.next()?,
            '%' => escaped(chars),
            other => other,
        };
        first = false;
        let mut ahead = chars.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                *chars = ahead;
                to
            }
            _ => from,
        };
        ranges.push((from, to));
    }
}

impl Step {
    /// Whether a name as the server shows it fits; never for [`Step::AnyDepth`], which is no name.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = unescape(name);
        match self {
            Self::AnyDepth => false,
            Self::Name(wanted) => *wanted == name,
            Self::Pattern(tokens) => fits(tokens, &name.chars().collect::<Vec<_>>()),
        }
    }
}

/// Matches with one step back to the last star: time grows with the product of the lengths, never faster.
fn fits(tokens: &[Token], text: &[char]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while pos < text.len() {
        let here = text[pos];
        let one = match tokens.get(at) {
            Some(Token::AnyText) => {
                star = Some((at, pos));
                at += 1;
                continue;
            }
            Some(Token::AnyOne) => true,
            Some(Token::Text(wanted)) => *wanted == here,
            Some(Token::OneOf { ranges, except }) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&here)) != *except
            }
            None => false,
        };
        if one {
            at += 1;
            pos += 1;
        } else if let Some((star_at, star_pos)) = star {
            at = star_at + 1;
            pos = star_pos + 1;
            star = Some((star_at, pos));
        } else {
            return false;
        }
    }
    tokens[at..].iter().all(|token| *token == Token::AnyText)
}

/// `%2f`, `%5c` and `%25` stand in names for the slash, the backslash and the percent sign.
pub(super) fn unescape(name: &str) -> String {
    let mut chars = name.chars();
    let mut out = String::with_capacity(name.len());
    while let Some(c) = chars.next() {
        out.push(if c == '%' { escaped(&mut chars) } else { c });
    }
    out
}

/// What a percent sign begins, which was just read: one of the three escapes, or itself.
fn escaped(chars: &mut std::str::Chars<'_>) -> char {
    let rest = chars.as_str();
    let meant = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("2f") => '/',
        Some("5c") => '\\',
        Some("25") => '%',
        _ => return '%',
    };
    *chars = rest[2..].chars();
    meant
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        parse(pattern).unwrap()[0].matches(name)
    }

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, yes, no) in [
            ("web-?", &["web-1", "web-é"][..], &["web-", "web-12"][..]),
            ("web*", &["web", "web-1"], &["xweb"]),
            ("*web*", &["my web 1", "web"], &["wbe"]),
            ("a*b*c", &["abc", "a--b--c", "abbcc"], &["ab", "acb"]),
            ("[a-c][!0-9]", &["ax", "c-"], &["d0", "a1", "a"]),
            ("[]]x", &["]x"], &["x"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("\\*", &["*"], &["x"]),
            ("a%2fb", &["a/b", "a%2fb", "a%2Fb"], &["a%b"]),
            ("100%", &["100%", "100%25"], &["100"]),
            // An escape stands for the character itself, never for what the character does in a pattern.
            ("a%5cb?", &["a\\bc", "a%5cbc"], &["abc"]),
            ("x%5c", &["x\\", "x%5C"], &["x"]),
            ("[%5c%2f]", &["\\", "/", "%2f"], &["5", "%"]),
        ] {
            assert!(yes.iter().all(|name| matches(pattern, name)), "{pattern}");
            assert!(!no.iter().any(|name| matches(pattern, name)), "{pattern}");
        }
    }

    #[test]
    fn paths_are_split_into_levels() {
        assert_eq!(
            parse("/dc1//vm/**/a").unwrap()[..3],
            [Step::Name("dc1".into()), Step::Name("vm".into()), Step::AnyDepth]
        );
        assert!(parse("a[b").is_err());
        assert!(parse("a\\").is_err());
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_no_pattern_panics(name in "[^/\\\\*?\\[\\]%]{1,12}", pattern in ".{0,12}") {
            prop_assert!(matches(&name, &name));
            let star = format!("*{name}*");
            prop_assert!(matches(&star, &name));
            if let Ok(steps) = parse(&pattern) {
                for step in steps {
                    let _ = step.matches(&name);
                }
            }
        }
    }
}
