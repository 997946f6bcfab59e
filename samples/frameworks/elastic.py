"""A pool of workers that grows and shrinks: as many tasks run as are wanted. It says what it lacks, and is shown just that. One that ends or is lost is
placed anew.

    samples/frameworks/elastic.py SIZE... [--role ROLE]       # one size after the other, each until so many run
"""

import argparse
import os

from skep import Cluster, Framework, wish

HERE = os.path.dirname(os.path.abspath(__file__))
CPU_MILLI, MEMORY = 100, 16 << 20
WORKER_MS = 3_600_000


class Pool:
    def __init__(self, framework, wasm):
        self.framework, self.wasm, self.wanted, self.made = framework, wasm, 0, 0
        # By name: None where nothing of it was heard yet, or its state; and those that were asked to stop.
        self.tasks, self.leaving = {}, set()

    def staying(self):
        return [name for name in self.tasks if name not in self.leaving]

    def resize(self, wanted):
        """So many are to run from now on."""
        self.wanted = wanted
        for name in self.staying()[wanted:]:
            self.leaving.add(name)
            self.framework.say(kill=dict(task=name, grace_ms=1_000))
        self.ask()

    def ask(self):
        """Wants what is lacking: of nothing, nothing is shown."""
        lacking = max(0, self.wanted - len(self.staying()))
        self.framework.want([wish(lacking, cpu=CPU_MILLI / 1000, memory=str(MEMORY))])

    def holds(self):
        running = [name for name in self.staying() if self.tasks[name] == "running"]
        return len(running) == self.wanted and not self.leaving

    def offered(self, offers):
        for offer in offers:
            room = min(offer["resources"]["cpu_milli"] // CPU_MILLI, offer["resources"]["memory_bytes"] // MEMORY)
            count = min(room, self.wanted - len(self.staying()))
            if count <= 0:
                self.framework.decline([offer], refuse_ms=0)
                continue
            names = [f"worker-{self.made + n}" for n in range(count)]
            self.made += count
            self.tasks.update(dict.fromkeys(names))
            job = dict(task=dict(wasm=self.wasm, args=[str(WORKER_MS)]), resources=dict(cpu=CPU_MILLI / 1000, memory=str(MEMORY)))
            self.framework.accept([offer], [dict(name=name, job=job) for name in names])

    def updated(self, update):
        name, state = update["task"], update["state"]
        if name in self.tasks:
            self.tasks[name] = state
            if state in ("finished", "failed", "killed", "rejected", "lost"):
                del self.tasks[name]
                self.leaving.discard(name)
                self.ask()
        self.framework.acknowledge(update)


def main(sizes, role):
    cluster = Cluster.here()
    framework = Framework(cluster, "elastic", roles=[role])
    pool = Pool(framework, cluster.push(os.path.join(HERE, "../dist/sleep.wasm")))
    pool.ask()
    sizes = iter(sizes)
    for kind, body in framework.events():
        if kind == "subscribed":
            if pool.tasks:
                framework.say(reconcile=sorted(pool.tasks))
                pool.ask()
            else:
                pool.resize(next(sizes))
        elif kind == "offers":
            pool.offered(body)
        elif kind == "update":
            pool.updated(body)
        while pool.holds():
            print(f"{pool.wanted} run", flush=True)
            size = next(sizes, None)
            if size is None:
                return framework.say(teardown=True)
            pool.resize(size)


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("sizes", nargs="*", type=int, default=[2, 6, 1, 0])
    flags.add_argument("--role", default="default")
    main(**vars(flags.parse_args()))
