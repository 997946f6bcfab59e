"""A client of `/v1/framework`, in one file, with nothing but Python's own library: subscribes, says calls, and comes back where the connection
breaks. `primes.py` beside it is a scheduler over it.

    framework = Framework(Cluster.here(), "mine", failover_ms=60_000)
    framework.want([wish(count=3, cpu=0.5, memory="64MiB")])      # or whatever comes, where nothing is said
    for kind, body in framework.events():       # "subscribed", "offers", "rescinded", "update"
        ...
        framework.accept(offers, tasks)
"""

import base64
import http.client
import json
import os
import ssl
import time
from urllib.parse import quote, urlsplit

# How long nothing may be heard: the master says something each 15 seconds.
SILENT_S = 40
# The wait before another try to subscribe.
RETRY_S = 1


class Refused(Exception):
    """The master said no, and why."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class Cluster:
    """Where the masters are, and who calls."""

    def __init__(self, urls, token, ca=None):
        self.urls, self.token = [urlsplit(url) for url in urls], token
        self.tls = ssl.create_default_context(cafile=ca)
        self.tls.check_hostname = ca is None

    @classmethod
    def here(cls):
        """The cluster that `skep` itself would call: SKEP_MASTER, SKEP_TOKEN, SKEP_CA, or the one that `skep up` started."""
        if "SKEP_MASTER" in os.environ:
            return cls(os.environ["SKEP_MASTER"].split(","), os.environ["SKEP_TOKEN"], os.environ.get("SKEP_CA"))
        home = "/var/lib/skep/dev" if os.geteuid() == 0 else os.path.expanduser("~/.skep/dev")
        with open(os.path.join(home, "client.json")) as file:
            access = json.load(file)
        cluster = cls([access["url"]], access["token"])
        cluster.tls = ssl.create_default_context(cadata=access["ca_pem"])
        cluster.tls.check_hostname = False
        return cluster

    def call(self, method, path, body=None, url=None, kind="application/json", hops=3):
        """One request, to this master or to the first that is there; gives back the answer, whose body is to be read. One that is sent elsewhere
        goes there."""
        for where in [url] if url else self.urls:
            try:
                return self._call(method, path, body, where, kind, hops)
            except (OSError, http.client.HTTPException):
                if where is (url or self.urls[-1]):
                    raise

    def _call(self, method, path, body, where, kind, hops):
        connection = http.client.HTTPSConnection(where.hostname, where.port, timeout=SILENT_S, context=self.tls)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"Authorization": f"Bearer {self.token}", "Content-Type": kind})
        answer = connection.getresponse()
        answer.where = where
        if answer.status == 307 and hops:
            return self.call(method, path, body, urlsplit(answer.getheader("Location")), kind, hops - 1)
        if answer.status >= 400:
            text = answer.read().decode(errors="replace")
            try:
                text = json.loads(text)["error"]["message"]
            except (ValueError, KeyError):
                pass
            raise Refused(answer.status, text)
        return answer

    def push(self, path):
        """Uploads a bundle; gives back how a job names it."""
        with open(path, "rb") as file:
            answer = self.call("POST", "/v1/bundles", file.read(), kind="application/octet-stream")
        return json.load(answer)["digest"]

    def output(self, job, tries=60):
        """What a job's tasks printed; asked again for a while where it cannot be read now."""
        for left in reversed(range(tries)):
            try:
                # Read whole: line by line, Python takes a body that was cut off for one that ended.
                lines = [json.loads(line) for line in self.call("GET", f"/v1/jobs/{quote(job)}/logs").read().splitlines()]
                if not any("error" in line for line in lines):
                    return "".join(line.get("text") or "" for line in lines)
            except (OSError, http.client.HTTPException, Refused):
                if not left:
                    raise
            time.sleep(RETRY_S / 2)
        raise Refused(503, f"the output of {job} cannot be read")


def wish(count, priority=50, constraints=(), **resources):
    """So many more tasks that each need this much, on agents that are so: `constraints` and `resources` as in a job file."""
    return dict(count=count, priority=priority, resources=resources, place=dict(constraints=list(constraints)))


class Framework:
    """A framework. Its calls go to the master that answered its subscription. Whether one was taken in whose connection broke is not known: the
    framework then subscribes anew, and whoever hears that asks how its tasks stand (`say(reconcile=[…])`)."""

    def __init__(self, cluster, name, roles=("default",), failover_ms=60_000, every_state=False):
        self.cluster, self.id, self.stream, self.where, self.broken = cluster, None, None, None, False
        self.about = dict(name=name, roles=list(roles), failover_ms=failover_ms, every_state=every_state)
        self.wishes = []

    def events(self):
        """What it is told, for ever: subscribes, and again where the connection breaks. Ends when the framework is gone."""
        tries = 0
        while True:
            try:
                about = dict(self.about, demand=self.wishes, **({"id": self.id} if self.id else {}))
                url = self.cluster.urls[tries % len(self.cluster.urls)]
                answer = self.cluster.call("POST", "/v1/framework", {"subscribe": about}, url)
                self.where, self.broken = answer.where, False
                for line in answer:
                    for kind, body in json.loads(line).items():
                        if kind == "error" and not self.broken:
                            return
                        if kind == "subscribed":
                            self.id, self.stream = body["id"], body["stream"]
                        yield kind, body
                    if self.broken:
                        answer.close()
                        break
            except (OSError, http.client.HTTPException):
                pass
            except Refused as refused:
                if refused.status < 500 and refused.status != 429:
                    raise
            tries += 1
            time.sleep(RETRY_S)

    def say(self, **call):
        """One call; nothing is said any more once a connection broke, until the framework is subscribed again."""
        if self.broken:
            return
        try:
            self.cluster.call("POST", "/v1/framework", dict(id=self.id, stream=self.stream, **call), self.where).read()
        except (OSError, http.client.HTTPException):
            self.broken = True
        except Refused as refused:
            # Not subscribed there any more, too much at once, or nobody leads.
            if refused.status not in (409, 429) and refused.status < 500:
                raise
            self.broken = True

    def want(self, wishes):
        """Wants this from now on, and is shown nothing else; none: whatever comes. Each task that is placed counts off. To be said again, or to be right in
        `wishes`, when it subscribes anew."""
        self.wishes = list(wishes)
        if self.stream:
            self.say(demand=self.wishes)

    def accept(self, offers, tasks, refuse_ms=0):
        """Runs tasks, `dict(name=…, job={…})`, in offers of one agent."""
        self.say(accept=dict(offers=[offer["id"] for offer in offers], tasks=tasks, refuse_ms=refuse_ms))

    def decline(self, offers, refuse_ms=5_000):
        """Wants nothing of these for a while."""
        self.say(decline=dict(offers=[offer["id"] for offer in offers], refuse_ms=refuse_ms))

    def message(self, task, data):
        """Says these bytes, at most 64 KiB, to a task: once at most, and lost where it does not run or its agent is away."""
        self.say(message=dict(task=task, data=base64.b64encode(data).decode()))

    def acknowledge(self, update):
        """Has taken an update in."""
        if "uuid" in update:
            self.say(acknowledge=dict(task=update["task"], uuid=update["uuid"]))
