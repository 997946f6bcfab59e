//! A master's process as the simulator plays it: a replica of every shard, those of them that lead, and who it holds for the leaders of the
//! others.

use crate::clock::Clock;
use crate::engine::Engine;
use crate::plan::{Bug, Plan};
use crate::raft::{LOG_ENTRIES_MAX, Replica};
use crate::random::Random;
use crate::seat::Seat;
use master::journal::JournalError;
use master::shard::ShardConfig;
use protocol::{ShardId, Time};

/// A master.
pub struct Master {
    /// Whether its process lives.
    pub up: bool,
    /// How often it was started.
    pub life: u64,
    /// Its clock.
    pub clock: Clock,
    /// Until when its process is stopped: nothing arrives and no timer of it fires.
    pub stopped_until: Time,
    /// Until when its disk is slow all the time.
    pub slow_until: Time,
    /// Whether it is slow now and then until all is well.
    pub slow: bool,
    /// Its members of the real groups, where the groups are real.
    pub engine: Option<Engine>,
    /// Its replica of each shard, where the groups are a model.
    pub replicas: Vec<Replica>,
    /// Of each shard that it leads, the shard.
    pub seats: Vec<Option<Seat>>,
    /// Who leads each shard, as far as it knows: the term and the master.
    pub known: Vec<Option<(u64, usize)>>,
    /// When its look at each replica is due, in true time.
    pub raft_timers: Vec<Option<Time>>,
}

fn config(plan: &Plan, id: u16) -> ShardConfig {
    let default = ShardConfig::default().replaced_after(plan.replace_after_ms);
    ShardConfig {
        lease_ms: if plan.long_leases { plan.lease_ms_max() } else { default.lease_ms },
        id: ShardId(id),
        shards: plan.shards,
        heartbeat_ms: plan.heartbeat_ms,
        unreachable_ms: plan.unreachable_ms(),
        mass_percent: if plan.bug == Some(Bug::GivesUpMost) { 101 } else { default.mass_percent },
        ..default
    }
}

impl Master {
    /// One that was never started.
    #[must_use]
    pub fn new(plan: &Plan, me: usize, random: &mut Random) -> Self {
        let shards = usize::from(plan.shards);
        let configs = || (0..plan.shards).map(|id| config(plan, id));
        let model = || configs().map(|config| Replica::new(config, me, plan.masters, plan.bug)).collect();
        Self {
            up: false,
            life: 0,
            clock: if plan.masters == 1 { Clock::TRUE } else { Clock::draw(random) },
            stopped_until: Time::ZERO,
            slow_until: Time::ZERO,
            slow: plan.slow_disks,
            engine: plan.real_groups.then(|| Engine::new(configs().collect(), me, plan.bug)),
            replicas: if plan.real_groups { vec![] } else { model() },
            seats: (0..shards).map(|_| None).collect(),
            known: vec![None; shards],
            raft_timers: vec![None; shards],
        }
    }

    /// Its process starts, with what is on its disk. In every other life its logs begin with new snapshots where they have become long.
    ///
    /// # Errors
    /// What is on its disk cannot be used.
    pub fn start(&mut self, now: Time, founds: bool, random: &mut Random) -> Result<(), JournalError> {
        self.life += 1;
        self.up = true;
        let shown = self.clock.show(now);
        for replica in &mut self.replicas {
            replica.start(self.life, shown, random);
        }
        self.engine.as_mut().map_or(Ok(()), |engine| engine.start(shown, founds, random))
    }

    /// Its process is killed.
    pub fn kill(&mut self, random: &mut Random) {
        self.up = false;
        self.stopped_until = Time::ZERO;
        for replica in &mut self.replicas {
            if self.life.is_multiple_of(2) && replica.kept() > LOG_ENTRIES_MAX {
                replica.compact();
            }
            replica.kill(random.below(3));
        }
        if let Some(engine) = &mut self.engine {
            engine.kill(random.below(3) as usize, random.chance(300));
        }
        self.seats.iter_mut().for_each(|seat| *seat = None);
        self.known.fill(None);
        self.raft_timers.fill(None);
    }

    /// How long its disk takes now, in milliseconds.
    pub fn disk_ms(&self, now: Time, random: &mut Random) -> u64 {
        match random.chance(20) {
            _ if self.slow_until > now || self.slow && random.chance(300) => random.between(100, 2_000),
            true => random.between(10, 200),
            false => random.between(0, 2),
        }
    }
}
