"""Which kind a class of the official client stands for.

Items of a list come without ``apiVersion`` and ``kind``, and so do models built by hand; the class name still tells.
``V1beta1Lease`` is a version and a kind, and almost every kind lives in one group only: that leaves a table of groups.
A test walks the installed client and fails on a class that is missing here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_MODULES: Final = ("kubernetes.", "kubernetes_asyncio.")

# ``CoreV1Event``: group prefix (only where a name would be ambiguous), version, kind.
_CLASS_NAME: Final = re.compile(r"([A-Z][a-z]+)?V([0-9]+(?:(?:alpha|beta)[0-9]+)?)([A-Z]\w*?)(List)?")

_KINDS: Final[dict[str, str]] = {
    "": """Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        Status""",
    "admissionregistration.k8s.io": """MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
        MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
        ValidatingWebhookConfiguration""",
    "apiextensions.k8s.io": "CustomResourceDefinition",
    "apiregistration.k8s.io": "APIService",
    "apps": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    "authentication.k8s.io": "SelfSubjectReview TokenRequest TokenReview",
    "authorization.k8s.io": """LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
        SubjectAccessReview""",
    "autoscaling": "HorizontalPodAutoscaler Scale",
    "batch": "CronJob Job",
    "certificates.k8s.io": "CertificateSigningRequest ClusterTrustBundle PodCertificateRequest",
    "coordination.k8s.io": "Lease LeaseCandidate",
    "discovery.k8s.io": "EndpointSlice",
    "events.k8s.io": "Event",
    "flowcontrol.apiserver.k8s.io": "FlowSchema PriorityLevelConfiguration",
    "internal.apiserver.k8s.io": "StorageVersion",
    "lifecycle.k8s.io": "Eviction EvictionRequest",
    "networking.k8s.io": "IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR",
    "node.k8s.io": "RuntimeClass",
    "policy": "Eviction PodDisruptionBudget",
    "rbac.authorization.k8s.io": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "resource.k8s.io": """DeviceClass DeviceTaintRule PodSchedulingContext ResourceClaim ResourceClaimParameters
        ResourceClaimTemplate ResourceClass ResourceClassParameters ResourcePoolStatusRequest ResourceSlice""",
    "scheduling.k8s.io": "CompositePodGroup PodGroup PriorityClass Workload",
    "storage.k8s.io": """CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass""",
    "storagemigration.k8s.io": "StorageVersionMigration",
}

_PREFIXES: Final = {
    "Authentication": "authentication.k8s.io",
    "Core": "",
    "Events": "events.k8s.io",
    "Resource": "resource.k8s.io",
}

# The one kind in two groups whose class name has no prefix: policy/v1, and lifecycle.k8s.io from v1alpha1 on.
_BY_VERSION: Final = {("Eviction", "1"): "policy", ("Eviction", "1alpha1"): "lifecycle.k8s.io"}

_GROUPS: Final = {kind: group for group, kinds in _KINDS.items() for kind in kinds.split()}


@lru_cache(maxsize=1024)
def official_kind(module: str, name: str) -> tuple[str, str] | None:
    """``(apiVersion, kind)`` of a class of the official client, None for any other class.

    Asked with names, so that no class is kept alive by the memory of the answer.

    Args:
        module: The module of the class (``kubernetes.client.models.v1_pod``, ``kubernetes_asyncio.client...``).
        name: Its name (``V1Pod``, ``CoreV1EventList``).
    """
    match = _CLASS_NAME.fullmatch(name) if module.startswith(_MODULES) else None
    if match is None:
        return None
    prefix, version, kind, plural = match.groups()
    if kind not in _GROUPS:
        return None
    group = _PREFIXES.get(prefix) if prefix else _BY_VERSION.get((kind, version), _GROUPS[kind])
    if group is None or kind not in _KINDS[group].split():
        return None
    return (f"{group}/v{version}" if group else f"v{version}"), kind + (plural or "")
