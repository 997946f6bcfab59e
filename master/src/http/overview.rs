//! The cluster at a glance: figures, and of every agent four bytes, rack by rack, so that ten thousand of them are one small answer; and as a stream, at
//! first all of it and then what is different. Shards are looked at once for all who watch, and not at all while nobody does.

use super::access::{Caller, now};
use super::error::{ApiError, ErrorAnswer};
use super::jobs_json::AmountBody;
use super::status::{FiguresBody, figures};
use super::{Api, find};
use crate::shard::event::Level;
use crate::shard::view::{AgentView, View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::Stream;
use protocol::{AgentId, Resources, Time};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

/// Those who watch at the same time.
const READERS_MAX: usize = 256;
/// The wait between two looks, and for each agent so much more: looking stays a small part of what shards do.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_EACH: Duration = Duration::from_micros(250);
/// How often who watches hears something, so that both ends see a dead connection.
const BEAT: Duration = Duration::from_secs(15);
/// Up to so many agents are named here; of more, `/v1/agents` names those that are asked for.
const NAMED_MAX: usize = 400;

/// The cluster at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OverviewBody {
    /// The cluster's name.
    pub cluster: String,
    /// The version of this master's binary.
    pub version: &'static str,
    /// How it stands.
    #[serde(flatten)]
    pub now: NowBody,
    /// Where its agents stand.
    pub racks: Vec<RackBody>,
}

/// How the cluster stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NowBody {
    /// When it was looked at, in milliseconds of the Unix epoch.
    pub at_ms: u64,
    /// Counts.
    pub figures: FiguresBody,
    /// All that the agents have that can be reached.
    pub capacity: AmountBody,
    /// What of it is promised, offers included.
    pub allocated: AmountBody,
}

/// The agents of one rack.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RackBody {
    /// `REGION/ZONE/RACK`, each empty where it is not known.
    pub domain: String,
    /// How many agents.
    pub agents: usize,
    /// Four bytes for each agent, by id, in base64: its state (0 reachable, 1 unreachable, 2 expected, 3 inactive, 4 draining, 5 drained), the promised parts
    /// of its processors and of its memory (255: all), and how many attempts are on it, 255 for more.
    pub cells: String,
    /// Their ids, where the cluster has at most 400 agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Their names, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// What is different; the stream's `changes`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChangesBody {
    /// How the cluster stands.
    #[serde(flatten)]
    pub now: NowBody,
    /// By turns the place of an agent among all, rack after rack, and its four bytes as a number, the first one most significant.
    pub cells: Vec<u32>,
}

/// An agent in four bytes, as [`RackBody::cells`] says.
type Cell = [u8; 4];

/// The cluster as it was at one moment.
#[derive(Clone, Debug)]
struct Shot {
    now: NowBody,
    /// By rack and id; gone ones are left out.
    agents: Vec<Seen>,
    cells: Vec<Cell>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    domain: String,
    id: AgentId,
    name: String,
}

/// Looks for those who watch.
#[derive(Debug)]
pub struct Overviews {
    shots: watch::Sender<Option<Arc<Shot>>>,
    /// True while somebody looks.
    looking: AtomicBool,
    readers: Arc<Semaphore>,
}

impl Default for Overviews {
    fn default() -> Self {
        Self { shots: watch::Sender::new(None), looking: AtomicBool::new(false), readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }
}

/// Shows the cluster at a glance.
#[utoipa::path(get, path = "/v1/overview", tag = "cluster", responses((status = 200, body = OverviewBody), (status = 401, body = ErrorAnswer)))]
pub async fn overview(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<OverviewBody>, ApiError> {
    caller.must_level(Level::Viewer)?;
    Ok(Json(shot(&api).await?.whole(&api.cluster)))
}

/// Shows the cluster at a glance, and then what is different each time it is looked at: events `whole` and `changes`. A `whole` comes again where agents
/// came, went or moved.
#[utoipa::path(get, path = "/v1/overview/stream", tag = "cluster",
    responses((status = 200, body = inline(ChangesBody), content_type = "text/event-stream"), (status = 429, body = ErrorAnswer)))]
pub async fn stream(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, ApiError> {
    caller.must_level(Level::Viewer)?;
    let place = api.overviews.readers.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy(format!("{READERS_MAX} watch already"), 1_000))?;
    let mut shots = api.overviews.shots.subscribe();
    // The last look may be from long ago, of those who watched before.
    shots.mark_unchanged();
    if !api.overviews.looking.swap(true, Ordering::AcqRel) {
        tokio::spawn(look(Arc::downgrade(&api)));
    } else {
        shots.mark_changed();
    }
    let watching = Watching { api, caller, shots, last: None, _place: place };
    let mut response = Body::from_stream(watching.stream()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// Looks again and again, until nobody watches.
async fn look(api: Weak<Api>) {
    loop {
        let Some(api) = api.upgrade() else { return };
        let agents = match shot(&api).await {
            Ok(shot) => {
                let agents = u32::try_from(shot.agents.len()).unwrap_or(u32::MAX);
                api.overviews.shots.send_replace(Some(Arc::new(shot)));
                agents
            }
            Err(error) => {
                tracing::debug!(reason = error.body().message, "the cluster could not be looked at");
                0
            }
        };
        let watched = || api.overviews.shots.receiver_count() > 0;
        if !watched() {
            api.overviews.shots.send_replace(None);
            api.overviews.looking.store(false, Ordering::Release);
            // Who came in between found somebody looking.
            if !watched() || api.overviews.looking.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        drop(api);
        tokio::time::sleep(LOOK + LOOK_EACH * agents).await;
    }
}

async fn shot(api: &Api) -> Result<Shot, ApiError> {
    let figures = figures(api).await?;
    let mut views = vec![];
    for viewed in find::view_all(api, View::Agents).await? {
        if let Viewed::Agents(found) = viewed {
            views.extend(found.into_iter().filter(|view| view.state != "gone"));
        }
    }
    Ok(Shot::new(now(), figures, views))
}

impl Shot {
    fn new(at: Time, figures: FiguresBody, views: Vec<AgentView>) -> Self {
        let (mut capacity, mut allocated) = (Resources::NONE, Resources::NONE);
        for view in views.iter().filter(|view| view.state == "reachable") {
            // What cannot be counted is left out.
            capacity = capacity.checked_add(&view.info.capacity).unwrap_or(capacity);
            allocated = allocated.checked_add(&view.allocated).unwrap_or(allocated);
        }
        let seen = |view: AgentView| {
            let (domain, cell) = (super::agents::domain_text(&view.info.domain), cell(&view));
            (Seen { domain, id: view.id, name: view.info.name }, cell)
        };
        let mut all: Vec<(Seen, Cell)> = views.into_iter().map(seen).collect();
        all.sort_by(|(a, _), (b, _)| (&a.domain, a.id).cmp(&(&b.domain, b.id)));
        let (agents, cells) = all.into_iter().unzip();
        let now = NowBody { at_ms: at.0, figures, capacity: (&capacity).into(), allocated: (&allocated).into() };
        Self { now, agents, cells }
    }

    fn whole(&self, cluster: &str) -> OverviewBody {
        let named = self.agents.len() <= NAMED_MAX;
        let (mut racks, mut at) = (vec![], 0);
        for rack in self.agents.chunk_by(|a, b| a.domain == b.domain) {
            let names = || rack.iter().filter(|_| named);
            racks.push(RackBody {
                domain: rack[0].domain.clone(),
                agents: rack.len(),
                cells: STANDARD.encode(self.cells[at..at + rack.len()].as_flattened()),
                ids: names().map(|seen| seen.id.to_string()).collect(),
                names: names().map(|seen| seen.name.clone()).collect(),
            });
            at += rack.len();
        }
        OverviewBody { cluster: cluster.to_owned(), version: env!("CARGO_PKG_VERSION"), now: self.now.clone(), racks }
    }

    /// What is different from `before`; `None` where there are other agents now.
    fn changes(&self, before: &Self) -> Option<ChangesBody> {
        if self.agents != before.agents {
            return None;
        }
        let different = (0..).zip(self.cells.iter().zip(&before.cells)).filter(|(_, (now, before))| now != before);
        let cells = different.flat_map(|(at, (now, _))| [at, u32::from_be_bytes(*now)]).collect();
        Some(ChangesBody { now: self.now.clone(), cells })
    }
}

fn cell(view: &AgentView) -> Cell {
    let state = match (&*view.state, &*view.mode) {
        ("unreachable", _) => 1,
        ("expected", _) => 2,
        (_, "inactive" | "maintenance") => 3,
        (_, "draining") => 4,
        (_, "drained") => 5,
        _ => 0,
    };
    // Rounded up: what is used a little is not shown as unused.
    let part = |of: u64, all: u64| {
        let part = (u128::from(of) * 255).div_ceil(u128::from(all.max(1)));
        u8::try_from(part).unwrap_or(u8::MAX)
    };
    let (used, all) = (&view.allocated, &view.info.capacity);
    let attempts = u8::try_from(view.attempts).unwrap_or(u8::MAX);
    [state, part(used.cpu_milli, all.cpu_milli), part(used.memory_bytes, all.memory_bytes), attempts]
}

/// Somebody who watches.
struct Watching {
    api: Arc<Api>,
    caller: Caller,
    shots: watch::Receiver<Option<Arc<Shot>>>,
    /// What was told last.
    last: Option<Arc<Shot>>,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    fn stream(self) -> impl Stream<Item = Result<String, Infallible>> + Send {
        futures::stream::unfold((self, Some(": skep\n\n".to_owned())), |(mut watching, first)| async move {
            let text = match first {
                Some(text) => text,
                None => watching.next().await?,
            };
            Some((Ok(text), (watching, None)))
        })
    }

    /// What is told next; `None` where nothing follows.
    async fn next(&mut self) -> Option<String> {
        loop {
            let heard = tokio::time::timeout(BEAT, self.shots.changed()).await;
            if !self.api.tokens.lives(&self.caller, now()) || self.api.door.stopped().is_some() {
                return None;
            }
            match heard {
                Err(_) => return Some(": beat\n\n".to_owned()),
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
            }
            let Some(shot) = self.shots.borrow_and_update().clone() else { continue };
            let changes = self.last.as_ref().and_then(|before| shot.changes(before));
            self.last = Some(Arc::clone(&shot));
            return Some(match changes {
                Some(changes) => message("changes", &changes),
                None => message("whole", &shot.whole(&self.api.cluster)),
            });
        }
    }
}

fn message(name: &str, body: &impl Serialize) -> String {
    let data = serde_json::to_string(body).expect("an overview has text for keys");
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{AgentInfo, FaultDomain};

    fn view(id: u64, rack: &str, used_milli: u64) -> AgentView {
        let domain = FaultDomain { region: "eu".into(), zone: "eu-1".into(), rack: rack.into() };
        let capacity = Resources { cpu_milli: 4_000, memory_bytes: 1_000, ..Resources::NONE };
        let info = AgentInfo { name: format!("a{id}"), capacity, domain, ..AgentInfo::default() };
        let allocated = Resources { cpu_milli: used_milli, ..Resources::NONE };
        AgentView { id: AgentId(id), info, state: "reachable".into(), mode: "active".into(), allocated, attempts: 3, heard: Time(0) }
    }

    fn shot(views: Vec<AgentView>) -> Shot {
        Shot::new(Time(1), FiguresBody::default(), views)
    }

    #[test]
    fn agents_stand_in_racks_and_four_bytes_say_how_each_is() {
        let draining = AgentView { mode: "draining".into(), ..view(2, "r1", 1) };
        let silent = AgentView { state: "unreachable".into(), attempts: 1_000, ..view(3, "r1", 4_000) };
        let whole = shot(vec![view(4, "r2", 0), silent, draining, view(1, "r1", 2_000)]).whole("c");
        let racks: Vec<(&str, usize)> = whole.racks.iter().map(|rack| (rack.domain.as_str(), rack.agents)).collect();
        assert_eq!(racks, [("eu/eu-1/r1", 3), ("eu/eu-1/r2", 1)]);
        assert_eq!(STANDARD.decode(&whole.racks[0].cells).unwrap(), [0, 128, 0, 3, 4, 1, 0, 3, 1, 255, 0, 255]);
        assert_eq!(whole.racks[0].names, ["a1", "a2", "a3"]);
        assert_eq!((whole.now.capacity.cpu_milli, whole.now.allocated.cpu_milli), (12_000, 2_001), "who cannot be reached is not counted");
    }

    #[test]
    fn only_what_is_different_is_told_and_all_where_agents_come() {
        let before = shot(vec![view(1, "r1", 0), view(2, "r1", 0)]);
        let after = shot(vec![view(1, "r1", 0), view(2, "r1", 4_000)]);
        assert_eq!(after.changes(&before).unwrap().cells, [1, u32::from_be_bytes([0, 255, 0, 3])]);
        assert!(before.changes(&before).unwrap().cells.is_empty());
        assert!(shot(vec![view(1, "r1", 0)]).changes(&before).is_none());
        assert!(shot(vec![view(1, "r1", 0), view(2, "r2", 0)]).changes(&before).is_none());
        let many = (0..=NAMED_MAX as u64).map(|id| view(id, "r1", 0)).collect();
        assert!(shot(many).whole("c").racks[0].names.is_empty());
    }
}
