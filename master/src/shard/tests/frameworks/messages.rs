//! What a framework says to its tasks.

use super::*;
use protocol::message::MESSAGE_BYTES_MAX;

impl World {
    fn message(&mut self, client: &Client, task: &str, agent: Option<AgentId>, bytes: impl Into<bytes::Bytes>) -> Response {
        self.call(client, Call::Message { task: task.into(), agent, bytes: bytes.into() })
    }

    /// What its agents were told since this was asked last.
    fn messages(&mut self) -> Vec<(AgentId, AttemptId, bytes::Bytes)> {
        let told = self
            .agents
            .iter_mut()
            .flat_map(|(agent, script)| std::mem::take(&mut script.messages).into_iter().map(|(attempt, bytes)| (*agent, attempt, bytes)));
        told.collect()
    }
}

/// A framework with one task `mine` on an agent, and another with one, `other`, beside it.
fn scene() -> (World, Client, Client, [AttemptId; 2]) {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let mut place = |name: &str| {
        let before = world.agents[&A].launched.len();
        let client = world.subscribe(None, info(&["default"]));
        let offers = world.offers(&client);
        world.accept(&client, &offers[..1], vec![task(name, 500)]);
        let attempt = world.agents[&A].launched[before];
        world.call(&client, Call::Suppress(vec![]));
        (client, attempt)
    };
    let (mine, other) = (place("mine"), place("other"));
    (world, mine.0, other.0, [mine.1, other.1])
}

#[test]
fn a_task_that_runs_is_told_in_order_and_one_that_does_not_never() {
    let (mut world, client, _other, [mine, _]) = scene();
    let done = |response: Response| assert!(matches!(response, Response::Done), "{response:?}");
    done(world.message(&client, "mine", None, "too early"));
    assert!(world.messages().is_empty());
    world.running(A, &[mine]);
    let records = world.journal.len();
    for n in 0..5_u8 {
        done(world.message(&client, "mine", None, vec![n]));
    }
    let told: Vec<_> = (0..5_u8).map(|n| (A, mine, bytes::Bytes::from(vec![n]))).collect();
    assert_eq!((world.messages(), world.journal.len()), (told, records), "nothing of it is on record");
    done(world.message(&client, "mine", Some(B), "somewhere else"));
    assert!(world.messages().is_empty());
    done(world.message(&client, "mine", Some(A), "here"));
    done(world.call(&client, Call::Kill { task: "mine".into(), grace_ms: Some(700) }));
    done(world.message(&client, "mine", None, "while it stops"));
    assert_eq!(world.messages().len(), 2);
    world.end(A, &[mine], &Exit::Killed);
    done(world.message(&client, "mine", None, "too late"));
    assert!(world.messages().is_empty());
    world.check();
}

#[test]
fn nobody_speaks_to_tasks_of_others_nor_more_than_may_be() {
    let (mut world, client, other, attempts) = scene();
    world.running(A, &attempts);
    for name in ["other", "nobody", ""] {
        let response = world.message(&client, name, None, "psst");
        assert!(matches!(&response, Response::Refused(Refusal::NotFound { what }) if what == "task"), "{name}: {response:?}");
    }
    let stranger = FrameworkRequest::Call {
        framework: other.id,
        stream: other.stream,
        principal: "a thief".into(),
        call: Call::Message { task: "other".into(), agent: None, bytes: "psst".into() },
    };
    let response = world.ask(Request::Framework(stranger));
    assert!(matches!(&response, Response::Refused(Refusal::NotFound { what }) if what == "framework"), "{response:?}");
    let forged = Client { id: other.id, request: client.request, stream: client.stream };
    assert!(matches!(world.message(&forged, "other", None, "psst"), Response::Refused(Refusal::Invalid { .. })));
    let long = world.message(&client, "mine", None, vec![0; MESSAGE_BYTES_MAX + 1]);
    assert!(matches!(&long, Response::Refused(Refusal::Invalid { reason }) if reason.contains("65536")), "{long:?}");
    assert!(world.messages().is_empty());
    assert!(matches!(world.message(&client, "mine", None, vec![0; MESSAGE_BYTES_MAX]), Response::Done));
    assert_eq!(world.messages().len(), 1);
    world.check();
}
