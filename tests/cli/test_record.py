"""The command `kevents record`: one event about any object, and a clear line for every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kevents._cli import main as _cli
from kevents._cli import record as _record
from kevents.testing import Garbage, Status

if TYPE_CHECKING:
    from kevents.testing import APIServer
    from tests.support.real_server import RealServer

pytestmark = pytest.mark.wire
EVENT = ("Warning", "BackupFailed", "the bucket is gone")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(api_server: APIServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process. Returns its status, output and errors."""
    kubeconfig = api_server.kubeconfig()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(_record, "_WAITS", (0.01,))

    def command(*arguments: str, kubeconfig: object = kubeconfig) -> tuple[int, str, str]:
        try:
            status = _cli.main(["record", *arguments, "--kubeconfig", str(kubeconfig)])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        written = capsys.readouterr()
        return status, written.out, written.err

    return command


def make(server: APIServer, resource: str, api_version: str, kind: str, name: str, namespace: str = "") -> str:
    """Create an object. Returns its uid."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    made = server.create(
        api_version, resource, {"apiVersion": api_version, "kind": kind, "metadata": metadata}, namespace
    )
    return str(made["metadata"]["uid"])


@pytest.fixture
def pod(api_server: APIServer) -> str:
    """The uid of a pod."""
    api_server.register("v1", "Pod", "pods")
    return make(api_server, "pods", "v1", "Pod", "web-0", "default")


@pytest.mark.parametrize("kind", ["pod", "pods", "Pod"])
def test_record(api_server: APIServer, run: Run, pod: str, kind: str) -> None:
    """The event has the object's uid, so that kubectl describe shows it. Its name is printed."""
    status, out, err = run(f"{kind}/web-0", *EVENT)
    [event] = api_server.events()
    assert (status, out, err) == (0, f"event/{event['metadata']['name']} created\n", "")
    involved = event["involvedObject"]
    assert {key: involved[key] for key in ("kind", "apiVersion", "name", "namespace", "uid")} == {
        "kind": "Pod",
        "apiVersion": "v1",
        "name": "web-0",
        "namespace": "default",
        "uid": pod,
    }
    assert (event["type"], event["reason"], event["message"]) == EVENT
    assert (event["source"]["component"], event["count"]) == ("kevents", 1)


def test_options(api_server: APIServer, run: Run) -> None:
    """The options set the namespace and the component. The object may be a custom resource with its group."""
    api_server.create_namespace("shop")
    api_server.register("example.com/v1", "Backup", "backups")
    uid = make(api_server, "backups", "example.com/v1", "Backup", "nightly", "shop")
    status, out, _ = run("backup.example.com/nightly", "normal", "Done", "all", "-n", "shop", "--component", "cron")
    [event] = api_server.events("shop")
    assert (status, out.endswith(" created in namespace shop\n")) == (0, True)
    assert (event["involvedObject"]["uid"], event["source"]["component"], event["type"]) == (uid, "cron", "Normal")


def test_cluster_scoped(api_server: APIServer, run: Run) -> None:
    """An event about a cluster-scoped object is in the namespace default."""
    api_server.register("v1", "Node", "nodes", namespaced=False)
    uid = make(api_server, "nodes", "v1", "Node", "node-1")
    assert run("node/node-1", *EVENT)[0] == 0
    [event] = api_server.events("default")
    assert (event["involvedObject"]["uid"], event["involvedObject"].get("namespace")) == (uid, None)


def test_uid(api_server: APIServer, run: Run) -> None:
    """With --uid the object is not read, for users without that permission."""
    api_server.register("v1", "Pod", "pods")
    assert run("pod/web-0", *EVENT, "--uid", "u-1")[0] == 0
    assert api_server.events()[0]["involvedObject"]["uid"] == "u-1"


def test_namespace_of_the_context(api_server: APIServer, run: Run, tmp_path: Path) -> None:
    """The default namespace is that of the kubeconfig's context, as in kubectl."""
    api_server.create_namespace("shop")
    api_server.register("v1", "Pod", "pods")
    make(api_server, "pods", "v1", "Pod", "web-0", "shop")
    config = json.loads(json.dumps(_loaded(api_server)))
    config["contexts"][0]["context"]["namespace"] = "shop"
    path = tmp_path / "shop"
    path.write_text(json.dumps(config), encoding="utf-8")
    assert run("pod/web-0", *EVENT, kubeconfig=path)[0] == 0
    assert len(api_server.events("shop")) == 1


def _loaded(server: APIServer) -> Any:
    import yaml

    return yaml.safe_load(server.kubeconfig().read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("podd/web-0", *EVENT), "the server has no resource type 'podd'; did you mean pod?"),
        (("xyzzy/web-0", *EVENT), "the server has no resource type 'xyzzy'; 'kubectl api-resources' lists the types"),
        (("pod/nope", *EVENT), "pods/nope does not exist in namespace default; give its namespace with -n"),
        (("pod/web-0", "Loud", "R", "m"), "event type 'Loud' is not supported: it must be 'Normal' or 'Warning'"),
        (("pod/web-0", "Warning", " ", "m"), "the reason must not be empty"),
    ],
)
def test_wrong(api_server: APIServer, run: Run, pod: str, arguments: tuple[str, ...], expected: str) -> None:
    """A wrong argument gives one line with the fix and status 2, and nothing is written."""
    assert pod
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n"), err[: len("kevents: ") + len(expected)]) == (2, "", 1, f"kevents: {expected}")
    assert api_server.events() == []


@pytest.mark.parametrize(
    "arguments", [("pod/web-0",), ("pod/web-0", *EVENT, "surplus"), ("pod/web-0", *EVENT, "--bogus")]
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    """Missing and surplus arguments print the usage."""
    status, _, err = run(*arguments)
    assert (status, err.startswith("usage: kevents record [-h]")) == (2, True)


@pytest.mark.parametrize("words", [("web-0",), ("pod/",), ("pod/a/b",), ("/web-0",), ("pod", "web-0")])
def test_object_of_another_form(api_server: APIServer, run: Run, words: tuple[str, ...]) -> None:
    """The object must be one argument, TYPE/NAME. Its error comes first, below the usage."""
    status, out, err = run(*words, *EVENT)
    expected = f"argument TYPE/NAME: the object must be written TYPE/NAME, such as pod/web-0, not {words[0]!r}"
    assert (status, out, err.splitlines()[-1]) == (2, "", f"kevents record: error: {expected}")
    assert api_server.requests == ()


def test_types(api_server: APIServer, run: Run, pod: str) -> None:
    """The case of the type is ignored. Error becomes Warning, with a line."""
    assert pod
    assert run("pod/web-0", "warning", "R", "m")[::2] == (0, "")
    status, _, err = run("pod/web-0", "Error", "R", "m")
    assert (status, err) == (0, "kevents: event type 'Error' is recorded as 'Warning': Kubernetes has no other\n")
    assert [event["type"] for event in api_server.events()] == ["Warning", "Warning"]


def test_forbidden(api_server: APIServer, run: Run, pod: str) -> None:
    """For a user who must not write events the status is 1, and the error has the missing rule."""
    assert pod
    api_server.add_user("t", "stranger", set())
    status, out, err = run("pod/web-0", *EVENT, "--uid", "u", kubeconfig=api_server.kubeconfig(token="t"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "refused to create events" in err
    assert 'bind a role that may "create" "events"' in err


def test_no_credentials(api_server: APIServer, run: Run, pod: str) -> None:
    """A request without credentials is no missing permission; the error names the cause."""
    assert pod
    message = 'forbidden: User "system:anonymous" cannot get path "/api/v1"'
    api_server.fail(Status(403, "Forbidden", message), times=1)
    status, _, err = run("pod/web-0", *EVENT)
    assert status == 1
    assert err.endswith(
        f"{message}): the request had no credentials: check the user of the kubeconfig and its exec plugin\n"
    )


def test_no_answer(api_server: APIServer, run: Run) -> None:
    """For an unreachable server the status is 1, and the error has its address."""
    api_server.stop_listening()
    status, _, err = run("pod/web-0", *EVENT)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"kevents: no answer from the API server at {api_server.tls_url} (")


def test_endless_answer(api_server: APIServer, run: Run, pod: str) -> None:
    """An answer that is not read to its end is a temporary failure, and the request is repeated."""
    assert pod
    api_server.fail(Garbage(b"x", 200, size=17 << 20), times=1, method="GET")
    assert run("pod/web-0", *EVENT)[0] == 0
    assert len(api_server.events()) == 1


def test_a_failing_server(api_server: APIServer, run: Run, pod: str) -> None:
    """A temporary failure of the server is retried, and the event is stored once."""
    assert pod
    api_server.fail(503, times=1, method="POST")
    assert run("pod/web-0", *EVENT)[0] == 0
    assert len(api_server.events()) == 1


def test_no_configuration(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a configuration the error names the option."""
    assert run
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert _cli.main(["record", "pod/web-0", *EVENT]) == 2
    err = capsys.readouterr().err
    assert (err.count("\n"), err.endswith("; set KUBECONFIG, or give --kubeconfig\n")) == (1, True)


def test_usual_kubeconfig(api_server: APIServer, pod: str) -> None:
    """Without an option the usual kubeconfig is used. No Kubernetes client and no HTTP library is loaded."""
    assert pod
    script = """
import sys
from kevents._cli.main import main
status = main(["record", "pod/web-0", "Warning", "BackupFailed", "the bucket is gone"])
heavy = {"kubernetes", "urllib3", "requests", "pydantic", "aiohttp"}
sys.exit(status or len(heavy & set(sys.modules)))
"""
    outside = {key: value for key, value in os.environ.items() if key != "KUBERNETES_SERVICE_HOST"}
    environment = {**outside, "KUBECONFIG": str(api_server.kubeconfig())}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["reason"] for event in api_server.events()] == ["BackupFailed"]


@pytest.mark.e2e
def test_on_a_real_server(real_server: RealServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A real server stores the event, and kubectl describe shows it."""
    path = str(real_server.kubeconfig())
    for arguments in (("ns/default",), ("namespaces/default",), ("apiservices.apiregistration.k8s.io/v1.apps",)):
        assert _cli.main(["record", *arguments, "Warning", "Tested", "by kevents", "--kubeconfig", path]) == 0
    assert capsys.readouterr().out.count("event/") == 3
    described = real_server.kubectl("describe", "apiservice", "v1.apps")
    assert [line.split()[-3:] for line in described.splitlines() if "Tested" in line] == [["kevents", "by", "kevents"]]
