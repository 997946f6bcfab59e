//! Services on their way from one version to another.

use super::*;
use crate::jobs::DeploymentId;
use crate::jobs::rollout::{Cause, State};
use crate::shard::deployment_view::{DeploymentView, DeploymentWish, VersionView};
use protocol::job::{Strategy, Update as How};

const AGENTS: [AgentId; 1] = [A];

fn service(args: &str, count: u32, parallel: u32, update: How) -> Job {
    let restart = Restart { backoff_first_ms: 100, backoff_factor_milli: 1_000, ..job(Kind::Service, 1, 1).restart };
    let mut service = Job { name: Some(name("web")), update_parallel: parallel, update, restart, ..job(Kind::Service, count, 100) };
    Arc::make_mut(&mut service.template).members[0].args = vec![args.into()];
    service
}

pub(super) fn quick() -> How {
    How { settle_ms: 0, ..How::default() }
}

impl World {
    pub(super) fn deploy(&mut self, job: Job) -> (JobId, Option<DeploymentId>) {
        match self.ask(Request::Deploy { job, force: false }) {
            Response::Deployed { job, deployment, .. } => (job, deployment),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn deployment(&mut self, id: JobId) -> DeploymentView {
        match self.ask(Request::View(View::Deployments { job: Some(JobRef::Id(id)), role: None, ended: true })) {
            Response::Viewed(viewed) => match *viewed {
                Viewed::Deployments(views) => views.into_iter().next().expect("it has one"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn versions(&mut self, id: JobId) -> Vec<VersionView> {
        match self.ask(Request::View(View::Versions(JobRef::Id(id)))) {
            Response::Viewed(viewed) => match *viewed {
                Viewed::Versions(views) => views,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Tasks do as they are told; those of a version that is `bad` fail when they are to run. Gives back the fewest that did their work at once and the most
    /// that there were.
    fn go(&mut self, id: JobId, bad: &[u32], rounds: usize) -> (u32, u32) {
        let (mut fewest, mut most) = (u32::MAX, 0);
        for _ in 0..rounds {
            let killed: Vec<AttemptId> = std::mem::take(&mut self.agents.get_mut(&A).unwrap().killed);
            let held = self.held(A);
            let killed: Vec<AttemptId> = killed.into_iter().filter(|attempt| held.contains(attempt)).collect();
            fewest = fewest.min(self.count(id, Phase::Running));
            most = most.max(held.len() as u32 - killed.len() as u32);
            self.end(A, &killed, &Exit::Killed);
            for attempt in self.held(A) {
                let Some(view) = self.shard.task_view(attempt.task.job, attempt.task.index) else { continue };
                match view.phase {
                    Phase::Staging if bad.contains(&view.version) => self.end(A, &[attempt], &Exit::Code(3)),
                    Phase::Staging => self.running(A, &[attempt]),
                    _ => {}
                }
            }
            self.pass(50, &AGENTS);
        }
        self.check();
        (fewest, most)
    }

    fn all_run(&self, id: JobId, count: u32, version: u32) -> bool {
        let right = |index| {
            let view = self.shard.task_view(id, index);
            view.is_some_and(|view| view.version == version && view.phase == Phase::Running)
        };
        (0..count).all(right) && self.held(A).len() == count as usize
    }
}

fn running(count: u32, parallel: u32, update: How) -> (World, JobId) {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let (id, _) = world.deploy(service("1", count, parallel, update));
    world.go(id, &[], 5);
    let first = world.deployment(id);
    assert_eq!((first.state, first.from, first.to), (State::Done, 0, 1));
    assert!(world.all_run(id, count, 1));
    (world, id)
}

fn conflicts(response: &Response) -> bool {
    matches!(response, Response::Refused(Refusal::Conflict { .. }))
}

#[test]
fn a_new_version_replaces_the_old_one_step_by_step() {
    let (mut world, id) = running(5, 2, quick());
    let same = world.ask(Request::Deploy { job: service("1", 5, 2, quick()), force: false });
    assert!(matches!(same, Response::Deployed { new: false, deployment: None, .. }), "{same:?}");
    let (_, deployment) = world.deploy(service("2", 5, 2, quick()));
    assert_eq!(deployment, Some(DeploymentId { job: id, number: 2 }));
    let other = world.ask(Request::Deploy { job: service("3", 5, 2, quick()), force: false });
    assert!(conflicts(&other), "{other:?}");
    let (fewest, most) = world.go(id, &[], 30);
    assert!(fewest >= 3 && most <= 5, "{fewest} {most}");
    assert!(world.all_run(id, 5, 2));
    let view = world.deployment(id);
    assert_eq!((view.state, view.from, view.to, view.ready, view.old), (State::Done, 1, 2, 5, 0));
    let said: Vec<String> = world
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Deployment { what, view } if view.to == 2 => Some(what.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!((said.first().map(String::as_str), said.last().map(String::as_str)), (Some("started"), Some("done")), "{said:?}");
    let versions = world.versions(id);
    assert_eq!(versions.iter().map(|of| (of.number, of.current)).collect::<Vec<_>>(), [(1, false), (2, true)]);
}

#[test]
fn never_fewer_than_promised_with_some_beyond_the_count() {
    let update = How { min_healthy_milli: Some(1_000), max_over_milli: 500, ..quick() };
    let (mut world, id) = running(4, COUNT_MAX, update);
    world.deploy(service("2", 4, COUNT_MAX, update));
    let (fewest, most) = world.go(id, &[], 40);
    assert_eq!((fewest, most), (4, 6));
    assert!(world.all_run(id, 4, 2));
    assert_eq!(world.deployment(id).state, State::Done);
    // Where none may be missing and none may be over, one is.
    let none_over = How { max_over_milli: 0, ..update };
    world.deploy(service("3", 4, 1, none_over));
    let (fewest, most) = world.go(id, &[], 60);
    assert_eq!((fewest, most), (4, 5));
    assert!(world.all_run(id, 4, 3));
}

#[test]
fn a_bad_version_returns_by_itself_and_the_good_one_is_never_touched_again() {
    let (mut world, id) = running(5, 1, quick());
    let launched = world.agents[&A].launched.len();
    world.deploy(service("bad", 7, 1, quick()));
    let (fewest, _) = world.go(id, &[2], 60);
    assert!(fewest >= 4, "{fewest}");
    let view = world.deployment(id);
    assert_eq!((view.cause, view.state, view.to, view.count), (Cause::Failed, State::Done, 1, 5), "{view:?}");
    assert!(world.all_run(id, 5, 1));
    assert_eq!(world.job(id).version, 1);
    // One task was tried, a few times, and went back; two more of the new count as well. The four others were left alone.
    let touched: BTreeSet<u32> = world.agents[&A].launched[launched..].iter().map(|attempt| attempt.task.index).collect();
    assert!(touched.iter().filter(|index| **index < 5).count() <= 1, "{touched:?}");
    let failed = world.changes.iter().find_map(|change| match change {
        Change::Deployment { what, view } if what == "failed" => Some(view.why.clone()),
        _ => None,
    });
    assert!(failed.unwrap().contains("ended by themselves 3 times"), "it says why");
    // The bad one is kept for whoever wants to look at it, and the next has a number of its own.
    assert_eq!(world.versions(id).iter().map(|of| of.number).collect::<Vec<_>>(), [1, 2]);
    world.deploy(service("good", 5, 1, quick()));
    world.go(id, &[], 60);
    assert!(world.all_run(id, 5, 3));
}

#[test]
fn a_version_that_never_gets_ready_fails_at_its_deadline() {
    let update = How { deadline_ms: 5_000, min_healthy_milli: Some(1_000), ..quick() };
    let (mut world, id) = running(3, 1, update);
    let mut large = service("2", 3, 1, update);
    Arc::make_mut(&mut large.template).members[0].resources = cpu(50_000);
    Arc::make_mut(&mut large.template).resources = cpu(50_000);
    world.deploy(large);
    let (fewest, _) = world.go(id, &[], 90);
    assert_eq!(fewest, 3);
    assert_eq!(world.deployment(id).state, State::Running, "its time is not over");
    let (fewest, _) = world.go(id, &[], 700);
    let view = world.deployment(id);
    assert_eq!((view.cause, view.state, fewest), (Cause::Failed, State::Done, 3), "{view:?}");
    assert!(world.all_run(id, 3, 1));
    let manual = How { auto_rollback: false, failures_max: Some(0), ..quick() };
    world.deploy(service("bad", 3, 1, manual));
    world.go(id, &[3], 30);
    let view = world.deployment(id);
    assert_eq!((view.state, view.to, world.count(id, Phase::Running)), (State::Failed, 3, 2), "it is left as it is");
    // What ends meanwhile begins anew in the version that was good.
    let good = world.held(A).into_iter().find(|attempt| world.shard.task_view(id, attempt.task.index).unwrap().version == 1).unwrap();
    world.end(A, &[good], &Exit::Code(1));
    world.go(id, &[3], 30);
    assert_eq!(world.shard.task_view(id, good.task.index).unwrap().version, 1);
    let back = world.ask(Request::Rollback { job: JobRef::Id(id), to: Some(1), force: false });
    assert!(matches!(back, Response::Deployed { .. }), "{back:?}");
    world.go(id, &[3], 60);
    assert!(world.all_run(id, 3, 1));
}

#[test]
fn a_canary_waits_until_it_is_promoted() {
    let update = How { canary: 2, ..quick() };
    let (mut world, id) = running(6, 1, update);
    let (_, deployment) = world.deploy(service("2", 6, 1, update));
    let deployment = deployment.unwrap();
    world.go(id, &[], 40);
    let view = world.deployment(id);
    assert_eq!((view.state, view.ready, view.old), (State::Waiting, 2, 4));
    // One of the old that ends by itself begins anew as what it was.
    let old = world.held(A).into_iter().find(|attempt| world.shard.task_view(id, attempt.task.index).unwrap().version == 1).unwrap();
    world.end(A, &[old], &Exit::Code(1));
    world.go(id, &[], 20);
    assert_eq!(world.shard.task_view(id, old.task.index).unwrap().version, 1);
    assert_eq!(world.deployment(id).state, State::Waiting);
    let done = |response: &Response| matches!(response, Response::Done);
    assert!(conflicts(&world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Resume })));
    assert!(done(&world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Promote })));
    world.go(id, &[], 60);
    assert!(world.all_run(id, 6, 2));
    assert!(conflicts(&world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Pause })));
}

#[test]
fn a_bad_canary_is_all_that_ever_was_of_its_version() {
    let update = How { canary: 1, max_over_milli: 500, min_healthy_milli: Some(1_000), ..quick() };
    let (mut world, id) = running(4, 1, update);
    world.deploy(service("bad", 4, 1, update));
    let (fewest, most) = world.go(id, &[2], 60);
    assert_eq!((fewest, most), (4, 5));
    assert!(world.all_run(id, 4, 1));
    assert_eq!((world.deployment(id).cause, world.deployment(id).state), (Cause::Failed, State::Done));
}

#[test]
fn it_stands_still_and_ends_when_somebody_says_so() {
    let (mut world, id) = running(5, 1, quick());
    let deployment = world.deploy(service("2", 5, 1, quick())).1.unwrap();
    world.go(id, &[], 1);
    world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Pause });
    world.go(id, &[], 10);
    let before = world.deployment(id);
    world.go(id, &[], 40);
    assert_eq!((world.deployment(id).ready, world.deployment(id).state), (before.ready, State::Paused));
    assert!(before.ready < 5 && before.ready > 0, "{before:?}");
    world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Resume });
    world.go(id, &[], 1);
    world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Cancel { back: true } });
    world.go(id, &[], 60);
    let view = world.deployment(id);
    assert_eq!((view.cause, view.state, view.to), (Cause::RolledBack, State::Done, 1));
    assert!(world.all_run(id, 5, 1));
    let deployment = world.deploy(service("3", 5, 1, quick())).1.unwrap();
    world.go(id, &[], 1);
    world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Cancel { back: false } });
    world.go(id, &[], 20);
    assert_eq!(world.deployment(id).state, State::Cancelled);
    assert!((1..5).contains(&world.deployment(id).ready), "it is left as it is");
}

#[test]
fn another_takes_its_place_by_force_and_the_way_back_leads_to_what_was_good() {
    let (mut world, id) = running(4, 1, quick());
    world.deploy(service("2", 4, 1, quick()));
    world.go(id, &[], 3);
    let forced = world.ask(Request::Deploy { job: service("bad", 4, 1, quick()), force: true });
    assert!(matches!(forced, Response::Deployed { new: true, .. }), "{forced:?}");
    assert_eq!((world.deployment(id).from, world.deployment(id).to), (1, 3));
    world.go(id, &[3], 80);
    assert_eq!((world.deployment(id).cause, world.deployment(id).state), (Cause::Failed, State::Done));
    assert!(world.all_run(id, 4, 1));
}

#[test]
fn any_version_that_is_kept_returns_and_a_restart_is_a_version_of_its_own() {
    let (mut world, id) = running(2, 1, quick());
    for version in 2..=12 {
        world.deploy(service(&version.to_string(), 2, 1, quick()));
        world.go(id, &[], 12);
        assert!(world.all_run(id, 2, version));
    }
    let kept: Vec<u32> = world.versions(id).iter().map(|of| of.number).collect();
    assert_eq!(kept, (3..=12).collect::<Vec<_>>());
    let gone = world.ask(Request::Rollback { job: JobRef::Id(id), to: Some(1), force: false });
    assert!(matches!(gone, Response::Refused(Refusal::Invalid { .. })), "{gone:?}");
    world.ask(Request::Scale { job: JobRef::Id(id), count: 3 });
    world.ask(Request::Rollback { job: JobRef::Id(id), to: Some(5), force: false });
    world.go(id, &[], 20);
    assert!(world.all_run(id, 3, 5), "the count stays");
    assert_eq!(world.job(id).job.template.members[0].args, ["5"]);
    world.ask(Request::Rollback { job: JobRef::Id(id), to: None, force: false });
    world.go(id, &[], 20);
    assert!(world.all_run(id, 3, 4), "the one before");
    world.ask(Request::Restart { job: JobRef::Id(id), force: false });
    world.go(id, &[], 20);
    assert!(world.all_run(id, 3, 13));
    assert_eq!(world.job(id).job.template.members[0].args, ["4"]);
}

#[test]
fn what_needs_no_new_tasks_gets_none() {
    let (mut world, id) = running(3, 1, quick());
    let launched = world.agents[&A].launched.len();
    let other = Job { priority: 70, update_parallel: 2, count: 4, ..service("1", 3, 1, How { canary: 1, ..quick() }) };
    assert!(matches!(world.ask(Request::Deploy { job: other, force: false }), Response::Deployed { new: true, deployment: None, .. }));
    world.go(id, &[], 10);
    assert_eq!((world.agents[&A].launched.len(), world.job(id).version), (launched + 1, 1));
    assert!(world.all_run(id, 4, 1));
    assert_eq!((world.job(id).job.priority, world.job(id).job.update.canary), (70, 1));
}

#[test]
fn another_number_of_tasks_is_a_deployment_where_that_is_wanted() {
    let (mut world, id) = running(3, 1, quick());
    let resize = |count, force| Request::Resize { job: service("1", count, 1, quick()), force };
    let begun = world.ask(resize(5, false));
    let expected = DeploymentId { job: id, number: 2 };
    assert!(matches!(begun, Response::Deployed { deployment: Some(of), .. } if of == expected), "{begun:?}");
    let view = world.deployment(id);
    assert_eq!((view.id, view.cause, view.state, view.from_count, view.count), (expected, Cause::Resized, State::Running, 3, 5));
    for other in [resize(4, false), Request::Deploy { job: service("2", 5, 1, quick()), force: false }] {
        assert!(conflicts(&world.ask(other)), "one at a time");
    }
    assert!(matches!(world.ask(resize(6, true)), Response::Deployed { deployment: Some(of), .. } if of.number == 3));
    world.go(id, &[], 10);
    assert_eq!((world.deployment(id).state, world.deployment(id).from_count), (State::Done, 5));
    assert!(world.all_run(id, 6, 1), "no task was replaced for it");
    assert_eq!(world.agents[&A].launched.len(), 6);
    world.ask(resize(2, false));
    assert_eq!(world.deployment(id).state, State::Running, "those beyond are not gone yet");
    world.go(id, &[], 10);
    assert_eq!(world.deployment(id).state, State::Done);
    // What ends afterwards begins nothing anew.
    let one = world.held(A)[0];
    world.end(A, &[one], &Exit::Code(3));
    assert_eq!((world.deployment(id).state, world.deployment(id).id.number), (State::Done, 4));
    world.go(id, &[], 10);
    world.ask(resize(3, false));
    let back = DeploymentWish::Cancel { back: true };
    let refused = world.ask(Request::Deployment { id: DeploymentId { job: id, number: 5 }, wish: back });
    assert!(conflicts(&refused), "it has no version to go back to: {refused:?}");
}

#[test]
fn what_is_said_of_a_service_leaves_it_and_what_is_under_way_alone() {
    let (mut world, id) = running(2, 1, quick());
    let deployment = world.deploy(service("2", 3, 1, quick())).1.unwrap();
    let about = protocol::job::About { labels: vec![("team".into(), "x".into())], origin: None };
    let describe = |about: &protocol::job::About| Request::Describe { job: JobRef::Id(id), about: about.clone() };
    assert!(matches!(world.ask(describe(&about)), Response::Done));
    let view = world.deployment(id);
    assert_eq!((view.id, view.state, world.job(id).version), (deployment, State::Running, 2));
    assert_eq!((view.from_count, view.count), (2, 3), "what a way back returns to is the same");
    assert_eq!(world.job(id).job.labels(), [("team".to_owned(), "x".to_owned())]);
    world.go(id, &[], 20);
    assert!(world.all_run(id, 3, 2) && world.deployment(id).state == State::Done);
    world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
    assert!(conflicts(&world.ask(describe(&about))), "it is about to end");
}

#[test]
fn another_number_of_tasks_lets_what_is_under_way_go_on_where_it_is_forced_and_replaces_nothing_else() {
    let (mut world, id) = running(4, 1, quick());
    let deployment = world.deploy(service("2", 4, 1, quick())).1.unwrap();
    world.go(id, &[], 1);
    let resize = |count, force| Request::Resize { job: service("2", count, 1, quick()), force };
    assert!(conflicts(&world.ask(resize(5, false))));
    let forced = world.ask(resize(5, true));
    assert!(matches!(forced, Response::Deployed { deployment: Some(of), .. } if of == deployment), "{forced:?}");
    world.go(id, &[], 40);
    assert!(world.all_run(id, 5, 2) && world.deployment(id).state == State::Done);
    // What was left half way stays so: the older tasks are counted, and not replaced.
    let deployment = world.deploy(service("bad", 5, 1, quick())).1.unwrap();
    world.go(id, &[3], 1);
    world.ask(Request::Deployment { id: deployment, wish: DeploymentWish::Cancel { back: false } });
    let old = |world: &World| (0..6).filter(|index| world.shard.task_view(id, *index).is_some_and(|view| view.version == 2)).count();
    let before = old(&world);
    assert!(before >= 4, "{before}");
    let bad = Request::Resize { job: service("bad", 6, 1, quick()), force: false };
    assert!(matches!(world.ask(bad), Response::Deployed { deployment: Some(_), .. }));
    world.go(id, &[3], 40);
    let view = world.deployment(id);
    assert_eq!((view.state, view.cause, view.to, world.job(id).version), (State::Failed, Cause::Resized, 3, 3));
    assert!(old(&world) >= before, "none of them was replaced");
}

#[test]
fn blue_goes_when_all_of_green_do_their_work() {
    let update = How { strategy: Strategy::BlueGreen, ..quick() };
    let (mut world, id) = running(3, 1, update);
    world.deploy(service("2", 3, 1, update));
    let (fewest, most) = world.go(id, &[], 30);
    assert_eq!((fewest, most), (3, 6));
    assert!(world.all_run(id, 3, 2));
    world.deploy(service("bad", 3, 1, update));
    let (fewest, _) = world.go(id, &[3], 60);
    assert_eq!(fewest, 3);
    assert!(world.all_run(id, 3, 2));
    assert_eq!((world.deployment(id).cause, world.deployment(id).state), (Cause::Failed, State::Done));
}

#[test]
fn new_tasks_are_believed_when_they_have_settled() {
    let update = How { settle_ms: 2_000, ..How::default() };
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let (id, _) = world.deploy(service("1", 3, 1, update));
    world.go(id, &[], 60);
    world.deploy(service("2", 3, 1, update));
    world.go(id, &[], 10);
    assert_eq!((world.deployment(id).ready, world.deployment(id).new), (1, 1), "the first has not proved itself");
    world.go(id, &[], 60);
    assert_eq!((world.deployment(id).ready, world.deployment(id).state), (3, State::Running), "nor have all");
    world.go(id, &[], 60);
    assert_eq!(world.deployment(id).state, State::Done);
}

#[test]
fn a_new_leader_goes_on_and_ends_nothing_for_what_it_does_not_know() {
    let (mut world, id) = running(6, 2, quick());
    world.deploy(service("2", 6, 2, quick()));
    world.go(id, &[], 1);
    let before = world.deployment(id);
    assert!(before.ready > 0 && before.old > 0, "{before:?}");
    world.agents.get_mut(&A).unwrap().killed.clear();
    world.new_leader();
    world.pass(1_000, &[]);
    assert!(world.agents[&A].killed.is_empty(), "nobody has said yet what runs: {:?}", world.agents[&A].killed);
    world.register(A, cpu(10_000), 1);
    let (fewest, _) = world.go(id, &[], 60);
    assert!(fewest >= 4, "{fewest}");
    assert!(world.all_run(id, 6, 2));
    assert_eq!(world.deployment(id).state, State::Done);
}

#[test]
fn tasks_of_the_version_before_begin_anew_with_what_they_need() {
    let update = How { canary: 1, ..quick() };
    let (mut world, id) = running(4, 1, update);
    let mut large = service("2", 4, 1, update);
    Arc::make_mut(&mut large.template).members[0].resources = cpu(400);
    Arc::make_mut(&mut large.template).resources = cpu(400);
    world.deploy(large);
    world.go(id, &[], 20);
    assert_eq!(world.deployment(id).state, State::Waiting);
    let ended: Vec<AttemptId> = world.held(A);
    world.end(A, &ended, &Exit::Code(1));
    world.go(id, &[], 30);
    let of = |world: &World, index| world.shard.task_view(id, index).unwrap().version;
    let versions: Vec<u32> = (0..4).map(|index| of(&world, index)).collect();
    assert_eq!((versions.iter().filter(|version| **version == 1).count(), world.count(id, Phase::Running)), (3, 4), "{versions:?}");
    let booked = &world.shard.pool.seats[0].booked;
    assert_eq!(booked.cpu_milli, 3 * 100 + 400);
}
