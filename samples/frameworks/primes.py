"""Map and reduce over wasm tasks: counts primes up to many bounds, a task each, and adds them up. It says how much room it wants. A task that is lost
is placed again.

    samples/frameworks/primes.py [HOW-MANY] [--role ROLE]
"""

import argparse
import os
import sys

from skep import Cluster, Framework, wish

HERE = os.path.dirname(os.path.abspath(__file__))
CPU_MILLI, MEMORY = 100, 16 << 20


def main(many, role):
    cluster = Cluster.here()
    wasm = cluster.push(os.path.join(HERE, "../dist/sieve.wasm"))
    framework = Framework(cluster, "primes", roles=[role])
    bounds = {f"below-{n}": (n + 1) * 10_000 for n in range(many)}
    waiting, placed, found, tries = list(bounds), set(), {}, 0

    def task(name):
        return dict(name=name, job=dict(
            task=dict(wasm=wasm, args=[str(bounds[name.partition(".")[0]])]),
            resources=dict(cpu=CPU_MILLI / 1000, memory=str(MEMORY)),
        ))

    def ask():
        framework.want([wish(len(waiting), cpu=CPU_MILLI / 1000, memory=str(MEMORY))])

    ask()
    for kind, body in framework.events():
        if kind == "subscribed" and placed:
            framework.say(reconcile=sorted(placed))
            ask()
        elif kind == "offers":
            for offer in body:
                room = min(offer["resources"]["cpu_milli"] // CPU_MILLI, offer["resources"]["memory_bytes"] // MEMORY)
                some, waiting = waiting[:room], waiting[room:]
                placed.update(some)
                framework.accept([offer], [task(name) for name in some]) if some else framework.decline([offer])
        elif kind == "update":
            name = body["task"].partition(".")[0]
            if body["state"] == "finished" and name not in found:
                found[name] = int(cluster.output(body["job"]).split()[0])
                placed.discard(body["task"])
            elif body["state"] in ("lost", "failed", "rejected", "killed") and body["task"] in placed:
                placed.discard(body["task"])
                print(f"{body['task']}: {body['state']} ({body.get('reason') or body.get('exit', {}).get('text')}), once more", file=sys.stderr)
                tries += 1
                waiting.append(f"{name}.{tries}")
                ask()
            framework.acknowledge(body)
            if len(found) == many:
                print(f"{sum(found.values())} primes below {many} bounds, the highest {max(bounds.values())}")
                return framework.say(teardown=True)


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("many", nargs="?", type=int, default=20)
    flags.add_argument("--role", default="default")
    main(**vars(flags.parse_args()))
