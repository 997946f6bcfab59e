//! `delaySeconds` and `ignoreHttp1xx` of an app's health check, by what its tasks see of them, and what readiness checks said.

use super::*;

/// Answers at its first port, the first time that all is well and then that the answer is still to come, and says how often it was asked.
const SERVER: &str = r#"use IO::Socket::INET; $| = 1; my $n = 0; print "it listens\n";
my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT0}, Listen => 16, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) { while (<$client>) { last if /^\r?\n$/ } my $status = $n++ < 1 ? "200 OK" : "102 Processing";
print "asked $n times\n"; print $client "HTTP/1.1 $status\r\n\r\n"; close $client }"#;

fn app(id: &str, more: &Value) -> Value {
    let mut check = json!({ "protocol": "HTTP", "path": "/", "gracePeriodSeconds": 0, "intervalSeconds": 1, "maxConsecutiveFailures": 1 });
    check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "id": id, "cmd": format!("exec perl -e '{SERVER}'"), "cpus": 0.1, "mem": 32, "ports": [0], "healthChecks": [check] })
}

#[test]
fn the_first_check_is_made_after_its_delay_and_interim_answers_change_nothing() {
    let cluster = pool_from(31_700);
    cluster.text(&["roles", "set", "web", "--host-network", "true"]);
    for (id, more) in [
        ("/web/late", json!({ "delaySeconds": 3_600 })),
        ("/web/kept", json!({ "delaySeconds": 1, "ignoreHttp1xx": true })),
        ("/web/ended", json!({ "delaySeconds": 0 })),
    ] {
        let (status, made) = call(&cluster, "POST", "/v2/apps", &app(id, &more));
        assert_eq!(status, 201, "{made}");
        assert_eq!(made["healthChecks"][0]["delaySeconds"], more["delaySeconds"]);
    }
    let logs = |cluster: &Cluster, job: &str| cluster.text(&["logs", job, "--role", "web"]);
    cluster.until("the one that is asked late listens", |cluster| logs(cluster, "late").contains("it listens"));
    let shown = |cluster: &Cluster, app: &str| get(cluster, &format!("/v2/apps/web/{app}"))["app"].clone();
    cluster.until("it was well once", |cluster| shown(cluster, "kept")["tasksHealthy"] == 1);
    let id = shown(&cluster, "kept")["tasks"][0]["id"].clone();
    cluster.until("interim answers came", |cluster| logs(cluster, "kept").contains("asked 4 times"));
    let kept = shown(&cluster, "kept");
    assert_eq!((&kept["tasksHealthy"], &kept["tasksUnhealthy"], &kept["tasks"][0]["id"]), (&json!(1), &json!(0), &id), "{kept}");
    // Without the flag an interim answer is a failure.
    cluster.until("one was ended for it", |cluster| {
        let failure = shown(cluster, "ended")["lastTaskFailure"]["message"].clone();
        failure.as_str().is_some_and(|message| message.contains("HTTP 102"))
    });
    let late = shown(&cluster, "late");
    assert_eq!((&late["tasksRunning"], &late["tasksHealthy"], &late["tasksUnhealthy"]), (&json!(1), &json!(0), &json!(0)), "{late}");
    assert!(!logs(&cluster, "late").contains("asked"), "it is not asked before its delay is over");
}

#[test]
fn what_readiness_checks_said_is_shown_while_a_version_is_on_its_way() {
    let cluster = pool_from(31_800);
    cluster.text(&["roles", "set", "web", "--host-network", "true"]);
    let check = json!({ "name": "first", "protocol": "HTTP", "path": "/", "portName": "http", "intervalSeconds": 1, "timeoutSeconds": 1 });
    let ports = json!([{ "port": 0, "name": "http" }]);
    let app =
        |cmd: &str| json!({ "id": "/web/shop", "cmd": cmd, "cpus": 0.1, "mem": 32, "portDefinitions": ports, "readinessChecks": [check] });
    let (status, made) = call(&cluster, "POST", "/v2/apps", &app("sleep 600"));
    assert_eq!(status, 201, "{made}");
    let results = |cluster: &Cluster| get(cluster, "/v2/apps/web/shop")["app"]["readinessCheckResults"].clone();
    cluster.until("it was asked in vain", |cluster| results(cluster)[0]["ready"] == false);
    let shown = get(&cluster, "/v2/apps/web/shop")["app"].clone();
    let expected = json!([{ "name": "first", "taskId": shown["tasks"][0]["id"], "ready": false }]);
    assert_eq!(shown["readinessCheckResults"], expected, "{shown}");
    let server = format!("exec perl -e '{}'", super::SERVER);
    assert_eq!(call(&cluster, "PUT", "/v2/apps/web/shop?force=true", &app(&server)).0, 200);
    cluster.until("its deployment is over", is_settled);
    assert_eq!(results(&cluster), json!([]), "nothing is on its way");
}
