//! TOML and JSON as one small tree in which each key and value knows its bytes of the source. Numbers stay the text they were, so
//! nothing is rounded before it is judged.
//!
//! Knows no field of a job.

use super::problem::{Code, PROBLEMS_MAX, Problem, quoted};
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Deepest nesting of a text; a job needs four.
const DEPTH_MAX: usize = 16;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) span: Range<usize>,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    /// A decimal number as it was written, or what TOML and nobody else calls one (`nan`).
    Number(Cow<'a, str>),
    Bool(bool),
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
    /// JSON's `null`.
    Null,
    /// TOML's.
    Date,
}

/// A key and its value. Keys of a table are distinct.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) span: Range<usize>,
    pub(super) node: Node<'a>,
}

impl Value<'_> {
    /// What people call its kind.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Null => "null",
            Self::Date => "a date",
        }
    }
}

/// The tree of a TOML text, as far as it could be read, and all that is wrong with its syntax.
pub(super) fn toml(text: &str) -> (Node<'_>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors.iter().take(PROBLEMS_MAX).map(toml_problem).collect();
    let span = table.span();
    let value = Value::Table(toml_table(table.into_inner(), "", 0, &mut problems));
    (Node { span, value }, problems)
}

fn toml_problem(error: &toml::de::Error) -> Problem {
    let message = error.message();
    let code = if message.contains("duplicate key") { Code::DuplicateField } else { Code::Syntax };
    let problem = Problem::new(code, "", format!("no TOML: {message}"));
    match error.span() {
        Some(span) => problem.at(span),
        None => problem,
    }
}

fn toml_table<'a>(table: DeTable<'a>, path: &str, depth: usize, problems: &mut Vec<Problem>) -> Vec<Entry<'a>> {
    let mut entries = Vec::with_capacity(table.len().min(64));
    for (key, value) in table {
        let (key_span, value_span) = (key.span(), value.span());
        let key = key.into_inner();
        let path = joined(path, &key);
        let node = Node { span: value_span, value: toml_value(value.into_inner(), &path, depth + 1, problems) };
        entries.push(Entry { key, span: key_span, node });
    }
    entries
}

fn toml_value<'a>(value: DeValue<'a>, path: &str, depth: usize, problems: &mut Vec<Problem>) -> Value<'a> {
    if depth > DEPTH_MAX {
        problems.push(too_deep(path));
        return Value::Null;
    }
    match value {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(number) if number.radix() == 10 => Value::Number(Cow::Owned(number.as_str().to_owned())),
        // What does not fit is told from what does by the digits, which are too many in any base.
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Number(Cow::Owned(number.to_string())),
            Err(_) => Value::Number(Cow::Borrowed("1e400")),
        },
        DeValue::Float(number) => Value::Number(Cow::Owned(number.as_str().to_owned())),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(list) => {
            let node = |value: toml::Spanned<DeValue<'a>>, problems: &mut Vec<Problem>| {
                let span = value.span();
                Node { span, value: toml_value(value.into_inner(), path, depth + 1, problems) }
            };
            Value::List(list.into_iter().map(|value| node(value, problems)).collect())
        }
        DeValue::Table(table) => Value::Table(toml_table(table, path, depth, problems)),
    }
}

fn too_deep(path: &str) -> Problem {
    // The path is as deep as the text: its beginning says enough.
    let first = path.split('.').next().unwrap_or("");
    Problem::new(Code::TooLarge, first, format!("nested deeper than {DEPTH_MAX}"))
}

/// `path` and a key in it; a key without characters is written as TOML and JSON write it, so that a problem with it names something.
pub(super) fn joined(path: &str, key: &str) -> String {
    let key = if key.is_empty() { "\"\"" } else { key };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The tree of a JSON text, and all that is wrong with it; without a tree where the syntax is wrong.
pub(super) fn json(text: &str) -> (Option<Node<'_>>, Vec<Problem>) {
    let mut problems = Vec::new();
    let raw: &RawValue = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => return (None, vec![json_problem(text, 0..text.len(), "", &error)]),
    };
    let node = Json { text, problems: &mut problems }.node(raw, "", 0);
    (Some(node), problems)
}

struct Json<'a, 'p> {
    text: &'a str,
    problems: &'p mut Vec<Problem>,
}

impl<'a> Json<'a, '_> {
    /// Where `raw`, which was borrowed from the text, stands in it.
    fn span(&self, raw: &'a RawValue) -> Range<usize> {
        let start = raw.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + raw.get().len()
    }

    fn node(&mut self, raw: &'a RawValue, path: &str, depth: usize) -> Node<'a> {
        let span = self.span(raw);
        if depth > DEPTH_MAX {
            self.problems.push(too_deep(path).at(span.clone()));
            return Node { span, value: Value::Null };
        }
        let text = raw.get();
        let value = match text.as_bytes().first() {
            Some(b'"') => self.string(raw, path).map_or(Value::Null, Value::Text),
            Some(b'{') => self.table(raw, path, depth),
            Some(b'[') => self.list(raw, path, depth),
            Some(first @ (b't' | b'f')) => Value::Bool(*first == b't'),
            Some(b'n') | None => Value::Null,
            Some(_) => Value::Number(Cow::Borrowed(text)),
        };
        Node { span, value }
    }

    fn string(&mut self, raw: &'a RawValue, path: &str) -> Option<Cow<'a, str>> {
        let inside = raw.get().get(1..raw.get().len().saturating_sub(1)).unwrap_or("");
        if !inside.contains('\\') {
            return Some(Cow::Borrowed(inside));
        }
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => Some(Cow::Owned(text)),
            Err(error) => {
                let problem = json_problem(self.text, self.span(raw), path, &error);
                self.problems.push(problem);
                None
            }
        }
    }

    fn list(&mut self, raw: &'a RawValue, path: &str, depth: usize) -> Value<'a> {
        let read = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Raws);
        let raws = self.or_empty(read, raw, path);
        Value::List(raws.into_iter().map(|raw| self.node(raw, path, depth + 1)).collect())
    }

    fn table(&mut self, raw: &'a RawValue, path: &str, depth: usize) -> Value<'a> {
        let read = serde_json::Deserializer::from_str(raw.get()).deserialize_map(RawPairs);
        let pairs = self.or_empty(read, raw, path);
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let span = self.span(key);
            let Some(key) = self.string(key, path) else { continue };
            let path = joined(path, &key);
            let node = self.node(value, &path, depth + 1);
            entries.push(Entry { key, span, node });
        }
        self.refuse_duplicates(&mut entries, path);
        Value::Table(entries)
    }

    /// Leaves the first of several equal keys and reports the others.
    fn refuse_duplicates(&mut self, entries: &mut Vec<Entry<'a>>, path: &str) {
        // By key, and equal keys in the order of the source, since the sort is stable.
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|second, first| {
            let same = second.key == first.key;
            if same && self.problems.len() < PROBLEMS_MAX {
                let message = format!("{} stands here a second time", quoted(&second.key));
                self.problems.push(Problem::new(Code::DuplicateField, joined(path, &second.key), message).at(second.span.clone()));
            }
            same
        });
    }

    fn or_empty<T: Default>(&mut self, read: Result<T, serde_json::Error>, raw: &'a RawValue, path: &str) -> T {
        read.unwrap_or_else(|error| {
            let problem = json_problem(self.text, self.span(raw), path, &error);
            self.problems.push(problem);
            T::default()
        })
    }
}

/// `error` of parsing the bytes `part` of `text`.
fn json_problem(text: &str, part: Range<usize>, path: &str, error: &serde_json::Error) -> Problem {
    let inside = &text[part.clone()];
    // serde_json counts lines from 1, and columns in bytes from 1 with 0 for the newline before.
    let line_start: usize = inside.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = (part.start + line_start + error.column().saturating_sub(1)).min(text.len());
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    Problem::new(Code::Syntax, path, format!("no JSON: {message}")).at(at..(at + 1).min(text.len().max(at)))
}

/// The items of a list, unread.
struct Raws;

impl<'de> Visitor<'de> for Raws {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut raws = Vec::new();
        while let Some(raw) = list.next_element()? {
            raws.push(raw);
        }
        Ok(raws)
    }
}

/// The keys and values of a table, unread.
struct RawPairs;

impl<'de> Visitor<'de> for RawPairs {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}
