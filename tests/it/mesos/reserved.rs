//! Reservations in Mesos' words: made and given up by an operator and by a framework, and read as each capability reads them.

use super::*;

fn entries<'a>(offers: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = offers.iter().flat_map(|offer| offer["resources"].as_array().unwrap());
    all.filter(move |entry| entry["name"] == name)
}

fn cpus(offers: &[Value], is: impl Fn(&Value) -> bool) -> f64 {
    entries(offers, "cpus").filter(|entry| is(entry)).map(|entry| entry["scalar"]["value"].as_f64().unwrap()).sum()
}

fn reserved(role: &str, cpus: f64) -> Value {
    json!({ "name": "cpus", "type": "SCALAR", "scalar": { "value": cpus }, "reservations": [{ "type": "DYNAMIC", "role": role, "principal": "ops" }] })
}

fn framework(mesos: &str, name: &str, role: &str, refines: bool) -> Stream {
    let mut capabilities = vec![json!({ "type": "MULTI_ROLE" })];
    capabilities.extend(refines.then(|| json!({ "type": "RESERVATION_REFINEMENT" })));
    let info = json!({ "user": "root", "name": name, "roles": [role], "failover_timeout": 60, "capabilities": capabilities });
    let mut stream = Stream::subscribe_with(mesos, &json!({ "framework_info": info }));
    stream.until("OFFERS");
    stream
}

/// The status of a call of those who own the cluster.
fn called(cluster: &Cluster, call: &Value) -> String {
    let output = Command::new("curl")
        .args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json"])
        .args(["-H", &format!("Authorization: Bearer {}", cluster.token), "-d", &call.to_string(), &format!("{}/api/v1", cluster.url)])
        .ends();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_an_agent_keeps_for_a_role_is_made_shown_used_and_given_up() {
    let mut cluster = Cluster::master(&["--mesos", "127.0.0.1:0"]);
    cluster.add_agent_with("a1", "cpu=4,memory=1GiB,ports=21000-21009", &["--reserve", "ads:cpu=1,ports=2"]);
    let mesos = cluster.mesos.clone();
    let agent = cluster.json(&["agents"])["agents"][0]["id"].as_str().unwrap().to_owned();
    let mut memory = reserved("web", 64.0);
    memory["name"] = json!("mem");
    let call = json!({ "type": "RESERVE_RESOURCES", "reserve_resources": { "agent_id": { "value": agent }, "resources": [reserved("web", 1.5), memory] } });
    let anybody = ask(&mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &call.to_string());
    assert!(anybody.starts_with("HTTP/1.1 403 "), "{anybody}");
    assert_eq!(called(&cluster, &call), "202");
    let known = operator(&mesos, &json!({ "type": "GET_AGENTS" }));
    let total = known["get_agents"]["agents"][0]["total_resources"].as_array().unwrap().clone();
    let of = |role: &str| {
        total.iter().filter(|entry| entry["reservations"][0]["role"] == role && entry["name"] == "cpus").cloned().collect::<Vec<_>>()
    };
    assert_eq!((&of("ads")[0]["scalar"]["value"], &of("ads")[0]["reservations"][0]["type"]), (&json!(1.0), &json!("STATIC")), "{known}");
    assert_eq!((&of("web")[0]["scalar"]["value"], &of("web")[0]["role"]), (&json!(1.5), &json!("web")), "{known}");
    let old = get(&mesos, "/master/slaves");
    assert_eq!(old["slaves"][0]["reserved_resources"]["web"]["cpus"], 1.5, "{old}");
    // Who is of another role is shown the rest; who is of the role, what is kept for it, in the words that it knows.
    let other = framework(&mesos, "other", "other", true);
    assert_eq!(cpus(&other.offers(), |_| true), 1.5);
    let plain = framework(&mesos, "ads", "ads", false);
    let offers = plain.offers();
    assert_eq!((cpus(&offers, |entry| entry["role"] == "ads"), cpus(&offers, |_| true)), (1.0, 1.0), "{offers:?}");
    assert!(entries(&offers, "ports").any(|entry| entry["role"] == "ads"), "{offers:?}");
    let mut web = framework(&mesos, "web", "web", true);
    let offers = web.offers();
    assert_eq!(cpus(&offers, |entry| entry["reservations"][0]["role"] == "web"), 1.5, "{offers:?}");
    // It refines some of it, which is no longer its own, and runs a task in what it is shown then.
    let (outer, inner) = (json!({ "type": "DYNAMIC", "role": "web" }), json!({ "type": "DYNAMIC", "role": "web/shop" }));
    let refined = json!({ "name": "cpus", "type": "SCALAR", "scalar": { "value": 0.5 }, "reservations": [outer, inner] });
    let accept = |offers: &[Value], operation: Value| {
        let ids: Vec<Value> = offers.iter().map(|offer| offer["id"].clone()).collect();
        json!({ "accept": { "offer_ids": ids, "operations": [operation] } })
    };
    let seen = offers.len();
    let reserve = json!({ "type": "RESERVE", "reserve": { "resources": [refined] } });
    assert_eq!(web.call(&mesos, "ACCEPT", accept(&offers, reserve)).0, 202);
    while web.offers().len() == seen {
        web.until_more();
    }
    let offers = web.offers().split_off(seen);
    assert_eq!(cpus(&offers, |entry| entry["reservations"][0]["role"] == "web"), 1.0, "{offers:?}");
    let mut program = task("t1", "sleep 600");
    program["agent_id"] = json!({ "value": agent });
    let launch = json!({ "type": "LAUNCH", "launch": { "task_infos": [program] } });
    assert_eq!(web.call(&mesos, "ACCEPT", accept(&offers, launch)).0, 202);
    web.until_state(&mesos, "t1", "TASK_RUNNING");
    let kept = |role: &str| {
        let page = cluster.json(&["agents", "reservations"]);
        let list = page["agents"][0]["reservations"].as_array().unwrap().clone();
        list.into_iter().find(|one| one["role"] == role).map_or(0, |one| one["resources"]["cpu_milli"].as_u64().unwrap())
    };
    assert_eq!((kept("web"), kept("web/shop"), kept("ads")), (1_000, 500, 1_000));
    // An operator gives it up again, and not more than there is.
    let call = |cpus: f64| json!({ "type": "UNRESERVE_RESOURCES", "unreserve_resources": { "agent_id": { "value": agent }, "resources": [reserved("web", cpus)] } });
    assert_eq!((called(&cluster, &call(1.5)), called(&cluster, &call(1.0))), ("409".to_owned(), "202".to_owned()), "some of it is refined");
    assert_eq!((kept("web"), kept("web/shop")), (0, 500));
}
