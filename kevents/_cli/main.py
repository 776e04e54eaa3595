"""The command ``kevents``."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import kevents
from kevents._cli.api import ClusterError
from kevents._cli.demo.main import SECONDS, demonstrate
from kevents._cli.record import UsageError, record, type_and_name
from kevents._clients.client import KubeconfigError
from kevents._model.validation import how_to_install

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - its only name

_SHORTEST: Final = 3.0
_LONGEST: Final = 60.0
_ROW: Final = re.compile(r" +\S+ {2,}(?=\S)")

_DESCRIPTION: Final = """\
kevents records Kubernetes Events from Python, as client-go's tools/record does from Go. This command records an event
from a shell, shows a cluster's events, and exports them to durable destinations.
"""
_EPILOG: Final = """\
examples:
  kevents demo
  kevents record pod/web-0 Warning BackupFailed "the bucket is gone"
  kevents tail --warning
  kevents export -c export.toml

tail, export, check and read need the extra 'export': pip install 'kevents[export]', or in a checkout
pip install '.[export]'.

'kevents COMMAND --help' shows examples and exit statuses.
"""
_DEMO: Final = """\
Show kevents at work for a quarter of a minute. A sample operator records events about a backup that fails in many
ways: repeated events, similar events, a storm of events, a deleted event, and an API server that fails. A table shows
the events on the API server, as 'kubectl get events' does. At the end every number is explained and checked.
"""
_DEMO_EPILOG: Final = """\
examples:
  kevents demo
  kevents demo --kubeconfig ~/.kube/config

With --kubeconfig it writes to the namespace default of a cluster, and deletes its events at the end.

exit status:
  0  all checks hold
  1  a check failed: a bug in kevents
  2  it could not run: the arguments, the kubeconfig, the cluster, or its permissions

environment:
  NO_COLOR  set to anything, disables colours
"""
_RECORD: Final = """\
Write one event about an object to the API server, for cron jobs, pipelines and people at a terminal.
"""
_RECORD_EPILOG: Final = """\
TYPE/NAME names the object as kubectl does: the kind, the plural or a short name, with .group or .version.group where
it is ambiguous. The uid is read from the server, so that 'kubectl describe' shows the event; give it with --uid where
there is no permission to read the object. Write -- before a message that may begin with a dash.

examples:
  kevents record pod/web-0 Warning BackupFailed "the bucket is gone"
  kevents record deploy/web Normal Migrated "42 tables" -n shop
  kevents record backups.example.com/nightly Warning Late "no backup for 26 h" --component cron

exit status:
  0  the server has stored the event
  1  the server refused it, or did not answer
  2  the arguments or the kubeconfig are wrong, or the object does not exist

environment:
  KUBECONFIG  the kubeconfig, outside of a cluster
"""
_TAIL: Final = """\
Show a cluster's events as they happen, in the columns of 'kubectl get events', or as the JSON lines that an export
writes. Events that were missed while the connection was down are shown after it; events that are lost for good are a
red line. On a terminal each event is one line, cut to the width.
"""
_TAIL_EPILOG: Final = """\
examples:
  kevents tail
  kevents tail -n shop -n jobs --warning --since 1h
  kevents tail --for pod/web-0 --since 1h --wide
  kevents tail --kind Pod --name 'web-*' -o json | jq .reason

exit status:
  1    it failed while running
  2    it could not begin: the arguments, the kubeconfig, the cluster, or its permissions
  130  interrupted, which is how it usually ends

environment:
  KUBECONFIG  the kubeconfig, outside of a cluster
  NO_COLOR    set to anything, disables colours; in pipes they are always disabled
"""
_EXPORT: Final = """\
Follow a cluster's events and write them to the destinations of a configuration, until SIGTERM or Ctrl-C. The position
is kept at the destination and saved only after the destination has stored the data: a restart continues from there and
loses nothing. On a terminal it shows a status line; elsewhere it logs JSON lines to standard error, with statistics
once a minute.
"""
_EXPORT_EPILOG: Final = """\
examples:
  kevents export -c cfg.toml
  kevents export -c cfg.toml --logs json

a small configuration:
  [sinks.archive]
  type = "file"
  path = "events/"

  [[routes]]
  to = "archive"
  all = true

exit status:
  0  ended by a signal; the destinations have acknowledged everything that was read
  1  it failed, or not everything was acknowledged within the grace period: the next run reads that again
  2  it could not begin: the configuration, a secret, the cluster, its permissions, a port, a corrupt checkpoint
"""
_CHECK: Final = """\
Validate a configuration of 'kevents export' as strictly as that command does: every error is reported, with its line
and its fix. With an event, as 'kubectl get event NAME -o json' prints it, show its destinations, the matching route,
and the reason.
"""
_CHECK_EPILOG: Final = """\
examples:
  kevents check -c cfg.toml
  kubectl get events -o json | kevents check -c cfg.toml --event -

exit status:
  0  the configuration is good; every event of --event has a destination
  1  an event of --event has no destination
  2  the configuration, the event or the arguments are wrong
"""
_READ: Final = """\
Read an export back from files or an object store: decoded, each version of an event once, in the order of writing.
Damage is reported with its file and place, and everything else is read. With --since and --until, parts of the archive
that hold no events of the period are skipped unread.
"""
_READ_EPILOG: Final = """\
TIME is a duration before now (30s, 10m, 2h, 7d) or a time (2026-07-24, 2026-07-24T09:00, in UTC without a zone).

examples:
  kevents read events/
  kevents read s3://bucket/events --warning --since 2h
  kevents read -c cfg.toml archive --json | jq -r .message

which Deployments had most BackOff warnings last night:
  kevents read events/ --since 14h --until 6h --type Warning --reason BackOff --count-by owner

exit status:
  0  everything was read
  1  a part is damaged; everything else was read
  2  nothing was found, or the arguments are wrong

environment:
  AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME ...
            the credentials of an object store,
            as its own tools take them;
            with -c those of the configuration
  NO_COLOR  set to anything, disables colours; in pipes they are always disabled
"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Fills paragraphs to the terminal's width less two columns.

    Indented lines, such as examples, stay unchanged. Only the rows of tables (``  0  all checks hold``) are wrapped
    below their text.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = (block.split("\n") for block in text.strip("\n").split("\n\n"))
        return "\n\n".join(_block(block, width, indent) for block in blocks) + "\n"


def _block(lines: list[str], width: int, indent: str) -> str:
    if any(line.startswith(" ") for line in lines):
        return "\n".join(_line(indent + line, width) for line in lines)
    return textwrap.fill(" ".join(lines), width, initial_indent=indent, subsequent_indent=indent)


def _line(line: str, width: int) -> str:
    row = _ROW.match(line)
    if len(line) <= width or (line.startswith(" ") and row is None):
        return line
    start = row[0] if row is not None else ""
    return textwrap.fill(line[len(start) :], width, initial_indent=start, subsequent_indent=" " * len(start))


def parser(seconds: float) -> argparse.ArgumentParser:
    """The parser of ``kevents``. Its options have the command's name in ``command``, its parser in ``parser``."""
    top = argparse.ArgumentParser("kevents", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=HelpFormatter)
    top.add_argument("--version", action="version", version=f"kevents {kevents.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_demo(commands, seconds)
    _add_record(commands)
    _add_tail(commands)
    _add_export(commands)
    _add_check(commands)
    _add_read(commands)
    return top


def _add(commands: Commands, name: str, text: str, description: str, epilog: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, description=description, epilog=epilog, formatter_class=HelpFormatter, allow_abbrev=False
    )
    command.set_defaults(parser=command)
    return command


def _add_demo(commands: Commands, seconds: float) -> None:
    demo = _add(commands, "demo", "watch kevents at work for a quarter of a minute", _DEMO, _DEMO_EPILOG)
    demo.add_argument("--kubeconfig", metavar="FILE", help="write to this cluster instead of an embedded API server")
    demo.add_argument(
        "--seconds",
        metavar="N",
        type=_seconds,
        default=seconds,
        help=f"approximate duration, {_SHORTEST:g} to {_LONGEST:g} (default: {seconds:g})",
    )
    demo.add_argument("--plain", action="store_true", help="append lines, as in a pipe, instead of redrawing")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be a number from {_SHORTEST:g} to {_LONGEST:g}, not {text!r}")
    return seconds


def _add_record(commands: Commands) -> None:
    record = _add(commands, "record", "write one event about an object", _RECORD, _RECORD_EPILOG)
    record.add_argument("object", metavar="TYPE/NAME", type=type_and_name, help="the object, such as pod/web-0")
    record.add_argument("type", metavar="Normal|Warning", help="the type of the event")
    record.add_argument("reason", metavar="REASON", help="one word in CamelCase, such as BackupFailed")
    record.add_argument("message", metavar="MESSAGE", help="the message, for people")
    record.add_argument(
        "-n", "--namespace", metavar="NAME", default="", help="the object's namespace; default: kubectl's"
    )
    record.add_argument("--uid", metavar="UID", default="", help="the object's uid, instead of reading the object")
    record.add_argument(
        "--component", metavar="NAME", default="kevents", help="the source of the event (default: kevents)"
    )
    _add_cluster(record)


def _add_tail(commands: Commands) -> None:
    tail = _add(commands, "tail", "show a cluster's events as they happen", _TAIL, _TAIL_EPILOG)
    _add_filters(tail, "begin with the events of the last 30s, 10m, 2h or 7d; default: only new events")
    tail.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces, which is the default")
    tail.add_argument("--for", metavar="TYPE/NAME", dest="about", help="only about this object, as pod/web-0")
    tail.add_argument("--types", metavar="LIST", help="only these types, as Warning,Error")
    tail.add_argument("-l", "--selector", metavar="SELECTOR", help="only events with these labels, as app=web,tier!=db")
    tail.add_argument(
        "-o", "--output", choices=("wide", "json", "name"), help="more columns, JSON lines, or only the events' names"
    )
    tail.add_argument("--no-headers", action="store_true", help="no line of headers")
    tail.add_argument("--timestamps", action="store_true", help="times in UTC instead of ages")
    tail.add_argument("--wide", action="store_true", help="do not cut lines to the width of the terminal")
    tail.add_argument("-w", "--watch", action="store_true", help="accepted as in kubectl; tail always watches")
    _add_cluster(tail)
    _add_debug(tail)


def _add_export(commands: Commands) -> None:
    export = _add(commands, "export", "write a cluster's events to durable places", _EXPORT, _EXPORT_EPILOG)
    _add_debug(export)
    _add_config(export)
    export.add_argument(
        "--logs",
        choices=("auto", "text", "json"),
        default="auto",
        help="log as text or JSON lines (default: text on a terminal, else JSON)",
    )


def _add_check(commands: Commands) -> None:
    check = _add(commands, "check", "check a configuration, and where events would go", _CHECK, _CHECK_EPILOG)
    _add_debug(check)
    _add_config(check)
    check.add_argument("--event", metavar="FILE", help="JSON with one event or more; - for standard input")


_COUNTED: Final = (
    *("namespace", "kind", "name", "owner", "service", "type", "reason"),
    *("component", "host", "cluster", "day", "hour"),
)


def _add_read(commands: Commands) -> None:
    read = _add(commands, "read", "read an export back", _READ, _READ_EPILOG)
    _add_debug(read)
    read.add_argument("place", metavar="PATH", help="a file, a folder, s3://..., gs://..., az://...; with -c: a sink")
    read.add_argument("-c", "--config", metavar="FILE", help="a configuration: PATH is the name of one of its sinks")
    read.add_argument("--duplicates", action="store_true", help="show also records that were written twice")
    _add_filters(read, "only events since then: a duration before now, or a time")
    read.add_argument("--until", metavar="TIME", help="only events until then")
    read.add_argument("--type", "--types", metavar="LIST", dest="types", help="only these types, as Warning,Error")
    read.add_argument("--owner", metavar="[TYPE/]NAME", help="only of this top owner or object, as deployment/web")
    read.add_argument("--label", metavar="K=V", action="append", help="only objects with this label; repeatable")
    read.add_argument("-o", "--output", choices=("wide", "json"), help="more columns, or JSON lines")
    read.add_argument("--count-by", metavar="FIELDS", help=f"a table of counts by {', '.join(_COUNTED)}")


def _add_cluster(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--kubeconfig", metavar="FILE", default="", help="the cluster; default: in-cluster, else the usual kubeconfig"
    )
    command.add_argument("--context", metavar="NAME", default="", help="a context of the kubeconfig")


def _add_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, TOML")


def _add_filters(command: argparse.ArgumentParser, since: str) -> None:
    command.add_argument("-n", "--namespace", metavar="NAME", action="append", help="only this namespace; repeatable")
    command.add_argument("--warning", action="store_true", help="all events except those of type Normal")
    command.add_argument(
        "--kind", metavar="KIND", action="append", help="only this kind, as Pod, in any case; repeatable"
    )
    command.add_argument("--name", metavar="GLOB", help="only objects with this name, as 'web-*'")
    command.add_argument("--reason", metavar="GLOB", help="only this reason, as 'Back*'")
    command.add_argument("--since", metavar="TIME", help=since)
    command.add_argument("--json", action="store_true", help="one JSON line per event, as an export writes it")


_REFUSED: Final = 1
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name. None for those of the process.

    Returns:
        The exit status.
    """
    commands = parser(SECONDS)
    options, surplus = commands.parse_known_args(arguments)
    if surplus:  # argparse would show the usage of kevents instead of the command's
        getattr(options, "parser", commands).error(f"unrecognized arguments: {' '.join(surplus)}")
    if options.command is None:
        commands.print_help(sys.stderr)
        return _USAGE_ERROR
    try:
        return _run(options)
    except (ClusterError, KubeconfigError) as error:
        if getattr(options, "debug", False):
            raise
        sys.stderr.write(f"kevents: {error}\n")
        refused = options.command == "record" and not isinstance(error, UsageError | KubeconfigError)
        return _REFUSED if refused else _USAGE_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("\nkevents: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # At exit Python flushes stdout, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        return demonstrate(sys.stdout, options.kubeconfig, options.seconds, plain=options.plain)
    if options.command == "record":
        return record(options, sys.stdout)
    try:
        from kevents.export._operate import commands  # noqa: PLC0415 - the base install lacks its dependencies
    except ModuleNotFoundError as missing:
        if (missing.name or "kevents").partition(".")[0] == "kevents":
            raise
        sys.stderr.write(
            f"kevents: 'kevents {options.command}' needs packages that are not installed ({missing.name}): "
            f"{how_to_install('export')}\n"
        )
        return _USAGE_ERROR
    run: Callable[[argparse.Namespace], int] = commands.run
    return run(options)
