//! Agents that lend what is idle: what they measure, which jobs are revocable, and what must hold: nobody is promised of what is lent more than was said
//! (R1), and what is promised its resources is never refused because of it (R2).

use crate::client::job_made_revocable;
use crate::plan::Plan;
use crate::random::Random;
use crate::world::{Happening, Verdict, World};
use agent::ledger::Ledger;
use agent::ledger::event::Event;
use protocol::message::{FromAgent, FromMaster};
use protocol::{Job, Lent, Resources};

/// Of a thousand jobs so many are revocable, where agents lend.
const REVOCABLE: u64 = 250;
/// What of their resources running tasks use when all is well, in hundredths.
const CALM_PERCENT: u64 = 5;
/// How often is measured at most, and at least, in milliseconds.
const MEASURED_MS: (u64, u64) = (250, 2_000);

/// Draws which jobs are revocable.
pub struct Revocable(Option<Random>);

impl Revocable {
    /// None of them where agents do not lend.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self(plan.lends.then(|| Random::new(plan.seed ^ 0x4e70)))
    }

    /// Perhaps makes it so.
    pub fn draw(&mut self, job: &mut Job) {
        if self.0.as_mut().is_some_and(|random| random.chance(REVOCABLE)) {
            job_made_revocable(job);
        }
    }
}

/// What one agent lends, as it is watched.
pub struct Lending {
    /// Whether it does.
    pub lends: bool,
    /// As it said last.
    said: Lent,
    /// Before the last event: what was promised of it, and what might be.
    held: Lent,
    allowed: Lent,
    /// What each attempt of a launch needs that is being taken in, where that is not revocable.
    firm: Option<Resources>,
    /// The promise that was broken.
    broken: Option<String>,
}

impl Lending {
    /// Of an agent that has said nothing yet.
    #[must_use]
    pub const fn new(lends: bool) -> Self {
        Self { lends, said: Lent::NONE, held: Lent::NONE, allowed: Lent::NONE, firm: None, broken: None }
    }

    /// Its process starts.
    pub const fn begin(&mut self) {
        self.said = Lent::NONE;
    }

    /// Something is about to happen to it.
    pub fn before(&mut self, ledger: &Ledger, event: &Event) {
        (self.held, self.allowed) = (ledger.promised().lent(), self.said);
        self.firm = match event {
            // Of single devices another one may be free than was said.
            Event::Master { message: FromMaster::Launch(launch), .. } if launch.template.resources.devices.is_empty() => {
                Some(launch.template.resources.clone())
            }
            _ => None,
        };
    }

    /// It has.
    pub fn after(&mut self, ledger: &Ledger) {
        let now = ledger.promised().lent();
        let more = now.each(self.held, |now, before| if now > before { now } else { 0 });
        if more.each(self.allowed, u64::saturating_sub) != Lent::NONE {
            self.broken = Some(format!("R1: {now:?} is promised of what is lent, and {:?} was said", self.allowed));
        }
    }

    /// It says this.
    pub fn says(&mut self, ledger: Option<&Ledger>, message: &FromAgent) {
        match message {
            FromAgent::Slack { lent, .. } => self.said = *lent,
            FromAgent::Refused { reason, .. } => {
                let free = ledger.and_then(|ledger| ledger.capacity().checked_sub(&ledger.promised().firm()));
                if let Some((free, need)) = free.zip(self.firm.as_ref()).filter(|(free, need)| free.contains(need)) {
                    self.broken = Some(format!("R2: {need:?} was refused ({reason}) beside {free:?} that nobody is promised"));
                }
            }
            _ => {}
        }
    }

    /// Whether all held that must.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn verdict(&self) -> Verdict {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

impl World {
    /// An agent that lends is to measure, from its start on.
    pub(crate) fn begin_measuring(&mut self, at: usize) {
        if self.plan.lends {
            let wait = self.random.between(MEASURED_MS.0, MEASURED_MS.1);
            self.queue.push(self.now + wait, Happening::Measured(at, self.machines[at].life));
        }
    }

    /// It has measured that its tasks use some of what they are promised.
    pub(crate) fn measured(&mut self, at: usize) -> Verdict {
        if self.machines[at].ledger.is_none() {
            return Ok(());
        }
        self.begin_measuring(at);
        let percent = if self.now.0 < self.plan.trouble_ms { self.random.between(0, 100) } else { CALM_PERCENT };
        let running = &self.machines[at].running;
        let used = Lent { cpu_milli: running.cpu_milli, memory_bytes: running.memory_bytes }.each(Lent::NONE, |of, _| of * percent / 100);
        self.agent(at, Event::Measured { used, unread: vec![] })
    }
}
