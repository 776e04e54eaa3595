"""20,000 events on a real API server, exported to files, a bucket and a webhook during ten faults."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.rig import ROOT, say
from tests.export.held import bodies_in_folder, bodies_in_store
from tests.export.moto import SECRET, served
from tests.export.receiver import Answer, Asked, Scripted
from tests.support.polling import poll
from tests.support.proxy import Pass, Proxy, Refuse
from tests.support.real_server import RealServer, Response

__all__ = ["measure", "table"]

EVENTS: Final = 20_000
RATE: Final = 150.0
SENDERS: Final = 4
NAMESPACES: Final = ("shop", "jobs")
DEPLOYMENTS: Final = 20  # in each namespace, with five pods each
PATIENCE: Final = 300.0
SPEC: Final = {"containers": [{"name": "main", "image": "i"}]}

Row = dict[str, Any]
Body = dict[str, Any]


class Hook(Scripted):
    """A webhook that keeps the records it accepted, and answers 500 while it is failing."""

    def __init__(self) -> None:
        self.failing = False
        self.bodies: list[Body] = []
        super().__init__()

    def reply(self, asked: Asked) -> Answer:
        """Accept a batch, or refuse it."""
        self.requests.clear()
        if self.failing:
            return Answer(500)
        self.bodies += [json.loads(line) for line in asked.body.splitlines()]
        return Answer(200)


class Export:
    """The process `kevents export`, which can be killed and started again."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self.log = config.with_name("log")
        self.start()

    def start(self) -> None:
        """Start it again."""
        command = [sys.executable, "-m", "kevents", "export", "-c", str(self._config)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "BUCKET_SECRET": SECRET}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def lines(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(encoding="utf-8")[-5000:]

    def close(self) -> None:
        """Kill it in any case."""
        self.process.kill()
        self.process.wait(PATIENCE)


@dataclass
class World:
    """Everything that takes part, and what was recorded.

    Attributes:
        last: The last revision of each event, by its uid: the phase and the id.
        pods: References to the pods that events are about.
    """

    server: RealServer
    hook: Hook
    bucket: Proxy
    folder: Path
    export: Export
    last: dict[str, tuple[str, str]] = field(default_factory=dict)
    pods: list[Body] = field(default_factory=list)

    def ok(self, method: str, path: str, body: object = None) -> Body:
        """Make a request of the administrator that must succeed."""
        answer = self.server.request(method, path, body)
        assert answer.status in {200, 201}, answer.body
        made: Body = answer.body
        return made

    def make_objects(self) -> None:
        """Create namespaces, and Deployments with ReplicaSets and pods in them."""
        for namespace in NAMESPACES:
            self.ok("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            for number in range(DEPLOYMENTS):
                name, labels = f"web-{number}", {"app": f"web-{number}"}
                spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": SPEC}}
                apps = f"/apis/apps/v1/namespaces/{namespace}"
                owner = self._make(f"{apps}/deployments", "Deployment", name, labels, None, spec)
                owner = self._make(f"{apps}/replicasets", "ReplicaSet", f"{name}-6b7f", labels, owner, spec)
                pods = f"/api/v1/namespaces/{namespace}/pods"
                for pod in range(5):
                    made = self._make(pods, "Pod", f"{name}-6b7f-{pod}", labels, owner, SPEC)
                    self.pods.append({**made, "apiVersion": "v1", "namespace": namespace})

    def _make(self, path: str, kind: str, name: str, labels: Body, owner: Body | None, spec: Body) -> Body:
        references = [{**owner, "apiVersion": "apps/v1", "controller": True}] if owner else []
        metadata = {"name": name, "labels": labels, "ownerReferences": references}
        return {
            "kind": kind,
            "name": name,
            "uid": self.ok("POST", path, {"metadata": metadata, "spec": spec})["metadata"]["uid"],
        }

    def held(self, phase: str) -> bool:
        """True if the webhook holds the last revision of each event of a phase."""
        found = {body["kevents"]["id"] for body in list(self.hook.bodies)}
        return all(last in found for of, last in list(self.last.values()) if of == phase)


def record(world: World, phase: str, number: int, patches: int) -> None:
    """Create an event about a pod, and update its count."""
    pod = world.pods[number * 7 % len(world.pods)]
    path, name = f"/api/v1/namespaces/{pod['namespace']}/events", f"{phase}-{number:05d}"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    event = {
        "metadata": {"name": name}, "involvedObject": pod, "type": "Warning", "reason": "BackOff",
        "message": f"{phase} {number}", "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "source": {"component": "bench"},
    }  # fmt: skip
    found = answered(world.server, "POST", path, event)
    if found.status == http.HTTPStatus.CONFLICT:  # created by a request whose answer was lost
        found = answered(world.server, "GET", f"{path}/{name}", None)
    for count in range(2, 2 + patches):
        found = answered(world.server, "PATCH", f"{path}/{name}", {"count": count})
    metadata = found.body["metadata"]
    world.last[metadata["uid"]] = (phase, f"{metadata['uid']}:{metadata['resourceVersion']}")


def answered(server: RealServer, method: str, path: str, body: object) -> Response:
    """Make a request again until the API server has answered it."""
    content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            found = server.request(method, path, body, content_type=content_type)
            if found.status in {200, 201, 409}:
                return found
        time.sleep(0.2)


def load(world: World, phase: str, patches: int) -> None:
    """Record the events of a phase at a steady rate."""
    with ThreadPoolExecutor(SENDERS) as pool:
        begun, done = time.monotonic(), []
        for number in range(EVENTS // len(FAULTS)):
            time.sleep(max(begun + number / RATE - time.monotonic(), 0))
            done.append(pool.submit(record, world, phase, number, patches if number % 5 == 0 else 0))
        for each in done:
            each.result()


# -- faults ------------------------------------------------------------------------------------------------------------


def kill(world: World) -> None:
    """Kill the export three times."""
    for _ in range(3):
        time.sleep(2.5)
        assert world.export.end(signal.SIGKILL) == -signal.SIGKILL, world.export.lines()
        world.export.start()


def pause(world: World) -> None:
    """Suspend the export for 75 s."""
    world.export.process.send_signal(signal.SIGSTOP)
    time.sleep(75)
    world.export.process.send_signal(signal.SIGCONT)


def kill_api_server(world: World) -> None:
    """Kill the API server, and start it again after 5 s."""
    time.sleep(3)
    world.server.kill()
    time.sleep(5)
    world.server.start_again()


def gone(world: World) -> None:
    """Compact the history that the export has not read: its next watch is answered with 410 Gone."""
    read = world.ok("GET", "/api/v1/events?limit=1")["metadata"]["resourceVersion"]
    world.export.process.send_signal(signal.SIGSTOP)
    world.server.kill()
    world.server.start_again()
    time.sleep(8)
    world.server.compact()
    found = world.ok("GET", f"/api/v1/events?watch=true&resourceVersion={read}&timeoutSeconds=5")
    assert found["object"]["code"] == http.HTTPStatus.GONE, found
    world.export.process.send_signal(signal.SIGCONT)


def nothing(_: World) -> None:
    """Only update events."""


def delete(world: World) -> None:
    """Delete pods whose events go on, and exported events."""
    for pod in world.pods[::10]:
        world.ok("DELETE", f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}?gracePeriodSeconds=0")
    for number in range(0, EVENTS // len(FAULTS), 5):
        namespace = world.pods[number * 7 % len(world.pods)]["namespace"]
        world.ok("DELETE", f"/api/v1/namespaces/{namespace}/events/pause-{number:05d}")


def fail_webhook(world: World) -> None:
    """Let the webhook answer 500 for 15 s."""
    world.hook.failing = True
    time.sleep(15)
    world.hook.failing = False


def stop_bucket(world: World) -> None:
    """Refuse connections to the bucket for 15 s."""
    world.bucket.become(Refuse())
    time.sleep(15)
    world.bucket.become(Pass())


def terminate(world: World) -> None:
    """End the export while the webhook fails."""
    world.hook.failing = True
    time.sleep(5)
    assert world.export.end() == 1, world.export.lines()
    world.hook.failing = False
    world.export.start()


def move(world: World) -> None:
    """Move the folder, and leave a symbolic link."""
    assert world.export.end() in {0, 1}, world.export.lines()
    (world.folder / "events").rename(world.folder / "moved")
    (world.folder / "events").symlink_to(world.folder / "moved")
    world.export.start()


FAULTS: Final[dict[str, tuple[str, Callable[[World], None], int]]] = {
    "kill": ("`kill -9`, three times", kill, 1),
    "pause": ("the export suspended for 75 s", pause, 1),
    "api-server": ("API server killed, back after 5 s", kill_api_server, 1),
    "gone": ("410 Gone: history compacted", gone, 1),
    "updates": ("updates: 4 of each fifth event", nothing, 4),
    "deletions": ("deletions of pods and of exported events", delete, 1),
    "webhook": ("webhook answers 500 for 15 s", fail_webhook, 1),
    "bucket": ("bucket refuses connections for 15 s", stop_bucket, 1),
    "sigterm": ("SIGTERM while the webhook fails", terminate, 1),
    "symlink": ("folder moved, a symbolic link in its place", move, 1),
}
"""The text of each fault, the fault, and how often each fifth event is updated."""

# -- the run -----------------------------------------------------------------------------------------------------------


def config(folder: Path, server: RealServer, hook: Hook, options: Body) -> Path:
    """Write the configuration of the export."""
    path = folder / "cfg.toml"
    batch = 'batch = { max_age = "500ms" }'
    plain = {name: value for name, value in options.items() if name != "secret_access_key"}
    settings = "\n".join(f"{name} = {json.dumps(value)}" for name, value in plain.items())
    path.write_text(
        f"""\
grace = "5s"
checkpoints = "{folder}/positions"
dead_letters = "{folder}/dead-letters.jsonl"
[enrich]
wait = "30s"
[cluster]
kubeconfig = "{server.kubeconfig()}"
[sinks.archive]
type = "file"
path = "{folder}/events"
rotate_age = "20s"
{batch}
[sinks.bucket]
type = "object-store"
url = "s3://events/archive"
{batch}
[sinks.bucket.options]
secret_access_key = {{ env = "BUCKET_SECRET" }}
{settings}
[sinks.hook]
type = "webhook"
url = "{hook.url}/"
{batch}
[[routes]]
to = ["archive", "bucket", "hook"]
all = true
"""
    )
    return path


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Start an API server, a bucket, a webhook and the export."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kevents-faults-")))
        server = stack.enter_context(RealServer())
        moto = stack.enter_context(served(folder))
        moto.make_bucket("events")
        bucket = stack.enter_context(Proxy(moto.port))
        hook = Hook()
        stack.callback(hook.close)
        options = {**moto.options(), "endpoint": f"http://127.0.0.1:{bucket.port}"}
        found = World(server, hook, bucket, folder, Export(config(folder, server, hook, options)))
        stack.callback(found.export.close)
        found.make_objects()
        yield found


def measure() -> dict[str, Any]:
    """Let one fault after the other happen while events are recorded; then compare what each destination holds."""
    with world() as found:
        recovered = {}
        for phase, (text, fault, patches) in FAULTS.items():
            say(f"faults: {text}")
            thread = threading.Thread(target=load, args=(found, phase, patches))
            thread.start()
            fault(found)
            thread.join()
            found.pods = [pod for at, pod in enumerate(found.pods) if phase != "deletions" or at % 10]
            ended = time.monotonic()
            assert poll(lambda phase=phase: found.held(phase), PATIENCE), found.export.lines()  # type: ignore[misc]
            recovered[phase] = time.monotonic() - ended
        assert found.export.end() == 0, found.export.lines()
        options = {"endpoint": f"http://127.0.0.1:{found.bucket.port}"}
        bodies = {
            "files": bodies_in_folder(found.folder / "moved"),
            "bucket": bodies_in_store("s3://events/archive", {**_keys(found), **options}),
            "webhook": found.hook.bodies,
        }
        dead = found.folder / "dead-letters.jsonl"
        rows = [{**_row(found, phase, bodies), "recovered": recovered[phase]} for phase in FAULTS]
        return {"rows": rows, "dead_letters": dead.exists()}


def _keys(found: World) -> Body:
    return {"region": "us-east-1", "access_key_id": "AKIAEXAMPLEEXAMPLE", "secret_access_key": SECRET}


def _row(found: World, phase: str, bodies: dict[str, list[Body]]) -> Row:
    wanted = {last for of, last in found.last.values() if of == phase}
    own = {name: [body for body in held if body["message"].startswith(f"{phase} ")] for name, held in bodies.items()}
    ids = {name: Counter(body["kevents"]["id"] for body in held) for name, held in own.items()}
    records = [body for held in own.values() for body in held]
    enriched = sum(_is_enriched(body) for body in records)
    return {
        "phase": phase,
        "events": len(wanted),
        "revisions": len(ids["files"]),
        "lost": {name: len(wanted - set(held)) for name, held in ids.items()},
        "doubled": {name: held.total() - len(held) for name, held in ids.items()},
        "enriched": enriched / len(records),
    }


def _is_enriched(body: Body) -> bool:
    own, involved = body["kevents"], body["involvedObject"]
    return bool(involved.get("labels")) and own.get("topOwner", {}).get("kind") == "Deployment"


def table(found: dict[str, Any]) -> str:
    """The result of each fault."""
    heads = ("fault", "revisions", "lost", "doubled", "enriched")
    lines = ["| " + " | ".join((*heads, "all delivered after")) + " |", "| --- " * (len(heads) + 1) + "|"]
    rows = found["rows"]
    for row in [*rows, _total(rows)]:
        text = FAULTS[row["phase"]][0] if row["phase"] else "**all**"
        numbers = (row["revisions"], sum(row["lost"].values()), sum(row["doubled"].values()))
        cells = [text, *(f"{number:,}" for number in numbers), f"{row['enriched']:.1%}"]
        lines.append("| " + " | ".join((*cells, f"{row['recovered']:.1f} s" if row["phase"] else "")) + " |")
    return "\n".join(lines)


def _total(rows: list[Row]) -> Row:
    names = ("files", "bucket", "webhook")
    return {
        "phase": "",
        "revisions": sum(row["revisions"] for row in rows),
        "lost": {name: sum(row["lost"][name] for row in rows) for name in names},
        "doubled": {name: sum(row["doubled"][name] for row in rows) for name in names},
        "enriched": sum(row["enriched"] * row["revisions"] for row in rows) / sum(row["revisions"] for row in rows),
    }
