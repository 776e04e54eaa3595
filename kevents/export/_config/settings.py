"""What a configuration that has been checked says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kevents.export._config.sinks import SinkConfig
from kevents.export._route.routes import Route


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Which cluster.

    Attributes:
        kubeconfig: Its kubeconfig; empty, without a context: in-cluster, else the usual kubeconfig.
        context: Of the kubeconfig; empty: the current one.
        name: What people call it: ``clusterName`` in each record.
        id: What stands for it in positions and names; empty: the UID of the namespace ``kube-system``.
    """

    kubeconfig: str = ""
    context: str = ""
    name: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """What is read.

    Attributes:
        namespaces: Each a stream of its own; empty: all.
        start: ``resume``, ``now`` or ``all``.
        repeats: ``all``, ``first``, or a window such as ``30s``.
        event_life: For how many seconds the API server keeps an event.
    """

    namespaces: tuple[str, ...] = ()
    start: str = "resume"
    repeats: str = "all"
    event_life: float = 3600.0


@dataclass(frozen=True, slots=True)
class EnrichConfig:
    """What is added; a ``cache_size`` of 0 switches it off."""

    cache_size: int = 1024
    top_owner: bool = True
    services: bool = False


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Where metrics and probes are served; a ``host`` of None: nowhere.

    Attributes:
        host: The address; loopback unless told otherwise.
        port: The port; 0 for a free one.
        stale_after: After how many seconds without a fresh position the export is no longer ready.
        unacknowledged_after: For how many seconds a record may wait for a sink that fails until it is not ready.
    """

    host: str | None = None
    port: int = 0
    stale_after: float = 300.0
    unacknowledged_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that has been checked.

    Attributes:
        file: Its name.
        cluster: Which cluster.
        source: What is read.
        enrich: What is added.
        sinks: The destinations by name, in the file's order.
        routes: In their order.
        health: Where metrics and probes are served.
        checkpoints: The folder for the positions of sinks that cannot hold them; empty: none.
        dead_letters: The file for what a sink never takes; empty: it is only counted and logged.
        grace: How many seconds the end may take.
    """

    file: str
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    enrich: EnrichConfig = field(default_factory=EnrichConfig)
    sinks: Mapping[str, SinkConfig] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    health: HealthConfig = field(default_factory=HealthConfig)
    checkpoints: str = ""
    dead_letters: str = ""
    grace: float = 25.0
