//! Between the master, which asks policies and links no wasm, and the runtime, which runs components and knows no master.

use futures::FutureExt;
use futures::future::BoxFuture;
use master::plugins::{Admission, Asked, Candidate, Kind, LoadError, Loaded, Loader, Ranking, Score};
use protocol::job::Kind as JobKind;
use protocol::{Job, Resources};
use runtime::Metering;
use runtime::wasm::compile::{CompileError, compatibility};
use runtime::wasm::policy::{self, Admissions, Policies, Scores};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes plug-ins of components: compiled by this binary in a process of its own, run in this one.
pub struct Plugins {
    policies: Policies,
    /// What compiled code is good for.
    compatible: u64,
}

struct Scoring(Scores);
struct Admitting(Admissions);

impl Plugins {
    /// Those of this machine; none where it allows for no engine.
    pub fn start() -> Option<Arc<dyn Loader>> {
        let made = std::env::current_exe().map_err(|error| error.to_string()).and_then(|binary| {
            let policies = Policies::new(&binary).map_err(|error| error.to_string())?;
            let compatible = compatibility(Metering::Fuel).map_err(|error| error.to_string())?;
            Ok(Self { policies, compatible })
        });
        match made {
            Ok(plugins) => Some(Arc::new(plugins)),
            Err(reason) => {
                tracing::warn!(reason, "this master can run no policies");
                None
            }
        }
    }
}

impl Loader for Plugins {
    fn load(&self, kind: Kind, wasm: PathBuf, compiled: PathBuf) -> BoxFuture<'static, Result<Loaded, LoadError>> {
        let policies = self.policies.clone();
        let mut name = compiled.into_os_string();
        name.push(format!("-{:016x}", self.compatible));
        let compiled = PathBuf::from(name);
        async move {
            // What was compiled before is as good as new, unless it is not whole.
            if let Ok(loaded) = loaded(&policies, kind, &compiled) {
                return Ok(loaded);
            }
            policies.compile(&wasm, &compiled).await.map_err(|error| match error {
                CompileError::Refused(_) | CompileError::Limit(_) => LoadError::Refused(error.to_string()),
                CompileError::Failed(_) => LoadError::Failed(error.to_string()),
            })?;
            loaded(&policies, kind, &compiled)
        }
        .boxed()
    }
}

fn loaded(policies: &Policies, kind: Kind, compiled: &Path) -> Result<Loaded, LoadError> {
    let loaded = match kind {
        Kind::Score => policies.scores(compiled).map(|scores| Loaded::Score(Arc::new(Scoring(scores)))),
        Kind::Admission => policies.admissions(compiled).map(|admissions| Loaded::Admission(Arc::new(Admitting(admissions)))),
    };
    loaded.map_err(|error| match error {
        runtime::wasm::LoadError::Refused(reason) => LoadError::Refused(reason),
        other => LoadError::Failed(other.to_string()),
    })
}

impl Score for Scoring {
    fn score(&self, asked: &Asked, candidates: &[Candidate]) -> Result<Ranking, String> {
        let want =
            policy::Want { role: asked.role.to_string(), priority: asked.priority, needs: amounts(&asked.needs), count: asked.count };
        let candidates: Vec<policy::Candidate> = candidates.iter().map(candidate).collect();
        let policy::Ranking { scores, fill } = self.0.score(&want, &candidates)?;
        Ok(Ranking { scores, fill })
    }
}

impl Admission for Admitting {
    fn admit(&self, job: &Job, json: &str) -> Result<Result<(), String>, String> {
        let kind = match job.kind {
            JobKind::Batch => "batch",
            JobKind::Service => "service",
            JobKind::Task => "task",
            JobKind::System => "system",
        };
        self.0.admit(&policy::Job {
            role: job.role.to_string(),
            name: job.name.as_ref().map(ToString::to_string),
            kind: kind.into(),
            priority: job.priority,
            count: job.count,
            needs: amounts(&job.template.resources),
            json: json.into(),
        })
    }
}

fn candidate(of: &Candidate) -> policy::Candidate {
    let stand = &of.stand;
    policy::Candidate {
        name: stand.name.clone(),
        region: stand.domain.region.clone(),
        zone: stand.domain.zone.clone(),
        rack: stand.domain.rack.clone(),
        attributes: stand.attributes.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        capacity: amounts(&of.capacity),
        free: amounts(&of.free),
        attempts: of.attempts,
        room: of.room,
    }
}

fn amounts(of: &Resources) -> policy::Amounts {
    policy::Amounts {
        cpu_milli: of.cpu_milli,
        memory_bytes: of.memory_bytes,
        disk_bytes: of.disk_bytes,
        ports: of.ports,
        devices_milli: of.devices.iter().map(|device| (device.name.to_string(), device.milli)).collect(),
    }
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("policies as components")
    }
}

impl fmt::Debug for Scoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component that scores agents")
    }
}

impl fmt::Debug for Admitting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component that judges jobs")
    }
}
