//! Which plug-ins there are, on record; on shard 0 only. Whoever drives loads them, and hands those that order agents to every shard (`scores`).

use super::event::Change;
use super::{HOME, Record, Refusal, Response, Shard};
use crate::plugins::{Kind, Tally};
use protocol::{Digest, RequestId, Role, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most plug-ins of a cluster.
pub const PLUG_INS_MAX: usize = 256;

/// A plug-in on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlugIn {
    /// The component.
    pub bundle: Digest,
    /// True: where it does not answer, what it is asked is refused. Of those that judge jobs only.
    pub closed: bool,
    /// Since when.
    pub since: Time,
}

/// What a plug-in is for: what it says, and of which role with all below it; `None`: of all of which nothing else is said.
pub type Place = (Kind, Option<Role>);

/// All that are on record.
pub type LastingPlugIns = BTreeMap<Place, PlugIn>;

/// Plug-ins as one shard knows them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlugInsView {
    /// Those on record; shard 0 only.
    pub on_record: Vec<(Place, PlugIn)>,
    /// How those that order agents fared in this shard, and until when they are put aside.
    pub scores: Vec<(Option<Role>, Tally, Option<Time>)>,
}

impl Shard {
    /// An operator brings a plug-in, or takes one away.
    pub(super) fn plug_in_request(&mut self, id: RequestId, place: Place, wanted: Option<(Digest, bool)>) {
        let response = match self.against_plug_in(&place, wanted.is_some()) {
            Some(refusal) => Response::Refused(refusal),
            None => {
                let plug_in = wanted.map(|(bundle, closed)| PlugIn { bundle, closed, since: self.now });
                let same = |known: &PlugIn| plug_in.as_ref().is_some_and(|new| (new.bundle, new.closed) == (known.bundle, known.closed));
                if !self.plug_ins.get(&place).is_some_and(same) {
                    let (kind, role) = place;
                    self.commit(Record::PlugInSet { kind, role, plug_in, at: self.now });
                    self.publish(Change::PlugIns);
                }
                Response::Done
            }
        };
        self.reply(id, response);
    }

    fn against_plug_in(&self, place: &Place, new: bool) -> Option<Refusal> {
        let known = self.plug_ins.contains_key(place);
        match new {
            _ if self.config.id != HOME => Some(Refusal::Invalid { reason: "plug-ins are with shard 0".into() }),
            false if !known => Some(Refusal::NotFound { what: "policy".into() }),
            true if !known && self.plug_ins.len() >= PLUG_INS_MAX => {
                Some(Refusal::Invalid { reason: format!("a cluster has at most {PLUG_INS_MAX} policies") })
            }
            _ => None,
        }
    }

    /// A plug-in is another than before, by the record.
    pub(super) fn plug_in_set(&mut self, place: Place, plug_in: Option<&PlugIn>) {
        match plug_in {
            Some(plug_in) => drop(self.plug_ins.insert(place, plug_in.clone())),
            None => drop(self.plug_ins.remove(&place)),
        }
    }

    pub(super) fn plug_ins_view(&self) -> PlugInsView {
        let on_record = self.plug_ins.iter().map(|(place, plug_in)| (place.clone(), plug_in.clone())).collect();
        PlugInsView { on_record, scores: self.pool.scores.as_deref().map(super::scores::Scores::tallies).unwrap_or_default() }
    }
}
