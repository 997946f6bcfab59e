//! How it is found out whether a task is well: what is asked of it, how often, and how long it may take. Asked by the task's agent; what follows is the
//! agent's ledger's to say.
//!
//! Checks travel in the template, as a variable of the environment of their member, as the fencing token does: so whatever carries a template carries
//! them, each version of a job has its own, and builds of before pass them on without knowing them.

use crate::job::Member;
use crate::{Name, bounded};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The variable of a member's environment that holds its [`Checks`]; no user can set it, and no task sees it.
pub const CHECKS_VARIABLE: &str = "SKEP_CHECKS";
/// Longest path or export that is asked for, in bytes.
pub const TARGET_BYTES_MAX: usize = 1_024;
/// Most texts of a command that checks.
pub const COMMAND_LENGTH_MAX: usize = 64;
/// Most bytes of a command that checks, all texts together.
pub const COMMAND_BYTES_MAX: usize = 16 << 10;
/// Shortest and longest time between two checks, in milliseconds.
pub const EVERY_MS: (u64, u64) = (50, 3_600_000);
/// Shortest and longest time that an answer may take, in milliseconds.
pub const TIMEOUT_MS: (u64, u64) = (10, 300_000);
/// Longest grace, in milliseconds: a day.
pub const GRACE_MS_MAX: u64 = 86_400_000;
/// Longest time from a task's start to the first check, in milliseconds: a day.
pub const DELAY_MS_MAX: u64 = 86_400_000;
/// Most failures in a row that may be allowed for.
pub const FAILURES_MAX: u32 = 1_000;

/// What is asked of one member of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checks {
    /// Whether it is well: one that is not is ended, and started again as its job says.
    pub health: Option<Check>,
    /// Whether it is ready: until it says so once, nothing waits for less than that. It is never ended because of it.
    pub readiness: Option<Check>,
}

/// One question, and when it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// For so many milliseconds from its start on a failure counts for nothing, until the first success.
    pub grace_ms: u64,
    /// Milliseconds from an answer to the next question.
    pub every_ms: u64,
    /// Milliseconds after which no answer is a failure.
    pub timeout_ms: u64,
    /// After so many failures in a row it is ended; 0: never.
    pub failures_max: u32,
    /// So many milliseconds after the task's start it is asked first; 0: soon.
    #[serde(skip)]
    pub delay_ms: u64,
    /// True: an answer over HTTP with a status from 100 to 199 says nothing, neither that it is well nor that it is not.
    #[serde(skip)]
    pub ignores_1xx: bool,
}

/// What stands behind the questions in their text, where one of them says something of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct More {
    delay_ms: u64,
    ignores_1xx: bool,
}

impl More {
    fn of(check: Option<&Check>) -> Self {
        check.map_or_else(Self::default, |check| Self { delay_ms: check.delay_ms, ignores_1xx: check.ignores_1xx })
    }

    fn put(self, check: Option<&mut Check>) -> Option<()> {
        match check {
            Some(check) => (check.delay_ms, check.ignores_1xx) = (self.delay_ms, self.ignores_1xx),
            None if self == Self::default() => {}
            None => return None,
        }
        Some(())
    }
}

/// What is asked. New ones at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// `GET` of a path: a status from 200 to 399 is a success; no redirect is followed, and nothing behind the head of the answer is read.
    Http {
        /// True: over TLS, with whatever certificate it has.
        secure: bool,
        /// Which of the task's ports.
        port: Name,
        /// The path and query, from `/` on.
        path: String,
    },
    /// That a connection is taken.
    Tcp {
        /// Which of the task's ports.
        port: Name,
    },
    /// A program beside the task, in its cell: exit code 0 is a success. `${…}` is replaced as in arguments.
    Exec {
        /// The program and its arguments.
        #[serde(deserialize_with = "bounded::list::<_, _, COMMAND_LENGTH_MAX>")]
        command: Vec<String>,
    },
    /// An export of a wasm task's program, called in a new instance: it says so, or comes back without a value.
    Wasm {
        /// Its name.
        export: String,
    },
}

impl Checks {
    /// True where nothing is asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.health.is_none() && self.readiness.is_none()
    }

    /// As a variable's value. What was not there from the beginning stands behind all else, and only where it is said: so what is on record keeps its bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = postcard::to_allocvec(self).expect("checks are plain data");
        let more = [More::of(self.health.as_ref()), More::of(self.readiness.as_ref())];
        if more != [More::default(); 2] {
            bytes = postcard::to_extend(&more, bytes).expect("checks are plain data");
        }
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // A string takes all.
            text
        })
    }

    /// What [`Self::to_text`] made; `None` of anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let half = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| Some(half(*pair.first()?)? << 4 | half(*pair.get(1)?)?)).collect::<Option<_>>()?;
        let (mut checks, rest) = postcard::take_from_bytes::<Self>(&bytes).ok()?;
        if !rest.is_empty() {
            let ([health, readiness], rest) = postcard::take_from_bytes::<[More; 2]>(rest).ok()?;
            let says = rest.is_empty() && [health, readiness] != [More::default(); 2];
            says.then_some(())?;
            health.put(checks.health.as_mut())?;
            readiness.put(checks.readiness.as_mut())?;
        }
        Some(checks)
    }

    /// Each question.
    pub fn each(&self) -> impl Iterator<Item = &Check> {
        self.health.iter().chain(&self.readiness)
    }
}

impl Probe {
    /// The port that is asked, where one is.
    #[must_use]
    pub const fn port(&self) -> Option<&Name> {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => Some(port),
            Self::Exec { .. } | Self::Wasm { .. } => None,
        }
    }
}

impl Member {
    /// What is asked of it; nothing where that cannot be read, which [`crate::Template::check`] refuses.
    #[must_use]
    pub fn checks(&self) -> Checks {
        self.checks_text().and_then(Checks::parse).unwrap_or_default()
    }

    /// True where something is asked of it.
    #[must_use]
    pub fn has_checks(&self) -> bool {
        self.checks_text().is_some()
    }

    fn checks_text(&self) -> Option<&str> {
        self.env.iter().find(|(name, _)| name == CHECKS_VARIABLE).map(|(_, value)| value.as_str())
    }

    /// The same is asked from now on; nothing where `checks` are empty.
    pub fn set_checks(&mut self, checks: &Checks) {
        self.env.retain(|(name, _)| name != CHECKS_VARIABLE);
        if !checks.is_empty() {
            let at = self.env.partition_point(|(name, _)| name.as_str() < CHECKS_VARIABLE);
            self.env.insert(at, (CHECKS_VARIABLE.to_owned(), checks.to_text()));
        }
    }

    /// True where what it says of checks can be read, is within bounds, and asks only ports that are among `ports`.
    pub(crate) fn has_good_checks(&self, ports: &[&Name]) -> bool {
        let Some(text) = self.checks_text() else { return true };
        let within = |value: u64, (least, most): (u64, u64)| (least..=most).contains(&value);
        let good = |check: &Check| {
            let probe = match &check.probe {
                Probe::Http { path, .. } => {
                    path.len() <= TARGET_BYTES_MAX && path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
                }
                Probe::Tcp { .. } => true,
                Probe::Exec { command } => !command.is_empty() && command.iter().map(String::len).sum::<usize>() <= COMMAND_BYTES_MAX,
                Probe::Wasm { export } => export.len() <= TARGET_BYTES_MAX,
            };
            let times = within(check.every_ms, EVERY_MS) && within(check.timeout_ms, TIMEOUT_MS);
            let times = times && check.grace_ms <= GRACE_MS_MAX && check.delay_ms <= DELAY_MS_MAX;
            probe
                && times
                && within(check.failures_max.into(), (0, FAILURES_MAX.into()))
                && check.probe.port().is_none_or(|port| ports.contains(&port))
        };
        Checks::parse(text).is_some_and(|checks| !checks.is_empty() && checks.each().all(good))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(probe: Probe) -> Check {
        Check { probe, grace_ms: 1_000, every_ms: 5_000, timeout_ms: 500, failures_max: 3, delay_ms: 0, ignores_1xx: false }
    }

    #[test]
    fn checks_are_read_as_they_were_written_and_nothing_else_is() {
        let port = Name::new("http").unwrap();
        let http = Probe::Http { secure: true, port: port.clone(), path: "/healthz?a=b".into() };
        for probe in [http, Probe::Tcp { port }, Probe::Exec { command: vec!["pg_isready".into()] }, Probe::Wasm { export: "well".into() }]
        {
            let checks = Checks { health: Some(check(probe.clone())), readiness: Some(check(probe)) };
            let text = checks.to_text();
            assert_eq!(Checks::parse(&text), Some(checks));
            for broken in [&text[1..], &text[2..], &format!("{text}00"), &text.replace(|digit: char| digit.is_ascii_digit(), "x")] {
                assert_ne!(Checks::parse(broken), Checks::parse(&text), "{broken}");
            }
        }
        let tcp = Checks { health: Some(check(Probe::Tcp { port: Name::new("http").unwrap() })), readiness: None };
        assert_eq!(tcp.to_text(), "01010468747470e8078827f4030300", "jobs on record have these bytes");
        let later = |check: Check| Check { delay_ms: 15_000, ignores_1xx: true, ..check };
        let late = Checks { health: tcp.health.clone().map(later), readiness: None };
        assert_eq!(late.to_text(), format!("{}9875010000", tcp.to_text()), "what came later stands behind it");
        assert_eq!(Checks::parse(&late.to_text()), Some(late.clone()));
        let text = late.to_text();
        let of_none = text.replace("9875010000", "9875010100");
        for broken in [&text[..text.len() - 2], &format!("{text}00"), &format!("{}00000000", tcp.to_text()), &of_none] {
            assert_eq!(Checks::parse(broken), None, "{broken}");
        }
        assert_eq!((Checks::parse(""), Checks::parse("é0"), Checks::parse("0000")), (None, None, Some(Checks::default())));
    }
}
