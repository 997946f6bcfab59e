//! What stands with the job of an app ([`Origin::note`]): the app itself as JSON on the first line, as its clients get it back, and on a second one, where
//! several apps were changed at once, which deployment of Marathon's that was. So it is on record with each of them, and any master finds the others by it.
//!
//! [`Origin::note`]: protocol::job::Origin::note

use protocol::Job;
use protocol::job::ORIGIN_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which deployment of several apps the last change of one is part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The deployment's id.
    pub deployment: String,
    /// The version of what was asked.
    pub version: String,
    /// Which of its steps this is, from 0.
    pub at: u32,
    /// How many of its steps end no app.
    pub of: u32,
    /// The number of the service's deployment that this step is; `None`: the one that began with this note.
    pub number: Option<u32>,
    /// True where this step ends the app.
    pub ends: bool,
}

/// The app in a note, as JSON.
pub fn app(note: &str) -> &str {
    note.split_once('\n').map_or(note, |(app, _)| app)
}

/// The mark in a note; `None` where there is none that can be read.
pub fn mark(note: &str) -> Option<Mark> {
    serde_json::from_str(note.split_once('\n')?.1).ok()
}

/// The same job with this mark, or with none. One that has no room for it goes without, and is listed by itself then.
pub fn marked(job: &Job, mark: Option<&Mark>) -> Job {
    let mut about = job.about.as_deref().cloned().unwrap_or_default();
    let Some(origin) = &mut about.origin else { return job.clone() };
    let text = mark.and_then(|mark| serde_json::to_string(mark).ok());
    let mut note = app(&origin.note).to_owned();
    if let Some(text) = text.filter(|text| origin.by.len() + note.len() + 1 + text.len() <= ORIGIN_BYTES_MAX) {
        note.push('\n');
        note.push_str(&text);
    }
    origin.note = note;
    Job { about: Some(Arc::new(about)), ..job.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::bundle::{Form, Verdict};
    use crate::admit::wasm::Rejection;
    use crate::http::marathon::{app::normal, id::AppId, job::made, job::scaled};
    use serde_json::json;

    fn job(fields: &serde_json::Value) -> Job {
        let app = normal(&AppId::parse("/a").unwrap(), fields.as_object().unwrap(), false).unwrap();
        let looked = |_| Some(Verdict { form: Form::Script, wasm: Err(Rejection::Text) });
        crate::admit::admit(made(&app, true).unwrap().spec, &looked).unwrap()
    }

    #[test]
    fn a_mark_stands_behind_the_app_and_goes_with_the_next_change() {
        let mark_of = |job: &Job| mark(&job.origin().unwrap().note);
        let one = Mark { deployment: "d".into(), version: "v".into(), at: 1, of: 2, number: None, ends: false };
        let plain = job(&json!({ "cmd": "echo '\n'" }));
        let first = marked(&plain, Some(&one));
        assert_eq!((mark_of(&plain), mark_of(&first).as_ref()), (None, Some(&one)));
        assert_eq!(app(&first.origin().unwrap().note), plain.origin().unwrap().note);
        let other = Mark { number: Some(7), ends: true, ..one.clone() };
        assert_eq!(mark_of(&marked(&first, Some(&other))), Some(other));
        assert_eq!((marked(&first, None), mark_of(&scaled(&first, 3, "v"))), (plain.clone(), None));
        // What is no mark is none.
        for text in ["", "{}", "[1]", "{\"deployment\":1}", "x\ny"] {
            assert_eq!(mark(&format!("{{}}\n{text}")), None, "{text}");
        }
        let full = job(&json!({ "cmd": "x".repeat(30 << 10), "labels": { "a": "y".repeat(32_000) } }));
        let room = ORIGIN_BYTES_MAX - full.origin().unwrap().note.len() - full.origin().unwrap().by.len();
        let long = Mark { version: "v".repeat(room), ..one };
        assert_eq!(marked(&full, Some(&long)), full, "it would be longer than what may stand there");
    }
}
