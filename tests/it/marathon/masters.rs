//! Several masters: what one was asked for, the others list, lock, take back and see end, also once that one is dead.

use super::*;
use crate::frameworks::caller::{Caller, on_runtime};
use crate::masters::Masters;

/// One of the masters, as a client of Marathon's sees it.
struct At<'a> {
    masters: &'a Masters,
    number: u64,
}

impl At<'_> {
    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.masters.url(self.number));
        on_runtime(async {
            let caller = Caller::new(&self.masters.cluster, &self.masters.cluster.token);
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let request = caller.http.request(method, url).bearer_auth(&caller.token).header("content-type", "application/json").body(text);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
        })
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.masters.cluster.until(&format!("at {}: {what}", self.number), |_| holds(self));
    }

    fn until_settled(&self) {
        self.until("all deployments are over", |at| at.call("GET", "/v2/deployments", &Value::Null) == (200, json!([])));
    }

    /// What it lists is this one alone, in so many steps, at this one.
    fn lists(&self, id: &Value, apps: &Value, action: &str, app: &str) {
        let all = self.get("/v2/deployments");
        let now = json!([{ "action": action, "app": app }]);
        assert_eq!((&all[0]["id"], &all[0]["affectedApps"], &all[0]["currentActions"]), (id, apps, &now), "at {}: {all}", self.number);
        assert!(all[1].is_null(), "at {}: {all}", self.number);
        assert_eq!(self.get(&format!("/v2/apps{app}"))["app"]["deployments"], json!([{ "id": id }]));
        let (status, refused) = self.call("PUT", &format!("/v2/apps{app}"), &json!({ "cmd": "sleep 602" }));
        assert_eq!((status, &refused["deployments"]), (409, &json!([{ "id": id }])), "at {}: {refused}", self.number);
    }
}

/// What one of them answers.
fn at(masters: &Masters, number: u64, method: &str, path: &str, body: &Value) -> (u16, Value) {
    At { masters, number }.call(method, path, body)
}

/// All are there again, and there is room: two of this app's tasks run, and nothing is under way.
fn ends_with_two(masters: &mut Masters, app: &str) {
    masters.start(1);
    masters.cluster.add_agent("a2", "cpu=64,memory=2GiB");
    for number in 2..=3 {
        let at = At { masters, number };
        at.until_settled();
        assert_eq!(at.get(&format!("/v2/apps{app}"))["app"]["tasksRunning"], 2);
    }
}

/// Two of them have no room on one agent of 64 processors.
fn large(id: &str, instances: u32) -> Value {
    json!({ "id": id, "cmd": "sleep 600", "cpus": 40, "mem": 32, "instances": instances })
}

fn small(id: &str) -> Value {
    json!({ "id": id, "cmd": "sleep 600", "cpus": 0.1, "mem": 32 })
}

#[test]
fn another_number_of_tasks_is_a_deployment_at_every_master() {
    let mut masters = Masters::three();
    assert_eq!(at(&masters, 1, "POST", "/v2/apps", &large("/web/shop", 1)).0, 201);
    At { masters: &masters, number: 2 }.until_settled();
    let before: Value = At { masters: &masters, number: 2 }.get("/v2/apps/web/shop")["app"]["tasks"].clone();
    let (status, begun) = at(&masters, 1, "PUT", "/v2/apps/web/shop", &json!({ "instances": 2 }));
    assert_eq!(status, 200, "{begun}");
    let (id, apps) = (begun["deploymentId"].clone(), json!(["/web/shop"]));
    for number in 1..=3 {
        At { masters: &masters, number }.lists(&id, &apps, "ScaleApplication", "/web/shop");
    }
    masters.kill(1);
    for number in 2..=3 {
        let at = At { masters: &masters, number };
        at.until("it answers", |at| at.call("GET", "/v2/deployments", &Value::Null).0 == 200);
        at.lists(&id, &apps, "ScaleApplication", "/web/shop");
    }
    // One that was not asked takes it back.
    let path = format!("/v2/deployments/{}", id.as_str().unwrap());
    let (status, back) = at(&masters, 3, "DELETE", &path, &Value::Null);
    assert!(status == 200 && back["deploymentId"].is_string() && back["deploymentId"] != id, "{status} {back}");
    At { masters: &masters, number: 2 }.until_settled();
    let shown = At { masters: &masters, number: 2 }.get("/v2/apps/web/shop")["app"].clone();
    assert_eq!((&shown["instances"], &shown["tasksRunning"]), (&json!(1), &json!(1)), "{shown}");
    assert_eq!(shown["tasks"][0]["id"], before[0]["id"], "no task was ended for it");
    assert_eq!(at(&masters, 2, "DELETE", &path, &Value::Null).0, 404, "it is over");
    // By force another number takes its place; it ends once there is room.
    let (_, first) = at(&masters, 2, "PUT", "/v2/apps/web/shop", &json!({ "instances": 3 }));
    let (status, second) = at(&masters, 3, "PUT", "/v2/apps/web/shop?force=true", &json!({ "instances": 2 }));
    assert!(status == 200 && second["deploymentId"] != first["deploymentId"], "{first} {second}");
    At { masters: &masters, number: 2 }.lists(&second["deploymentId"], &apps, "ScaleApplication", "/web/shop");
    ends_with_two(&mut masters, "/web/shop");
}

#[test]
fn what_several_apps_do_together_is_one_deployment_at_every_master() {
    let mut masters = Masters::three();
    let group = json!({ "id": "/web", "apps": [small("a"), large("b", 2)] });
    let (status, begun) = at(&masters, 1, "POST", "/v2/groups", &group);
    assert_eq!(status, 201, "{begun}");
    let (id, apps) = (begun["deploymentId"].clone(), json!(["/web/a", "/web/b"]));
    for number in 1..=3 {
        let at = At { masters: &masters, number };
        at.until("the small one is there", |at| at.get("/v2/deployments")[0]["currentStep"] == 2);
        at.lists(&id, &apps, "StartApplication", "/web/b");
    }
    masters.kill(1);
    // One that starts now knows no more than what is on record.
    masters.kill(3);
    masters.start(3);
    for number in [3, 2] {
        let at = At { masters: &masters, number };
        at.until("it answers", |at| at.call("GET", "/v2/deployments", &Value::Null).0 == 200);
        at.until("the small one is known to be there", |at| at.get("/v2/deployments")[0]["currentStep"] == 2);
        at.lists(&id, &apps, "StartApplication", "/web/b");
    }
    // All of it is taken back, also what was done already.
    let path = format!("/v2/deployments/{}", id.as_str().unwrap());
    let (status, back) = at(&masters, 3, "DELETE", &path, &Value::Null);
    assert_eq!(status, 200, "{back}");
    At { masters: &masters, number: 2 }.until_settled();
    assert_eq!(At { masters: &masters, number: 2 }.get("/v2/apps")["apps"], json!([]));
    // A group that is scaled ends as one, too.
    assert_eq!(at(&masters, 2, "POST", "/v2/groups", &json!({ "id": "/web", "apps": [small("a"), large("b", 1)] })).0, 201);
    At { masters: &masters, number: 3 }.until_settled();
    let (status, scaled) = at(&masters, 2, "PUT", "/v2/groups/web", &json!({ "scaleBy": 2 }));
    assert_eq!(status, 200, "{scaled}");
    let other = At { masters: &masters, number: 3 };
    other.until("the small one is there", |at| at.get("/v2/deployments")[0]["currentStep"] == 2);
    other.lists(&scaled["deploymentId"], &apps, "ScaleApplication", "/web/b");
    ends_with_two(&mut masters, "/web/a");
    let (status, ended) = at(&masters, 2, "DELETE", "/v2/groups/web?force=true", &Value::Null);
    assert_eq!(status, 200, "{ended}");
    At { masters: &masters, number: 3 }.until_settled();
    assert_eq!(At { masters: &masters, number: 3 }.get("/v2/apps")["apps"], json!([]));
}
