"""A scheduler and an operator's watch over the client `pymesos`: a group of tasks that ends with one of it, one that is killed, every call that the
client knows, and what an operator is told of all that. Prints what it is told, a line of JSON each."""

import json
import logging
import sys
import threading

from pymesos import MesosOperatorMasterDriver, MesosSchedulerDriver, OperatorMaster, Scheduler

MASTER = sys.argv[1].removeprefix("http://")
lock = threading.Condition()
seen = []


def say(**what):
    with lock:
        seen.append(what)
        print(json.dumps(what), flush=True)
        lock.notify_all()


def until(what, holds):
    with lock:
        if not lock.wait_for(lambda: any(holds(line) for line in seen), timeout=60):
            print(json.dumps(dict(late=what)), flush=True)
            sys.exit(1)


def until_state(task, state):
    until(f"{task} is {state}", lambda line: line.get("task") == task and line.get("state") == state)


class Watch(OperatorMaster):
    def taskAdded(self, task):
        say(watched="task added", task=task["task_id"]["value"])

    def taskUpdated(self, event):
        say(watched="task updated", task=event["status"]["task_id"]["value"], watched_state=event["state"])

    def frameworkAdded(self, framework):
        say(watched="framework added", name=framework["framework_info"]["name"])

    def frameworkUpdated(self, framework):
        say(watched="framework updated", name=framework["framework_info"]["name"], connected=framework["connected"])

    def frameworkRemoved(self, info):
        say(watched="framework removed", name=info["name"])

    def agentAdded(self, agent):
        say(watched="agent added", name=agent["agent_info"]["hostname"])

    def agentRemoved(self, agent):
        say(watched="agent removed", agent=agent["value"])


class Walk(Scheduler):
    def __init__(self):
        self.waiting = []

    def registered(self, driver, framework_id, master_info):
        say(registered=framework_id["value"])

    def resourceOffers(self, driver, offers):
        for offer in offers:
            operations, self.waiting = self.waiting, []
            if not operations:
                driver.declineOffer(offer["id"], dict(refuse_seconds=0.1))
                continue
            for operation in operations:
                inner = operation.get("launch", operation.get("launch_group", {}).get("task_group"))
                for task in inner.get("task_infos", inner.get("tasks")):
                    task["agent_id"] = offer["agent_id"]
            driver.acceptOffers(offer["id"], operations, dict(refuse_seconds=0))

    def statusUpdate(self, driver, status):
        say(task=status["task_id"]["value"], state=status["state"], reason=status.get("reason"))

    def error(self, driver, message):
        say(error=message)


def task(name, command, **more):
    resources = [dict(name=kind, type="SCALAR", scalar=dict(value=amount)) for kind, amount in (("cpus", 0.1), ("mem", 32))]
    return dict(name=name, task_id=dict(value=name), resources=resources, command=dict(value=command), **more)


def group(*tasks):
    executor = dict(type="DEFAULT", executor_id=dict(value="pod"))
    return dict(type="LAUNCH_GROUP", launch_group=dict(executor=executor, task_group=dict(tasks=list(tasks))))


logging.disable(logging.CRITICAL)
operator = MesosOperatorMasterDriver(MASTER, Watch())
operator.start()
# Which of the two is subscribed first is no matter: the watch is told of a framework that it has not seen.
walk = Walk()
framework = dict(user="root", name="pymesos", failover_timeout=30, role="*", capabilities=[dict(type="TASK_KILLING_STATE")])
driver = MesosSchedulerDriver(walk, framework, MASTER)
driver.start()
until("it is registered", lambda line: "registered" in line)
walk.waiting = [
    group(task("pod-a", "sleep 600"), task("pod-b", "sleep 600"), task("pod-c", "true")),
    group(task("half", "true"), task("none", "true", health_check={})),
    dict(type="LAUNCH", launch=dict(task_infos=[task("alone", "sleep 600"), task("short", "true", max_completion_time=dict(nanoseconds=60 * 10**9))])),
]
driver.reviveOffers()
for name in ("pod-a", "pod-b", "alone"):
    until_state(name, "TASK_RUNNING")
for name in ("pod-c", "short"):
    until_state(name, "TASK_FINISHED")
for name in ("half", "none"):
    until_state(name, "TASK_ERROR")
driver.killTask(dict(value="pod-a"))
for name in ("pod-a", "pod-b"):
    until_state(name, "TASK_KILLED")
driver.suppressOffers()
driver.requestResources([dict(resources=[])])
driver.sendFrameworkMessage(dict(value="pod"), dict(value="0000000000000000"), "aGVsbG8=")
driver.acceptInverseOffers([dict(value="x")])
driver.declineInverseOffer([dict(value="x")])
driver.reconcileTasks([])
until("alone runs still", lambda line: line.get("task") == "alone" and line.get("reason") == "REASON_RECONCILIATION")
until("the watch has seen an end", lambda line: line.get("watched_state") == "TASK_KILLED")
state = operator.getState()
say(agents=len(state["get_state"]["get_agents"]["agents"]), tasks=[each["task_id"]["value"] for each in state["get_state"]["get_tasks"]["tasks"]])
say(metrics=len(operator.getMetrics(10**9)["get_metrics"]["metrics"]), roles=[role["name"] for role in operator.getRoles()["get_roles"]["roles"]])
driver.stop()
driver.join()
until("the watch has seen the framework go", lambda line: line.get("watched") == "framework removed")
say(done=True)
