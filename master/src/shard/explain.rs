//! Why a task waits: counts of reasons, and the smallest change that would help.

use super::event::Limit;
use super::pool::{Pool, Seat, Silence, Standing};
use super::view::{Explanation, NOT_THERE, SINGLE, ShapeView};
use super::{Refusal, Shard};
use super::{amounts, beside};
use crate::jobs::{Entry, Slot};
use crate::place::Matcher;
use protocol::resources::ResourceKind;
use protocol::{AgentId, Constraint, JobId, Placement, Resources, Role, Rule, Singles, Stand};
use std::fmt::Write;

/// Most jobs that are counted one by one to say what is ahead.
const JOBS_COUNTED_MAX: usize = 10_000;

/// What is asked of agents beside resources.
#[derive(Debug, Default)]
pub(super) struct Asked {
    matcher: Option<Matcher>,
    limits: Vec<Limit>,
}

/// Why an agent may have no task.
struct Against {
    text: String,
    /// What would have to be left out for it.
    without: Option<String>,
}

impl Asked {
    /// Of a placement, and of what values take now.
    pub(super) fn new(place: &Placement, limits: Vec<Limit>) -> Self {
        Self { matcher: Some(Matcher::new(&place.constraints)), limits }
    }

    /// All rules against this agent.
    fn against(&self, stand: &Stand, has: impl Fn(JobId) -> bool) -> Vec<Against> {
        let broken = self.matcher.iter().flat_map(|matcher| matcher.against(stand, &has));
        let fixed = broken.map(|constraint| Against { text: reason(constraint, stand), without: Some(constraint.to_string()) });
        let full = |limit: &&Limit| limit.value(stand).is_some_and(|value| limit.of(value) == 0);
        let counted = self.limits.iter().filter(full).map(|limit| {
            let text = format!("no more tasks of the job may be at this {}", limit.field);
            Against { text, without: None }
        });
        fixed.chain(counted).collect()
    }
}

/// Why an agent does not meet a constraint.
pub(super) fn reason(Constraint { field, rule }: &Constraint, stand: &Stand) -> String {
    match rule {
        _ if field.of(stand).is_none() => format!("it has no {field}"),
        Rule::Is(wanted) | Rule::Cluster(Some(wanted)) => format!("{field} is not {wanted}"),
        Rule::Unlike(pattern) => format!("{field} is like {pattern}"),
        Rule::Like(pattern) => format!("{field} is not like {pattern}"),
        Rule::Near(other) => format!("no task of {} is there", other.name),
        Rule::Apart(other) => format!("a task of {} is there", other.name),
        Rule::Unique | Rule::Cluster(None) | Rule::GroupBy(_) | Rule::MaxPer(_) => format!("{field} is counted"),
    }
}

impl Shard {
    /// Why tasks of a job wait, or where one is.
    pub(super) fn explain(&self, id: JobId, index: Option<u32>) -> Result<Explanation, Refusal> {
        let task = match index {
            Some(index) => Some(self.task_view(id, index).ok_or(Refusal::NotFound { what: "task".into() })?),
            None => None,
        };
        let Some(Entry::Live(job)) = self.jobs.entry(id) else {
            let job = self.job_view(id).ok_or(Refusal::NotFound { what: "job".into() })?.job;
            let shape = job.template.resources.clone();
            return Ok(Explanation { job: id, role: job.role, shape, waiting: 0, backing_off: 0, retry_at: None, ahead: 0, task });
        };
        let pausing = if job.backing_off() == 0 { 0 } else { usize::MAX };
        let cells = job.cells.iter_from(0).take(pausing);
        let retry_at = cells.filter(|(index, cell)| {
            cell.slot == Slot::Waiting && !job.derived.again.contains(index) && !job.derived.again_old.contains(index)
        });
        Ok(Explanation {
            job: id,
            role: job.job.role.clone(),
            shape: job.template(job.ready_version()).resources.clone(),
            waiting: job.ready(),
            backing_off: job.backing_off(),
            retry_at: retry_at.filter_map(|(_, cell)| cell.retry_at()).min(),
            ahead: self.ahead_of(id, &job.job.role, job.job.priority),
            task,
        })
    }

    fn ahead_of(&self, id: JobId, role: &Role, priority: u8) -> u64 {
        let mut ahead = 0;
        for line in self.jobs.lines.of_role(role).into_iter().filter_map(|at| self.jobs.lines.get(at)) {
            if line.priority > priority {
                ahead += line.count;
            } else if line.priority == priority {
                let older = line.jobs.range(..id).take(JOBS_COUNTED_MAX).filter_map(|id| self.jobs.live(*id));
                ahead += older.map(|job| u64::from(job.ready())).sum::<u64>();
            }
        }
        for line in self.jobs.lines.placed_of_role(role).filter(|line| !line.jobs.contains(&id)) {
            let before = line.priority > priority || line.priority == priority && line.jobs.first().is_some_and(|first| *first < id);
            ahead += if before { line.count } else { 0 };
        }
        ahead
    }

    /// An agent that is given tasks, or why it is not.
    fn seat_of_use(&self, id: AgentId) -> Result<(u32, &Seat), String> {
        let here = |(_, seat): &(u32, &Seat)| seat.standing == Standing::Here && seat.silence == Silence::None && !seat.disconnected;
        let Some((slot, seat)) = self.pool.seat(id).filter(here) else { return Err("unreachable".into()) };
        match (seat.inactive, self.pool.makes_room(slot)) {
            (true, _) => Err(super::drains::mode_text(self.drains.mode(id)).into()),
            (false, true) => Err("kept for a task that waits for as much".into()),
            (false, false) => Ok((slot, seat)),
        }
    }

    /// Why these agents have no room for a task of this shape; empty where they have.
    pub(super) fn rooms(&self, role: &Role, shape: &Resources, agents: &[AgentId]) -> Vec<(AgentId, String, String)> {
        let known = agents.iter().filter_map(|id| Some((*id, self.rest.agents.get(id).filter(|known| !known.gone)?)));
        known.map(|(id, known)| (id, known.info.name.clone(), self.room_on(id, (role, shape), &known.info.capacity))).collect()
    }

    fn room_on(&self, id: AgentId, (role, shape): (&Role, &Resources), capacity: &Resources) -> String {
        let (slot, seat) = match self.seat_of_use(id) {
            Ok(found) => found,
            Err(why) => return why,
        };
        let never = capacity.short_of(&shape.made_firm());
        if !never.is_empty() {
            return lacks(&never, shape, capacity, "in all");
        }
        let mut free = seat.room_of(role).into_owned();
        amounts::add(&mut free, &seat.offered, 1);
        let short = free.short_of(shape);
        if !short.is_empty() {
            return lacks(&short, shape, &free, "free");
        }
        let broken = Pool::short_devices(self.pool.booked_devices(slot).as_ref(), shape);
        match (broken.first(), Pool::room(seat).0) {
            (Some(device), _) => format!("no single {device} has so much free, or not so many are whole"),
            (None, 0) => "it has no place for more tasks, or what runs there is not known yet".to_owned(),
            (None, _) => String::new(),
        }
    }

    /// How a shape fits this shard's agents, now and empty. Looks at each of them: for people, never for a decision.
    pub(super) fn explain_shape(&self, role: &Role, shape: &Resources, asked: &Asked) -> ShapeView {
        let mut view = ShapeView::default();
        let alone = shape.made_firm(); // An empty agent lends nearly all that it has.
        let mut best: Option<(usize, u64, &str, Vec<ResourceKind>, Resources)> = None;
        let mut without = None;
        for (id, known) in self.rest.agents.iter().filter(|(_, known)| !known.gone) {
            view.agents += 1;
            let against = asked
                .against(&Stand::from(&known.info), |job| self.pool.seat(*id).is_some_and(|(_, seat)| beside::has(&seat.attempts, job)));
            let singles = Singles::of(&known.info.capacity);
            let fits_empty = known.info.capacity.contains(&alone) && Pool::short_devices(singles.as_ref(), &alone).is_empty();
            view.would_fit_empty += u32::from(fits_empty && against.is_empty());
            amounts::max(&mut view.largest_capacity, &known.info.capacity);
            let (slot, seat) = match self.seat_of_use(*id) {
                Ok(found) => found,
                Err(why) => {
                    *view.short.entry(why).or_insert(0) += 1;
                    continue;
                }
            };
            let (attempts, mut free) = (Pool::room(seat).0, seat.room_of(role).into_owned());
            amounts::add(&mut free, &seat.offered, 1);
            if !against.is_empty() {
                if let [Against { without: Some(rule), .. }] = &against[..]
                    && free.contains(shape)
                {
                    without.get_or_insert_with(|| format!("without {rule} it would fit on agent {} now", known.info.name));
                }
                against.iter().for_each(|rule| *view.short.entry(format!("{NOT_THERE}{}", rule.text)).or_insert(0) += 1);
                continue;
            }
            amounts::max(&mut view.largest_free, &free);
            let mut short = free.short_of(shape);
            let singles = short.is_empty().then(|| self.pool.booked_devices(slot)).flatten();
            let broken = Pool::short_devices(singles.as_ref(), shape);
            if !broken.is_empty() {
                broken.iter().for_each(|name| *view.short.entry(format!("{SINGLE}{name}")).or_insert(0) += 1);
                continue;
            }
            if short.is_empty() && attempts > 0 {
                view.fitting += 1;
                continue;
            }
            if short.is_empty() {
                *view.short.entry("attempts".into()).or_insert(0) += 1;
                continue;
            }
            for kind in &short {
                *view.short.entry(kind.to_string()).or_insert(0) += 1;
            }
            short.sort_unstable();
            let missing = short.iter().map(|kind| missing_ppm(kind, shape, &free)).max().unwrap_or(0);
            if best.as_ref().is_none_or(|(kinds, least, ..)| (short.len(), missing) < (*kinds, *least)) {
                best = Some((short.len(), missing, &known.info.name, short, free));
            }
        }
        match best.filter(|_| view.fitting == 0) {
            Some((_, _, name, short, free)) => view.change = change(name, &short, shape, &free),
            None if view.fitting == 0 => view.change = without.unwrap_or_default(),
            None => {}
        }
        view.role_share_ppm = self.pool.role_share_ppm(role);
        view
    }
}

impl Pool {
    /// The role's dominant share of all agents, in millionths.
    #[must_use]
    pub fn role_share_ppm(&self, role: &Role) -> u64 {
        let share = u128::from(self.roles.share(role, &self.whole));
        u64::try_from(share * 1_000_000 / u128::from(amounts::SHARE_ONE)).unwrap_or(u64::MAX)
    }
}

/// What part of the need is missing, in millionths.
fn missing_ppm(kind: &ResourceKind, shape: &Resources, free: &Resources) -> u64 {
    let (need, have) = (amounts::of_kind(kind, shape), amounts::of_kind(kind, free));
    let missing = u128::from(need.saturating_sub(have)) * 1_000_000;
    u64::try_from(missing / u128::from(need.max(1))).unwrap_or(u64::MAX)
}

/// What there is too little of, and how much.
fn lacks(short: &[ResourceKind], shape: &Resources, have: &Resources, how: &str) -> String {
    let one = |kind: &ResourceKind| {
        let (need, have) = (amounts::of_kind(kind, shape), amounts::of_kind(kind, have));
        format!("{kind}: {have}{} {how}, {need} needed", unit(kind))
    };
    short.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What stands behind a number of a kind.
fn unit(kind: &ResourceKind) -> &'static str {
    match kind {
        kind if kind.is_bytes() => " bytes",
        ResourceKind::Ports => "",
        _ => " milli",
    }
}

fn change(agent: &str, short: &[ResourceKind], shape: &Resources, free: &Resources) -> String {
    let mut text = String::new();
    for kind in short {
        let unit = unit(kind);
        let comma = if text.is_empty() { "" } else { ", " };
        let (from, to) = (amounts::of_kind(kind, shape), amounts::of_kind(kind, free));
        write!(text, "{comma}{kind} {to}{unit} instead of {from}").expect("writing to a string does not fail");
    }
    write!(text, " would fit on agent {agent} now").expect("writing to a string does not fail");
    text
}
