//! `/metrics`: figures of the cluster, of its roles and of this master, as Prometheus reads them (exposition format 0.0.4). Every master says the same of the
//! cluster: who reads several takes the largest. `samples/dashboard.json` shows all of them.

use super::access::Caller;
use super::error::ApiError;
use super::policies::{self, PolicyRow};
use super::roles::Known;
use super::status::{FiguresBody, figures};
use super::{Api, marathon};
use crate::shard::event::Level;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::{Resources, Role};
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

/// Most roles that are told apart; of more, those whose names come first.
const ROLES_MAX: usize = 1_000;

/// The same counts as Prometheus reads them; who asks for JSON is told what Marathon tells.
#[utoipa::path(get, path = "/metrics", tag = "cluster", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap) -> Result<Response, ApiError> {
    caller.must_level(Level::Viewer)?;
    if marathon::figures::are_wanted(&headers) {
        return Ok(marathon::figures::json(&api, &caller).await.into_response());
    }
    let (figures, policies, roles) = (figures(&api).await?, policies::rows(&api).await?, Known::read(&api).await?);
    let mut page = Page::default();
    page.cluster(&figures);
    let held: Vec<(&Role, &Resources)> =
        roles.holds.iter().filter(|(role, _)| caller.covers(std::slice::from_ref(role))).take(ROLES_MAX).collect();
    page.amounts(&roles.total, &held);
    page.policies(&policies.policies);
    page.shards(&api);
    page.process(&api);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.0).into_response())
}

/// The text, as far as it is written. No label has a character that would have to be escaped.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    /// What comes next: one figure, or several told apart by labels. Nothing is said of what has no values.
    fn family(&mut self, name: &str, kind: &str, help: &str, values: &[(String, String)]) {
        if values.is_empty() {
            return;
        }
        let mut write = |line: std::fmt::Arguments<'_>| self.0.write_fmt(line).expect("memory does not fail to be written");
        write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in values {
            match labels.is_empty() {
                true => write(format_args!("{name} {value}\n")),
                false => write(format_args!("{name}{{{labels}}} {value}\n")),
            }
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl ToString) {
        self.family(name, kind, help, &[(String::new(), value.to_string())]);
    }

    fn cluster(&mut self, figures: &FiguresBody) {
        for (name, help, value) in [
            ("skep_jobs_live", "Jobs that have not ended.", figures.jobs_live),
            ("skep_jobs_ended", "Jobs that have ended, and are kept.", figures.jobs_ended),
            ("skep_tasks_waiting", "Tasks that wait for a place.", figures.tasks_waiting),
            ("skep_tasks_live", "Tasks that are on an agent.", figures.tasks_live),
            ("skep_tasks_ended", "Tasks that have ended, and are kept.", figures.tasks_ended),
            ("skep_agents_reachable", "Agents that can be reached.", figures.agents_reachable),
            ("skep_agents_unreachable", "Agents that cannot be reached.", figures.agents_unreachable),
            ("skep_offers", "Offers that are out.", figures.offers),
        ] {
            self.one(name, "gauge", help, value);
        }
        for (name, help, value) in [
            ("skep_attempts_staged_total", "Attempts that were staged, since the shards' leaders began.", figures.staged_total),
            ("skep_attempts_ended_total", "Attempts that ended, since the shards' leaders began.", figures.ended_total),
            ("skep_attempts_refused_total", "Attempts that agents refused, since the shards' leaders began.", figures.refused_total),
        ] {
            self.one(name, "counter", help, value);
        }
    }

    /// What agents have, and what of it roles hold, each with all that is below it.
    fn amounts(&mut self, total: &Resources, roles: &[(&Role, &Resources)]) {
        type Amount = (&'static str, &'static str, fn(&Resources) -> String);
        let kinds: [Amount; 3] = [
            ("cpu_cores", "processors, in cores", |amount| format!("{}.{:03}", amount.cpu_milli / 1_000, amount.cpu_milli % 1_000)),
            ("memory_bytes", "memory, in bytes", |amount| amount.memory_bytes.to_string()),
            ("disk_bytes", "disk, in bytes", |amount| amount.disk_bytes.to_string()),
        ];
        for (kind, what, of) in kinds {
            self.one(&format!("skep_capacity_{kind}"), "gauge", &format!("What the agents have together: {what}."), of(total));
            let values: Vec<_> = roles.iter().map(|(role, held)| (format!("role=\"{role}\""), of(held))).collect();
            let help = format!("What live tasks of a role and of those below it are promised: {what}.");
            self.family(&format!("skep_role_{kind}"), "gauge", &help, &values);
        }
    }

    /// How often each policy was asked and had no right answer, and at how many places it is put aside. No role: all of which nothing else is said.
    fn policies(&mut self, policies: &[PolicyRow]) {
        type Value = fn(&PolicyRow) -> u64;
        let figures: [(&str, &str, &str, Value); 3] = [
            ("skep_policy_calls_total", "counter", "How often a policy was asked.", |row| row.calls),
            ("skep_policy_failures_total", "counter", "How often a policy had no right answer.", |row| row.failures),
            ("skep_policy_aside", "gauge", "Shards and masters that leave a policy alone for now, since it failed.", |row| {
                u64::from(row.aside)
            }),
        ];
        for (name, kind, help, value) in figures {
            let labels = |row: &PolicyRow| format!("kind=\"{}\",role=\"{}\"", row.kind, row.role.as_deref().unwrap_or(""));
            let values: Vec<_> = policies.iter().map(|row| (labels(row), value(row).to_string())).collect();
            self.family(name, kind, help, &values);
        }
    }

    /// Which shards this master leads.
    fn shards(&mut self, api: &Api) {
        let peers = api.door.peers();
        let standings: Vec<_> = (0..api.door.shards()).filter_map(|shard| Some((shard, peers.group(shard)?.standing()))).collect();
        let own = u64::from(peers.own().number);
        let led = standings.iter().filter(|(_, standing)| standing.leader == Some(own)).count();
        self.one("skep_shards_led", "gauge", "Shards that this master leads.", led);
        let values: Vec<_> = standings.iter().map(|(shard, standing)| (format!("shard=\"{shard}\""), standing.term.to_string())).collect();
        self.family("skep_shard_term", "gauge", "Term of a shard as this master knows it; it rises with each new leader.", &values);
    }

    /// What every program says of itself (Prometheus, "Writing client libraries", process metrics), and which build this is.
    fn process(&mut self, api: &Api) {
        let build = [(format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), "1".to_owned())];
        self.family("skep_build_info", "gauge", "The build that this master is: 1, with its version.", &build);
        let start_s = api.since.0 / 1_000;
        self.one("process_start_time_seconds", "gauge", "When this master began, in seconds of the Unix epoch.", start_s);
        if let Some(ms) = cpu_ms() {
            let seconds = format!("{}.{:03}", ms / 1_000, ms % 1_000);
            self.one("process_cpu_seconds_total", "counter", "Processor time of this master, in seconds.", seconds);
        }
        if let Some(bytes) = resident_bytes() {
            self.one("process_resident_memory_bytes", "gauge", "Memory of this master, in bytes.", bytes);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is what reads this.
            self.one("process_open_fds", "gauge", "Open files of this master.", open.count().saturating_sub(1));
        }
    }
}

/// Fields 14 and 15 of /proc/self/stat (proc_pid_stat(5)), in milliseconds.
fn cpu_ms() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, in brackets, may have spaces.
    let mut fields = stat.rsplit(')').next()?.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_counted_by_kind_and_role() {
        let row = |kind, role: Option<&str>, calls| PolicyRow {
            kind,
            role: role.map(str::to_owned),
            bundle: String::new(),
            closed: false,
            since_ms: 0,
            missing: None,
            calls,
            failures: 1,
            last_failure: None,
            aside: 0,
        };
        let text = |rows: &[PolicyRow]| {
            let mut page = Page::default();
            page.policies(rows);
            page.0
        };
        let calls = "# TYPE skep_policy_calls_total counter\nskep_policy_calls_total{kind=\"score\",role=\"\"} 7\n\
                     skep_policy_calls_total{kind=\"admission\",role=\"web/shop\"} 9\n";
        let written = text(&[row("score", None, 7), row("admission", Some("web/shop"), 9)]);
        assert!(written.contains(calls), "{written}");
        assert_eq!((written.matches("# TYPE").count(), text(&[]).as_str()), (3, ""));
    }

    #[test]
    fn amounts_have_their_units() {
        let amount = |cpu_milli, memory_bytes| Resources { cpu_milli, memory_bytes, ..Resources::default() };
        let (role, held) = (Role::new("web/shop").unwrap(), amount(1_050, 64 << 20));
        let mut page = Page::default();
        page.amounts(&amount(4_000, 1 << 30), &[(&role, &held)]);
        for line in [
            "skep_capacity_cpu_cores 4.000",
            "skep_role_cpu_cores{role=\"web/shop\"} 1.050",
            "skep_role_memory_bytes{role=\"web/shop\"} 67108864",
        ] {
            assert!(page.0.lines().any(|written| written == line), "{line}\n{}", page.0);
        }
    }
}
