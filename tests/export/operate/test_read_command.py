"""The command `kevents read`: decoded, deduplicated and filtered records, and reports of damage."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kevents._cli import main as _cli
from kevents.export import Batch, FileSink, ObjectStoreSink, Position, Record, Stream
from tests.export.route.test_routes import EVENT, GAP

STREAM = Stream("cluster")
ROOT = Path(__file__).parents[3]
Run = Callable[..., tuple[int, str, str]]


def body(number: int, **fields: Any) -> dict[str, Any]:
    """Return a record's body."""
    word = {"v": 1, "id": f"u:{number}", "verb": "ADDED"}
    moment = "2026-07-24T09:00:00Z"
    return {**EVENT, "message": f"step {number}", "lastTimestamp": moment, "kevents": word, **fields}


BODIES = [
    body(1),
    body(2, type="Normal"),
    body(3, involvedObject={"kind": "Node", "name": "n-1"}, metadata={"namespace": "default"}),
    body(4, reason="Other", lastTimestamp="2999-01-01T00:00:00Z"),
    GAP,
]


def batch(bodies: list[dict[str, Any]]) -> Batch:
    """Return a batch of these bodies."""
    return Batch(
        [Record(STREAM, n, each, 0.0) for n, each in enumerate(bodies, 1)], Position(STREAM, len(bodies), 10**18)
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a folder that a sink has written."""
    sink = FileSink(tmp_path / "events")
    sink.write(batch(BODIES))
    sink.close()
    return tmp_path / "events"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs the command and returns its status and output."""

    def read(*arguments: object) -> tuple[int, str, str]:
        status = _cli.main(["read", *map(str, arguments)])
        written = capsys.readouterr()
        return status, written.out, written.err

    return read


def steps(out: str) -> list[str]:
    """Return the step numbers of JSON lines, and "gap" for gaps."""
    return [json.loads(line).get("message", "gap").removeprefix("step ") for line in out.splitlines()]


def test_json_is_utf_8(tmp_path: Path) -> None:
    """JSON lines are UTF-8 in every locale. Columns are escaped for the terminal's encoding."""
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(body(1, message='über'), ensure_ascii=False)}\n", encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "kevents", "read", str(tmp_path)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "ascii"}
    for more, expected in (["--json"], '"message":"über"'), ([], "\\xfcber"):
        done = subprocess.run([*command, *more], capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr, expected in done.stdout.decode()) == (0, b"", True)


def test_columns(run: Run, archive: Path) -> None:
    """The default output has columns with dates, and a separate line for a gap."""
    status, out, err = run(archive)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 1 + len(BODIES)
    assert lines[1][:70] == "shop        2026-07-24T09:00:00Z  Warning  BackOff           pod/web-0"
    assert lines[-1].startswith("gap: ")
    assert "\x1b" not in out


def test_json(run: Run, archive: Path) -> None:
    """With --json, each record is printed as it was written."""
    status, out, _ = run("--json", archive)
    assert (status, [json.loads(line) for line in out.splitlines()]) == (0, BODIES)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--warning"], "1 3 4 gap"),
        (["-n", "default"], "3 gap"),
        (["-n", "default", "-n", "shop", "--kind", "Pod"], "1 2 4 gap"),
        (["--kind", "Pod", "--kind", "Node"], "1 2 3 4 gap"),
        (["--name", "n-*"], "3 gap"),
        (["--reason", "Oth*"], "4 gap"),
        (["--since", "1h"], "4 gap"),
        (["--since", "9999d", "--warning", "--name", "web-?"], "1 4 gap"),
        (["--since", "2026-07-24T09:00", "--until", "2026-07-24T11:00:00+02:00"], "1 2 3 gap"),
        (["--until", "2026-07-24"], "gap"),
        (["--until", "9999-12-31T23:59:59Z"], "1 2 3 4 gap"),
        (["--type", "normal,error"], "2 gap"),
        (["--owner", "web-0"], "1 2 4 gap"),
        (["--owner", "no/n-1"], "3 gap"),
        (["--owner", "deploy/n-1"], "gap"),
        (["--label", "app=web", "--label", "tier=front"], "1 2 4 gap"),
        (["--label", "app=web", "--label", "tier="], "gap"),
    ],
)
def test_filters(run: Run, archive: Path, options: list[str], expected: str) -> None:
    """The filters are those of tail. Gaps are always shown."""
    assert steps(run(archive, "--json", *options)[1]) == expected.split()


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        (
            "--since",
            "soon",
            "--since must be a duration such as 30s, 10m or 2h, or a time such as 2026-07-24 or 2026-07",
        ),
        ("--until", "24.7.", "--until must be a duration"),
        ("--until", "9999d", "--since and --until: until ("),
        ("--owner", "deploy/", "--owner must be NAME or TYPE/NAME, such as deployment/web, not"),
        ("--label", "app", '--label must be KEY=VALUE, such as app=web, not "app"'),
        ("--type", ",", "--types must list types"),
        ("--count-by", "reasn", '--count-by: unknown field "reasn"; did you mean "reason"?'),
    ],
)
def test_wrong_options(run: Run, archive: Path, option: str, value: str, error: str) -> None:
    """The error of an invalid option value has the valid form."""
    since = [] if option == "--since" else ["--since", "1h"]
    status, out, err = run(archive, *since, option, value)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"kevents: {error}")


def test_counts(run: Run, archive: Path) -> None:
    """Counts are printed as a table or as JSON lines. A gap in the period is reported."""
    gap = "kevents: 1 gap: events of the period may be missing\n"
    table = (
        "REASON   OWNER      COUNT\nBackOff  Pod/web-0      2\nBackOff  Node/n-1       1\nOther    Pod/web-0      1\n"
    )
    assert run(archive, "--count-by", "reason,owner") == (0, table, gap)
    found = run(archive, "--count-by", "type", "--until", "2026-07-24T09:00:00Z", "-o", "json")
    assert [json.loads(line) for line in found[1].splitlines()] == [
        {"type": "Warning", "count": 2},
        {"type": "Normal", "count": 1},
    ]
    assert run(archive, "--count-by", "type", "--since", "9999d", "--until", "9998d") == (0, "TYPE  COUNT\n", "")


def test_wide(run: Run, archive: Path) -> None:
    """-o wide has additional columns, and -o json is the same as --json."""
    assert run(archive, "-o", "wide")[1].splitlines()[0].split()[-2:] == ["NAME", "MESSAGE"]
    assert run(archive, "-o", "json") == run(archive, "--json")


def test_escaped_counts(run: Run, tmp_path: Path) -> None:
    """Pitfall 71: values in a table of counts are escaped."""
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps(body(1, reason="\x1b[31m\n")), encoding="utf-8")
    assert run(path, "--count-by", "reason")[1].splitlines()[1] == "\\x1b[31m\\n      1"


def test_duplicates(run: Run, archive: Path) -> None:
    """A duplicate record is shown once by default."""
    [segment] = [path for path in archive.rglob("*") if path.is_file() and ".jsonl" in path.name]
    copy = archive.parent / "copy.jsonl.gz"
    copy.write_bytes(gzip.compress(b"".join(gzip.decompress(segment.read_bytes()) for _ in range(2))))
    assert len(steps(run(copy, "--json")[1])) == len(BODIES)
    assert len(steps(run(copy, "--json", "--duplicates")[1])) == 2 * len(BODIES)


def test_damage(run: Run, tmp_path: Path) -> None:
    """Pitfall 73: damage is reported with file and offset, the rest is read, and the status is 1."""
    path = tmp_path / "torn.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(body(1)).encode() + b"\n") + gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    status, out, err = run(path, "--json")
    assert (status, steps(out)[0]) == (1, "1")
    assert err.startswith(f"kevents: {path}, at byte ")
    assert err.count("\n") == 1


def test_escapes(run: Run, tmp_path: Path) -> None:
    """Pitfall 71: control characters of records are escaped, whatever the record's structure."""
    path = tmp_path / "evil.jsonl"
    evil = [body(1, message="\x1b[31m\r\n\x07"), {"message": "\x1b"}, {"kevents": 5, "metadata": "\x1b", "series": []}]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in evil), encoding="utf-8")
    status, out, _ = run(path)
    assert status == 0
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == 4


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    """The error of a missing path has the fix."""
    status, out, err = run(tmp_path / "none")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"kevents: {tmp_path / 'none'} does not exist: give a file, a folder or a URL")


@pytest.mark.parametrize(
    ("url", "endpoint", "variable"),
    [
        ("s3://bucket/events", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"),
        ("az://bucket/events", "AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP"),
    ],
)
def test_an_http_endpoint(run: Run, monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str, variable: str) -> None:
    """Fault 38: for an http endpoint in the environment, the error names the variable that allows it, and it works."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.setenv(name, "a")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "YWFh")
    monkeypatch.setenv(endpoint, "http://127.0.0.1:1")
    expected = f"the endpoint in the environment uses http: set {variable}=true to allow it, or use https\n"
    assert run(url) == (2, "", f"kevents: cannot list {url}: {expected}")
    monkeypatch.setenv(variable, "true")
    assert run(url)[2].endswith("error sending request\n")


def test_an_empty_folder(run: Run, tmp_path: Path) -> None:
    """A folder without segments is an error."""
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    assert run(tmp_path) == (2, "", f"kevents: {tmp_path} contains no segments of an export\n")


def test_nothing_wanted(run: Run, tmp_path: Path) -> None:
    """If no record matches the filters, the output is empty and the status is 0."""
    copy = tmp_path / "copy.jsonl"
    copy.write_text(json.dumps(body(1)), encoding="utf-8")
    assert run(copy, "--reason", "Nothing") == (0, "", "")


def test_many_damages(run: Run, tmp_path: Path) -> None:
    """The first ten damages of a file are reported, and the number of the others."""
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(body(1))}\n" + 1244 * "torn\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(f"{json.dumps(body(2))}\ntorn\n", encoding="utf-8")
    status, out, err = run(tmp_path, "--json")
    assert (status, steps(out)) == (1, ["1", "2"])
    *places, more, last = err.splitlines()
    assert len(places) == 10
    assert more == f"kevents: {path}: and 1,234 more in this file"
    assert last.startswith(f"kevents: {tmp_path / 'b.jsonl'}, at byte ")


def test_a_foreign_file(run: Run, tmp_path: Path) -> None:
    """A file without readable records may be foreign. A file that cannot be opened is only reported as unreadable."""
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0\nbin:x:1:1\n", encoding="utf-8")
    status, out, err = run(path)
    assert (status, out, err.count("\n")) == (1, "", 3)
    assert err.splitlines()[-1] == f"kevents: {path}: contains nothing readable: is this a file of an export?"
    (tmp_path / "folder.jsonl").mkdir()
    status, _, err = run(tmp_path)
    assert (status, err.count("\n")) == (1, 1)
    assert "folder.jsonl, at byte 0: cannot be read: " in err


def test_by_configuration(run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -c, a sink of the configuration is read, with its path and credentials."""
    ObjectStoreSink(f"file://{tmp_path}/bucket").write(batch(BODIES[:1]))
    monkeypatch.setenv("PLACE", f"file://{tmp_path}/bucket")
    config = tmp_path / "cfg.toml"
    config.write_text(
        f"""\
[sinks.archive]
type = "file"
path = {json.dumps(str(archive))}
[sinks.bucket]
type = "object-store"
url = {{ env = "PLACE" }}
[sinks.out]
type = "stdout"
[[routes]]
to = ["archive", "bucket", "out"]
all = true
""",
        encoding="utf-8",
    )
    assert steps(run("-c", config, "archive", "--json")[1]) == ["1", "2", "3", "4", "gap"]
    assert steps(run("-c", config, "bucket", "--json")[1]) == ["1"]
    status, _, err = run("-c", config, "archiv")
    assert (
        status,
        err.splitlines()[0],
    ) == (2, f'{config}: "archiv" is not a sink that can be read back; did you mean "archive"?')
    refused = '"out" is not a sink that can be read back; these are: "archive" or "bucket"'
    assert run("-c", config, "out")[2].splitlines()[0] == f"{config}: {refused}"


def test_without_a_time(run: Run, tmp_path: Path) -> None:
    """A record without a valid time is shown, except with --since."""
    path = tmp_path / "odd.jsonl"
    odd = [body(1, lastTimestamp="soon"), {"message": "step 2"}, body(3, metadata=None, lastTimestamp=None), body(4)]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in odd), encoding="utf-8")
    assert steps(run(path, "--json", "--duplicates")[1]) == ["1", "2", "3", "4"]
    assert steps(run(path, "--json", "--duplicates", "--since", "9999d")[1]) == ["4"]


def test_no_reader(archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed pipe ends the command silently with the status of SIGPIPE."""
    there, here = os.pipe()
    os.close(there)
    with os.fdopen(here, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert _cli.main(["read", str(archive)]) == 141
        monkeypatch.undo()
    assert capsys.readouterr().err == ""
