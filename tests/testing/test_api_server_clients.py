"""Requests that client libraries make: the embedded API server must answer them like a real one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.subjects import JSON_PATCH, MERGE, STRATEGIC, TABLE, bare

if TYPE_CHECKING:
    from tests.support.real_server import Response
    from tests.support.subjects import Wire

APPLY = "application/apply-patch+yaml"
MICRO = "2026-07-24T09:00:00.123456Z"
ZERO = "0001-01-01T00:00:00Z"
MICRO_ZERO = "0001-01-01T00:00:00.000000Z"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def causes(response: Response) -> list[tuple[str, str]]:
    """Return field and reason of each cause."""
    return [(cause["field"], cause["reason"]) for cause in response.body["details"]["causes"]]


def pods(wire: Wire) -> str:
    """Return the path of the pods."""
    return f"/api/v1/namespaces/{wire.namespace}/pods"


def widgets(wire: Wire) -> str:
    """Register the custom resource and return its path."""
    wire.subject.register_widgets()
    return f"/apis/example.com/v1/namespaces/{wire.namespace}/widgets"


def widget(**spec: object) -> dict[str, Any]:
    """Return a custom resource."""
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


class TestEmptyObjects:
    """`{}` is kept where the server has a pointer."""

    @pytest.mark.parametrize("series", [{}, {"count": 0}])
    def test_series(self, wire: Wire, series: dict[str, Any]) -> None:
        """Fault 44: an empty series through events.k8s.io is 422."""
        response = wire.request("POST", wire.new_events, wire.new_event(series=series))
        expected = [("series.count", "FieldValueInvalid"), ("series.lastObservedTime", "FieldValueRequired")]
        assert (response.status, causes(response)) == (422, expected)

    def test_series_of_core(self, wire: Wire) -> None:
        """Core/v1 accepts an empty series. Through events.k8s.io its count is 0."""
        assert wire.ok("POST", wire.events, wire.event(series={}))["series"] == {"lastObservedTime": None}
        found = wire.ok("GET", f"{wire.new_events}/pod.1")
        assert found["series"] == {"count": 0, "lastObservedTime": None}

    def test_series_in_a_patch(self, wire: Wire) -> None:
        """A patch with an empty series is refused only through events.k8s.io."""
        wire.ok("POST", wire.new_events, wire.new_event())
        response = wire.patch("pod.1", {"series": {}}, new=True)
        assert (response.status, [field for field, _ in causes(response)]) == (
            422,
            ["series.count", "series.lastObservedTime"],
        )
        assert bare(wire.patch("pod.1", {"series": {}}).body)["series"] == {"lastObservedTime": None}

    @pytest.mark.parametrize("related", [{}, {"namespace": ""}])
    def test_related(self, wire: Wire, related: dict[str, str]) -> None:
        """An empty related object is kept in both versions."""
        assert wire.ok("POST", wire.new_events, wire.new_event(related=related))["related"] == {}
        assert wire.ok("GET", f"{wire.events}/pod.1")["related"] == {}

    def test_related_is_immutable(self, wire: Wire) -> None:
        """Through events.k8s.io, an empty related object cannot be added."""
        wire.ok("POST", wire.new_events, wire.new_event())
        response = wire.patch("pod.1", {"related": {}}, new=True)
        assert (response.status, causes(response)) == (422, [("related", "FieldValueInvalid")])

    def test_last_seen_of_an_empty_series(self, wire: Wire) -> None:
        """In a table, an event with an empty series has an unknown time and the count 0."""
        wire.ok("POST", wire.events, wire.event(series={}))
        cells = wire.request("GET", wire.events, accept=TABLE).body["rows"][0]["cells"]
        assert (cells[0], cells[8]) == ("<unknown>", 0)


class TestZeroTimes:
    """Go's zero time."""

    def test_core(self, wire: Wire) -> None:
        """Zero timestamps are returned as null in both versions."""
        made = wire.ok("POST", wire.events, wire.event(firstTimestamp=ZERO, lastTimestamp="0001-01-01T01:00:00+01:00"))
        assert (made["firstTimestamp"], made["lastTimestamp"]) == (None, None)
        found = wire.ok("GET", f"{wire.new_events}/pod.1")
        assert (found["deprecatedFirstTimestamp"], found["deprecatedLastTimestamp"]) == (None, None)

    def test_event_time(self, wire: Wire) -> None:
        """A zero eventTime is accepted and returned as null, and so is a zero time of a series."""
        series = {"count": 2, "lastObservedTime": MICRO_ZERO}
        made = wire.ok("POST", wire.new_events, wire.new_event(eventTime=MICRO_ZERO, series=series))
        assert (made["eventTime"], made["series"]) == (None, {"count": 2, "lastObservedTime": None})

    def test_event_time_of_core(self, wire: Wire) -> None:
        """In core/v1, a zero eventTime applies the rules for events with an eventTime."""
        response = wire.request("POST", wire.events, wire.event(eventTime=MICRO_ZERO))
        assert (response.status, causes(response)) == (422, [("action", "FieldValueRequired")])

    def test_patch(self, wire: Wire) -> None:
        """A patch can set a zero time, and a later patch works."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.patch("pod.1", {"lastTimestamp": ZERO}).body["lastTimestamp"] is None
        after = wire.patch("pod.1", {"count": 2}).body
        assert (after["count"], after["lastTimestamp"]) == (2, None)

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ("0999-01-01T00:00:00Z", "0999-01-01T00:00:00Z"),
            ("0012-03-04T05:06:07Z", "0012-03-04T05:06:07Z"),
            ("2026-07-24T09:00:00,5Z", "2026-07-24T09:00:00Z"),
        ],
    )
    def test_early_years(self, wire: Wire, given: str, stored: str) -> None:
        """Years have four digits, and a fraction can follow a comma."""
        assert wire.ok("POST", wire.events, wire.event(firstTimestamp=given))["firstTimestamp"] == stored

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"firstTimestamp": "2016-12-31T23:59:60Z"}, 'parsing time "2016-12-31T23:59:60Z": second out of range'),
            ({"firstTimestamp": "2026-02-30T00:00:00Z"}, 'parsing time "2026-02-30T00:00:00Z": day out of range'),
            ({"eventTime": "2026-07-24T09:00:00.123456789Z"}, 'cannot parse "789Z" as "Z07:00"'),
        ],
        ids=["leap second", "day", "nanoseconds"],
    )
    def test_no_time(self, wire: Wire, fields: dict[str, str], text: str) -> None:
        """The message names the invalid part."""
        response = wire.request("POST", wire.events, wire.event(action="A", **fields))
        assert (response.status, response.body["message"].endswith(text)) == (400, True)


class TestNodes:
    """Nodes with addresses."""

    def test_defaults(self, wire: Wire) -> None:
        """A new node has a taint, a status and no generation."""
        name = f"node-{wire.namespace}"
        made = wire.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}, "spec": {"providerID": "x"}})
        assert made["spec"] == {
            "providerID": "x",
            "taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}],
        }
        assert made["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
        assert set(made["status"]["nodeInfo"].values()) == {""}
        assert "generation" not in made["metadata"]
        wire.ok("DELETE", f"/api/v1/nodes/{name}")

    def test_addresses(self, wire: Wire) -> None:
        """A node can be created with addresses, a patch adds an address at the front, and a table shows them."""
        name = f"node-{wire.namespace}"
        path = f"/api/v1/nodes/{name}"
        internal, host = {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "h"}
        body = {"metadata": {"name": name, "labels": {"node-role.kubernetes.io/worker": ""}}}
        made = wire.ok("POST", "/api/v1/nodes", {**body, "status": {"addresses": [internal]}})
        assert made["status"]["addresses"] == [internal]
        changed = wire.ok("PATCH", f"{path}/status", {"status": {"addresses": [host]}}, STRATEGIC)
        assert changed["status"]["addresses"] == [host, internal]
        table = wire.request("GET", path, accept=TABLE).body
        assert [column["name"] for column in table["columnDefinitions"]][:7] == [
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "Internal-IP",
            "External-IP",
        ]
        cells = table["rows"][0]["cells"]
        assert cells[:3] + cells[4:] == [name, "Unknown", "worker", "", "10.0.0.1", "<none>"] + ["<unknown>"] * 3
        wire.ok("DELETE", path)

    @pytest.mark.parametrize(
        ("ready", "spec", "shown"),
        [
            ("True", {}, "Ready"),
            ("False", {}, "NotReady"),
            ("True", {"unschedulable": True}, "Ready,SchedulingDisabled"),
        ],
    )
    def test_status(self, wire: Wire, ready: str, spec: dict[str, bool], shown: str) -> None:
        """The status in a table is that of the condition Ready."""
        name = f"node-{wire.namespace}"
        status = {"conditions": [{"type": "Ready", "status": ready}]}
        wire.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}, "spec": spec, "status": status})
        cells = wire.request("GET", f"/api/v1/nodes/{name}", accept=TABLE).body["rows"][0]["cells"]
        wire.ok("DELETE", f"/api/v1/nodes/{name}")
        assert cells[1] == shown

    def test_tainted(self, wire: Wire) -> None:
        """A node with the taint gets no second one."""
        name = f"node-{wire.namespace}"
        taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        made = wire.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}, "spec": {"taints": [taint]}})
        wire.ok("DELETE", f"/api/v1/nodes/{name}")
        assert made["spec"]["taints"] == [taint]


class TestApply:
    """Server-side apply (kr8s, lightkube, `kubectl apply --server-side`)."""

    def apply(self, wire: Wire, body: object, query: str = "fieldManager=me", name: str = "pod.1") -> Response:
        """Apply an event."""
        return wire.request("PATCH", f"{wire.events}/{name}?{query}", body, content_type=APPLY)

    def test_event(self, wire: Wire) -> None:
        """Apply creates, changes, and removes fields that the manager no longer applies."""
        first = self.apply(wire, wire.event())
        second = self.apply(wire, wire.event(count=2, action="A"), "fieldManager=me&force=true")
        third = self.apply(wire, {key: value for key, value in wire.event().items() if key != "message"})
        assert [response.status for response in (first, second, third)] == [201, 200, 200]
        assert (second.body["count"], second.body["action"]) == (2, "A")
        assert (third.body["count"], "action" in third.body, "message" in third.body) == (1, False, False)
        assert third.body["metadata"]["uid"] == first.body["metadata"]["uid"]

    def test_dry_run(self, wire: Wire) -> None:
        """With dryRun nothing is stored."""
        wire.ok("POST", wire.events, wire.event())
        assert self.apply(wire, wire.event(count=9), "fieldManager=me&force=true&dryRun=All").body["count"] == 9
        assert wire.ok("GET", f"{wire.events}/pod.1")["count"] == 1

    def test_events_v1(self, wire: Wire) -> None:
        """The rules of events.k8s.io apply: only the series can change."""
        path = f"{wire.new_events}/pod.1?fieldManager=me"
        series = {"count": 2, "lastObservedTime": MICRO}
        bodies = [wire.new_event(), wire.new_event(note="x"), wire.new_event(series=series)]
        assert [wire.request("PATCH", path, body, content_type=APPLY).status for body in bodies] == [201, 422, 200]

    def test_custom_resource(self, wire: Wire) -> None:
        """Apply works for custom resources."""
        path = f"{widgets(wire)}/w?fieldManager=me&force=true"
        specs = [{"a": 1, "l": [1, 2]}, {"a": 2, "l": [3]}, {"b": 2}]
        found = [wire.request("PATCH", path, widget(**spec), content_type=APPLY) for spec in specs]
        assert [response.status for response in found] == [201, 200, 200]
        assert [response.body["spec"] for response in found] == specs
        assert [response.body["metadata"]["generation"] for response in found] == [1, 2, 3]

    @pytest.mark.parametrize(
        ("change", "status", "message"),
        [
            ({"kind": None, "apiVersion": None}, 400, "invalid object type: /, Kind="),
            ({"metadata": {"name": "x"}}, 400, "the name of the object (x) does not match the name on the URL (pod.1)"),
            (
                {"metadata": {"name": "pod.1", "managedFields": [{}]}},
                400,
                "metadata.managedFields must be nil",
            ),
            (
                {"bogus": 1},
                500,
                "failed to create typed patch object (NS/pod.1; /v1, Kind=Event): .bogus: field not declared in schema",
            ),
        ],
        ids=["kind", "name", "managedFields", "unknown field"],
    )
    def test_refused(self, wire: Wire, change: dict[str, Any], status: int, message: str) -> None:
        """An invalid configuration is refused."""
        response = self.apply(wire, {**wire.event(), **change})
        assert (response.status, response.body["message"]) == (status, message.replace("NS", wire.namespace))

    def test_wrong_type(self, wire: Wire) -> None:
        """A field of the wrong type is 500."""
        assert self.apply(wire, wire.event(count="x")).status == 500

    @pytest.mark.parametrize("body", [b"[]", b"", b"{"])
    def test_no_object(self, wire: Wire, body: bytes) -> None:
        """A body that is no object is 400."""
        assert self.apply(wire, body).status == 400

    def test_field_manager(self, wire: Wire) -> None:
        """A field manager is required."""
        response = self.apply(wire, wire.event(), "")
        assert (response.status, causes(response)) == (422, [("fieldManager", "FieldValueRequired")])


class TestReviews:
    """Reviews of a user's own permissions and identity (`kubectl auth`, kr8s)."""

    @pytest.mark.parametrize(
        ("user", "verb", "allowed"),
        [
            ("admin", "delete", True),
            ("recorder", "create", True),
            ("recorder", "list", False),
            ("stranger", "get", False),
        ],
    )
    def test_access(self, wire: Wire, user: str, verb: str, allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """Every user can query its own permissions."""
        spec = {"resourceAttributes": {"namespace": wire.namespace, "verb": verb, "resource": "events"}}
        response = wire.request("POST", REVIEWS, {"spec": spec}, user=user)
        assert (response.status, response.body["kind"]) == (201, "SelfSubjectAccessReview")
        assert (response.body["spec"], response.body["status"]["allowed"]) == (spec, allowed)

    def test_nothing_asked(self, wire: Wire) -> None:
        """A review must name a resource or a path."""
        response = wire.request("POST", REVIEWS, {"spec": {}})
        assert (response.status, causes(response)) == (422, [("spec.resourceAttributes", "FieldValueInvalid")])

    def test_identity(self, wire: Wire) -> None:
        """Every user can query its own name."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        response = wire.request("POST", path, {}, user="recorder")
        assert (response.status, response.body["status"]["userInfo"]["username"]) == (201, "recorder")

    @pytest.mark.parametrize(
        ("method", "body", "token", "status"),
        [("GET", None, None, 405), ("POST", None, None, 400), ("POST", {"spec": {}}, "", 403)],
    )
    def test_refused(self, wire: Wire, method: str, body: object, token: str | None, status: int) -> None:
        """Reviews can only be created, with a body, by authenticated users."""
        assert wire.request(method, REVIEWS, body, token=token).status == status


class TestOptions:
    """Parameters of writes, deletes and lists."""

    def test_field_manager_too_long(self, wire: Wire) -> None:
        """A field manager has at most 128 bytes."""
        response = wire.request("POST", f"{wire.events}?fieldManager={'x' * 129}", wire.event())
        assert (response.status, causes(response)) == (422, [("fieldManager", "FieldValueTooLong")])

    def test_field_validation(self, wire: Wire) -> None:
        """An unknown `fieldValidation` is 422."""
        response = wire.request("POST", f"{wire.events}?fieldValidation=Bogus", wire.event())
        assert (response.status, causes(response)) == (422, [("fieldValidation", "FieldValueNotSupported")])

    def test_force(self, wire: Wire) -> None:
        """`force` is allowed only for server-side apply."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.request("PATCH", f"{wire.events}/pod.1?force=true", {"count": 2}, content_type=STRATEGIC)
        assert (response.status, causes(response)) == (422, [("force", "FieldValueForbidden")])

    @pytest.mark.parametrize(("policy", "status"), [("Background", 200), ("Bogus", 422)])
    def test_propagation_policy(self, wire: Wire, policy: str, status: int) -> None:
        """An unknown `propagationPolicy` is 422."""
        wire.ok("POST", wire.events, wire.event())
        assert wire.request("DELETE", f"{wire.events}/pod.1", {"propagationPolicy": policy}).status == status

    def test_blank_in_a_field_selector(self, wire: Wire) -> None:
        """A space after a comma is part of the next field's name, which is then unknown."""
        selector = "involvedObject.name%3Dpod%2C%20reason%3DStarted"
        response = wire.request("GET", f"{wire.events}?fieldSelector={selector}")
        assert (response.status, response.body["message"]) == (400, "field label not supported:  reason")

    def test_two_words_in_a_label_selector(self, wire: Wire) -> None:
        """The message of a malformed label selector lists the operators."""
        response = wire.request("GET", f"{wire.events}?labelSelector=a%20b")
        message = "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        assert (response.status, response.body["message"]) == (400, message)

    @pytest.mark.parametrize(
        ("query", "bookmarks"),
        [
            ("", []),
            ("&allowWatchBookmarks=True", ["BOOKMARK"]),
            ("&allowWatchBookmarks=true&resourceVersion=0", ["BOOKMARK"]),
        ],
    )
    def test_bookmark(self, wire: Wire, query: str, bookmarks: list[str]) -> None:
        """A watch without a version marks the end of the existing objects if bookmarks are allowed."""
        wire.ok("POST", wire.events, wire.event())
        with wire.watching(f"{wire.events}?watch=true&timeoutSeconds=1{query}") as lines:
            found = list(lines)
        assert [line["type"] for line in found] == ["ADDED", *bookmarks]
        for line in found[1:]:
            assert line["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


class TestPatches:
    """Patches as clients write them."""

    def test_kind(self, wire: Wire) -> None:
        """A kind in a patch is ignored."""
        wire.ok("POST", wire.events, wire.event())
        for patch in ({"kind": "Pod"}, {"apiVersion": "v2"}):
            response = wire.patch("pod.1", patch)
            assert (response.status, response.body["kind"], response.body["apiVersion"]) == (200, "Event", "v1")

    def test_null(self, wire: Wire) -> None:
        """A strategic merge patch `null` changes nothing."""
        made = wire.ok("POST", wire.events, wire.event())
        assert bare(wire.patch("pod.1", b"null").body) == made

    def test_owner_references(self, wire: Wire) -> None:
        """A strategic merge patch inserts new list items before the existing ones."""
        path = f"/api/v1/namespaces/{wire.namespace}/configmaps"
        first, second = ({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name} for name in "pq")
        wire.ok("POST", path, {"metadata": {"name": "c", "ownerReferences": [first]}})
        changed = wire.ok("PATCH", f"{path}/c", {"metadata": {"ownerReferences": [second]}}, STRATEGIC)
        assert changed["metadata"]["ownerReferences"] == [second, first]

    def test_incomplete_owner(self, wire: Wire) -> None:
        """An owner reference needs apiVersion, kind, name and uid."""
        response = wire.request("POST", wire.events, wire.event(metadata={"name": "a", "ownerReferences": [{}]}))
        fields = ["apiVersion", "kind", "name", "uid"]
        assert (response.status, causes(response)) == (
            422,
            [(f"metadata.ownerReferences.{field}", "FieldValueInvalid") for field in fields],
        )

    def test_finalizer(self, wire: Wire) -> None:
        """A finalizer must be a qualified name."""
        response = wire.request("POST", wire.events, wire.event(metadata={"name": "a", "finalizers": ["a b"]}))
        assert (response.status, causes(response)) == (422, [("metadata.finalizers", "FieldValueInvalid")])

    def test_kopf_finalizer(self, wire: Wire) -> None:
        """An object with kopf's finalizer is removed together with the finalizer."""
        path = widgets(wire)
        wire.ok(
            "POST",
            path,
            {**widget(), "metadata": {"name": "w", "finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]}},
        )
        version = wire.ok("DELETE", f"{path}/w")["metadata"]["resourceVersion"]
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "remove", "path": "/metadata/finalizers"},
        ]
        assert wire.request("PATCH", f"{path}/w", patch, content_type=JSON_PATCH).status == 200
        assert wire.request("GET", f"{path}/w").status == 404

    def test_put_without_a_name(self, wire: Wire) -> None:
        """A PUT needs a name in its body."""
        response = wire.request("PUT", f"{wire.events}/pod.1", wire.event(metadata={}))
        message = "the name of the object (pod.1 based on URL) was undeterminable: name must be provided"
        assert (response.status, response.body["message"]) == (400, message)

    def test_put_of_another_uid(self, wire: Wire) -> None:
        """A PUT with another uid is a conflict."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.request("PUT", f"{wire.events}/pod.1", wire.event(metadata={"name": "pod.1", "uid": "x"}))
        assert (response.status, response.body["reason"]) == (409, "Conflict")
        assert "Precondition failed: UID in precondition: x, UID in object meta: " in response.body["message"]

    @pytest.mark.parametrize("body", [b"{}x", b'{"a": 1} {}'])
    def test_more_than_one_value(self, wire: Wire, body: bytes) -> None:
        """The message names the character after the JSON value."""
        response = wire.request("POST", wire.events, body)
        assert (response.status, " after top-level value" in response.body["message"]) == (400, True)


class TestStatus:
    """The status of a pod changes only through its subresource."""

    def test_create(self, wire: Wire) -> None:
        """A create ignores the status."""
        assert wire.ok("POST", pods(wire), {**POD, "status": {"phase": "Running"}})["status"]["phase"] == "Pending"

    def test_patch(self, wire: Wire) -> None:
        """A patch of the pod ignores the status."""
        wire.ok("POST", pods(wire), POD)
        patch = {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}
        changed = wire.ok("PATCH", f"{pods(wire)}/p", patch, MERGE)
        assert (changed["status"]["phase"], changed["metadata"]["labels"]) == ("Pending", {"a": "b"})

    def test_patch_of_the_status(self, wire: Wire) -> None:
        """A patch of the status changes the status and not the spec."""
        wire.ok("POST", pods(wire), POD)
        changed = wire.ok("PATCH", f"{pods(wire)}/p/status", {"status": {"phase": "Running"}}, STRATEGIC)
        assert (changed["status"]["phase"], changed["metadata"]["generation"]) == ("Running", 1)

    @pytest.mark.parametrize(
        ("resource", "spec", "status"),
        [
            (
                "apps/v1/deployments",
                {
                    "selector": {"matchLabels": {"a": "b"}},
                    "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]},
                },
                {},
            ),
            ("v1/services", {"ports": [{"port": 80}]}, {"loadBalancer": {}}),
            (
                "v1/persistentvolumeclaims",
                {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                {"phase": "Pending"},
            ),
        ],
        ids=["deployment", "service", "claim"],
    )
    def test_default(self, wire: Wire, resource: str, spec: dict[str, Any], status: dict[str, Any]) -> None:
        """A new object has the default status of its kind, and a patch of the object keeps it."""
        version, _, plural = resource.rpartition("/")
        path = f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{wire.namespace}/{plural}"
        assert wire.ok("POST", path, {"metadata": {"name": "x"}, "spec": spec})["status"] == status
        changed = wire.ok("PATCH", f"{path}/x", {"metadata": {"labels": {"a": "b"}}, "status": None}, MERGE)
        assert (changed["status"], changed["metadata"]["labels"]) == (status, {"a": "b"})

    def test_put_of_the_status(self, wire: Wire) -> None:
        """A PUT of the status changes the status."""
        made = wire.ok("POST", pods(wire), POD)
        made["status"]["phase"] = "Running"
        assert wire.ok("PUT", f"{pods(wire)}/p/status", made)["status"]["phase"] == "Running"


class TestKinds:
    """Kinds that operators record events about."""

    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/api/v1/namespaces/NS/serviceaccounts", "ServiceAccountList"),
            ("/api/v1/namespaces/NS/persistentvolumeclaims", "PersistentVolumeClaimList"),
            ("/api/v1/persistentvolumes", "PersistentVolumeList"),
            ("/api/v1/namespaces/NS/endpoints", "EndpointsList"),
            ("/apis/apps/v1/namespaces/NS/statefulsets", "StatefulSetList"),
            ("/apis/apps/v1/namespaces/NS/daemonsets", "DaemonSetList"),
            ("/apis/batch/v1/namespaces/NS/jobs", "JobList"),
            ("/apis/batch/v1/namespaces/NS/cronjobs", "CronJobList"),
            ("/apis/coordination.k8s.io/v1/namespaces/NS/leases", "LeaseList"),
        ],
    )
    def test_list(self, wire: Wire, path: str, kind: str) -> None:
        """These kinds can be listed."""
        assert wire.ok("GET", path.replace("NS", wire.namespace))["kind"] == kind

    def test_lease(self, wire: Wire) -> None:
        """A lease for leader election can be created, read and taken over."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{wire.namespace}/leases"
        assert wire.request("GET", f"{path}/x").body["message"] == 'leases.coordination.k8s.io "x" not found'
        made = wire.ok("POST", path, {"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}})
        assert "generation" not in made["metadata"]
        made["spec"]["holderIdentity"] = "b"
        assert wire.ok("PUT", f"{path}/x", made)["spec"]["holderIdentity"] == "b"
        assert wire.request("PUT", f"{path}/x", made).status == 409

    def test_secret(self, wire: Wire) -> None:
        """`stringData` of a secret is stored as data."""
        path = f"/api/v1/namespaces/{wire.namespace}/secrets"
        made = wire.ok("POST", path, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
        assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg=="}, "Opaque", False)
        assert "generation" not in made["metadata"]

    def test_other_version_of_a_group(self, wire: Wire) -> None:
        """A missing version of a built-in group is 404 with a Status."""
        response = wire.request("GET", "/apis/events.k8s.io/v1beta1/events")
        assert (response.status, response.body["reason"]) == (404, "NotFound")

    def test_discovery_is_read_only(self, wire: Wire) -> None:
        """Discovery accepts only GET."""
        assert [wire.request(method, "/api/v1").status for method in ("GET", "OPTIONS")] == [200, 405]


def test_pages_of_a_watch(wire: Wire) -> None:
    """A client that lists in pages and watches from the list's version gets each change once."""
    for name in "abc":
        wire.ok("POST", wire.events, wire.event(name))
    first = wire.ok("GET", f"{wire.events}?limit=2")
    rest = wire.ok("GET", f"{wire.events}?limit=2&continue={first['metadata']['continue']}")
    version = rest["metadata"]["resourceVersion"]
    query = f"watch=true&allowWatchBookmarks=true&resourceVersion={version}"
    with wire.watching(f"{wire.events}?{query}") as lines:
        wire.ok("POST", wire.events, wire.event("d"))
        found = [line["object"]["metadata"]["name"] for line in itertools.islice(lines, 1)]
    assert [item["metadata"]["name"] for item in first["items"] + rest["items"]] + found == ["a", "b", "c", "d"]
