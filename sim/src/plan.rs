//! What a seed decides before anything happens: how large the cluster is, how bad its network, how often things break; and the bugs that
//! are put in on purpose, to see that the checks would find them.

use crate::random::Random;
use protocol::link::VERSION;

/// One seed in so many runs the real groups.
pub const OPENRAFT_SEEDS: u64 = 100;

/// A bug put in on purpose, in the model around the real shard and ledger: what the code would do if it broke its own rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The door does what is held before its record is committed.
    TellsBeforeCommit,
    /// Recovery leaves out the last entry that was flushed.
    ForgetsLastEntry,
    /// The agent's records are not written when it is killed.
    LedgerUnwritten,
    /// A recovering agent starts what it finds on record as taken on, as if no executor could have it.
    RunsTwice,
    /// The agent promises twice what it has.
    PromisesDouble,
    /// Silence is never followed by replacement.
    NeverReplaces,
    /// Acknowledgements never arrive.
    NeverAcknowledges,
    /// A recovering agent says that none of its tasks survived.
    ForgetsSurvivors,
    /// The shard hears each submission with a key of its own, as if keys were not kept.
    ForgetsKeys,
    /// A replica folds one record differently.
    FoldsDifferently,
    /// A new leader gives no agent time to say that it lives.
    GivesNoTimeout,
    /// The shards of an agent's tasks are not told that it is gone for good.
    KeepsTheGone,
    /// A leader takes for committed what its own disk has.
    CommitsAlone,
    /// Voters vote, and replicas ask for votes, while a leader they heard of may still act.
    WaitsForNoLease,
    /// A leader goes on after its lease, until it hears of another.
    KeepsNoLease,
    /// A replica that has lost its disk votes at once.
    VotesWithoutDisk,
    /// Shards are not told of each other's leaders when two masters have a connection again.
    LeavesOutLed,
    /// Who leads no longer does what was held.
    DoesWhatWasHeld,
    /// Agents are given up however many are silent at once.
    GivesUpMost,
    /// A lease counts from when the answer to a beat is received.
    LeaseFromReceipt,
    /// Fenced tasks are replaced before their leases are over.
    ReplacesBeforeLease,
    /// The shards of jobs hear that each agent stands where no other does.
    MisplacesAgents,
    /// Shards that place tasks hear of twice as much of a role's limit as they were granted.
    GrantsDouble,
    /// Agents' shards hear that all jobs are of the lowest priority, and tasks stop whatever theirs is.
    PreemptsUpwards,
    /// What of its devices an agent's attempts have is not on its record.
    ForgetsDevices,
    /// Agents hear of each task that it is well.
    HearsTheIllAsWell,
    /// Shards hear of each new version of a service that all of its tasks may be replaced at once.
    RollsAtOnce,
    /// The shards of system jobs do not hear of agents that match since they asked.
    OverlooksAgents,
    /// Shards that ask which job is called so hear that none is.
    HearsOfNobody,
    /// Frameworks are told the end of each task once, whether they hear it or not.
    SaysEndsOnce,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::TellsBeforeCommit,
        Self::ForgetsLastEntry,
        Self::LedgerUnwritten,
        Self::RunsTwice,
        Self::PromisesDouble,
        Self::NeverReplaces,
        Self::NeverAcknowledges,
        Self::ForgetsSurvivors,
        Self::ForgetsKeys,
        Self::FoldsDifferently,
        Self::GivesNoTimeout,
        Self::KeepsTheGone,
        Self::CommitsAlone,
        Self::WaitsForNoLease,
        Self::KeepsNoLease,
        Self::VotesWithoutDisk,
        Self::LeavesOutLed,
        Self::DoesWhatWasHeld,
        Self::GivesUpMost,
        Self::LeaseFromReceipt,
        Self::ReplacesBeforeLease,
        Self::MisplacesAgents,
        Self::GrantsDouble,
        Self::PreemptsUpwards,
        Self::ForgetsDevices,
        Self::HearsTheIllAsWell,
        Self::RollsAtOnce,
        Self::OverlooksAgents,
        Self::HearsOfNobody,
        Self::SaysEndsOnce,
    ];

    /// Whether it is one of several masters only.
    #[must_use]
    pub const fn needs_masters(self) -> bool {
        matches!(
            self,
            Self::CommitsAlone
                | Self::WaitsForNoLease
                | Self::KeepsNoLease
                | Self::VotesWithoutDisk
                | Self::LeavesOutLed
                | Self::DoesWhatWasHeld
                | Self::GivesUpMost
        )
    }

    /// Whether it is in what is the same around a model of the groups and around the real ones, and among masters.
    #[must_use]
    pub const fn shows_in_real_groups(self) -> bool {
        matches!(
            self,
            Self::TellsBeforeCommit | Self::ForgetsLastEntry | Self::KeepsNoLease | Self::VotesWithoutDisk | Self::DoesWhatWasHeld
        )
    }

    /// Whether it is one of fenced services only.
    #[must_use]
    pub const fn needs_leases(self) -> bool {
        matches!(self, Self::LeaseFromReceipt | Self::ReplacesBeforeLease)
    }

    /// Whether it is one of jobs that a build of before cannot read.
    const fn needs_new_jobs(self) -> bool {
        matches!(self, Self::HearsTheIllAsWell | Self::RollsAtOnce | Self::OverlooksAgents | Self::HearsOfNobody)
    }
}

/// What a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many shards.
    pub shards: u16,
    /// How many masters; each has a replica of every shard.
    pub masters: usize,
    /// How many agents.
    pub agents: usize,
    /// How often agents beat, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence until tasks are replaced, in milliseconds.
    pub replace_after_ms: u64,
    /// How long things may break, in milliseconds; then all is well and everything must settle.
    pub trouble_ms: u64,
    /// Whether among masters only connections break, for a short while: leaders stay, so nothing else heals what is lost with them.
    pub links_only: bool,
    /// Whether the disks of masters are slow until all is well.
    pub slow_disks: bool,
    /// Whether single messages are lost, doubled and overtaken; otherwise only connections break, as QUIC's do.
    pub wild: bool,
    /// The mean time between two faults, in milliseconds.
    pub fault_ms: u64,
    /// The mean time between two requests of clients, in milliseconds.
    pub request_ms: u64,
    /// Whether services are fenced, and machines' clocks run fast and slow.
    pub fenced: bool,
    /// Whether leases of fenced services hold as long as they may; otherwise as long as they do by themselves.
    pub long_leases: bool,
    /// Whether processes are of two builds, one of which speaks the version of the messages before this one; each start may change which.
    pub upgrades: bool,
    /// Whether the groups are real, openraft and the journal itself; otherwise they are a model of them.
    pub real_groups: bool,
    /// How many frameworks there are beside the built-in one.
    pub frameworks: usize,
    /// Whether roles get limits.
    pub limits: bool,
    /// Whether operators have something of agents kept for roles. Not where a build of before takes part, which knows nothing of it.
    pub reserves: bool,
    /// Whether jobs say where their tasks may go. Not where a build of before takes part, which cannot read them.
    pub places: bool,
    /// Whether agents lend what is idle, and some jobs are revocable.
    pub lends: bool,
    /// Whether agents have single devices, and tasks want some.
    pub devices: bool,
    /// Whether jobs have checks, and tasks are not always well. Not where a build of before takes part, which asks nobody.
    pub checks: bool,
    /// Whether services go from version to version. Not where a build of before takes part, which knows none, nor where others end tasks too.
    pub rolls: bool,
    /// Whether some jobs are system jobs. Not where a build of before takes part, which cannot read them.
    pub systems: bool,
    /// Whether tasks of some jobs are kept near those of others, or apart. Not where a build of before takes part, which cannot read that.
    pub neighbours: bool,
    /// The bug that is put in.
    pub bug: Option<Bug>,
}

/// A process, by its number among those of its kind.
#[derive(Clone, Copy, Debug)]
pub enum Process {
    /// A master.
    Master(usize),
    /// An agent.
    Agent(usize),
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed ^ 0x91a7);
        // Bugs among masters, and of leases, take many faults to be seen.
        let (among_masters, of_leases) = (bug.is_some_and(Bug::needs_masters), bug.is_some_and(Bug::needs_leases));
        let (many_faults, all_at_once) = (among_masters || of_leases, bug == Some(Bug::GivesUpMost));
        // The number leaves seeds as they were that found something before there were leases.
        let mut leases = Random::new(seed ^ 0x6b96);
        let (of_places, of_limits) = (bug == Some(Bug::MisplacesAgents), matches!(bug, Some(Bug::GrantsDouble | Bug::PreemptsUpwards)));
        let upgrades = Random::new(seed ^ 0x0b1d).chance(300) && !of_places && !of_limits && !bug.is_some_and(Bug::needs_new_jobs);
        let places = Random::new(seed ^ 0x91ac).chance(300) && bug.is_none() && !crate::REGRESSION_SEEDS.contains(&seed);
        let masters = [1, 1, 3, 3, 3, 5][Random::new(seed ^ 0x3a57).below(6) as usize];
        Self {
            seed,
            masters: if among_masters { 3 } else { masters },
            shards: if all_at_once { 1 } else { [1, 2, 3, 5][random.below(4) as usize] },
            agents: if all_at_once { 5 } else { random.between(if of_leases { 3 } else { 1 }, 5) as usize },
            heartbeat_ms: [500, 1_000, 2_000, 2_000][random.below(4) as usize],
            replace_after_ms: random.between(10, 40) * 1_000,
            trouble_ms: random.between(if many_faults { 60 } else { 5 }, 60) * 60_000,
            slow_disks: masters > 1 && Random::new(seed ^ 0xd15c).chance(100),
            links_only: bug == Some(Bug::LeavesOutLed) || all_at_once || Random::new(seed ^ 0x117c).chance(200),
            wild: random.chance(300),
            fault_ms: if many_faults { 5_000 } else { [5_000, 20_000, 60_000][random.below(3) as usize] },
            request_ms: if of_leases { 1_000 } else { [1_000, 10_000, 10_000, 40_000][random.below(4) as usize] },
            fenced: leases.chance(500) || of_leases,
            long_leases: leases.chance(500) || of_leases,
            upgrades,
            places: !upgrades && places || of_places,
            real_groups: seed.is_multiple_of(OPENRAFT_SEEDS),
            // Seeds that found something before there were frameworks are left as they were.
            frameworks: match Random::new(seed ^ 0xf7a3).below(8) {
                many @ 1..=2 if bug.is_none() && !crate::REGRESSION_SEEDS.contains(&seed) => usize::try_from(many).expect("2 at the most"),
                _ => 0,
            },
            // Nor are those from before there were limits. Masters of the version before know none.
            limits: of_limits
                || bug.is_none()
                    && !crate::REGRESSION_SEEDS.contains(&seed)
                    && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&seed)
                    && !upgrades
                    && Random::new(seed ^ 0x11a1).chance(300),
            reserves: bug.is_none()
                && !upgrades
                && !crate::REGRESSION_SEEDS.contains(&seed)
                && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&seed)
                && Random::new(seed ^ 0x5e5e).chance(300),
            lends: bug.is_none()
                && !crate::REGRESSION_SEEDS.contains(&seed)
                && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&seed)
                && !upgrades
                && Random::new(seed ^ 0x1e4d).chance(300),
            devices: bug == Some(Bug::ForgetsDevices)
                || bug.is_none()
                    && !crate::REGRESSION_SEEDS.contains(&seed)
                    && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&seed)
                    && Random::new(seed ^ 0xdef1).chance(400),
            checks: bug == Some(Bug::HearsTheIllAsWell)
                || bug.is_none()
                    && !upgrades
                    && !crate::REGRESSION_SEEDS.contains(&seed)
                    && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&seed)
                    && Random::new(seed ^ 0x4ea2).chance(300),
            rolls: false,
            systems: false,
            neighbours: false,
            bug,
        }
        .with_rolls()
        .with_new_jobs()
    }

    /// Seeds that found something before services had versions are left as they were.
    fn with_rolls(self) -> Self {
        let may =
            self.bug.is_none() && !crate::REGRESSION_SEEDS.contains(&self.seed) && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&self.seed);
        let alone = !self.upgrades && self.frameworks == 0 && !self.limits;
        let drawn = may && alone && Random::new(self.seed ^ 0x4011).chance(400);
        Self { rolls: drawn || self.bug == Some(Bug::RollsAtOnce), ..self }
    }

    /// Nor those from before there were system jobs, and before jobs said anything of each other.
    fn with_new_jobs(self) -> Self {
        let may =
            self.bug.is_none() && !crate::REGRESSION_SEEDS.contains(&self.seed) && !crate::OPENRAFT_REGRESSION_SEEDS.contains(&self.seed);
        let drawn = |number| may && !self.upgrades && Random::new(self.seed ^ number).chance(300);
        Self {
            systems: drawn(0x5e7d) || self.bug == Some(Bug::OverlooksAgents),
            neighbours: drawn(0x4e1a) || self.bug == Some(Bug::HearsOfNobody),
            frameworks: if self.bug == Some(Bug::SaysEndsOnce) { 2 } else { self.frameworks },
            ..self
        }
    }

    /// The version of the messages that a process speaks in this life.
    #[must_use]
    pub fn version(&self, process: Process, life: u64) -> u16 {
        let number = match process {
            Process::Master(number) => number,
            Process::Agent(number) => number + 1_000,
        };
        let draw = || Random::new(self.seed ^ 0xb17d ^ ((number as u64) << 32) ^ (life << 48)).chance(500);
        if self.upgrades && draw() { VERSION - 1 } else { VERSION }
    }

    /// Silence until an agent counts as unreachable, in milliseconds.
    #[must_use]
    pub const fn unreachable_ms(&self) -> u64 {
        self.heartbeat_ms * 4
    }

    /// The longest lease that is over, by whatever clocks, when a silent agent's tasks are replaced, in milliseconds.
    #[must_use]
    pub const fn lease_ms_max(&self) -> u64 {
        (self.replace_after_ms - 1_001) * 100 / 102
    }
}
