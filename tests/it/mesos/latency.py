"""How long a framework over `mesoshttp` waits: from an offer that it sees until it sees that the one task that it placed there has finished, one task
after the other. `latency.py URL [HOW-MANY]`, against `skep up --mesos ADDR` with nothing else to do."""

import json
import logging
import sys
import threading
import time

from mesoshttp.client import MesosClient

URL, MANY = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
client = MesosClient(mesos_urls=[URL], frameworkName="latency", frameworkUser="root")
client.set_role("*")
began, took, over = {}, [], threading.Event()


def offered(offers):
    first, *others = offers
    if began or len(took) >= MANY:
        others = offers
    else:
        name = f"task-{len(took)}"
        began[name] = time.time()
        first.accept([{
            "name": name,
            "task_id": {"value": name},
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
            ],
            "command": {"value": "true"},
        }], {"filters": {"refuse_seconds": 0.0}})
    for offer in others:
        offer.decline({"filters": {"refuse_seconds": 0.0}})


def updated(update):
    name, state = update["status"]["task_id"]["value"], update["status"]["state"]
    if state == "TASK_FINISHED":
        took.append((time.time() - began.pop(name)) * 1_000)
        over.set() if len(took) >= MANY else None
    elif state not in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"):
        sys.exit(f"{name}: {update}")


logging.disable(logging.CRITICAL)
client.on(MesosClient.OFFERS, offered)
client.on(MesosClient.UPDATE, updated)
threading.Thread(target=client.register, daemon=True).start()
over.wait(120)
took.sort()
print(json.dumps(dict(n=len(took), p50_ms=round(took[len(took) // 2], 1), p99_ms=round(took[len(took) * 99 // 100], 1), max_ms=round(took[-1], 1))))
