//! A plan's texts with their gaps found once: a plan without gaps costs a task nothing but the copy that WASI wants.

use crate::{Plan, Start};
use std::fmt::Write;
use std::sync::Arc;
use wasmtime_wasi_config::WasiConfigVariables;

/// What the tasks of a plan are told.
pub struct Template {
    job: String,
    args: Vec<Text>,
    env: Vec<(String, Text)>,
    config: Vec<(String, Text)>,
    /// `config`, where it is the same for all.
    config_shared: Option<Arc<WasiConfigVariables>>,
}

enum Text {
    Plain(String),
    Gaps(Vec<Piece>),
}

enum Piece {
    Literal(String),
    Index,
    Attempt,
    /// Which of the task's ports.
    Port(usize),
}

impl Template {
    /// Finds the gaps in the texts of `plan`. What looks like a gap and is none of ours stays as it is.
    pub fn new(plan: &Plan) -> Self {
        let scan = |text: &String| Text::scan(text, plan);
        let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(key, value)| (key.clone(), scan(value))).collect::<Vec<_>>();
        let config = pairs(&plan.config);
        let plain: Option<Vec<(&str, &str)>> = config
            .iter()
            .map(|(key, text)| match text {
                Text::Plain(text) => Some((key.as_str(), text.as_str())),
                Text::Gaps(_) => None,
            })
            .collect();
        let config_shared = plain.map(|plain| Arc::new(plain.into_iter().collect::<WasiConfigVariables>()));
        Self { job: plan.job.clone(), args: plan.args.iter().map(scan).collect(), env: pairs(&plan.env), config, config_shared }
    }

    /// The arguments of one task; the first is the job, in the place of a program's name.
    pub fn args(&self, start: &Start) -> Vec<String> {
        std::iter::once(self.job.clone()).chain(self.args.iter().map(|text| text.fill(start))).collect()
    }

    /// The environment of one task.
    pub fn env(&self, start: &Start) -> Vec<(String, String)> {
        self.env.iter().map(|(key, text)| (key.clone(), text.fill(start))).collect()
    }

    /// What `wasi:config` answers to one task.
    pub fn config(&self, start: &Start) -> Arc<WasiConfigVariables> {
        self.config_shared
            .clone()
            .unwrap_or_else(|| Arc::new(self.config.iter().map(|(key, text)| (key.clone(), text.fill(start))).collect()))
    }
}

impl Text {
    fn scan(text: &str, plan: &Plan) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, gap) = rest.split_at(at);
            literal.push_str(before);
            let Some(end) = gap.find('}') else {
                rest = gap;
                break;
            };
            let piece = match &gap[2..end] {
                "task.index" => Some(Piece::Index),
                "task.attempt" => Some(Piece::Attempt),
                "job" => Some(Piece::Literal(plan.job.clone())),
                name => name.strip_prefix("port.").and_then(|name| plan.port_names.iter().position(|port| port == name)).map(Piece::Port),
            };
            // Of `${a${job}}` only the inner one is a gap, so what is none of ours is passed by its first two bytes.
            let taken = if piece.is_some() { end + 1 } else { 2 };
            match piece {
                Some(Piece::Literal(value)) => literal.push_str(&value),
                Some(piece) => pieces.extend([Piece::Literal(std::mem::take(&mut literal)), piece]),
                None => literal.push_str("${"),
            }
            rest = &gap[taken..];
        }
        literal.push_str(rest);
        if pieces.is_empty() {
            return Self::Plain(literal);
        }
        pieces.push(Piece::Literal(literal));
        Self::Gaps(pieces)
    }

    fn fill(&self, start: &Start) -> String {
        let pieces = match self {
            Self::Plain(text) => return text.clone(),
            Self::Gaps(pieces) => pieces,
        };
        let mut filled = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Index => write!(filled, "{}", start.index).expect("a string takes all"),
                Piece::Attempt => write!(filled, "{}", start.attempt).expect("a string takes all"),
                Piece::Port(which) => {
                    let port = start.ports.get(*which).copied().unwrap_or_default();
                    write!(filled, "{port}").expect("a string takes all");
                }
            }
        }
        filled
    }
}
