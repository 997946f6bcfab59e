//! What a [`JobSpec`] means: every default and every bound of a job, and the [`Job`] that comes of one within them.
//!
//! Knows no text and no place in it beyond the spans that the spec carries.

use super::bundle::Verdict;
use super::member::MemberJudge;
use super::problem::{Code, PROBLEMS_MAX, Problem};
use super::spec::{JobSpec, TaskSpec};
use protocol::devices::may_ask;
use protocol::ids::ROLE_DEFAULT;
use protocol::job::PRIORITY_DEFAULT;
use protocol::job::{AFTER_MAX, COUNT_MAX, FENCE_VARIABLE, PRIORITY_MAX, RestartPolicy};
use protocol::resources::PORTS_PER_TASK_MAX;
use protocol::{Checks, Digest, Job, Kind, Name, Resources, Restart, Role, Template};
use std::sync::Arc;

/// How often a task of a batch job is tried again where its job says `on-failure` and no number. A service is tried for ever.
pub const RETRIES_DEFAULT: u32 = 3;
/// Most retries that can be named.
pub const RETRIES_MAX: u32 = 1_000_000;
/// The first wait before a restart where none is named, in milliseconds.
pub const BACKOFF_FIRST_MS_DEFAULT: u64 = 1_000;
/// Least of it: below, a task that ends at once is a load of its own.
pub const BACKOFF_FIRST_MS_MIN: u64 = 10;
/// What each further wait is multiplied with where nothing is named, in thousandths.
pub const BACKOFF_FACTOR_MILLI_DEFAULT: u32 = 1_150;
/// Most of it.
pub const BACKOFF_FACTOR_MILLI_MAX: u32 = 100_000;
/// The longest wait where none is named, in milliseconds.
pub const BACKOFF_MS_DEFAULT: u64 = 300_000;
/// The longest wait that can be named, in milliseconds: a day.
pub const BACKOFF_MS_MAX: u64 = 86_400_000;

/// All reasons against `spec` that need no bundle to be seen.
pub(super) fn judge(spec: &JobSpec) -> Vec<Problem> {
    let mut judge = Judge { spec, problems: Vec::new() };
    judge.whole();
    for (at, task) in spec.tasks.iter().enumerate() {
        MemberJudge { judge: &mut judge, spec, task, at }.judge();
    }
    judge.group();
    judge.restart();
    judge.fenced();
    judge.system();
    judge.devices();
    judge.place(&spec.place, spec.name.as_ref());
    judge.labels();
    judge.problems
}

/// The job that `spec` describes, with every default filled in; or all reasons against it.
///
/// `looked` says what was uploaded under a digest, where anything was.
///
/// # Errors
/// All problems at once, up to [`PROBLEMS_MAX`].
pub fn admit(spec: JobSpec, looked: &impl Fn(Digest) -> Option<Verdict>) -> Result<Job, Vec<Problem>> {
    let mut problems = judge(&spec);
    let mut judge = Judge { spec: &spec, problems: Vec::new() };
    let mut found = Vec::with_capacity(spec.tasks.len());
    for (at, task) in spec.tasks.iter().enumerate() {
        found.push(MemberJudge { judge: &mut judge, spec: &spec, task, at }.bundles(looked));
    }
    problems.append(&mut judge.problems);
    problems.truncate(PROBLEMS_MAX);
    if problems.is_empty() { build(spec, found) } else { Err(problems) }
}

/// The kind that `spec` names or that is guessed: a service restarts always, has ports or checks or is updated part by part; all else is a batch.
pub(super) fn kind(spec: &JobSpec) -> Kind {
    let lasts = |task: &TaskSpec| !task.resources.ports.is_empty() || task.health.is_some() || task.readiness.is_some();
    let lasts = spec.tasks.iter().any(lasts);
    let goes_on = spec.restart.policy == Some(RestartPolicy::Always) || lasts || is_service(spec);
    let guess = if goes_on && spec.restart.policy != Some(RestartPolicy::Never) { Kind::Service } else { Kind::Batch };
    spec.kind.unwrap_or(guess)
}

/// True where something is said that only a service has.
fn is_service(spec: &JobSpec) -> bool {
    spec.update.is_said() || spec.fenced || !spec.after.is_empty()
}

/// What each task is promised, all members together; `None` where that cannot be counted.
#[must_use]
pub fn resources(spec: &JobSpec) -> Option<Resources> {
    spec.tasks.iter().try_fold(Resources::NONE, |sum, task| sum.checked_add(&task.amounts()))
}

/// A judged spec as a job; `found` are the bundles of its tasks.
fn build(spec: JobSpec, found: Vec<(Option<Digest>, Option<Digest>)>) -> Result<Job, Vec<Problem>> {
    let kind = kind(&spec);
    let restart = restart(&spec, kind);
    let uncountable = || vec![Problem::new(Code::TooLarge, "resources", "the tasks of the group together are more than can be counted")];
    let resources = resources(&spec).ok_or_else(uncountable)?;
    let (strict, fenced) = (spec.strict, spec.fenced);
    let checks: Vec<Checks> = (0..spec.tasks.len()).map(|at| super::checks::build(&spec, at)).collect();
    let built = |((task, checks), (bundle, stdin)): ((TaskSpec, Checks), (Option<Digest>, Option<Digest>))| {
        let mut member = task.build(kind, strict, bundle?, stdin);
        member.set_checks(&checks);
        if fenced {
            let at = member.env.partition_point(|(name, _)| name.as_str() < FENCE_VARIABLE);
            member.env.insert(at, (FENCE_VARIABLE.to_owned(), String::new()));
        }
        Some(member)
    };
    let members = spec.tasks.into_iter().zip(checks).zip(found).map(built).collect::<Option<Vec<_>>>();
    let missing = || vec![Problem::new(Code::Missing, "task", "the job does not say what runs")];
    let members = members.filter(|members| !members.is_empty()).ok_or_else(missing)?;
    Ok(Job {
        role: spec.role.unwrap_or_else(|| Role::new(ROLE_DEFAULT).expect("the default role is one")),
        name: spec.name,
        kind,
        priority: spec.priority.unwrap_or(PRIORITY_DEFAULT),
        count: if kind == Kind::System { 0 } else { spec.count.unwrap_or(1) },
        template: Arc::new(Template { members, resources }),
        restart,
        update_parallel: spec.update.parallel(),
        place: super::place::build(spec.place),
        about: super::labels::build(spec.labels, spec.origin),
        update: spec.update.build(),
        after: spec.after,
    })
}

fn restart(spec: &JobSpec, kind: Kind) -> Restart {
    let by_kind = match kind {
        Kind::Batch | Kind::Task => RestartPolicy::Never,
        Kind::Service | Kind::System => RestartPolicy::Always,
    };
    let policy = spec.restart.policy.unwrap_or(by_kind);
    let retries_default = (kind == Kind::Batch && policy == RestartPolicy::OnFailure).then_some(RETRIES_DEFAULT);
    Restart {
        policy,
        retries_max: spec.restart.retries.or(retries_default),
        backoff_first_ms: spec.restart.backoff_first_ms.unwrap_or(BACKOFF_FIRST_MS_DEFAULT),
        backoff_factor_milli: spec.restart.backoff_factor_milli.unwrap_or(BACKOFF_FACTOR_MILLI_DEFAULT),
        backoff_max_ms: spec.restart.backoff_max_ms.unwrap_or(BACKOFF_MS_DEFAULT),
    }
}

/// What was found against a spec so far.
pub(super) struct Judge<'a> {
    pub(super) spec: &'a JobSpec,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    pub(super) fn push(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            let place = self.spec.place(&problem.field);
            let (line, column) = place.map_or((0, 0), |place| (place.line, place.column));
            self.problems.push(Problem { span: place.map(|place| place.span.clone()), line, column, ..problem });
        }
    }

    pub(super) fn say(&mut self, code: Code, field: &str, message: String) {
        self.push(Problem::new(code, field, message));
    }

    /// Says so where the amount is named and not from `min` to `max`.
    pub(super) fn within<T: PartialOrd + Copy>(&mut self, field: &str, amount: Option<T>, (min, max): (T, T), show: fn(T) -> String) {
        if let Some(amount) = amount.filter(|amount| *amount < min) {
            self.say(Code::BadValue, field, format!("{} is too little: at least {}", show(amount), show(min)));
        }
        if let Some(amount) = amount.filter(|amount| *amount > max) {
            self.say(Code::TooLarge, field, format!("{} is too much: at most {}", show(amount), show(max)));
        }
    }

    fn whole(&mut self) {
        let spec = self.spec;
        if spec.tasks.is_empty() {
            let problem = Problem::new(Code::Missing, "task", "the job does not say what runs");
            self.push(problem.with_help("name a file: [task] wasm = \"hello.wasm\""));
        }
        self.within("priority", spec.priority, (0, PRIORITY_MAX), |priority| priority.to_string());
        let least = if kind(spec) == Kind::Batch { 1 } else { 0 };
        self.within("count", spec.count, (least, COUNT_MAX), |count| count.to_string());
        self.update(&spec.update);
        self.after();
        if resources(spec).and_then(|sum| sum.checked_mul(spec.count.unwrap_or(1))).is_none() {
            let message = "so many tasks with these resources are more than can be counted";
            self.say(Code::TooLarge, "count", message.to_owned());
        }
    }

    /// What concerns all tasks of a group together.
    fn group(&mut self) {
        let tasks = self.spec.tasks.iter().enumerate();
        let mut names: Vec<(&Name, usize)> = tasks.clone().filter_map(|(at, task)| Some((task.name.as_ref()?, at))).collect();
        let mut ports: Vec<(&Name, usize)> = tasks.flat_map(|(at, task)| task.resources.ports.iter().map(move |port| (port, at))).collect();
        if ports.len() > usize::from(PORTS_PER_TASK_MAX) && self.spec.group {
            self.say(Code::TooLarge, "task", format!("{} ports in the group: at most {PORTS_PER_TASK_MAX}", ports.len()));
        }
        let lent = |task: &TaskSpec| task.resources.revocable;
        if let Some(at) = self.spec.tasks.iter().position(lent).filter(|_| !self.spec.tasks.iter().all(lent)) {
            let field = self.spec.field(at, "resources.revocable");
            let problem = Problem::new(Code::Conflict, &field, "a group ends as one: all of its tasks are revocable, or none");
            self.push(problem.with_help("say it of each, or of none"));
        }
        names.sort_unstable();
        ports.sort_unstable();
        for (list, field) in [(names, "name"), (ports, "resources.ports")] {
            if let Some(pair) = list.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1) {
                let field = self.spec.field(pair[1].1, field);
                self.say(Code::DuplicateField, &field, format!("another task of the group has '{}'", pair[0].0));
            }
        }
    }

    /// A task has part of one device, or whole ones; a group has its devices together.
    fn devices(&mut self) {
        let broken = |amounts: &Resources| amounts.devices.iter().find(|device| !device.is_revocable() && !may_ask(device.milli)).cloned();
        let of_one = self.spec.tasks.iter().enumerate().find_map(|(at, task)| Some((at, broken(&task.amounts())?)));
        let of_all = || Some((0, broken(&resources(self.spec)?)?));
        if let Some((at, device)) = of_one.or_else(of_all) {
            let field = self.spec.field(at, "resources.devices");
            let message = format!("{} thousandths of {}: a task has part of one device, or whole ones", device.milli, device.name);
            self.push(
                Problem::new(Code::BadValue, &field, message)
                    .with_help("at most 1 of a kind, or 2, 3 and so on; a group has its devices together"),
            );
        }
    }

    /// What begins after others is a service, and others than itself.
    fn after(&mut self) {
        let spec = self.spec;
        if spec.after.len() > AFTER_MAX {
            self.say(Code::TooLarge, "service.after", format!("{} services: at most {AFTER_MAX}", spec.after.len()));
        }
        if let Some(name) = spec.name.as_ref().filter(|name| spec.after.contains(name)) {
            self.say(Code::Conflict, "service.after", format!("a cycle: {name} would begin after itself"));
        }
        if kind(spec) == Kind::Batch && !spec.after.is_empty() {
            let problem = Problem::new(Code::NotYet, "service.after", "this version knows no order of batch jobs yet");
            self.push(problem.with_help("kind = \"service\""));
        }
    }

    /// What is fenced is one service of one task.
    fn fenced(&mut self) {
        if !self.spec.fenced {
            return;
        }
        if let Some(count) = self.spec.count.filter(|count| *count != 1) {
            let problem = Problem::new(Code::Conflict, "count", format!("a fenced service has one task, not {count}"));
            self.push(problem.with_help("count = 1, or service.fenced = false"));
        }
        if kind(self.spec) == Kind::Batch {
            let problem = Problem::new(Code::Conflict, "service.fenced", "a batch job cannot be fenced");
            self.push(problem.with_help("kind = \"service\", or service.fenced = false"));
        }
    }

    fn restart(&mut self) {
        let restart = &self.spec.restart;
        if kind(self.spec) == Kind::Batch && restart.policy == Some(RestartPolicy::Always) {
            let field = if self.spec.place("restart.policy").is_some() { "restart.policy" } else { "restart" };
            let problem = Problem::new(Code::Conflict, field, "a batch job that always restarts its tasks never ends");
            self.push(problem.with_help("kind = \"service\", or restart = \"on-failure\""));
        }
        self.within("restart.retries", restart.retries, (0, RETRIES_MAX), |retries| retries.to_string());
        self.within("restart.backoff.first", restart.backoff_first_ms, (BACKOFF_FIRST_MS_MIN, BACKOFF_MS_MAX), millis);
        self.within("restart.backoff.max", restart.backoff_max_ms, (BACKOFF_FIRST_MS_MIN, BACKOFF_MS_MAX), millis);
        let factor = restart.backoff_factor_milli;
        self.within("restart.backoff.factor", factor, (1_000, BACKOFF_FACTOR_MILLI_MAX), |factor| cores(u64::from(factor)));
        let first = restart.backoff_first_ms.unwrap_or(BACKOFF_FIRST_MS_DEFAULT);
        if restart.backoff_max_ms.is_some_and(|max| max < first) {
            self.say(Code::Conflict, "restart.backoff.max", format!("it is less than the first wait: {}", millis(first)));
        }
    }
}

/// Cores, of thousandths.
pub(super) fn cores(milli: u64) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000)
}

/// A time in its largest unit.
pub(super) fn millis(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// Bytes in the largest unit that divides them.
pub(super) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes}B"), |(shift, name)| format!("{}{name}", bytes >> shift))
}
