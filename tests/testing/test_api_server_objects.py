"""Objects of other kinds on an API server: patches with directives, metadata, pages, columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.subjects import JSON_PATCH, MERGE, STRATEGIC, TABLE
from tests.testing.test_api_server_contract import causes, failure, names

if TYPE_CHECKING:
    from tests.support.subjects import Wire

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u-1"}
OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "p", "uid": "u-2"}


def config_maps(wire: Wire) -> str:
    """Return the path of config maps."""
    return f"/api/v1/namespaces/{wire.namespace}/configmaps"


def made(wire: Wire, data: dict[str, str] | None = None, **metadata: Any) -> str:
    """Create a config map and return its path."""
    body = {"metadata": {"name": "a", **metadata}, "data": data or {}}
    wire.ok("POST", config_maps(wire), body)
    return f"{config_maps(wire)}/a"


class TestStrategicMerge:
    """Strategic merge patches of lists, and their directives."""

    @pytest.mark.parametrize(
        ("data", "after"),
        [
            ({"$patch": "replace", "z": "9"}, {"z": "9"}),
            ({"$patch": "delete"}, None),
            ({"$retainKeys": ["y", "z"], "z": "9"}, {"y": "2", "z": "9"}),
            ({"$retainKeys": ["x", "y"]}, {"x": "1", "y": "2"}),
        ],
        ids=["replace", "delete", "retain some", "retain all"],
    )
    def test_directives_of_a_map(self, wire: Wire, data: dict[str, Any], after: dict[str, str] | None) -> None:
        """A map can be replaced, deleted, or reduced to some of its keys."""
        path = made(wire, {"x": "1", "y": "2"})
        assert (wire.ok("PATCH", path, {"data": data}, STRATEGIC).get("data") or None) == after

    @pytest.mark.parametrize(
        ("owners", "uids"),
        [
            ([{**OTHER}], ["u-1", "u-2"]),
            ([{"uid": "u-1", "$patch": "delete"}], None),
            ([{"uid": "u-1", "$patch": "delete"}, OTHER], ["u-2"]),
            ([OTHER, {"$patch": "replace"}], ["u-2"]),
        ],
        ids=["add", "delete", "delete and add", "replace"],
    )
    def test_lists_with_a_key(self, wire: Wire, owners: list[Any], uids: list[str] | None) -> None:
        """Items of a list with a merge key are merged by it and can be deleted. The whole list can be replaced."""
        path = made(wire, ownerReferences=[OWNER])
        metadata = wire.ok("PATCH", path, {"metadata": {"ownerReferences": owners}}, STRATEGIC)["metadata"]
        found = metadata.get("ownerReferences")
        assert (found and sorted(owner["uid"] for owner in found)) == uids

    def test_an_item_is_merged(self, wire: Wire) -> None:
        """In an existing item, only the given fields change."""
        path = made(wire, ownerReferences=[OWNER])
        change = {"metadata": {"ownerReferences": [{"uid": "u-1", "name": "q"}]}}
        owners = wire.ok("PATCH", path, change, STRATEGIC)["metadata"]["ownerReferences"]
        assert owners == [{**OWNER, "name": "q"}]

    def test_lists_that_are_sets(self, wire: Wire) -> None:
        """Finalizers are added to the existing ones, and removed by a directive."""
        path = made(wire, finalizers=["example.com/a"])
        more = {"metadata": {"finalizers": ["example.com/b", "example.com/a"]}}
        found = wire.ok("PATCH", path, more, STRATEGIC)["metadata"]["finalizers"]
        assert sorted(found) == ["example.com/a", "example.com/b"]
        less = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}}
        assert wire.ok("PATCH", path, less, STRATEGIC)["metadata"]["finalizers"] == ["example.com/b"]

    def test_other_lists_are_replaced(self, wire: Wire) -> None:
        """A list without a merge key is replaced, and so is every list of a merge patch."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{wire.namespace}/endpointslices"
        body = {"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}]}
        wire.ok("POST", path, body)
        for content_type, address in ((STRATEGIC, "10.1.2.4"), (MERGE, "10.1.2.5")):
            change = {"endpoints": [{"addresses": [address]}]}
            found = wire.ok("PATCH", f"{path}/s", change, content_type)["endpoints"]
            assert [endpoint["addresses"] for endpoint in found] == [[address]]

    def test_wrong_type_of_a_list(self, wire: Wire) -> None:
        """A list in place of a text is shown in Go's notation."""
        wire.ok("POST", wire.events, wire.event())
        response = wire.patch("pod.1", {"reason": ["a", True, None]})
        assert (response.status, causes(response)) == (422, [("patch", "FieldValueInvalid")])
        assert '"map[reason:[a true <nil>]]"' in response.body["message"]


class TestJsonPatch:
    """JSON patches of lists."""

    def test_lists(self, wire: Wire) -> None:
        """The path selects the item to remove and the position to add at, including the end."""
        path = made(wire, finalizers=["example.com/b"])
        patch = [
            {"op": "add", "path": "/metadata/finalizers/0", "value": "example.com/a"},
            {"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/c"},
            {"op": "remove", "path": "/metadata/finalizers/1"},
        ]
        found = wire.ok("PATCH", path, patch, JSON_PATCH)["metadata"]["finalizers"]
        assert found == ["example.com/a", "example.com/c"]

    def test_a_path_without_its_slash(self, wire: Wire) -> None:
        """A path that does not start with a slash is 422."""
        response = wire.request("PATCH", made(wire), [{"op": "remove", "path": "data"}], content_type=JSON_PATCH)
        message = "the server rejected our request due to an error in our request"
        assert (response.status, response.body) == (422, failure(422, "Invalid", message, {}))


class TestMetadata:
    """Validation of metadata."""

    @pytest.mark.parametrize(
        ("labels", "text"),
        [
            ({"/x": "v"}, "prefix part must be non-empty"),
            ({"A_b/x": "v"}, "prefix part a lowercase RFC 1123 subdomain must consist of"),
            ({"x": "v" * 64}, "must be no more than 63 bytes"),
        ],
        ids=["no prefix", "prefix", "value"],
    )
    def test_labels(self, wire: Wire, labels: dict[str, str], text: str) -> None:
        """An invalid label is 422 with the reason."""
        response = wire.request("POST", config_maps(wire), {"metadata": {"name": "a", "labels": labels}})
        assert (response.status, causes(response)) == (422, [("metadata.labels", "FieldValueInvalid")])
        assert text in response.body["message"]

    @pytest.mark.parametrize(
        ("path", "length", "text"),
        [
            ("/api/v1/namespaces/{}/configmaps", 254, "must be no more than 253 characters"),
            ("/api/v1/namespaces", 64, "must be no more than 63 characters"),
        ],
    )
    def test_a_name_that_is_too_long(self, wire: Wire, path: str, length: int, text: str) -> None:
        """A name that is too long for its kind is 422."""
        response = wire.request("POST", path.format(wire.namespace), {"metadata": {"name": "a" * length}})
        assert (response.status, causes(response)[0]) == (422, ("metadata.name", "FieldValueInvalid"))
        assert text in response.body["message"]

    @pytest.mark.parametrize("metadata", [{"labels": ["a"]}, {"labels": {"a": 1}}, {"labels": "a"}], ids=str)
    def test_labels_of_another_shape(self, wire: Wire, metadata: dict[str, Any]) -> None:
        """Labels that do not map text to text are 400."""
        response = wire.request("POST", config_maps(wire), {"metadata": {"name": "a", **metadata}})
        assert (response.status, response.body["reason"]) == (400, "BadRequest")

    def test_metadata_of_another_shape(self, wire: Wire) -> None:
        """Metadata that is no object is 400."""
        response = wire.request("POST", config_maps(wire), {"metadata": ["a"]})
        assert (response.status, response.body["reason"]) == (400, "BadRequest")


class TestLists:
    """Lists in pages, at a version, and as tables."""

    def test_pages_of_a_past_list(self, wire: Wire) -> None:
        """All pages of a list show the state at its first page, whatever was changed since."""
        for number in range(4):
            wire.ok("POST", wire.events, wire.event(f"e{number}"))
        first = wire.ok("GET", f"{wire.events}?limit=1")
        wire.ok("DELETE", f"{wire.events}/e1")
        wire.patch("e2", {"count": 7})
        wire.ok("POST", wire.events, wire.event("e1", reason="Anew"))
        wire.ok("POST", wire.events, wire.event("e9"))
        made(wire)
        assert names(wire.ok("GET", wire.events)) == ["e0", "e1", "e2", "e3", "e9"]
        rest = wire.ok("GET", f"{wire.events}?limit=9&continue={first['metadata']['continue']}")
        assert names(first) == ["e0"]
        assert [(item["metadata"]["name"], item["reason"], item["count"]) for item in rest["items"]] == [
            ("e1", "Started", 1),
            ("e2", "Started", 1),
            ("e3", "Started", 1),
        ]

    def test_a_version_that_was(self, wire: Wire) -> None:
        """A list with an older resourceVersion returns the current objects."""
        version = wire.ok("POST", wire.events, wire.event("a.1"))["metadata"]["resourceVersion"]
        wire.ok("POST", wire.events, wire.event("b.1"))
        assert {"a.1", "b.1"} >= set(names(wire.ok("GET", f"{wire.events}?resourceVersion={version}"))) >= {"a.1"}

    def test_a_version_to_come(self, wire: Wire) -> None:
        """A list with a future resourceVersion is 504 with the cause."""
        response = wire.request("GET", f"{wire.events}?resourceVersion=99999999")
        [cause] = response.body["details"]["causes"]
        assert (
            response.status,
            response.body["reason"],
            cause["reason"],
        ) == (504, "Timeout", "ResourceVersionTooLarge")
        assert "Too large resource version: 99999999, current: " in response.body["message"]

    def test_config_maps_as_a_table(self, wire: Wire) -> None:
        """A row of a config map has the number of its keys."""
        made(wire, {"x": "1", "y": "2"})
        rows = wire.request("GET", config_maps(wire), accept=TABLE).body["rows"]
        assert [row["cells"][:2] for row in rows if row["cells"][0] == "a"] == [["a", 2]]


class TestChanges:
    """PUT and DELETE."""

    def test_a_put_creates_no_resource_of_another_kind(self, wire: Wire) -> None:
        """A PUT of a missing object creates an event, but no pod."""
        path = f"/api/v1/namespaces/{wire.namespace}/pods/no"
        body = {"metadata": {"name": "no"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        assert ((response := wire.request("PUT", path, body)).status, response.body["reason"]) == (404, "NotFound")

    def test_a_pod_is_deleted(self, wire: Wire) -> None:
        """The delete of a pod is answered with the pod."""
        path = f"/api/v1/namespaces/{wire.namespace}/pods"
        body = {"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        wire.ok("POST", path, body)
        answered = wire.ok("DELETE", f"{path}/pod")
        assert (answered["kind"], answered["metadata"]["name"]) == ("Pod", "pod")

    def test_a_delete_that_is_only_tried(self, wire: Wire) -> None:
        """A delete with dryRun gets the same answer and deletes nothing."""
        path = made(wire)
        assert wire.ok("DELETE", f"{path}?dryRun=All")["status"] == "Success"
        assert wire.ok("GET", path)["metadata"]["name"] == "a"

    @pytest.mark.parametrize(("validation", "warned"), [("Warn", True), ("Ignore", False)])
    def test_unknown_fields(self, wire: Wire, validation: str, *, warned: bool) -> None:
        """An unknown field causes a warning, unless `fieldValidation` is `Ignore`."""
        body = {**wire.event(), "bogus": 1}
        response = wire.request("POST", f"{wire.events}?fieldValidation={validation}", body)
        assert (response.status, "warning" in response.headers) == (201, warned)


class TestPaths:
    """Discovery of paths."""

    def test_root(self, wire: Wire) -> None:
        """The root lists the existing paths."""
        paths = wire.ok("GET", "/")["paths"]
        expected = {"/api", "/api/v1", "/apis", "/apis/events.k8s.io", "/apis/events.k8s.io/v1", "/healthz", "/version"}
        assert expected <= set(paths)
        assert paths == sorted(paths)

    def test_an_escaped_slash(self, wire: Wire) -> None:
        """A path with an escaped slash is treated as a resource path: a missing one is 404 with a Status."""
        response = wire.request("GET", "/api/v1%2Fnope")
        message = "the server could not find the requested resource"
        assert (response.status, response.body) == (404, failure(404, "NotFound", message, {}))
