"""End to end on a real API server: an operator records, an export writes, and the records are read back."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kevents._cli import main as _cli
from tests.export.operate.test_export_command import Exporting
from tests.processes.kopf_run import ROOT, Operator

if TYPE_CHECKING:
    from tests.export.moto import Moto
    from tests.support.real_server import RealServer

pytest.importorskip("kopf", reason="needs kevents[kopf]")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BUCKET = "events"
Ids = Callable[[str], list[str]]


@pytest.fixture
def namespace(real_server: RealServer) -> str:
    """Return a namespace with the operator's custom resource, and apply the export's permissions."""
    name = f"export-{secrets.token_hex(4)}"
    real_server.kubectl("create", "namespace", name)
    real_server.kubectl("apply", "-f", str(ROOT / "examples/kopf/crd.yaml"))
    real_server.kubectl("wait", "--for=condition=Established", "crd/backups.example.com", "--timeout=30s")
    real_server.kubectl("apply", "-f", str(ROOT / "examples/export/rbac.yaml"))
    return name


@pytest.fixture
def config(real_server: RealServer, moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration that writes everything to files and S3 as the manifests' service account."""
    moto.make_bucket(BUCKET)
    options = moto.options()
    monkeypatch.setenv("S3_ID", options["access_key_id"])
    monkeypatch.setenv("S3_SECRET", options["secret_access_key"])
    token = real_server.kubectl("create", "token", "kevents-export", "-n", "kevents-export").strip()
    kubeconfig = json.loads(real_server.kubeconfig("admin").read_text(encoding="utf-8"))
    kubeconfig["users"][0]["user"]["token"] = token
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig), encoding="utf-8")
    path = tmp_path / "cfg.toml"
    path.write_text(
        f"""\
[cluster]
kubeconfig = {json.dumps(str(tmp_path / "kubeconfig"))}
name = "e2e"
[sinks.archive]
type = "file"
path = {json.dumps(str(tmp_path / "events"))}
batch = {{ max_age = "200ms" }}
[sinks.bucket]
type = "object-store"
url = "s3://{BUCKET}/{secrets.token_hex(4)}"
batch = {{ max_age = "200ms" }}
[sinks.bucket.options]
endpoint = {json.dumps(options["endpoint"])}
region = {json.dumps(options["region"])}
access_key_id = {{ env = "S3_ID" }}
secret_access_key = {{ env = "S3_SECRET" }}
[[routes]]
to = ["archive", "bucket"]
all = true
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def export(config: Path) -> Iterator[Callable[[], Exporting]]:
    """Yield a factory of export processes, which are ended with the test."""
    made: list[Exporting] = []

    def make() -> Exporting:
        made.append(Exporting(config))
        return made[-1]

    yield make
    for each in made:
        each.close()


def about(item: dict[str, Any]) -> tuple[str, str]:
    """Return the object and the reason of an event."""
    return item["involvedObject"]["name"], item["reason"]


def test_an_operator_s_events(
    real_server: RealServer,
    namespace: str,
    config: Path,
    export: Callable[[], Exporting],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An operator's events are in files and in S3, each revision once, across a restart."""

    def held() -> dict[str, dict[str, Any]]:
        """Return the server's events by id."""
        path = f"/api/v1/namespaces/{namespace}/events"
        items = real_server.request("GET", path).body["items"]
        return {f"{item['metadata']['uid']}:{item['metadata']['resourceVersion']}": item for item in items}

    def read(sink: str) -> list[dict[str, Any]]:
        """Return the records of a sink in the namespace."""
        capsys.readouterr()
        assert _cli.main(["read", "-c", str(config), sink, "--json", "--duplicates", "-n", namespace]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def is_read(sink: str) -> bool:
        return set(held()) <= {record["kevents"]["id"] for record in read(sink)}

    def count(reason: str) -> int:
        return sum(item["count"] for item in held().values() if item["reason"] == reason)

    with Operator(
        ROOT / "examples/kopf_operator.py", tmp_path, real_server.kubeconfig("admin"), namespace=namespace
    ) as operator:
        real_server.kubectl("apply", "-n", namespace, "-f", str(ROOT / "examples/kopf/backups.yaml"))
        first = export()
        operator.wait_until(lambda: count("BackupFailed") >= 2)
        first.wait_until(lambda: any((tmp_path / "events").rglob("*.gz*")))
        assert first.end() == 0, first.log
        failed = count("BackupFailed")
        operator.wait_until(lambda: count("BackupFailed") > failed)
        second = export()
        change = '{"spec":{"bucket":"main"}}'
        real_server.kubectl("patch", "-n", namespace, "backup", "bad", "--type=merge", "-p", change)
        operator.wait_until(lambda: ("bad", "BackupDone") in {about(item) for item in held().values()})
        assert operator.end() == 0, operator.log
    second.wait_until(lambda: is_read("archive") and is_read("bucket"))
    assert second.end() == 0, second.log

    archive, bucket = read("archive"), read("bucket")
    ids = Counter(record["kevents"]["id"] for record in archive)
    assert Counter(record["kevents"]["id"] for record in bucket) == ids
    assert set(ids.values()) == {1}
    assert max(each["count"] for each in archive if each["reason"] == "BackupFailed") == count("BackupFailed")
    # as the manifests allow
    assert {"forbidden", "skipped"} >= {record["kevents"]["object"]["state"] for record in archive}
    assert {(record["clusterName"], record["involvedObject"]["kind"]) for record in archive} == {("e2e", "Backup")}
