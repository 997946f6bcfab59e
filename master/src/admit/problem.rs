//! One reason against a job: which field, where in its source, whose move it is; and how it is drawn under that source.
//!
//! Knows nothing of job files beyond bytes and lines.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::ops::Range;

/// Most problems that are reported of one job; there may be more.
pub const PROBLEMS_MAX: usize = 64;
/// Most characters of a source line that are drawn.
const DRAWN_CHARS_MAX: usize = 120;
/// Most characters of a user's own text that a message quotes.
const QUOTED_CHARS_MAX: usize = 40;

/// What kind of problem it is; for programs, which should not read messages. New ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The text is no TOML or no JSON.
    Syntax,
    /// There is no such field.
    UnknownField,
    /// The field stands there twice.
    DuplicateField,
    /// The value is of another kind than the field's.
    WrongType,
    /// The value makes no sense for the field.
    BadValue,
    /// The value is over a bound.
    TooLarge,
    /// A field that must be there is not.
    Missing,
    /// A field or value of a later version.
    NotYet,
    /// Two fields that exclude each other.
    Conflict,
    /// The bundle was not uploaded.
    UnknownBundle,
    /// The bundle is no wasm that runs here.
    BadWasm,
    /// The bundle imports what nobody offers.
    UnofferedImport,
    /// The bundle is no program or image of the kind that the job takes it for.
    BadBundle,
    /// Something of the host that no policy of the job's role allows.
    NotAllowed,
}

impl Code {
    /// As it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownField => "unknown-field",
            Self::DuplicateField => "duplicate-field",
            Self::WrongType => "wrong-type",
            Self::BadValue => "bad-value",
            Self::TooLarge => "too-large",
            Self::Missing => "missing",
            Self::NotYet => "not-yet",
            Self::Conflict => "conflict",
            Self::UnknownBundle => "unknown-bundle",
            Self::BadWasm => "bad-wasm",
            Self::UnofferedImport => "unoffered-import",
            Self::BadBundle => "bad-bundle",
            Self::NotAllowed => "not-allowed",
        }
    }
}

/// One reason against a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// The field, as `resources.memory`; empty where it is the whole text.
    pub field: String,
    /// The bytes of the source that it is about; `None` where the field is not in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Range<usize>>,
    /// The line of the span's first byte, from 1; 0 without a span.
    #[serde(default)]
    pub line: usize,
    /// The column of the span's first byte in characters, from 1; 0 without a span.
    #[serde(default)]
    pub column: usize,
    /// What is wrong, without the user's control characters.
    pub message: String,
    /// What would mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problem {
    /// A problem with `field`, without a place and without help.
    #[must_use]
    pub fn new(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: field.into(), span: None, line: 0, column: 0, message: message.into(), help: None }
    }

    /// The same, with what would mend it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, about these bytes of the source.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }

    /// Fills in line and column from the span.
    pub(super) fn locate(&mut self, source: &str) {
        if let Some(span) = &self.span {
            let (line, column, _) = position(source, span.start);
            (self.line, self.column) = (line, column);
        }
    }
}

/// Line and column from 1 of the byte `at`, and the byte where its line begins.
fn position(source: &str, at: usize) -> (usize, usize, usize) {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    let before = &source[..at];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[start..].chars().count() + 1, start)
}

/// One character as it may be shown on a terminal: controls, and what turns the direction of writing or has no width, become `�`.
pub(crate) fn shown(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// A user's own text as a message may quote it: one line, short, without control characters.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).map(shown).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("'{short}'")
}

/// A path of fields with keys of the user's own, as a problem may name it.
pub(super) fn quoted_field(path: &str) -> String {
    path.chars().take(2 * QUOTED_CHARS_MAX).map(shown).collect()
}

/// A longer text that may quote a user's own, safe for a terminal.
pub(super) fn quoted_long(text: &str) -> String {
    text.chars().take(2 * DRAWN_CHARS_MAX).map(shown).collect()
}

/// The problem as people see it, with its line of `source` and a caret under the place. Ends with a newline; safe for a terminal
/// whatever the source holds.
#[must_use]
pub fn render(problem: &Problem, source: &str) -> String {
    let safe = |text: &str| text.chars().map(shown).collect::<String>();
    let mut out = match problem.field.as_str() {
        "" => format!("error: {}\n", safe(&problem.message)),
        field => format!("error: {}: {}\n", safe(field), safe(&problem.message)),
    };
    if let Some(span) = &problem.span {
        let (line, column, start) = position(source, span.start);
        let text = source[start..].split('\n').next().unwrap_or("").trim_end_matches('\r');
        let skipped = (column - 1).saturating_sub(DRAWN_CHARS_MAX / 2);
        let drawn: String = text.chars().skip(skipped).take(DRAWN_CHARS_MAX).map(shown).collect();
        let room = drawn.chars().count().saturating_sub(column - 1 - skipped);
        let covered = source.get(span.clone()).and_then(|covered| covered.split('\n').next()).map_or(1, |text| text.chars().count());
        let carets = "^".repeat(covered.min(room).max(1));
        let (gutter, before) = (line.to_string(), " ".repeat(column - 1 - skipped));
        let margin = " ".repeat(gutter.len());
        let _ = writeln!(out, "{margin} |\n{gutter} | {drawn}\n{margin} | {before}{carets}");
    }
    if let Some(help) = &problem.help {
        let _ = writeln!(out, "help: {}", safe(help));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_drawn_with_a_caret_under_the_place() {
        let source = "name = \"a\"\nmemroy = 1\n";
        let mut problem = Problem::new(Code::UnknownField, "memroy", "no such field").at(11..17).with_help("did you mean 'memory'?");
        problem.locate(source);
        assert_eq!((problem.line, problem.column), (2, 1));
        let expected = "error: memroy: no such field\n  |\n2 | memroy = 1\n  | ^^^^^^\nhelp: did you mean 'memory'?\n";
        assert_eq!(render(&problem, source), expected);
    }

    #[test]
    fn nothing_of_a_hostile_source_reaches_the_terminal_as_control() {
        let source = "x = \"\u{1b}[2J\u{202e}\u{7}\"\r\n";
        let drawn = render(&Problem::new(Code::BadValue, "a\u{1b}b", "m\n\u{9b}").at(4..9), source);
        assert!(drawn.chars().all(|c| c == '\n' || shown(c) == c), "{drawn:?}");
        assert_eq!(quoted("a\nb"), "'a\u{fffd}b'");
    }

    #[test]
    fn any_span_of_any_source_is_drawn_without_a_panic() {
        let long = "é".repeat(1_000);
        for source in ["", "é", "a\nb", "\n\n", &long] {
            for start in 0..source.len() + 3 {
                for end in [start, start + 1, start + 500] {
                    assert!(render(&Problem::new(Code::Syntax, "", "m").at(start..end), source).len() < 2_000);
                }
            }
        }
    }
}
