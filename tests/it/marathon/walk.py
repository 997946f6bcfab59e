"""The client `marathon` from PyPI, unmodified, through all that it can ask. Prints what it did, a line of JSON each."""

import collections
import collections.abc
import json
import sys
import threading
import time

# The client was written for Pythons in which this name was there too.
collections.Iterable = collections.abc.Iterable

from marathon import MarathonApp, MarathonClient, MarathonHttpError, NotFoundError
from marathon.exceptions import ConflictError
from marathon.models import MarathonConstraint, MarathonGroup, MarathonHealthCheck

URL, GUARDED, TOKEN, CA = sys.argv[1:5]
PATIENCE_S = 100
client = MarathonClient(URL)


def say(**what):
    print(json.dumps(what), flush=True)


def until(what, holds):
    end = time.time() + PATIENCE_S
    while not holds():
        if time.time() > end:
            raise SystemExit(f"not in time: {what}")
        time.sleep(0.05)


def refused(call, status):
    try:
        call()
    except MarathonHttpError as error:
        assert error.status_code == status, (error.status_code, error)
        return error
    raise SystemExit(f"not refused with {status}")


def running(app, n):
    until(f"{app} has {n} tasks", lambda: client.get_app(app).tasks_running == n)


def settled():
    until("all deployments are over", lambda: client.list_deployments() == [])


# What everybody asks first.
assert client.ping() == b'"pong"', client.ping()
info = client.get_info()
assert info.name == "marathon" and info.version.count(".") == 2 and info.elected, info
assert ":" in client.get_leader()["leader"]
assert client.list_apps() == [] and client.list_deployments() == [] and client.list_queue() == []
say(first=True)

# The same with a token, as a password and as DC/OS shows one, and without a good one.
guarded = MarathonClient(GUARDED, username="anybody", password=TOKEN, verify=CA)
assert guarded.list_apps() == []
assert MarathonClient(GUARDED, auth_token=TOKEN, verify=CA).list_apps() == []
stranger = MarathonClient(GUARDED, username="anybody", password="wrong", verify=CA)
refused(stranger.list_apps, 401)
refused(MarathonClient(GUARDED, verify=CA).list_apps, 401)
say(guarded=True)

heard = []


def listen():
    for event in client.event_stream():
        heard.append(event)


threading.Thread(target=listen, daemon=True).start()
until("events are heard", lambda: any(event.event_type == "event_stream_attached" for event in heard))

# An app's life.
shop = MarathonApp(
    cmd="echo it is $MARATHON_APP_ID at $HOST as $MESOS_TASK_ID; sleep 600",
    cpus=0.1,
    mem=32,
    instances=2,
    env={"A": "b"},
    labels={"team": "x", "env": "prod"},
    constraints=[MarathonConstraint("hostname", "MAX_PER", "5")],
    health_checks=[MarathonHealthCheck(protocol="COMMAND", command="true", grace_period_seconds=5)],
    task_kill_grace_period_seconds=1,
)
made = client.create_app("/web/shop", shop)
assert made.id == "/web/shop" and made.instances == 2 and len(made.deployments) == 1, made
assert made.env == {"A": "b"} and made.constraints[0].operator == "MAX_PER" and made.health_checks[0].command == {"value": "true"}, made
refused(lambda: client.create_app("/web/shop", MarathonApp(cmd="x")), 409)
running("/web/shop", 2)
settled()
app = client.get_app("/web/shop", embed_tasks=True)
assert sorted(task.state for task in app.tasks) == ["TASK_RUNNING"] * 2 and app.tasks[0].app_id == "/web/shop", app.tasks
assert app.tasks[0].started_at.tzinfo is not None and app.tasks[0].host in ("a1", "a2"), app.tasks[0]
assert [task.id for task in client.list_tasks("/web/shop")] == [task.id for task in client.list_tasks()]
say(tasks=[task.id for task in app.tasks])
assert [found.id for found in client.list_apps(label="team==x,env!=dev")] == ["/web/shop"]
assert [found.id for found in client.list_apps(cmd="echo it")] == ["/web/shop"]
assert client.list_apps(app_id="nothing") == [] and client.list_apps(label="team==y") == []

result = client.scale_app("/web/shop", delta=1)
assert result["version"] and result["deploymentId"], result
running("/web/shop", 3)
settled()
before = {task.id for task in client.list_tasks("/web/shop")}
changed = client.get_app("/web/shop")
changed.cmd = "sleep 601"
deployment = client.update_app("/web/shop", changed)["deploymentId"]
assert [each.id for each in client.list_deployments()] == [deployment]
listed = client.list_deployments()[0]
assert listed.affected_apps == ["/web/shop"] and listed.current_actions[0].action == "RestartApplication", listed
locked = refused(lambda: client.update_app("/web/shop", MarathonApp(cmd="sleep 602")), 409)
assert isinstance(locked, ConflictError)
client.update_app("/web/shop", MarathonApp(cmd="sleep 603"), force=True)
settled()
running("/web/shop", 3)
app = client.get_app("/web/shop")
assert app.cmd == "sleep 603" and app.env == {"A": "b"} and not before & {task.id for task in app.tasks}, app
say(updated=True)

before = {task.id for task in app.tasks}
client.restart_app("/web/shop")
settled()
assert not before & {task.id for task in client.list_tasks("/web/shop")}
versions = client.list_versions("/web/shop")
assert client.get_version("/web/shop", versions[0]).cmd == "sleep 603", versions
assert client.get_version("/web/shop", versions[-1]).cmd.startswith("echo it is"), versions
client.rollback_app("/web/shop", versions[-1])
settled()
app = client.get_app("/web/shop", embed_tasks=True)
assert app.cmd.startswith("echo it is") and app.instances == 3 and len(client.list_versions("/web/shop")) > len(versions), app
assert {task.version for task in app.tasks} == {client.list_versions("/web/shop")[0]}, app.tasks
refused(lambda: client.rollback_app("/web/shop", "2001-01-01T00:00:00.000Z"), 404)
refused(lambda: client.rollback_app("/web/shop", "yesterday"), 422)

# Tasks are ended, and come again or do not.
victim = client.list_tasks("/web/shop")[0].id
assert client.kill_task("/web/shop", victim).id == victim
until("another took its place", lambda: victim not in [task.id for task in client.list_tasks("/web/shop")])
running("/web/shop", 3)
refused(lambda: client.kill_task("/web/shop", victim), 404)
last = client.list_tasks("/web/shop")[-1].id
assert "deploymentId" in client.kill_task("/web/shop", last, scale=True)
settled()
assert client.get_app("/web/shop").instances == 2
ids = [task.id for task in client.list_tasks("/web/shop")]
assert client.kill_given_tasks(ids + ["nobody.j1-0-1", "x"])
until("both are others", lambda: not set(ids) & {task.id for task in client.list_tasks("/web/shop")})
running("/web/shop", 2)
killed = client.kill_tasks("/web/shop", host="nowhere")
assert killed == [], killed
assert len(client.kill_tasks("/web/shop")) == 2
running("/web/shop", 2)
say(killed=True)

# Whether tasks are well; a version that never gets well goes nowhere, and can be taken back.
def check(command, failures):
    return MarathonHealthCheck(
        protocol="COMMAND", command=command, grace_period_seconds=0, interval_seconds=1, timeout_seconds=10, max_consecutive_failures=failures
    )


client.create_app("/checked", MarathonApp(cmd="sleep 600", cpus=0.1, mem=32, instances=2, health_checks=[check("true", 3)]))
settled()
app = client.get_app("/checked", embed_tasks=True)
assert app.tasks_healthy == 2 and app.tasks_unhealthy == 0, app
results = [result for task in app.tasks for result in task.health_check_results]
assert len(results) == 2 and all(result.alive and result.consecutive_failures == 0 for result in results), results
good = app.version
deployment = client.update_app("/checked", MarathonApp(cmd="sleep 601", health_checks=[check("false", 0)]))["deploymentId"]
until("the new tasks are not well", lambda: client.get_app("/checked").tasks_unhealthy == 2)
app = client.get_app("/checked", embed_tasks=True)
assert app.tasks_healthy == 2 and [each.id for each in app.deployments] == [deployment], app
assert {task.version for task in app.tasks} == {good, app.version}, app.tasks
unwell = [task for task in app.tasks if not task.health_check_results[0].alive]
assert {task.version for task in unwell} == {app.version} and unwell[0].health_check_results[0].last_failure_cause, unwell
assert {task.id for task in unwell} == {task.health_check_results[0].task_id for task in unwell}
refused(lambda: client.scale_app("/checked", 3), 409)
back = client.delete_deployment(deployment)
assert back["deploymentId"] != deployment, back
settled()
app = client.get_app("/checked", embed_tasks=True)
assert (app.cmd, app.version, app.tasks_healthy) == ("sleep 600", good, 2) and {task.version for task in app.tasks} == {good}, app
deployment = client.update_app("/checked", MarathonApp(health_checks=[check("false", 1)]))["deploymentId"]
until("one was ended", lambda: any(event.event_type == "unhealthy_task_kill_event" for event in heard))
client.delete_deployment(deployment, force=True)
until("it is given up", lambda: deployment not in [each.id for each in client.list_deployments()])
client.delete_app("/checked", force=True)
say(health=True)

# What begins after others waits for those of its group.
database = MarathonApp(id="db", cmd="sleep 600", cpus=500, mem=32)
client.create_group(MarathonGroup(id="/dep", apps=[MarathonApp(id="api", cmd="sleep 600", cpus=0.1, mem=32, dependencies=["db"]), database]))
until("the database waits", lambda: "/dep/db" in [item.app.id for item in client.list_queue()])
api = client.get_app("/dep/api")
assert api.tasks_running == 0 and api.tasks_staged == 0 and api.dependencies == ["/dep/db"], api
client.update_app("/dep/db", MarathonApp(cpus=0.1), force=True)
settled()
assert client.get_app("/dep/api").tasks_running == 1 and client.get_app("/dep/db").tasks_running == 1
client.delete_group("/dep", force=True)
until("the group is gone", lambda: client.list_deployments() == [])
say(dependencies=True)

# Groups.
api = MarathonApp(id="api", cmd="sleep 600", cpus=0.1, mem=32)
group = MarathonGroup(id="/g", apps=[api], groups=[MarathonGroup(id="deep", apps=[MarathonApp(id="db.one", cmd="sleep 600", cpus=0.1, mem=32)])])
assert client.create_group(group)["version"]
refused(lambda: client.create_group(MarathonGroup(id="/g", apps=[])), 409)
settled()
found = client.get_group("/g")
assert [app.id for app in found.apps] == ["/g/api"] and found.groups[0].apps[0].id == "/g/deep/db.one", found
assert sorted(group.id for group in client.list_groups()) == ["/g", "/web"]
client.scale_group("/g", 2)
settled()
assert client.get_app("/g/api").instances == 2 and client.get_app("/g/deep/db.one").instances == 2
client.update_group("/g", MarathonGroup(apps=[MarathonApp(id="api", cmd="sleep 600", cpus=0.1, mem=32)]), force=True)
settled()
assert client.get_app("/g/api").instances == 1 and client.get_app("/g/deep/db.one").instances == 2
client.delete_group("/g", force=True)
refused(lambda: client.get_group("/g"), 404)
say(groups=True)

# What waits, and why.
client.create_app("/large", MarathonApp(cmd="true", cpus=500, mem=32))
until("it waits", lambda: client.list_queue() != [])
queued = client.list_queue()[0]
assert queued.app.id == "/large" and queued.count == 1, queued
steps = {step["reason"]: step["declined"] for step in queued.processed_offers_summary["rejectSummaryLastOffers"]}
assert steps["InsufficientCpus"] == 2, steps
client.reset_delay("/large")
refused(lambda: client.reset_delay("/web/shop"), 404)
deployment = next(each.id for each in client.list_deployments() if each.affected_apps == ["/large"])
client.delete_deployment(deployment)
until("it was taken back", lambda: client.list_queue() == [])
refused(lambda: client.get_app("/large"), 404)
client.create_app("/brief", MarathonApp(cmd="exit 3", cpus=0.1, mem=32, backoff_seconds=3600, max_launch_delay_seconds=3600))
until("it is put off", lambda: any(item.delay.time_left_seconds > 60 for item in client.list_queue()))
failure = client.get_app("/brief", embed_last_task_failure=True).last_task_failure
assert failure.state == "TASK_FAILED" and failure.app_id == "/brief", failure
client.reset_delay("/brief")


def failed_again():
    last = client.get_app("/brief", embed_last_task_failure=True).last_task_failure
    return last is not None and last.task_id != failure.task_id


until("it is tried again", failed_again)
client.delete_app("/brief", force=True)
say(queue=True)

# What is wrong is said by its path.
wrong = refused(lambda: client.create_app("/bad", MarathonApp(cmd="x", mem=-1)), 422)
assert wrong.error_details[0]["path"] == "/mem", wrong.error_details
refused(lambda: client.get_app("/nothing"), 404)
refused(lambda: client.delete_app("/nothing"), 404)
assert any("marathon" in name for name in client.get_metrics()["gauges"])

client.update_apps([MarathonApp(id="/m/a", cmd="sleep 600", cpus=0.1, mem=32), MarathonApp(id="/m/b", cmd="sleep 600", cpus=0.1, mem=32)])
settled()
running("/m/a", 1)
client.delete_group("/m")
client.delete_app("/web/shop")
refused(lambda: client.get_app("/web/shop"), 404)
until("nothing is left", lambda: client.list_apps() == [] and client.list_tasks() == [] and client.list_deployments() == [])
kinds = {event.event_type for event in heard}
wanted = {"deployment_info", "deployment_success", "deployment_failed", "status_update_event", "instance_changed_event", "group_change_success",
          "api_post_event", "app_terminated_event", "deployment_step_success", "health_status_changed_event",
          "unhealthy_task_kill_event"}
until("all events were heard", lambda: wanted <= {event.event_type for event in heard})
updates = [event for event in heard if event.event_type == "status_update_event"]
assert {"TASK_RUNNING", "TASK_KILLED"} <= {event.task_status for event in updates}, kinds
assert all(event.app_id.startswith("/") and event.task_id for event in updates)
say(done=True, events=sorted(kinds))
