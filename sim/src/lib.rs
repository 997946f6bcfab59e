//! A whole cluster in one thread: the real shards and ledgers under a virtual clock, a bad network, crashes and torn disks. The same seed
//! does the same, so a seed is a bug report.
#![forbid(unsafe_code)]

mod agents;
mod check;
mod client;
mod clock;
mod devices;
mod door;
mod engine;
pub mod fairness;
mod frameworks;
mod groups;
mod health;
mod kept;
mod lease;
mod lent;
mod limits;
mod log;
mod machine;
mod neighbours;
mod network;
mod peers;
pub mod place;
mod places;
mod plan;
mod queue;
mod raft;
mod random;
mod rights;
mod rolls;
pub mod scale;
mod seat;
mod system;
pub mod trace;
mod trouble;
mod world;

pub use plan::{Bug, OPENRAFT_SEEDS, Plan};

use protocol::Time;
use world::World;

/// Seeds that once found a bug; each stays.
pub const REGRESSION_SEEDS: [u64; 13] = [
    31,  // A new leader launched again what had run on a machine that was reborn since.
    36,  // The same.
    292, // The refusal of an offer ended an attempt that was staged again meanwhile, and ran.
    780, // A launch of an older session came after the report without it: staged again, it was refused while it ran.
    // An agent that had registered twice took a launch of the first session on, and the report behind the second did not know it.
    9_000_276, 321, // The check's own: an agent came back between its loss and the record of it.
    374, // An agent's loss was said once, and lost with the connection of two masters.
    57, 174, // The check's own: most agents of a shard were cut off from its leader, and nobody is to be replaced then.
    // A fenced attempt that was held to be lost was staged again by a report that crossed what was said of it, and ran beside its replacement.
    1_000_008, 1_000_162,
    1_000_089, // Tasks of two lives of an agent, the first of them fenced: a report that crossed a launch ended what ran.
    1_000_088, // The check's own: a beat of an older session was late, and was taken for a sign of life.
];

/// Seeds that found a bug with the real groups; each stays.
pub const OPENRAFT_REGRESSION_SEEDS: [u64; 1] = [
    4, // A leader had been asked to let go of entries that a member still read, and by its own rule was to let go of fewer: it ended over that.
];

/// What a seed did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many masters it has.
    pub masters: usize,
    /// Virtual time, in milliseconds.
    pub time_ms: u64,
    /// What happened.
    pub steps: u64,
    /// Submissions that were acknowledged.
    pub acks: u64,
    /// Attempts on record.
    pub staged: u64,
    /// Ends on record.
    pub ended: u64,
    /// Attempts that found no room.
    pub refused: u64,
    /// Tasks of frameworks whose ends were acknowledged.
    pub framework_tasks: u64,
    /// Tasks that were placed while their role had a limit that all shards had heard of.
    pub judged: u64,
    /// Attempts that were placed where something was kept for a role.
    pub beside_kept: u64,
    /// Tasks that left their place to one of a higher priority.
    pub preempted: u64,
    /// Tasks of services that did their work and were ended for another version.
    pub replaced: u64,
    /// System jobs that were acknowledged.
    pub systems: u64,
    /// Attempts that agents were told to run of jobs that are kept near others, or apart, once for each such rule.
    pub beside_others: u64,
    /// How often a shard got a leader.
    pub leaders: u64,
    /// Pieces of snapshots that members of real groups were sent.
    pub pieces: u64,
    /// Of all that happened: equal where the same did.
    pub digest: u64,
    /// The promise that was broken, if one was.
    pub broken: Option<String>,
}

/// Runs one seed, with a bug on purpose or without.
#[must_use]
pub fn seed(seed: u64, bug: Option<Bug>) -> Report {
    run(Plan::new(seed, bug), None)
}

/// Runs what was planned; from then on what shards are told and want is written to standard error.
#[must_use]
pub fn run(plan: Plan, trace_from: Option<Time>) -> Report {
    let mut world = World::new(plan);
    world.trace_from = trace_from;
    let broken = world.run().err();
    Report {
        seed: world.plan.seed,
        masters: world.plan.masters,
        time_ms: world.now.0,
        steps: world.steps,
        acks: world.clients.acks,
        staged: world.check.staged,
        ended: world.check.ended,
        refused: world.check.refused,
        framework_tasks: world.frameworks.ended,
        judged: world.limits.judged,
        beside_kept: world.kept.judged,
        preempted: world.check.rights.preempted,
        replaced: world.rolls.replaced,
        systems: world.clients.systems(),
        beside_others: world.beside.judged,
        leaders: world.leaders,
        pieces: world.known.pieces,
        digest: world.digest,
        broken,
    }
}
