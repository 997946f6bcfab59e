//! A job as people write it → a [`Job`](protocol::Job), or every reason against it. Pure: text and what was uploaded in, data out.
//!
//! Two steps, since they are taken in two places. [`parse`] reads a text (`problem`s carry lines of it, which [`render`] draws): the
//! command line does it to a file, a master to what it is sent. [`admit`] fills in every default and asks what the bundles are: only a
//! master does. Between them stands a [`JobSpec`], in which the command line replaces local files by digests.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod amount;
pub mod bundle;
pub mod checks;
pub mod job;
mod labels;
pub mod member;
mod path;
mod place;
pub mod problem;
mod read;
pub mod spec;
mod system;
mod tree;
pub mod update;
pub mod wasm;

pub use amount::{resource, thousandths};
pub use bundle::{Form, Verdict};
pub use job::{admit, resources};
pub use problem::{Code, PROBLEMS_MAX, Problem, render};
pub use spec::{JobSpec, Source};
pub use update::strategy_name;
pub use wasm::{Inspection, Rejection, WasmKind, inspect};

/// Longest text of a job, in bytes.
pub const JOB_BYTES_MAX: usize = 1 << 20;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0: what people write.
    Toml,
    /// JSON (RFC 8259): what programs write.
    Json,
}

/// The job that `text` describes.
///
/// # Errors
/// All problems that can be seen without a bundle, at most [`PROBLEMS_MAX`], in the order of the text, each with its place in it.
pub fn parse(text: &str, format: Format) -> Result<JobSpec, Vec<Problem>> {
    if let Some(problem) = unreadable(text) {
        return Err(vec![problem]);
    }
    let (root, mut problems) = match format {
        Format::Toml => {
            let (root, problems) = tree::toml(text);
            (Some(root), problems)
        }
        Format::Json => tree::json(text),
    };
    // What is left of a broken line may look like something that nobody wrote.
    let broken: Vec<usize> = problems.iter().filter_map(|problem| problem.span.as_ref().map(|span| line_of(text, span.start))).collect();
    let mut spec = JobSpec::default();
    if let Some(root) = root {
        let mut reader = read::Reader::default();
        spec = read::job(root, &mut reader);
        let mut more = reader.problems;
        let judged = job::judge(&spec);
        more.extend(judged.into_iter().filter(|problem| !is_known(problem, &more, !broken.is_empty())).collect::<Vec<_>>());
        more.retain(|problem| problem.span.as_ref().is_none_or(|span| !broken.contains(&line_of(text, span.start))));
        problems.append(&mut more);
    }
    if problems.is_empty() {
        spec.locate(text);
        return Ok(spec);
    }
    for problem in &mut problems {
        name_field(problem, text);
        problem.locate(text);
    }
    problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
    problems.truncate(PROBLEMS_MAX);
    Err(problems)
}

/// The same of bytes that may not be text.
///
/// # Errors
/// As [`parse`].
pub fn parse_bytes(bytes: &[u8], format: Format) -> Result<JobSpec, Vec<Problem>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, format),
        Err(error) => {
            let at = error.valid_up_to();
            let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            let message = format!("byte {at}, in line {line}, is no UTF-8");
            Err(vec![Problem { line, ..Problem::new(Code::Syntax, "", message) }])
        }
    }
}

/// Why `text` is not even looked at.
fn unreadable(text: &str) -> Option<Problem> {
    if text.len() > JOB_BYTES_MAX {
        let message = format!("{} bytes: a job has at most {JOB_BYTES_MAX}", text.len());
        return Some(Problem::new(Code::TooLarge, "", message));
    }
    if text.starts_with('\u{feff}') {
        let problem = Problem::new(Code::Syntax, "", "the text begins with a byte order mark");
        return Some(problem.with_help("save it as UTF-8 without one"));
    }
    if text.trim().is_empty() {
        let problem = Problem::new(Code::Missing, "task.wasm", "the text is empty");
        return Some(problem.with_help("name a file: [task] wasm = \"hello.wasm\""));
    }
    None
}

/// True where `problem` follows from one that is already reported: of the same field, of a table that holds it or of a part of it.
fn is_known(problem: &Problem, reported: &[Problem], broken: bool) -> bool {
    let within = |inner: &str, outer: &str| inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    let follows = |other: &Problem| within(&problem.field, &other.field) || within(&other.field, &problem.field);
    // What is missing from a text that could not be read to its end may well be there.
    (problem.code == Code::Missing && (broken || reported.iter().any(|other| other.field.is_empty()))) || reported.iter().any(follows)
}

/// The line that holds the byte `at`, from 0.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Names the field of a problem with the syntax: the key that stands twice, or else that of its line, where there is one.
fn name_field(problem: &mut Problem, text: &str) {
    let Some(span) = problem.span.clone().filter(|_| problem.field.is_empty()) else { return };
    let start = text.as_bytes()[..span.start.min(text.len())].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let of_line = if line.starts_with('[') || line.contains(['=', ':']) { line.split(['=', ':', ']']).next() } else { None };
    let twice = if problem.code == Code::DuplicateField { text.get(span) } else { None };
    let key = twice.or(of_line).unwrap_or("").trim().trim_matches(['"', '\'', '[', '{', ' ']);
    if !key.is_empty() && key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        problem.field = key.to_owned();
    } else if let Some(twice) = twice {
        // It may be without characters: the reader goes on after an error.
        problem.field = problem::quoted_field(&tree::joined("", twice.trim()));
    }
}

#[cfg(test)]
mod tests;
