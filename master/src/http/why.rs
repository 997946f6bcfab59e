//! Why a framework is not offered anything, and what an offer is: what its shard knows and how every shard's agents stand to it, as one answer.

use super::access::Caller;
use super::error::{ApiError, ErrorAnswer};
use super::frameworks_json::{offer_id, offer_text};
use super::gate::Segment;
use super::jobs_json::AmountBody;
use super::{Api, find, frameworks_list};
use crate::shard::view::{OfferView, OpeningView, SessionView, View, Viewed, WishView};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Why a framework is offered what it is, and nothing else.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WhyBody {
    /// The framework's id.
    pub framework: String,
    /// What people call it.
    pub name: String,
    /// The answer in one sentence, for people.
    pub text: String,
    /// True where it is subscribed.
    pub connected: bool,
    /// How many offers it holds.
    pub offers: usize,
    /// What it has said that it wants, the most urgent first; empty also where it takes whatever comes.
    pub demand: Vec<WishStandBody>,
    /// How it stands for each of its roles.
    pub roles: Vec<RoleStandBody>,
}

/// Something that a framework wants.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WishStandBody {
    /// For which role.
    pub role: String,
    /// 0 to 100.
    pub priority: u8,
    /// How many it still wants to place.
    pub count: u32,
    /// For how many of these it holds offers.
    pub held: u32,
    /// What each needs.
    pub resources: AmountBody,
    /// What an agent must be, as in a job file.
    pub constraints: Vec<String>,
}

/// How a role of a framework stands.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RoleStandBody {
    /// Which.
    pub role: String,
    /// Why it is offered nothing at all: `away`, `suppressed` or `limit`; missing where it takes offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<&'static str>,
    /// How many agents there are, as far as they were looked at.
    pub agents: u32,
    /// Of these, those of which it holds an offer.
    pub shown: u32,
    /// How many of the others are not shown to it, by why.
    pub reasons: BTreeMap<String, u32>,
    /// The role's dominant share of the cluster, in millionths.
    pub role_share_ppm: u64,
    /// How many others are served before it, where there are most of them.
    pub ahead: u32,
    /// True where it has not answered the last that it was shown somewhere.
    pub owes_answer: bool,
}

/// An offer to a framework.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OfferStandBody {
    /// Its id.
    pub id: String,
    /// The answer in one sentence, for people.
    pub text: String,
    /// To which framework.
    pub framework: String,
    /// For which role.
    pub role: String,
    /// Of which agent.
    pub agent: String,
    /// What people call that.
    pub name: String,
    /// What it shows.
    pub resources: AmountBody,
    /// When it was made, in milliseconds of the Unix epoch.
    pub since_ms: u64,
    /// When it lapses, likewise; missing while nobody else would take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// True where its framework had said that it wants this.
    pub wanted: bool,
    /// Who else would be shown it: frameworks and roles.
    pub waiting: Vec<[String; 2]>,
}

/// Says why a framework is not offered anything.
#[utoipa::path(get, path = "/v1/frameworks/{id}/explain", tag = "frameworks", params(("id" = String, Path, description = "a framework's id")),
    responses((status = 200, body = WhyBody), (status = 404, body = ErrorAnswer)))]
pub async fn framework(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<Json<WhyBody>, ApiError> {
    let view = frameworks_list::known(&api, &caller, &id).await?;
    let strange = || ApiError::internal("a shard answered another question than it was asked");
    let asked = View::Session { framework: view.id };
    let Viewed::Session(session) = find::view(&api, view.id.shard(), asked).await? else { return Err(strange()) };
    let mut openings: Vec<OpeningView> = vec![];
    for viewed in find::view_all(&api, View::Openings { framework: view.id }).await? {
        openings.extend(if let Viewed::Openings(found) = viewed { found } else { return Err(strange()) });
    }
    let stand = |role| stand(role, &session, &openings);
    let roles: Vec<RoleStandBody> = view.info.roles.iter().map(stand).collect();
    Ok(Json(WhyBody {
        framework: view.id.to_string(),
        name: view.info.name.clone(),
        text: sentence(&session, &roles),
        connected: session.connected,
        offers: session.offers,
        demand: session.wishes.iter().map(WishStandBody::from).collect(),
        roles,
    }))
}

/// Says what an offer is, and who else waits for what it shows.
#[utoipa::path(get, path = "/v1/offers/{id}", tag = "frameworks", params(("id" = String, Path, description = "an offer's id")),
    responses((status = 200, body = OfferStandBody), (status = 404, body = ErrorAnswer)))]
pub async fn offer(State(api): State<Arc<Api>>, caller: Caller, Segment(id): Segment) -> Result<Json<OfferStandBody>, ApiError> {
    let missing = || ApiError::not_found("offer");
    let offer = offer_id(&id).filter(|offer| offer.shard.0 < api.door.shards()).ok_or_else(missing)?;
    let Viewed::Offer(view) = find::view(&api, offer.shard, View::Offer { offer }).await? else { return Err(missing()) };
    if !caller.sees(&view.role) {
        return Err(missing());
    }
    Ok(Json((&view).into()))
}

fn stand(role: &protocol::Role, session: &SessionView, openings: &[OpeningView]) -> RoleStandBody {
    let closed = match () {
        () if !session.connected => Some("away"),
        () if session.suppressed.contains(role) => Some("suppressed"),
        () if session.limited.contains(role) => Some("limit"),
        () => None,
    };
    let mut stand = RoleStandBody { role: role.to_string(), closed, ..RoleStandBody::default() };
    for view in openings.iter().filter(|view| view.role == *role) {
        stand.agents += view.agents;
        stand.shown += view.shown;
        for (reason, agents) in &view.reasons {
            *stand.reasons.entry(reason.clone()).or_insert(0) += agents;
        }
        stand.role_share_ppm = stand.role_share_ppm.max(view.role_share_ppm);
        stand.ahead = stand.ahead.max(view.ahead);
        stand.owes_answer |= view.owes;
    }
    stand
}

fn sentence(session: &SessionView, roles: &[RoleStandBody]) -> String {
    if !session.connected {
        return "it is away: nobody reads what it would be told".to_owned();
    }
    let wants: u32 = session.wishes.iter().map(|wish| wish.count.saturating_sub(wish.held)).fold(0, u32::saturating_add);
    let held = match session.offers {
        0 => "it holds no offer".to_owned(),
        1 => "it holds 1 offer".to_owned(),
        offers => format!("it holds {offers} offers"),
    };
    let wants = match (session.demands, wants) {
        (false, _) => String::new(),
        (true, 0) => ", and all that it wants is shown or placed".to_owned(),
        (true, tasks) => format!(", and wants room for {tasks} more tasks"),
    };
    let of = |stand: &RoleStandBody| {
        let why = match stand.closed {
            Some("suppressed") => "it has suppressed offers".to_owned(),
            Some(_) => "nothing is left of the role's limit".to_owned(),
            None if stand.agents == 0 => "there is no agent, or its shard has not heard yet".to_owned(),
            None => {
                let most = stand.reasons.iter().max_by_key(|(_, agents)| **agents);
                let most = most.map(|(reason, agents)| format!(", {agents} are not: {reason}")).unwrap_or_default();
                format!("{} of {} agents are shown{most}", stand.shown, stand.agents)
            }
        };
        format!("; for {} {why}", stand.role)
    };
    format!("{held}{wants}{}", roles.iter().map(of).collect::<String>())
}

impl From<&WishView> for WishStandBody {
    fn from(wish: &WishView) -> Self {
        Self {
            role: wish.role.to_string(),
            priority: wish.priority,
            count: wish.count,
            held: wish.held,
            resources: (&wish.shape).into(),
            constraints: wish.constraints.clone(),
        }
    }
}

impl From<&OfferView> for OfferStandBody {
    fn from(view: &OfferView) -> Self {
        let others = match view.waiting.len() {
            0 => "nobody else would take it, so it holds until it is answered".to_owned(),
            1 => "1 other would take it, so it lapses if it is not answered".to_owned(),
            others => format!("{others} others would take it, so it lapses if it is not answered"),
        };
        Self {
            id: offer_text(view.id),
            text: format!("{} may take of agent {} for {}; {others}", view.framework, view.name, view.role),
            framework: view.framework.to_string(),
            role: view.role.to_string(),
            agent: view.agent.to_string(),
            name: view.name.clone(),
            resources: (&view.resources).into(),
            since_ms: view.since.0,
            until_ms: view.until.map(|until| until.0),
            wanted: view.wanted,
            waiting: view.waiting.iter().map(|(framework, role)| [framework.to_string(), role.to_string()]).collect(),
        }
    }
}
