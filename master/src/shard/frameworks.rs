//! The framework's shard, of frameworks that are clients: who is subscribed, what each is shown, and what it does with that. A task of one is a
//! job of one task that it has placed itself; from there on it is as any other.

use super::event::Change;
use super::maintenance::Consent;
use super::openings::Opening;
use super::shown::{FILTERED_MS, Hand};
use super::updates::Untold;
use super::{Action, PeerMessage, Record, Refusal, Response, Shard};
use crate::frameworks::{
    CALL_ITEMS_MAX, Call, Demand, Filters, FrameworkEvent, FrameworkId, FrameworkInfo, FrameworkRequest, REFUSE_MS_MAX, Sieve,
    UNKNOWN_TASK, Wish,
};
use crate::jobs::LivePhase;
use bytes::Bytes;
use protocol::message::{FromMaster, MESSAGE_BYTES_MAX};
use protocol::{AgentId, AttemptId, JobId, OfferId, RequestId, Role, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Frameworks of one shard.
const FRAMEWORKS_MAX: usize = 1_000;
/// How long a framework has to come back to a new leader at the least, in milliseconds, whatever it said: it is not its fault.
const RETURN_MS: u64 = 15_000;
/// Milliseconds that tasks of a framework that is gone have to stop.
const GRACE_MS: u64 = 5_000;
/// When it makes sense to ask again where there are too many, in milliseconds.
const RETRY_AFTER_MS: u64 = 10_000;

/// How frameworks stand with this leader.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_id: BTreeMap<FrameworkId, Session>,
    by_request: BTreeMap<RequestId, FrameworkId>,
    /// When those are given up that are away.
    ends: BTreeSet<(Time, FrameworkId)>,
    /// True where others may take offers than was said.
    pub(super) changed: bool,
    /// Who takes some, as was said last.
    pub(super) said: Vec<Opening>,
    /// When roles whose limits leave them nothing take none any more.
    pub(super) closes_at: Option<Time>,
    /// Which are shown what is lent, as was said last.
    pub(super) revocable: Vec<FrameworkId>,
    /// To be told when all that was handled is done.
    pub(super) events: BTreeMap<FrameworkId, Vec<FrameworkEvent>>,
    /// When updates are said again.
    pub(super) again: BTreeSet<(Time, FrameworkId, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    /// Its subscription.
    pub(super) request: Option<RequestId>,
    stream: u128,
    /// When it is given up, while it has none.
    until: Option<Time>,
    pub(super) suppressed: BTreeSet<Role>,
    /// What it wants to be shown.
    pub(super) sieve: Sieve,
    /// What it may take of.
    pub(super) hand: Hand,
    /// Status updates that it has not acknowledged, by task.
    pub(super) updates: BTreeMap<String, Untold>,
    /// Counts updates.
    pub(super) updates_made: u64,
}

impl Sessions {
    /// When something happens here by time alone.
    pub fn due(&self) -> Option<Time> {
        let end = self.ends.first().map(|(at, _)| *at);
        end.into_iter().chain(self.again.first().map(|(at, ..)| *at)).chain(self.closes_at).min()
    }

    /// To be told when all that was handled is done; nobody is told that is not subscribed.
    pub fn tell(&mut self, framework: FrameworkId, event: FrameworkEvent) {
        if self.by_id.get(&framework).is_some_and(|session| session.request.is_some()) {
            self.events.entry(framework).or_default().push(event);
        }
    }
}

impl Shard {
    /// Somebody asks something of a framework.
    pub(super) fn framework_request(&mut self, id: RequestId, request: FrameworkRequest) -> Result<(), Refusal> {
        match request {
            FrameworkRequest::Subscribe { framework, info, suppressed, filters, wishes, stream } => {
                return self.subscribe(id, framework, info, (suppressed, filters, wishes, stream));
            }
            FrameworkRequest::Call { framework, stream, principal, call } => {
                self.may_call(framework, stream, &principal)?;
                self.call(framework, call)?;
            }
            FrameworkRequest::Unsubscribe { framework, stream } => {
                let session = self.sessions.by_id.get(&framework).filter(|session| session.stream == stream);
                if let Some(request) = session.and_then(|session| session.request) {
                    self.unsubscribed(request);
                }
            }
            FrameworkRequest::Teardown { framework } => {
                self.frameworks.get(framework).ok_or_else(unknown)?;
                self.remove(framework, "an operator has ended the framework");
            }
        }
        self.reply(id, Response::Done);
        Ok(())
    }

    fn subscribe(
        &mut self,
        request: RequestId,
        framework: Option<FrameworkId>,
        info: FrameworkInfo,
        (suppressed, filters, wishes, stream): (Vec<Role>, Filters, Vec<Wish>, u128),
    ) -> Result<(), Refusal> {
        let sieve = sieve(&info, &suppressed, &filters)?;
        let demand = demand(wishes, &info)?;
        let id = match framework {
            None if self.frameworks.lasting.live.len() >= FRAMEWORKS_MAX => {
                let reason = format!("the shard has {FRAMEWORKS_MAX} frameworks already");
                return Err(Refusal::Busy { reason, retry_after_ms: RETRY_AFTER_MS });
            }
            None => FrameworkId::new(self.config.id, self.jobs.lasting.next),
            Some(id) => {
                let known = self.frameworks.get(id).ok_or_else(|| Refusal::Conflict { reason: "Framework has been removed".into() })?;
                if known.info.principal != info.principal {
                    return Err(Refusal::Conflict { reason: "the framework belongs to whoever holds another token".into() });
                }
                id
            }
        };
        if self.frameworks.get(id).is_none_or(|known| known.info != info) {
            self.commit(Record::FrameworkSet { id, info, at: self.now });
        }
        self.hang_up(id, "Framework failed over");
        let session = self.sessions.by_id.entry(id).or_default();
        if let Some(until) = session.until.take() {
            self.sessions.ends.remove(&(until, id));
        }
        (session.request, session.stream, session.sieve) = (Some(request), stream, sieve);
        session.suppressed = suppressed.into_iter().collect();
        session.hand.want(demand);
        self.sessions.by_request.insert(request, id);
        self.sessions.changed = true;
        self.sessions.tell(id, FrameworkEvent::Subscribed(id));
        self.tell_unacknowledged(id);
        self.ask_again(id);
        self.publish_framework(id, "subscribed");
        Ok(())
    }

    fn may_call(&self, id: FrameworkId, stream: u128, principal: &str) -> Result<(), Refusal> {
        let framework = self.frameworks.get(id).ok_or_else(unknown)?;
        if framework.info.principal != principal {
            return Err(unknown());
        }
        let session = self.sessions.by_id.get(&id).filter(|session| session.request.is_some());
        let session = session.ok_or_else(|| Refusal::Conflict { reason: "Framework is not subscribed".into() })?;
        match session.stream == stream {
            true => Ok(()),
            false => Err(Refusal::Invalid { reason: "the stream id is not that of the framework's subscription".into() }),
        }
    }

    fn call(&mut self, id: FrameworkId, call: Call) -> Result<(), Refusal> {
        match call {
            Call::Accept { offers, launches, groups, refuse_ms } => {
                let tasks = groups.iter().fold(launches.len(), |sum, group| sum.saturating_add(group.len()));
                if offers.len().max(tasks).max(groups.len()) > CALL_ITEMS_MAX {
                    return Err(Refusal::Invalid { reason: format!("a call has at most {CALL_ITEMS_MAX} offers, and as many tasks") });
                }
                self.accept(id, &offers, (launches, groups), refuse_ms.min(REFUSE_MS_MAX));
            }
            Call::Decline { offers, refuse_ms } => self.leave(id, &offers, refuse_ms.min(REFUSE_MS_MAX)),
            Call::Revive(roles) => self.revive_roles(id, &roles),
            Call::Suppress(roles) => self.suppress(id, roles),
            Call::Kill { task, grace_ms } => self.kill_own(id, &task, grace_ms),
            Call::Acknowledge { task, uuid } => self.update_acknowledged(id, &task, uuid),
            Call::Reconcile(tasks) => self.reconcile_own(id, &tasks),
            Call::AnswerInverse { accepted, offers } => {
                let consent = if accepted { Consent::Accepted } else { Consent::Declined };
                self.consented(id, &offers, consent);
            }
            Call::Reserve { offers, changes } => self.reserve_of(id, offers, changes)?,
            Call::Message { task, agent, bytes } => self.message_own(id, &task, agent, bytes)?,
            Call::Demand(wishes) => self.demand(id, wishes)?,
            Call::Update { info, suppressed, filters } => self.update_framework(id, info, suppressed, &filters)?,
            Call::Teardown => self.remove(id, "the framework has ended itself"),
        }
        Ok(())
    }

    /// A framework says something to a task of its. Whether that hears it nobody knows, so it is no error where it does not run.
    fn message_own(&mut self, id: FrameworkId, task: &str, agent: Option<AgentId>, bytes: Bytes) -> Result<(), Refusal> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Refusal::Invalid { reason: format!("a message has at most {MESSAGE_BYTES_MAX} bytes") });
        }
        let own = self.frameworks.get(id).and_then(|framework| framework.tasks.get(task));
        let own = own.ok_or_else(|| Refusal::NotFound { what: UNKNOWN_TASK.into() })?;
        let (attempt, place) = (AttemptId::new(own.job, 0, 1), own.agent);
        let runs = self.phase_of(attempt).is_some_and(|phase| phase >= LivePhase::Running);
        if runs && agent.is_none_or(|agent| agent == place) {
            self.at_once(Action::Send { agent: place, message: FromMaster::Message { attempt, bytes } });
        }
        Ok(())
    }

    /// A framework says what it wants, in place of what it said before. Offers that are not just that are taken back.
    fn demand(&mut self, id: FrameworkId, wishes: Vec<Wish>) -> Result<(), Refusal> {
        let info = self.frameworks.get(id).map(|known| &known.info).ok_or_else(unknown)?;
        let demand = demand(wishes, info)?;
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return Ok(()) };
        let over = session.hand.want(demand);
        self.rescinded(id, &over);
        self.leave_all(id, over.into_iter(), 0);
        Ok(())
    }

    /// A framework is another than before. Whom it runs for does not change.
    fn update_framework(&mut self, id: FrameworkId, info: FrameworkInfo, suppressed: Vec<Role>, filters: &Filters) -> Result<(), Refusal> {
        let sieve = sieve(&info, &suppressed, filters)?;
        let known = self.frameworks.get(id).ok_or_else(unknown)?;
        if known.info.user != info.user {
            let reason =
                format!("Updating 'FrameworkInfo.user' is unsupported; attempted to update from '{}' to '{}'", known.info.user, info.user);
            return Err(Refusal::Invalid { reason });
        }
        if known.info != info {
            self.commit(Record::FrameworkSet { id, info: info.clone(), at: self.now });
        }
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return Ok(()) };
        (session.suppressed, session.sieve) = (suppressed.into_iter().collect(), sieve);
        self.sessions.changed = true;
        self.sessions.tell(id, FrameworkEvent::Changed(Box::new(info)));
        // What was kept from it may be what it wants now, and the reverse.
        let unwanted =
            |session: &Session| session.hand.offers().filter(|offer| !session.sieve.passes(offer)).map(|offer| offer.id).collect();
        let held: Vec<OfferId> = self.sessions.by_id.get(&id).map(unwanted).unwrap_or_default();
        self.rescinded(id, &held);
        self.leave_all(id, held.into_iter(), FILTERED_MS);
        self.show_again(id, &[]);
        self.publish_framework(id, "updated");
        Ok(())
    }

    fn revive_roles(&mut self, id: FrameworkId, roles: &[Role]) {
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        let before = session.suppressed.len();
        session.suppressed.retain(|role| !roles.is_empty() && !roles.contains(role));
        self.sessions.changed |= session.suppressed.len() < before;
        self.show_again(id, roles);
    }

    /// These roles of a framework, or all where none are named, are shown all again, whatever was declined.
    fn show_again(&mut self, id: FrameworkId, roles: &[Role]) {
        let Some(info) = self.frameworks.get(id).map(|framework| &framework.info) else { return };
        let roles: Vec<Role> = info.roles.iter().filter(|role| roles.is_empty() || roles.contains(role)).cloned().collect();
        for role in roles {
            self.tell_all(&PeerMessage::Revive { opening: Opening { framework: id, role } });
        }
    }

    fn suppress(&mut self, id: FrameworkId, roles: Vec<Role>) {
        let Some(info) = self.frameworks.get(id).map(|framework| &framework.info) else { return };
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        session.suppressed.extend(if roles.is_empty() { info.roles.clone() } else { roles });
        self.sessions.changed = true;
    }

    /// A framework is gone for good, with all its tasks.
    fn remove(&mut self, id: FrameworkId, reason: &str) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let live: Vec<JobId> = framework.tasks.values().filter(|own| own.exit.is_none()).map(|own| own.job).collect();
        self.publish_framework(id, "removed");
        self.hang_up(id, reason);
        self.commit(Record::FrameworkRemoved { id, at: self.now });
        if let Some(session) = self.sessions.by_id.remove(&id) {
            session.until.map(|until| self.sessions.ends.remove(&(until, id)));
            self.sessions.again.retain(|(_, framework, _)| *framework != id);
        }
        live.into_iter().for_each(|job| self.stop_job(job, GRACE_MS));
    }

    /// Ends the subscription that the framework has, if it has one; its offers are free again.
    fn hang_up(&mut self, id: FrameworkId, reason: &str) {
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        let offers = session.hand.clear();
        if let Some(request) = session.request.take() {
            let mut events = self.sessions.events.remove(&id).unwrap_or_default();
            events.push(FrameworkEvent::Error(reason.into()));
            self.sessions.by_request.remove(&request);
            self.reply(request, Response::Framework(events));
        }
        self.sessions.changed = true;
        self.leave_all(id, offers.into_iter(), 0);
    }

    /// Nobody reads a subscription any longer: its framework has a while to come back.
    pub(super) fn unsubscribed(&mut self, request: RequestId) {
        let Some(id) = self.sessions.by_request.remove(&request) else { return };
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        session.request = None;
        self.sessions.events.remove(&id);
        let offers = session.hand.clear();
        let failover_ms = self.frameworks.get(id).map_or(0, |framework| framework.info.failover_ms);
        self.expect(id, failover_ms);
        self.sessions.changed = true;
        self.leave_all(id, offers.into_iter(), 0);
        self.publish_framework(id, "disconnected");
    }

    fn expect(&mut self, id: FrameworkId, within_ms: u64) {
        let until = self.now + within_ms;
        let session = self.sessions.by_id.entry(id).or_default();
        if let Some(before) = session.until.replace(until) {
            self.sessions.ends.remove(&(before, id));
        }
        self.sessions.ends.insert((until, id));
    }

    /// A leader begins: all frameworks are to come back.
    pub(super) fn expect_frameworks(&mut self) {
        self.sessions = Sessions::default();
        let known = self.frameworks.lasting.live.iter();
        let known: Vec<(FrameworkId, u64)> = known.map(|(id, framework)| (*id, framework.info.failover_ms)).collect();
        known.into_iter().for_each(|(id, failover_ms)| self.expect(id, failover_ms.max(RETURN_MS)));
    }

    /// Gives up those that did not come back, and says again what was not acknowledged.
    pub(super) fn watch_frameworks(&mut self) {
        while let Some((at, id)) = self.sessions.ends.first().copied().filter(|(at, _)| *at <= self.now) {
            self.sessions.ends.remove(&(at, id));
            self.remove(id, "the framework did not come back in time");
        }
        self.tell_again();
    }

    fn publish_framework(&mut self, framework: FrameworkId, what: &'static str) {
        let Some(name) = self.frameworks.get(framework).map(|framework| framework.info.name.clone()) else { return };
        self.publish(Change::Framework { framework, name, what: what.into() });
    }
}

/// What a framework wants to be shown, if all that it says of itself is right.
fn sieve(info: &FrameworkInfo, suppressed: &[Role], filters: &Filters) -> Result<Sieve, Refusal> {
    let strange = || suppressed.iter().chain(filters.keys()).find(|role| !info.roles.contains(role));
    let reason = info
        .refusal()
        .or_else(|| strange().map(|role| format!("the framework says something of the role '{role}', which it does not have")));
    match reason {
        Some(reason) => Err(Refusal::Invalid { reason }),
        None => Sieve::new(filters).map_err(|reason| Refusal::Invalid { reason }),
    }
}

/// What a framework wants, if it may say so; `None` where it takes whatever comes.
fn demand(wishes: Vec<Wish>, info: &FrameworkInfo) -> Result<Option<Demand>, Refusal> {
    let wants = !wishes.is_empty();
    let demand = Demand::new(wishes, &info.roles).map_err(|reason| Refusal::Invalid { reason })?;
    Ok(wants.then_some(demand))
}

/// There is no such framework.
pub(super) fn unknown() -> Refusal {
    Refusal::NotFound { what: "framework".into() }
}
