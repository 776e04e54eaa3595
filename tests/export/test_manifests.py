"""The manifests and the image of an export: least privilege, one replica, matching paths and probes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from kevents._cli.main import parser
from kevents.export._config.file import load

if TYPE_CHECKING:
    from tests.support.real_server import RealServer

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "examples/export"
CONFIGS = sorted((FOLDER / "configs").glob("*.toml"))


def manifests(name: str) -> list[dict[str, Any]]:
    """Return the objects of a file."""
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def one(name: str, kind: str, called: str = "kevents-export") -> dict[str, Any]:
    """Return the only object of a kind and name."""
    [found] = [each for each in manifests(name) if (each["kind"], each["metadata"]["name"]) == (kind, called)]
    return found


@pytest.fixture
def pod() -> dict[str, Any]:
    """Return the pod spec of the deployment."""
    spec: dict[str, Any] = one("deployment.yaml", "Deployment")["spec"]["template"]["spec"]
    return spec


def test_least_privilege() -> None:
    """The role allows no writes, no Secrets or ConfigMaps, and no wildcards."""
    rules = [rule for each in manifests("rbac.yaml") if each["kind"] == "ClusterRole" for rule in each["rules"]]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert resources & {"*", "secrets", "configmaps"} == set()
    assert not any("*" in rule["apiGroups"] for rule in rules)
    watched, listed, got = (
        {name for rule in rules if verb in rule["verbs"] and "resourceNames" not in rule for name in rule["resources"]}
        for verb in ("watch", "list", "get")
    )
    assert watched == {"events", "endpointslices"}
    assert listed - watched == got, "the enricher must be allowed to list all kinds that it can get"


def test_bindings() -> None:
    """Each role exists and is bound to the service account of the pod."""
    objects = manifests("rbac.yaml")
    roles = {each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"}
    bindings = [each for each in objects if each["kind"] == "ClusterRoleBinding"]
    assert {binding["roleRef"]["name"] for binding in bindings} == roles
    account = one("rbac.yaml", "ServiceAccount")["metadata"]
    for binding in bindings:
        assert [(s["name"], s["namespace"]) for s in binding["subjects"]] == [(account["name"], account["namespace"])]


def test_deployment(pod: dict[str, Any]) -> None:
    """The deployment has one replica, never two at a time, and runs as the service account without privileges."""
    deployment = one("deployment.yaml", "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (1, "Recreate")
    assert pod["serviceAccountName"] == one("rbac.yaml", "ServiceAccount")["metadata"]["name"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    security = container["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_probes(pod: dict[str, Any]) -> None:
    """The probes request existing pages on the port of each configuration."""
    [container] = pod["containers"]
    [port] = container["ports"]
    pages = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {k: v["path"] for k, v in pages.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {page["port"] for page in pages.values()} == {port["name"]}
    for path in CONFIGS:
        health = load(path).health
        assert (health.host, health.port) == ("0.0.0.0", port["containerPort"])


def test_arguments(pod: dict[str, Any]) -> None:
    """The arguments are valid and name a mounted file. The grace is shorter than the pod's grace period."""
    [container] = pod["containers"]
    options = parser(12.0).parse_args(container["args"])
    assert options.command == "export"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert str(Path(options.config).parent) in mounts
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    for path in CONFIGS:
        assert load(path).grace < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_paths(path: Path, pod: dict[str, Any]) -> None:
    """All paths that a configuration writes to are on the volume, the only writable place of the pod."""
    config = load(path)
    places = [sink.options["path"] for sink in config.sinks.values() if sink.type == "file"]
    places += [place for place in (config.checkpoints, config.dead_letters) if place]
    [container] = pod["containers"]
    data = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data"]
    assert [place for place in places if not place.startswith(f"{data[0]}/")] == []


def test_image(pod: dict[str, Any]) -> None:
    """The image is built from existing files, runs as the pod's user, and passes signals to the command."""
    lines = [
        line for line in (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    steps = [line.split(maxsplit=1) for line in lines]
    assert {step for step, _ in steps} == {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "ENTRYPOINT", "CMD"}
    for step, text in steps:
        if step == "COPY" and "--from" not in text:
            assert all((ROOT / name).exists() for name in shlex.split(text)[:-1])
        if step in ("ENTRYPOINT", "CMD"):
            assert json.loads(text)
    security = pod["securityContext"]
    assert dict(steps)["USER"] == f"{security['runAsUser']}:{security['runAsGroup']}"
    extras = re.findall(r'"\.\[(\w+)\]"', (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    assert extras == ["otlp"]
    assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8") for extra in extras)


def test_collector() -> None:
    """The collector listens where kafka.toml sends, its pipeline is complete, and the page shows the same."""
    collector = yaml.safe_load((FOLDER / "configs" / "collector-kafka.yaml").read_text(encoding="utf-8"))
    endpoint = urlsplit(load(FOLDER / "configs" / "kafka.toml").sinks["collector"].options["endpoint"])
    listens = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert (listens.rpartition(":")[2], endpoint.path) == (str(endpoint.port), "/v1/logs")
    pipeline = collector["service"]["pipelines"]["logs"]
    assert {name: set(pipeline[name]) for name in ("receivers", "exporters")} == {
        name: set(collector[name]) for name in ("receivers", "exporters")
    }
    assert collector["exporters"]["kafka"]["sending_queue"]["enabled"] is False
    page = (ROOT / "docs" / "export-products.md").read_text(encoding="utf-8")
    assert yaml.safe_load(page.split("```yaml\n")[1].split("```")[0]) == collector


def test_readme() -> None:
    """The README links to every file."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert set(re.findall(r"\]\(([^)/]+)\)", text)) == names


@pytest.mark.e2e
def test_a_real_server_takes_them(real_server: RealServer) -> None:
    """A real API server accepts each object."""
    real_server.kubectl("apply", "-f", str(FOLDER / "rbac.yaml"))
    real_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(FOLDER / "deployment.yaml"))
