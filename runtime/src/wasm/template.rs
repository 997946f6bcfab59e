//! A plan's texts with their gaps found once: a plan without gaps costs a task nothing but the copy that WASI wants.

use crate::text::{Gaps, Text};
use crate::{Plan, Start};
use std::sync::Arc;
use wasmtime_wasi_config::WasiConfigVariables;

/// What the tasks of a plan are told.
pub struct Template {
    job: String,
    args: Vec<Text>,
    env: Vec<(String, Text)>,
    config: Vec<(String, Text)>,
    /// `config`, where it is the same for all.
    config_shared: Option<Arc<WasiConfigVariables>>,
}

impl Template {
    /// Finds the gaps in the texts of `plan`. What looks like a gap and is none of ours stays as it is.
    pub fn new(plan: &Plan) -> Self {
        let gaps = Gaps { job: &plan.job, job_id: "", agent: &plan.agent, port_names: &plan.port_names };
        let scan = |text: &String| Text::scan(text, &gaps);
        let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(key, value)| (key.clone(), scan(value))).collect::<Vec<_>>();
        let config = pairs(&plan.config);
        let plain: Option<Vec<(&str, &str)>> = config.iter().map(|(key, text)| text.plain().map(|text| (key.as_str(), text))).collect();
        let config_shared = plain.map(|plain| Arc::new(plain.into_iter().collect::<WasiConfigVariables>()));
        Self { job: plan.job.clone(), args: plan.args.iter().map(scan).collect(), env: pairs(&plan.env), config, config_shared }
    }

    /// The arguments of one task; the first is the job, in the place of a program's name.
    pub fn args(&self, start: &Start) -> Vec<String> {
        std::iter::once(self.job.clone()).chain(self.args.iter().map(|text| text.fill(start.index, start.attempt, &start.ports))).collect()
    }

    /// The environment of one task.
    pub fn env(&self, start: &Start) -> Vec<(String, String)> {
        self.env.iter().map(|(key, text)| (key.clone(), text.fill(start.index, start.attempt, &start.ports))).collect()
    }

    /// What `wasi:config` answers to one task.
    pub fn config(&self, start: &Start) -> Arc<WasiConfigVariables> {
        self.config_shared.clone().unwrap_or_else(|| {
            Arc::new(self.config.iter().map(|(key, text)| (key.clone(), text.fill(start.index, start.attempt, &start.ports))).collect())
        })
    }
}
