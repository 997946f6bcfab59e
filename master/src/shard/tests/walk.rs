//! A seeded walk through all that can happen, in any order; afterwards everything heals, and every task must come to its end.

use super::*;

const AGENTS: u64 = 3;
const STEPS: u64 = 400;

/// xorshift64 (Marsaglia, 2003).
pub(super) struct Draws(pub(super) u64);

impl Draws {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    pub(super) fn some<T>(&mut self, of: Vec<T>) -> Vec<T> {
        of.into_iter().filter(|_| self.below(2) == 0).collect()
    }
}

struct Walk {
    world: World,
    draws: Draws,
    jobs: Vec<JobId>,
    incarnations: BTreeMap<AgentId, u64>,
}

impl Walk {
    fn step(&mut self) {
        let agent = AgentId(1 + self.draws.below(AGENTS));
        let world = &mut self.world;
        match self.draws.below(14) {
            0 | 1 => self.submit(),
            2 => self.ask_of_a_job(),
            3 => self.register(agent),
            4 => {
                *self.incarnations.entry(agent).or_insert(0) += 1;
                world.agents.insert(agent, Script::default());
                self.register(agent);
            }
            5 => world.event(Event::Disconnected { agent }),
            6 => world.new_leader(),
            7 => drop(if world.deaf.remove(&agent) { None } else { Some(world.deaf.insert(agent)) }),
            8 => world.pass(self.draws.below(3_000), &[]),
            9 => world.pass(self.draws.below(40_000), &[agent]),
            10 => {
                let attempts = self.draws.some(world.agents.get(&agent).map(|_| world.held(agent)).unwrap_or_default());
                world.running(agent, &attempts);
            }
            11 => {
                let attempts = self.draws.some(world.agents.get(&agent).map(|_| world.held(agent)).unwrap_or_default());
                // What it refuses it never took, whatever it said before.
                let script = world.agents.entry(agent).or_default();
                script.held.retain(|attempt, _| !attempts.contains(attempt));
                script.launched.retain(|attempt| !attempts.contains(attempt));
                world.say(agent, FromAgent::Refused { attempts, reason: String::new() });
            }
            _ => self.work(agent),
        }
        for id in std::mem::take(&mut self.world.disconnected) {
            self.world.agents.entry(id).or_default().session = 0;
        }
    }

    fn submit(&mut self) {
        let kind = if self.draws.below(3) == 0 { Kind::Service } else { Kind::Batch };
        let role = as_role(["red", "blue", "green"][self.draws.below(3) as usize]);
        let (count, cpu_milli) = (self.draws.below(9) as u32, 100 + self.draws.below(900));
        let mut job = Job { role, priority: self.draws.below(3) as u8, ..job(kind, count, cpu_milli) };
        job.restart.policy = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never][self.draws.below(3) as usize];
        job.restart.retries_max = Some(self.draws.below(4) as u32);
        let named = self.draws.below(2) == 0;
        job.name = named.then(|| name(["a", "b"][self.draws.below(2) as usize]));
        let request = if named { Request::Apply { job } } else { Request::Submit { job, key: None, follow: true } };
        if let Response::Submitted { job, new: true } = self.world.ask(request) {
            self.jobs.push(job);
        }
    }

    fn ask_of_a_job(&mut self) {
        let Some(at) = self.jobs.len().checked_sub(1).map(|last| self.draws.below(last as u64 + 1)) else { return };
        let job = JobRef::Id(self.jobs[at as usize]);
        let request = match self.draws.below(2) {
            0 => Request::Stop { job, grace_ms: self.draws.below(100) },
            _ => Request::Scale { job, count: self.draws.below(9) as u32 },
        };
        self.world.ask(request);
    }

    fn register(&mut self, agent: AgentId) {
        let incarnation = *self.incarnations.entry(agent).or_insert(1);
        self.world.register(agent, cpu(3_000), incarnation);
    }

    /// The agent does what it was told, ends some tasks, beats, and reports where it was asked to.
    fn work(&mut self, agent: AgentId) {
        let Some(script) = self.world.agents.get_mut(&agent).filter(|script| script.session > 0) else { return };
        let mut killed = std::mem::take(&mut script.killed);
        let wanted = std::mem::take(&mut script.reports_wanted);
        let session = script.session;
        killed.retain(|attempt| script.held.contains_key(attempt));
        self.world.end(agent, &killed, &Exit::Killed);
        let some = self.draws.some(self.world.held(agent));
        let (good, bad): (Vec<_>, Vec<_>) = some.into_iter().partition(|_| self.draws.below(3) > 0);
        self.world.end(agent, &good, &Exit::Code(0));
        self.world.end(agent, &bad, &Exit::Trap { reason: "unreachable".into() });
        if wanted > 0 {
            self.world.report(agent, session);
        }
        let again: Vec<AttemptId> = self.world.agents[&agent].held.iter().filter(|(_, ended)| **ended).map(|(id, _)| *id).collect();
        self.world.end(agent, &again, &Exit::Code(7));
        self.world.beat(agent);
    }

    fn heal(&mut self) {
        self.world.deaf.clear();
        for agent in (1..=AGENTS).map(AgentId) {
            self.register(agent);
        }
        for id in self.jobs.clone() {
            self.world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
        }
        for _ in 0..60 {
            (1..=AGENTS).for_each(|agent| self.work(AgentId(agent)));
            self.world.pass(200, &[]);
        }
    }
}

#[test]
fn whatever_happens_every_task_ends_once_and_nothing_stays_booked() {
    for seed in 1..=60u64 {
        let draws = Draws(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut walk = Walk { world: World::new(), draws, jobs: Vec::new(), incarnations: BTreeMap::new() };
        walk.world.agents = (1..=AGENTS).map(|agent| (AgentId(agent), Script::default())).collect();
        for step in 0..STEPS {
            walk.step();
            if step % 40 == 0 {
                walk.world.check();
            }
        }
        walk.heal();
        let shard = &walk.world.shard;
        assert!(shard.jobs.live.is_empty(), "seed {seed}: {:?} have not ended", shard.jobs.live);
        assert!(shard.jobs.by_agent.is_empty() && shard.jobs.lines.waiting() == 0, "seed {seed}");
        assert!(shard.followers.is_empty(), "seed {seed}");
        for seat in &shard.pool.seats {
            assert!(seat.attempts.is_empty() && seat.booked.is_none() && seat.offered.is_none(), "seed {seed}: {seat:?}");
        }
        assert!(shard.pool.offers.is_empty() && shard.pool.roles.is_empty(), "seed {seed}: {:?}", shard.pool.roles);
        assert!(walk.world.agents.values().all(|script| script.held.is_empty()), "seed {seed}: an agent still owes an end");
        walk.world.check();
    }
}
