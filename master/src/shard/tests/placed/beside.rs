//! Tasks that are kept near those of another job, or apart from them.

use super::*;
use protocol::Neighbour;
use protocol::message::shard_of_job;

fn near(other: &str) -> Rule {
    Rule::Near(Neighbour::named(name(other)))
}

fn apart(other: &str) -> Rule {
    Rule::Apart(Neighbour::named(name(other)))
}

impl Cluster {
    /// Submits a job to the shard that its name belongs to.
    fn put(&mut self, called: &str, job: Job) -> JobId {
        let at = usize::from(shard_of_job(&job.role, called, self.shards.len() as u16).0);
        self.ask(at, Request::Submit { job: Job { name: Some(name(called)), ..job }, key: None, follow: false })
    }

    fn stop(&mut self, called: &str, id: JobId) {
        let at = usize::from(shard_of_job(&as_role("default"), called, self.shards.len() as u16).0);
        self.ask(at, Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
        for agent in self.stands.keys().copied().collect::<Vec<_>>() {
            self.end(agent, id, &Exit::Killed);
        }
    }

    fn agents_with(&self, job: JobId) -> BTreeSet<usize> {
        self.on(job).into_iter().enumerate().filter(|(_, tasks)| *tasks > 0).map(|(at, _)| at).collect()
    }
}

#[test]
fn tasks_go_beside_those_of_another_job_and_wait_where_there_is_none() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["r1", "r2", "r3", "r4"], 1_000);
        let web = cluster.put("web", placed(3, 100, &[("hostname", near("cache"))], &[]));
        cluster.pass(2_000);
        assert_eq!((cluster.agents_with(web).len(), cluster.waiting()), (0, 3), "there is no cache yet");
        let cache = cluster.put("cache", placed(2, 300, &[("hostname", Rule::Unique)], &[]));
        cluster.pass(2_000);
        assert_eq!((cluster.agents_with(cache).len(), cluster.waiting()), (2, 0));
        assert!(cluster.agents_with(web).is_subset(&cluster.agents_with(cache)), "{:?} {:?}", cluster.on(web), cluster.on(cache));
        // Those that are there stay when it goes; more wait for the next that is called so.
        cluster.stop("cache", cache);
        let more = cluster.put("more", placed(1, 100, &[("hostname", near("cache"))], &[]));
        cluster.pass(2_000);
        assert_eq!((cluster.on(web).iter().sum::<usize>(), cluster.on(more).iter().sum::<usize>()), (3, 0));
        let next = cluster.put("cache", job(Kind::Service, 1, 300));
        cluster.pass(2_000);
        assert_eq!(cluster.agents_with(more), cluster.agents_with(next));
        cluster.check();
    }
}

#[test]
fn tasks_are_kept_off_agents_with_those_of_another_job() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["r1", "r2", "r3"], 1_000);
        let db = cluster.put("db", placed(2, 300, &[("hostname", Rule::Unique)], &[]));
        let batch = cluster.put("batch", placed(20, 100, &[("hostname", apart("db"))], &[]));
        cluster.pass(2_000);
        assert!(cluster.agents_with(db).is_disjoint(&cluster.agents_with(batch)), "{:?} {:?}", cluster.on(db), cluster.on(batch));
        assert_eq!((cluster.on(batch).iter().sum::<usize>(), cluster.waiting()), (10, 10), "the third agent is full");
        // Where it leaves, there is room at once.
        let left = *cluster.agents_with(db).first().unwrap();
        cluster.stop("db", db);
        cluster.pass(2_000);
        assert!(cluster.on(batch)[left] > 0 && cluster.waiting() == 0, "{:?}", cluster.on(batch));
        cluster.check();
    }
}

#[test]
fn jobs_that_are_kept_apart_from_each_other_and_come_at_once_are_never_together() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["r1", "r2"], 1_000);
        let one = placed(1, 100, &[("hostname", apart("two"))], &[]);
        let two = placed(1, 100, &[("hostname", apart("one"))], &[]);
        // Both are on record before either hears of an agent, or of the other.
        for (called, job) in [("one", one), ("two", two)] {
            let at = usize::from(shard_of_job(&job.role, called, shards).0);
            let job = Job { name: Some(name(called)), ..job };
            cluster.shards[at]
                .handle(cluster.now, Event::Request { id: RequestId(1), request: Request::Submit { job, key: None, follow: false } });
        }
        let id = |cluster: &Cluster, called: &str| {
            let at = usize::from(shard_of_job(&as_role("default"), called, shards).0);
            cluster.shards[at].jobs.named(&as_role("default"), &name(called)).unwrap()
        };
        let (one, two) = (id(&cluster, "one"), id(&cluster, "two"));
        cluster.settle();
        cluster.pass(3_000);
        assert_eq!((cluster.agents_with(one).len(), cluster.agents_with(two).len(), cluster.waiting()), (1, 1, 0));
        assert!(cluster.agents_with(one).is_disjoint(&cluster.agents_with(two)));
        // Of a new leader as well, which knows the jobs by their agents' word.
        cluster.new_leader();
        let more = cluster.put("more", placed(4, 100, &[("hostname", apart("one")), ("hostname", near("two"))], &[]));
        cluster.pass(3_000);
        assert_eq!(cluster.agents_with(more), cluster.agents_with(two));
        cluster.check();
    }
}

#[test]
fn an_offer_that_was_made_before_the_neighbour_came_is_refused_to_whoever_takes_it() {
    let mut cluster = Cluster::new(1);
    cluster.agents(1, &["r1"], 1_000);
    let db = cluster.put("db", job(Kind::Service, 0, 100));
    let web = Job { name: Some(name("web")), ..placed(1, 100, &[("hostname", apart("db"))], &[]) };
    let request = Request::Submit { job: web, key: None, follow: false };
    cluster.shards[0].handle(cluster.now, Event::Request { id: RequestId(1), request });
    let web = cluster.shards[0].jobs.named(&as_role("default"), &name("web")).unwrap();
    let mut offers = None;
    for _ in 0..100 {
        cluster.shards[0].handle(cluster.now, Event::Tick);
        cluster.drain(0);
        match cluster.letters.pop_front() {
            Some((_, from, message @ PeerMessage::OffersPlaced { .. })) => offers = Some((from, message)),
            Some((_, from, message)) => cluster.shards[0].handle(cluster.now, Event::Peer { from, message }),
            None => cluster.now = cluster.now + 100,
        }
        if offers.is_some() {
            break;
        }
    }
    let (from, message) = offers.expect("db has no task: it may go to the agent");
    cluster.ask(0, Request::Scale { job: JobRef::Id(db), count: 1 });
    assert_eq!((cluster.on(db), cluster.on(web)), (vec![1], vec![0]));
    cluster.letters.push_back((0, from, message));
    cluster.settle();
    cluster.pass(3_000);
    assert_eq!((cluster.on(db), cluster.on(web), cluster.waiting()), (vec![1], vec![0], 1));
    cluster.stop("db", db);
    cluster.pass(3_000);
    assert_eq!(cluster.on(web), [1]);
    cluster.check();
}

#[test]
fn a_task_that_never_came_to_its_agent_is_placed_anew_where_its_neighbours_are_otherwise_by_then() {
    for shards in [1, 3] {
        for rule in [apart("db"), near("cache")] {
            let mut cluster = Cluster::new(shards);
            cluster.agents(1, &["r1", "r2"], 1_000);
            let is_near = rule == near("cache");
            let on = |agent: u64| placed(1, 100, &[("hostname", Rule::Is(format!("a{agent}")))], &[]);
            let cache = cluster.put("cache", on(1));
            let web = cluster.put("web", placed(1, 100, &[("hostname", rule)], &[]));
            cluster.pass(2_000);
            let at = cluster.agents_with(web).into_iter().next().expect("it has a place");
            // The launch is lost with the connection of its agent, and then those are not there any more, or are, that it is kept near, or apart.
            let agent = AgentId(at as u64 + 1);
            cluster.held.get_mut(&agent).unwrap().retain(|attempt| attempt.task.job != web);
            if is_near {
                cluster.stop("cache", cache);
                cluster.put("cache", on(2));
            } else {
                cluster.put("db", on(agent.0));
            }
            cluster.agent(agent, &[("rack", "r1")], 1_000);
            assert_eq!(cluster.on(web), [0, 0], "it is not known to be lost, and not launched");
            cluster.pass(20_000);
            assert_eq!((cluster.on(web)[1 - at], cluster.on(web)[at], cluster.waiting()), (1, 0, 0));
            cluster.check();
        }
    }
}

#[test]
fn a_task_of_which_its_agent_was_not_told_twice_goes_on() {
    let mut cluster = Cluster::new(1);
    cluster.agents(1, &["r1"], 1_000);
    let web = cluster.put("web", placed(1, 100, &[("hostname", apart("db"))], &[]));
    cluster.pass(2_000);
    assert_eq!(cluster.on(web), [1]);
    // A launch of before comes after the report without it.
    let held = std::mem::take(cluster.held.get_mut(&AgentId(1)).unwrap());
    cluster.agent(AgentId(1), &[("rack", "r1")], 1_000);
    cluster.held.insert(AgentId(1), held.clone());
    cluster.pass(20_000);
    assert_eq!((&cluster.held[&AgentId(1)], cluster.waiting()), (&held, 0), "no other attempt was made");
    cluster.check();
}
