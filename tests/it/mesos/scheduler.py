"""A scheduler over the client `mesoshttp`: places tasks in what it is offered, follows them to their ends, kills one, comes back under its id,
and tears itself down. Prints what it is told, a line of JSON each."""

import json
import logging
import sys
import threading
import time

from mesoshttp.client import MesosClient

URL, SHORT, FAILOVER = sys.argv[1], int(sys.argv[2]), 30
started = time.time()


printing = threading.Lock()


def say(**what):
    with printing:
        print(json.dumps(dict(at=round(time.time() - started, 4), **what)), flush=True)


class Scheduler:
    def __init__(self, framework=None):
        self.client = MesosClient(mesos_urls=[URL], frameworkId=framework, frameworkName="walk", frameworkUser="root")
        self.client.set_failover_timeout(FAILOVER)
        self.client.set_role("*")
        self.driver, self.waiting, self.states = None, [], {}
        self.changed = threading.Condition()
        self.client.on(MesosClient.SUBSCRIBED, self.subscribed)
        self.client.on(MesosClient.OFFERS, self.offered)
        self.client.on(MesosClient.UPDATE, self.updated)
        self.client.on(MesosClient.ERROR, lambda message: say(error=message))
        self.client.on(MesosClient.RESCIND, lambda offer: say(rescinded=offer["offer_id"]["value"]))
        self.thread = threading.Thread(target=self.client.register, daemon=True)
        self.thread.start()

    def subscribed(self, driver):
        self.driver = driver
        say(subscribed=self.client.frameworkId, stream=self.client.streamId)
        with self.changed:
            self.changed.notify_all()

    def offered(self, offers):
        for offer in offers:
            shown = offer.get_offer()
            free = {each["name"]: each["scalar"]["value"] for each in shown["resources"] if each["type"] == "SCALAR"}
            say(offer=shown["id"]["value"], agent=shown["agent_id"]["value"], free=free)
            tasks = []
            while self.waiting and free.get("cpus", 0) >= 0.1 and free.get("mem", 0) >= 32:
                name, command = self.waiting.pop(0)
                free["cpus"], free["mem"] = free["cpus"] - 0.1, free["mem"] - 32
                tasks.append({
                    "name": name,
                    "task_id": {"value": name},
                    "resources": [
                        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                        {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
                    ],
                    "command": {"value": command, "environment": {"variables": [{"name": "WHO", "value": name}]}},
                })
            if tasks:
                say(placed=[task["name"] for task in tasks])
                offer.accept(tasks, {"filters": {"refuse_seconds": 0.0}})
            else:
                offer.decline({"filters": {"refuse_seconds": 0.1}})

    def updated(self, update):
        status = update["status"]
        name, state = status["task_id"]["value"], status["state"]
        say(task=name, state=state, reason=status.get("reason"), message=status.get("message"), agent=status["agent_id"]["value"])
        with self.changed:
            self.states[name] = state
            self.changed.notify_all()

    def until(self, what, holds):
        with self.changed:
            if not self.changed.wait_for(holds, timeout=60):
                say(late=what, states=self.states)
                sys.exit(1)

    def until_state(self, name, state):
        self.until(f"{name} is {state}", lambda: self.states.get(name) == state)


logging.disable(logging.CRITICAL)
first = Scheduler()
first.waiting += [(f"short-{n}", "echo $WHO") for n in range(SHORT)] + [("fails", "exit 3"), ("stays", "sleep 600"), ("killed", "sleep 600")]
first.until("short tasks finish", lambda: all(first.states.get(f"short-{n}") == "TASK_FINISHED" for n in range(SHORT)))
first.until_state("fails", "TASK_FAILED")
first.until_state("stays", "TASK_RUNNING")
first.until_state("killed", "TASK_RUNNING")
first.driver.kill("", "killed")
first.until_state("killed", "TASK_KILLED")
first.states.clear()
first.driver.reconcile([{"task_id": {"value": "stays"}}, {"task_id": {"value": "nobody"}}])
first.until_state("stays", "TASK_RUNNING")
first.until_state("nobody", "TASK_LOST")
first.client.disconnect_framework()
say(left=first.client.frameworkId)
second = Scheduler(first.client.frameworkId)
second.until("it is back", lambda: second.driver is not None)
second.driver.reconcile([{"task_id": {"value": "stays"}}])
second.until_state("stays", "TASK_RUNNING")
second.waiting.append(("again", "true"))
second.driver.revive()
second.until_state("again", "TASK_FINISHED")
second.driver.tearDown()
say(done=True)
