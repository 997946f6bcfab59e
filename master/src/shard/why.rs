//! Why a framework is shown what it is shown, and nothing else: agents counted by reason, and what an offer is. For people, never for a decision.

use super::explain::reason;
use super::pool::{Pool, Seat, Silence, Standing};
use super::view::{NOT_THERE, OfferView, OpeningView, SessionView, WishView};
use super::{Refusal, Shard};
use crate::frameworks::FrameworkId;
use protocol::{AgentInfo, OfferId, Stand};
use std::collections::BTreeMap;

impl Shard {
    /// The framework's shard: how a framework stands that is kept here.
    pub(super) fn session_view(&self, id: FrameworkId) -> Result<SessionView, Refusal> {
        let known = self.frameworks.get(id).ok_or_else(super::frameworks::unknown)?;
        let session = self.sessions.by_id.get(&id).filter(|session| session.request.is_some());
        let wishes = session.into_iter().flat_map(|session| session.hand.wanted()).map(|wanted| WishView {
            role: wanted.wish.role.clone(),
            priority: wanted.wish.priority,
            count: wanted.wish.count,
            held: wanted.held,
            shape: wanted.wish.shape.clone(),
            constraints: wanted.wish.constraints.iter().map(ToString::to_string).collect(),
        });
        Ok(SessionView {
            connected: session.is_some(),
            suppressed: session.map(|session| session.suppressed.iter().cloned().collect()).unwrap_or_default(),
            limited: known.info.roles.iter().filter(|role| !self.has_left(role)).cloned().collect(),
            demands: session.is_some_and(|session| session.hand.demands()),
            wishes: wishes.collect(),
            offers: session.into_iter().flat_map(|session| session.hand.offers()).count(),
        })
    }

    /// The agents' shard: why agents are not shown to a framework.
    pub(super) fn opening_views(&self, id: FrameworkId) -> Vec<OpeningView> {
        self.pool.openings.of(id).map(|(opening, at)| self.opening_view(&opening.role, at)).collect()
    }

    fn opening_view(&self, role: &protocol::Role, at: u32) -> OpeningView {
        let mut view = OpeningView {
            role: role.clone(),
            agents: 0,
            shown: 0,
            reasons: BTreeMap::new(),
            role_share_ppm: self.pool.role_share_ppm(role),
            ahead: self.pool.ahead_of(at),
            owes: self.pool.openings.opener(at).is_some_and(|opener| opener.owes()),
        };
        for (agent, known) in self.rest.agents.iter().filter(|(_, known)| !known.gone) {
            view.agents += 1;
            let reason = match self.pool.seat(*agent) {
                Some((_, seat)) if seat.inactive => Some(super::drains::mode_text(self.drains.mode(*agent)).to_owned()),
                Some((slot, seat)) => self.pool.why_not(at, (slot, seat), &known.info),
                None => Some("unreachable".to_owned()),
            };
            match reason {
                Some(reason) => *view.reasons.entry(reason).or_insert(0) += 1,
                None => view.shown += 1,
            }
        }
        view
    }

    /// The agents' shard: what an offer is, and who else would be shown what it shows.
    pub(super) fn offer_view(&self, id: OfferId) -> Result<OfferView, Refusal> {
        let missing = || Refusal::NotFound { what: "offer".into() };
        let offer = self.pool.openings.offer(id.number).filter(|_| id.shard == self.config.id).ok_or_else(missing)?;
        let opener = self.pool.openings.opener(offer.opener).ok_or_else(missing)?;
        let seat = self.pool.seats.get(offer.slot as usize).ok_or_else(missing)?;
        let waiting = self.pool.wanted_by(offer.opener, offer.slot, &offer.resources);
        let waiting: Vec<(FrameworkId, protocol::Role)> = waiting.map(|opening| (opening.framework, opening.role.clone())).collect();
        Ok(OfferView {
            id,
            framework: opener.opening.framework,
            role: opener.opening.role.clone(),
            agent: seat.id,
            name: self.rest.agents.get(&seat.id).map(|known| known.info.name.clone()).unwrap_or_default(),
            resources: offer.resources.clone(),
            since: offer.since,
            until: (!waiting.is_empty()).then_some(offer.deadline),
            wanted: opener.wants.is_some(),
            waiting,
        })
    }
}

impl Pool {
    /// How many others are served before one, by the shares of their roles and what they were shown.
    fn ahead_of(&self, at: u32) -> u32 {
        let rank = |at: u32| {
            let opener = self.openings.opener(at)?;
            Some(self.roles.rank(self.shape(opener.class)?.role, &opener.offered, &self.whole))
        };
        let own = rank(at);
        let ahead = self.openings.beside(at).filter(|other| rank(*other) < own).count();
        u32::try_from(ahead).unwrap_or(u32::MAX)
    }

    /// Why an agent is not shown to one that takes offers; `None` where it is.
    fn why_not(&self, at: u32, (slot, seat): (u32, &Seat), info: &AgentInfo) -> Option<String> {
        let said = |text: &str| Some(text.to_owned());
        let class = self.openings.opener(at)?.class;
        let (attempts, free) = self.room_for(slot, self.shape(class)?.role);
        if seat.standing == Standing::Expected || seat.silence != Silence::None || seat.disconnected {
            return said("unreachable");
        }
        if attempts == 0 {
            return said("what runs there is not known yet, or it has no place for more");
        }
        if seat.open_offers.iter().any(|number| self.openings.offer(*number).is_some_and(|offer| offer.opener == at)) {
            return None;
        }
        let opener = self.openings.opener(at)?;
        let left = self.left_for(slot, class).0;
        if let Some(wants) = &opener.wants {
            let unmet: Vec<&super::pool::Class> = wants.unmet().filter_map(|(class, _)| self.shape(class)).collect();
            let Some(first) = unmet.first() else { return said("all that it wants is shown or placed") };
            let may: Vec<_> = unmet.iter().filter(|class| self.meets(class, slot)).collect();
            let Some(nearest) = may.iter().find(|class| free.contains(&class.shape)).or(may.first()) else {
                let (stand, rules) = (Stand::from(info), first.rules.and_then(|rules| self.aims.rules.matcher(rules)));
                let broken = rules.and_then(|matcher| {
                    matcher.against(&stand, self.aims.rules.has_beside(slot)).next().map(|constraint| reason(constraint, &stand))
                });
                return Some(format!("{NOT_THERE}{}", broken.unwrap_or_default()));
            };
            let short: Vec<String> = free.short_of(&nearest.shape).iter().map(ToString::to_string).collect();
            if !short.is_empty() {
                return Some(format!("lacks {}", short.join(", ")));
            }
            if !left.contains(&nearest.shape) {
                return said("shown to others");
            }
            return said(if self.openings.lapsed(at, slot) {
                "it let an offer of it lapse"
            } else if self.openings.filters(at, slot, &nearest.shape) {
                "refused: it declined it, or its filters or its role's limit do"
            } else {
                "kept for guarantees of others, or about to be shown"
            });
        }
        said(match () {
            () if !super::shown::is_useful(&free) => "full",
            () if !super::shown::is_useful(&left) => "shown to others",
            () if self.openings.filters(at, slot, &left) && self.openings.lapsed(at, slot) => "it let an offer of it lapse",
            () if self.openings.filters(at, slot, &left) => "refused: it declined it, or its filters or its role's limit do",
            () => "kept for guarantees of others, or about to be shown",
        })
    }
}
