//! A trace as text: a line a message, zeros counted instead of written.

use std::fmt;
use std::str::FromStr;

use super::{Event, Side, Trace};

const FIRST_LINE: &str = "nfc-trace 1";
const CUT_SHORT: &str = "cut short";
/// Zeros in a row that are worth a word of their own.
const RUN: usize = 8;
/// The longest message that is taken from a text, without its data.
const MAX_BYTES: usize = 1 << 20;

/// A text that is not a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the trace: {what}")]
pub struct ParseTraceError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        for event in &self.events {
            f.write_str(if event.from == Side::Client { "C" } else { "S" })?;
            write_bytes(f, &event.bytes)?;
            if event.zeros > 0 {
                write!(f, " +0*{}", event.zeros)?;
            }
            writeln!(f)?;
        }
        if self.cut_short { writeln!(f, "{CUT_SHORT}") } else { Ok(()) }
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, mut bytes: &[u8]) -> fmt::Result {
    while !bytes.is_empty() {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        if zeros >= RUN {
            write!(f, " 0*{zeros}")?;
            bytes = &bytes[zeros..];
            continue;
        }
        f.write_str(" ")?;
        // Up to the next run that is worth a word.
        let end = bytes.windows(RUN).position(|window| window.iter().all(|byte| *byte == 0)).unwrap_or(bytes.len());
        for byte in &bytes[..end] {
            write!(f, "{byte:02x}")?;
        }
        bytes = &bytes[end..];
    }
    Ok(())
}

impl FromStr for Trace {
    type Err = ParseTraceError;

    fn from_str(text: &str) -> Result<Self, ParseTraceError> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let wrong = |line, what| ParseTraceError { line, what };
        if lines.next().is_none_or(|(_, line)| line != FIRST_LINE) {
            return Err(wrong(1, "it is not the first line of a trace of version 1"));
        }
        let mut trace = Self::default();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            if line == CUT_SHORT {
                trace.cut_short = true;
                continue;
            }
            let event = event(line).map_err(|what| wrong(number, what))?;
            trace.events.push(event);
        }
        Ok(trace)
    }
}

fn event(line: &str) -> Result<Event, &'static str> {
    let mut words = line.split_ascii_whitespace();
    let from = match words.next() {
        Some("C") => Side::Client,
        Some("S") => Side::Server,
        _ => return Err("it begins with neither C nor S"),
    };
    let mut event = Event { from, bytes: Vec::new(), zeros: 0 };
    for word in words {
        let count = |digits: &str| digits.parse::<u64>().map_err(|_| "a number of zeros is no number");
        if event.zeros > 0 {
            return Err("something follows the data");
        } else if let Some(zeros) = word.strip_prefix("+0*") {
            event.zeros = count(zeros)?;
        } else if let Some(zeros) = word.strip_prefix("0*") {
            let len = usize::try_from(count(zeros)?).unwrap_or(usize::MAX).saturating_add(event.bytes.len());
            if len > MAX_BYTES {
                return Err("the message is too long");
            }
            event.bytes.resize(len, 0);
        } else {
            for pair in word.as_bytes().chunks(2) {
                let digit = |at: usize| pair.get(at).and_then(|byte| char::from(*byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err("not hexadecimal") };
                event.bytes.push(u8::try_from(high << 4 | low).unwrap_or_default());
            }
            if event.bytes.len() > MAX_BYTES {
                return Err("the message is too long");
            }
        }
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_trace_read_from_its_text_is_the_same(
            events in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..90), 0u64..9000),
                0..9,
            ),
            cut_short: bool,
        ) {
            let side = |client| if client { Side::Client } else { Side::Server };
            let events = events.into_iter().map(|(client, bytes, zeros)| Event { from: side(client), bytes, zeros });
            let trace = Trace { events: events.collect(), cut_short };
            prop_assert_eq!(trace.to_string().parse(), Ok(trace));
        }

        #[test]
        fn any_text_is_a_trace_or_an_error(text in "(nfc-trace 1\n)?([CSx] ?[0-9a-f*+ ]{0,30}\n){0,5}") {
            let _ = text.parse::<Trace>();
        }
    }

    #[test]
    fn a_text_of_something_else_is_told_by_line() {
        let wrong = |text: &str| text.parse::<Trace>().unwrap_err().line;
        assert_eq!(wrong("hello"), 1);
        assert_eq!(wrong("nfc-trace 1\nC 00\nD 00"), 3);
        assert_eq!(wrong("nfc-trace 1\nC 0*99999999999"), 2);
    }
}
