//! The masters of the cluster, on record; on shard 0 only. Numbers only rise, so that none ever names two masters.

use super::event::{Change, Grant, Master, MasterRequest};
use super::view::Viewed;
use super::{Record, Refusal, Response, Shard};
use protocol::message::MASTERS_MAX;
use protocol::{Digest, RequestId, ShardId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest address of a master, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// The masters on record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LastingMasters {
    /// The highest number that any has had.
    last: u16,
    known: BTreeMap<u16, Master>,
}

impl LastingMasters {
    pub(super) fn seen(&mut self, master: &Master) {
        self.last = self.last.max(master.number);
        self.known.insert(master.number, master.clone());
    }

    pub(super) fn removed(&mut self, number: u16) {
        self.known.remove(&number);
    }

    /// The cluster begins again with this one alone; no number is given again.
    pub(super) fn only(&mut self, number: u16) {
        let nowhere = || "nowhere:0".to_owned();
        self.known = BTreeMap::from([(number, Master { number, quic: nowhere(), http: nowhere() })]);
        self.last = self.last.max(number);
    }

    pub(super) fn all(&self) -> Vec<Master> {
        self.known.values().cloned().collect()
    }
}

impl Shard {
    pub(super) fn master_request(&mut self, id: RequestId, request: MasterRequest) {
        let result = match request {
            _ if self.config.id != ShardId(0) => Err(Refusal::Invalid { reason: "masters are shard 0's".into() }),
            MasterRequest::Join { id, hash, quic, http } => self.master_joins(id, &hash, quic, http),
            MasterRequest::Seen(master) => self.master_seen(master).map(|()| Response::Done),
            MasterRequest::Remove { number } => self.master_removed(number).map(|()| Response::Done),
        };
        self.reply(id, result.unwrap_or_else(Response::Refused));
    }

    /// The token is used up and the master on record in one: one that asks again, since the answer was lost, needs another token.
    fn master_joins(&mut self, id: String, hash: &Digest, quic: String, http: String) -> Result<Response, Refusal> {
        let token = self.rest.tokens.get(&id);
        let good = |token: &super::event::Token| {
            token.hash == *hash && token.grant == Grant::JoinMaster && token.expires.is_none_or(|at| at > self.now)
        };
        if !token.is_some_and(good) {
            return Err(Refusal::NotFound { what: "token".into() });
        }
        if self.rest.masters.known.len() >= MASTERS_MAX {
            return Err(Refusal::Conflict { reason: format!("there are {MASTERS_MAX} masters already: remove one first") });
        }
        let number = self.rest.masters.last.checked_add(1).ok_or_else(|| Refusal::Conflict { reason: "no number is left".into() })?;
        let master = bounded(Master { number, quic, http })?;
        self.commit(Record::TokenEnded { id, used_by: None, at: self.now });
        self.publish(Change::Tokens);
        self.master_on_record(master);
        Ok(Response::Viewed(Box::new(Viewed::Masters(self.rest.masters.all()))))
    }

    fn master_seen(&mut self, master: Master) -> Result<(), Refusal> {
        let known = self.rest.masters.known.get(&master.number);
        // The first of a new cluster puts itself on record: nobody let it in.
        let first = self.rest.masters.last == 0 && master.number == 1;
        if known.is_none() && !first {
            return Err(Refusal::NotFound { what: "master".into() });
        }
        if known != Some(&master) {
            let master = bounded(master)?;
            self.master_on_record(master);
        }
        Ok(())
    }

    fn master_on_record(&mut self, master: Master) {
        self.commit(Record::MasterSeen { master, at: self.now });
        self.publish(Change::Masters);
    }

    fn master_removed(&mut self, number: u16) -> Result<(), Refusal> {
        if !self.rest.masters.known.contains_key(&number) {
            return Err(Refusal::NotFound { what: "master".into() });
        }
        if self.rest.masters.known.len() == 1 {
            return Err(Refusal::Conflict { reason: "it is the only master".into() });
        }
        self.commit(Record::MasterRemoved { number, at: self.now });
        self.publish(Change::Masters);
        Ok(())
    }
}

fn bounded(master: Master) -> Result<Master, Refusal> {
    let right = |address: &str| (1..=ADDRESS_BYTES_MAX).contains(&address.len()) && !address.chars().any(|c| c.is_control() || c == ' ');
    match right(&master.quic) && right(&master.http) {
        true => Ok(master),
        false => Err(Refusal::Invalid { reason: format!("a master's address has 1 to {ADDRESS_BYTES_MAX} bytes without blanks") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::event::{Token, TokenRequest};
    use crate::shard::{Action, Event, Output, Request, ShardConfig, ShardSnapshot};
    use protocol::Time;

    fn ask(shard: &mut Shard, request: Request) -> Response {
        shard.handle(Time(10), Event::Request { id: RequestId(1), request });
        let mut answer = None;
        while let Some(output) = shard.poll_output() {
            if let Output::Held(Action::Reply { response, .. }) = output {
                answer = Some(response);
            }
        }
        answer.expect("each request is answered")
    }

    fn join(shard: &mut Shard, secret: &str) -> Response {
        let request =
            MasterRequest::Join { id: "t".into(), hash: Digest::of(secret.as_bytes()), quic: "b:1".into(), http: "https://b:2".into() };
        ask(shard, Request::Master(request))
    }

    fn token(shard: &mut Shard, grant: Grant) {
        let token = Token { id: "t".into(), hash: Digest::of(b"s"), grant, expires: None };
        assert!(matches!(ask(shard, Request::Token(TokenRequest::Create(token))), Response::Done));
    }

    #[test]
    fn a_master_joins_once_with_a_token_for_masters_and_no_number_is_given_twice() {
        let mut shard = Shard::new(ShardConfig { id: ShardId(0), shards: 1, ..ShardConfig::default() });
        shard.lead(Time(1));
        let first = Master { number: 1, quic: "a:1".into(), http: "https://a:2".into() };
        assert!(matches!(ask(&mut shard, Request::Master(MasterRequest::Seen(first.clone()))), Response::Done));
        assert!(
            matches!(ask(&mut shard, Request::Master(MasterRequest::Remove { number: 1 })), Response::Refused(_)),
            "it is the only one"
        );
        token(&mut shard, Grant::Join);
        assert!(matches!(join(&mut shard, "s"), Response::Refused(_)), "an agent's token makes no master");
        ask(&mut shard, Request::Token(TokenRequest::Revoke { id: "t".into() }));
        token(&mut shard, Grant::JoinMaster);
        assert!(matches!(join(&mut shard, "wrong"), Response::Refused(_)));
        let Response::Viewed(viewed) = join(&mut shard, "s") else { panic!("it was let in") };
        let Viewed::Masters(masters) = *viewed else { panic!("of masters") };
        assert_eq!(masters.iter().map(|master| master.number).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(join(&mut shard, "s"), Response::Refused(_)), "the token is used up");
        assert!(matches!(ask(&mut shard, Request::Master(MasterRequest::Remove { number: 2 })), Response::Done));
        let gone = Master { number: 2, ..first };
        assert!(
            matches!(ask(&mut shard, Request::Master(MasterRequest::Seen(gone))), Response::Refused(_)),
            "one that was removed stays so"
        );
        token(&mut shard, Grant::JoinMaster);
        let Response::Viewed(viewed) = join(&mut shard, "s") else { panic!("it was let in") };
        let Viewed::Masters(masters) = *viewed else { panic!("of masters") };
        assert_eq!(masters.iter().map(|master| master.number).collect::<Vec<_>>(), [1, 3]);
        // All of that lasts.
        let bytes = postcard::to_allocvec(&shard.snapshot()).unwrap();
        let again = Shard::restore(shard.config().clone(), ShardSnapshot::decode(&bytes).unwrap());
        assert_eq!(again.hash(), shard.hash());
    }
}
