//! Texts of a job with gaps that each task fills with its own: `${task.index}`, `${task.attempt}`, `${job}`, `${job.id}`,
//! `${agent}`, `${port.NAME}`.

use std::fmt::Write;

/// What fills gaps and is the same for all tasks of a job.
#[derive(Clone, Copy, Debug)]
pub struct Gaps<'a> {
    /// What people call the job.
    pub job: &'a str,
    /// The job's id; empty where it is not known: the gap stays as it is then.
    pub job_id: &'a str,
    /// What people call the machine.
    pub agent: &'a str,
    /// Names of the ports that each task is given.
    pub port_names: &'a [String],
}

/// A text, its gaps found.
#[derive(Clone, Debug)]
pub struct Text(Found);

#[derive(Clone, Debug)]
enum Found {
    Plain(String),
    Gaps(Vec<Piece>),
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Index,
    Attempt,
    /// Which of the task's ports.
    Port(usize),
}

impl Text {
    /// Finds the gaps. What looks like one and is none of ours stays as it is.
    #[must_use]
    pub fn scan(text: &str, gaps: &Gaps<'_>) -> Self {
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
                "job" => Some(Piece::Literal(gaps.job.into())),
                "job.id" if !gaps.job_id.is_empty() => Some(Piece::Literal(gaps.job_id.into())),
                "agent" => Some(Piece::Literal(gaps.agent.into())),
                name => name.strip_prefix("port.").and_then(|name| gaps.port_names.iter().position(|port| port == name)).map(Piece::Port),
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
            return Self(Found::Plain(literal));
        }
        pieces.push(Piece::Literal(literal));
        Self(Found::Gaps(pieces))
    }

    /// The text, where it has no gaps.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match &self.0 {
            Found::Plain(text) => Some(text),
            Found::Gaps(_) => None,
        }
    }

    /// The text of one task: its index, the number of its attempt, its ports in the order of their names.
    #[must_use]
    pub fn fill(&self, index: u32, attempt: u32, ports: &[u16]) -> String {
        let pieces = match &self.0 {
            Found::Plain(text) => return text.clone(),
            Found::Gaps(pieces) => pieces,
        };
        let mut filled = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Index => write!(filled, "{}", index).expect("a string takes all"),
                Piece::Attempt => write!(filled, "{}", attempt).expect("a string takes all"),
                Piece::Port(which) => {
                    let port = ports.get(*which).copied().unwrap_or_default();
                    write!(filled, "{port}").expect("a string takes all");
                }
            }
        }
        filled
    }
}
