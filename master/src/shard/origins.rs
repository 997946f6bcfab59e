//! What made jobs of what, for whoever made them and shows them in his own words.

use super::Shard;
use super::view::PAGE_MAX;
use crate::jobs::Entry;
use protocol::job::Origin;
use protocol::{Job, JobId, PortRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most bytes of the notes of one answer, but for those of its first job.
const BYTES_MAX: usize = 1 << 20;

/// What made a job of what, as far as anybody said so; nothing of a job that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginView {
    /// What made it.
    pub origin: Option<Origin>,
    /// The ports of a task that have numbers for names.
    pub ports: Vec<PortRange>,
}

impl Shard {
    /// What made these jobs of what.
    pub(super) fn origin_views(&self, jobs: &[JobId]) -> Vec<OriginView> {
        let mut left = Some(BYTES_MAX);
        let mut views = vec![];
        for id in jobs.iter().take(PAGE_MAX) {
            let view = match self.jobs.entry(*id) {
                Some(Entry::Live(live)) => origin_view(&live.job),
                Some(Entry::Ended(ended)) => ended.job().as_ref().map(origin_view).unwrap_or_default(),
                None => OriginView::default(),
            };
            left = left.and_then(|left| left.checked_sub(view.origin.as_ref().map_or(0, |origin| origin.note.len())));
            if left.is_none() && !views.is_empty() {
                break;
            }
            views.push(view);
        }
        views
    }
}

fn origin_view(job: &Job) -> OriginView {
    let numbers: BTreeSet<u16> = job.template.ports().filter_map(|name| name.as_str().parse().ok()).collect();
    let mut ports: Vec<PortRange> = vec![];
    for number in numbers {
        match ports.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(number) => range.last = number,
            _ => ports.push(PortRange { first: number, last: number }),
        }
    }
    OriginView { origin: job.origin().cloned(), ports }
}
