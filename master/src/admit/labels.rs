//! `[labels]`: what people and programs say of a job, within bounds.

use super::job::Judge;
use super::problem::{Code, quoted};
use protocol::job::{About, LABEL_NAME_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX, ORIGIN_BYTES_MAX, Origin};
use std::sync::Arc;

impl Judge<'_> {
    /// Says so where there are too many, or one is none.
    pub(super) fn labels(&mut self) {
        let spec = self.spec;
        if spec.labels.len() > LABELS_MAX {
            self.say(Code::TooLarge, "labels", format!("{} labels: at most {LABELS_MAX}", spec.labels.len()));
        }
        let bytes: usize = spec.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > LABELS_BYTES_MAX {
            self.say(Code::TooLarge, "labels", format!("labels have {bytes} bytes together: at most {LABELS_BYTES_MAX}"));
        }
        for (name, _) in &spec.labels {
            if name.is_empty() || name.len() > LABEL_NAME_BYTES_MAX || name.chars().any(char::is_control) {
                let message = format!("{} names no label: 1 to {LABEL_NAME_BYTES_MAX} bytes without control characters", quoted(name));
                self.say(Code::BadValue, "labels", message);
            }
        }
        // Sorted when read; a spec built in code may have one twice.
        if spec.labels.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            self.say(Code::DuplicateField, "labels", "a name stands twice, or they are not sorted".to_owned());
        }
        if spec.origin.as_ref().is_some_and(|origin| origin.by.len() + origin.note.len() > ORIGIN_BYTES_MAX) {
            self.say(Code::TooLarge, "origin", format!("what the job was made of has more than {ORIGIN_BYTES_MAX} bytes"));
        }
    }
}

/// What is said of a job; `None` where that is nothing.
pub(super) fn build(labels: Vec<(String, String)>, origin: Option<Origin>) -> Option<Arc<About>> {
    let about = About { labels, origin };
    (!about.is_empty()).then(|| Arc::new(about))
}

#[cfg(test)]
mod tests {
    use crate::admit::{Code, Format, JobSpec, parse};

    fn check(labels: &str) -> Result<JobSpec, Vec<(Code, String)>> {
        let text = format!("[task]\nwasm = \"a.wasm\"\n[labels]\n{labels}");
        parse(&text, Format::Toml).map_err(|problems| problems.into_iter().map(|problem| (problem.code, problem.field)).collect())
    }

    #[test]
    fn labels_are_texts_within_bounds() {
        let spec = check("team = \"a\"\n\"a b\" = \"\"\n").unwrap();
        let expected = [("a b", ""), ("team", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(spec.labels, expected);
        let again = parse(&spec.to_json(), Format::Json).unwrap();
        assert_eq!(again.labels, expected);
        let many: String = (0..=64).map(|n| format!("l{n} = \"\"\n")).collect();
        let long = format!("a = \"{}\"\n", "x".repeat(33 << 10));
        for (labels, code) in [
            ("a = 1\n", Code::WrongType),
            ("\"\" = \"x\"\n", Code::BadValue),
            ("\"a\\nb\" = \"x\"\n", Code::BadValue),
            (&many, Code::TooLarge),
            (&long, Code::TooLarge),
        ] {
            let found = check(labels).unwrap_err();
            assert!(found.len() == 1 && found[0].0 == code && found[0].1.starts_with("labels"), "{labels}: {found:?}");
        }
    }
}
