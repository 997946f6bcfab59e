//! How much a master says: raised through our own API, the command line and Mesos', and as usual again when the time is over.

use super::*;

/// The lines of requests that a master has said so far: debug, so usually none.
fn requests(cluster: &Cluster) -> usize {
    let log = std::fs::read_to_string(cluster.folder.join("master.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("DEBUG") && line.contains("a request")).count()
}

/// True where a request is said that is made now: what is said is there before its answer.
fn is_loud(cluster: &Cluster) -> bool {
    let before = requests(cluster);
    cluster.json(&["agents"]);
    requests(cluster) > before
}

#[test]
fn a_master_says_more_for_as_long_as_an_operator_asks_and_then_as_before() {
    let cluster = pool();
    let level = |cluster: &Cluster| cluster.json(&["masters", "log-level"])["level"].clone();
    assert!(!is_loud(&cluster) && level(&cluster) == "usual");

    let said = cluster.text(&["masters", "log-level", "debug", "--for", "2h"]);
    assert!(said.starts_with("master 1 logs as debug, for another 71"), "{said}");
    assert!(is_loud(&cluster) && level(&cluster) == "debug");
    cluster.text(&["masters", "log-level", "usual"]);
    assert!(!is_loud(&cluster) && level(&cluster) == "usual");

    cluster.json(&["masters", "log-level", "trace", "--for", "1s"]);
    cluster.until("it is as usual again", |cluster| level(cluster) == "usual");
    assert!(!is_loud(&cluster));
}

#[test]
fn mesos_levels_are_those_of_the_master() {
    let cluster = pool();
    let mesos = &cluster.mesos;
    let get = || operator(mesos, &json!({ "type": "GET_LOGGING_LEVEL" }))["get_logging_level"]["level"].clone();
    let set = |level: Value, nanoseconds: Value| {
        let call =
            json!({ "type": "SET_LOGGING_LEVEL", "set_logging_level": { "level": level, "duration": { "nanoseconds": nanoseconds } } });
        let answer = ask(mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &call.to_string());
        answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0)
    };
    assert_eq!(get(), 0);
    assert_eq!((set(json!(1), json!(3_600_000_000_000_u64)), get()), (200, json!(1)));
    assert!(is_loud(&cluster));
    assert_eq!((set(json!(3), json!(3_600_000_000_000_u64)), get()), (200, json!(3)));
    for (level, nanoseconds) in [
        (json!(4), json!(1_000_000_000)),
        (json!(-1), json!(1_000_000_000)),
        (json!(1.5), json!(1_000_000_000)),
        (json!("loud"), json!(1_000_000_000)),
        (json!(null), json!(1_000_000_000)),
        (json!(1), json!(-1)),
        (json!(1), json!(0)),
        (json!(1), json!(null)),
        (json!(1), json!(u64::MAX)),
    ] {
        assert_eq!((set(level.clone(), nanoseconds.clone()), get()), (400, json!(3)), "{level} for {nanoseconds}");
    }
    assert_eq!((set(json!(0), json!(1_000_000_000)), get()), (200, json!(0)));
    assert!(!is_loud(&cluster));
    assert_eq!(set(json!(2), json!(500_000_000)), 200);
    cluster.until("it is as usual again", |_| get() == 0);
    assert!(!is_loud(&cluster));
}

#[test]
fn bad_levels_and_durations_are_told_so_and_only_operators_change_any() {
    let cluster = pool();
    let put = |token: &str, body: Value| {
        crate::frameworks::caller::on_runtime(async {
            let caller = crate::frameworks::caller::Caller::new(&cluster, token);
            let request = caller.http.put(format!("{}/v1/masters/log-level", caller.url)).bearer_auth(token).json(&body);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    };
    for (body, field) in [
        (json!({ "level": "loud", "for_ms": 1 }), "level"),
        (json!({ "level": "debug" }), "for_ms"),
        (json!({ "level": "debug", "for_ms": 0 }), "for_ms"),
        (json!({ "level": "debug", "for_ms": 86_400_001 }), "for_ms"),
        (json!({ "level": "debug", "for_ms": -1 }), "body"),
        (json!({ "level": "usual", "for_ms": 5 }), "for_ms"),
        (json!({}), "body"),
    ] {
        let (status, answer) = put(&cluster.token, body.clone());
        assert!(status == 400 && answer.contains(&format!("\"{field}\"")), "{body}: {status} {answer}");
    }
    let token = |flags: &[&str]| cluster.json(&[&["tokens", "create"], flags].concat())["token"].as_str().unwrap().to_owned();
    let debug = || json!({ "level": "debug", "for_ms": 60_000 });
    for flags in [&["--level", "viewer"][..], &["--level", "operator", "--role", "web"]] {
        assert_eq!(put(&token(flags), debug()).0, 403, "{flags:?}");
    }
    assert!(!is_loud(&cluster));
    assert_eq!(put(&token(&["--level", "operator"]), debug()).0, 200);
    assert!(is_loud(&cluster));
}
