"""The arguments and the help of the commands that follow a cluster's events: tail, export, check, read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kevents._cli.help import HelpFormatter

if TYPE_CHECKING:
    from typing import TypeAlias

    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse names no other

_USAGE_ERROR: Final = 2

_TAIL: Final = """\
Show a cluster's events as they happen, in the columns of 'kubectl get events', or as the JSON lines that an export
writes. What is missed while the connection is away is shown when it is back; what cannot be had any more is a red line.
"""
_TAIL_EPILOG: Final = """\
examples:
  kevents tail
  kevents tail -n shop -n jobs --warning --since 1h
  kevents tail --kind Pod --name 'web-*' --json | jq .reason

exit status:
  1    it failed on the way
  2    it could not begin: the arguments, the kubeconfig, the cluster, or its permissions
  130  interrupted: its usual end

environment:
  KUBECONFIG  the cluster, outside of one
  NO_COLOR    set to anything, there are no colours; in pipes there are none either
"""
_EXPORT: Final = """\
Follow a cluster's events and write them to the destinations of a configuration, until SIGTERM or Ctrl-C. How far it got
is kept at the destination and moves only when the destination has the bytes: a restart goes on from there, none lost.
On a terminal there is a line of status; elsewhere the log is JSON lines on the standard error, with figures a minute.
"""
_EXPORT_EPILOG: Final = """\
examples:
  kevents check -c cfg.toml
  kevents export -c cfg.toml

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
Read a configuration of 'kevents export' as strictly as that does: every error is told, with its line and its fix. With
an event, as 'kubectl get event NAME -o json' prints it, say where it would go, which route matched, and why.
"""
_CHECK_EPILOG: Final = """\
examples:
  kevents check -c cfg.toml
  kubectl get events -o json | kevents check -c cfg.toml --event -

exit status:
  0  the configuration is good; every event of --event goes somewhere
  1  an event of --event goes nowhere
  2  the configuration, the event or the arguments are wrong
"""
_READ: Final = """\
Read back what an export wrote to files or to an object store: decoded, each event's version once, in the order in which
it was written. What is damaged is told with its file and place, and everything else is read.
"""
_READ_EPILOG: Final = """\
examples:
  kevents read events/
  kevents read s3://bucket/events --warning --since 2h
  kevents read -c cfg.toml archive --json | jq -r .message

exit status:
  0  everything was read
  1  something is damaged; all else was read
  2  there is nothing there, or the arguments are wrong

environment:
  AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME ...
            the credentials of an object store,
            as its own tools take them;
            with -c those of the configuration
  NO_COLOR  set to anything, there are no colours; in pipes there are none either
"""


def add_export_commands(commands: Commands) -> None:
    """Add the commands to the parser of ``kevents``.

    Args:
        commands: Its subparsers. Each command's options hold ``run``, which runs it and gives the exit status.
    """
    _add_tail(commands)
    _add_export(commands)
    _add_check(commands)
    _add_read(commands)


def _run(options: argparse.Namespace) -> int:
    try:
        from kevents.export._operate import commands  # noqa: PLC0415 - a plain install lacks its dependencies
    except ModuleNotFoundError as missing:
        if (missing.name or "kevents").partition(".")[0] == "kevents":
            raise
        sys.stderr.write(
            f"kevents: 'kevents {options.command}' needs packages that are not installed ({missing.name}): "
            "pip install 'kevents[export]'\n"
        )
        return _USAGE_ERROR
    run: Callable[[argparse.Namespace], int] = commands.run
    return run(options)


def _add(commands: Commands, name: str, text: str, description: str, epilog: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=description, epilog=epilog, formatter_class=HelpFormatter)
    parser.set_defaults(run=_run)
    parser.add_argument("--debug", action="store_true", help="show where in the code an error came from")
    return parser


def _add_tail(commands: Commands) -> None:
    tail = _add(commands, "tail", "show a cluster's events as they happen", _TAIL, _TAIL_EPILOG)
    tail.add_argument(
        "--kubeconfig", metavar="FILE", help="the cluster; without: in-cluster, else the usual kubeconfig"
    )
    tail.add_argument("--context", metavar="NAME", help="a context of the kubeconfig")
    _add_filters(tail, "begin with those of the last 30s, 10m, 2h or 7d; without: only what happens from now on")


def _add_export(commands: Commands) -> None:
    export = _add(commands, "export", "write a cluster's events to durable places", _EXPORT, _EXPORT_EPILOG)
    _add_config(export)
    export.add_argument(
        "--logs",
        choices=("auto", "text", "json"),
        default="auto",
        help="lines for people, or JSON lines (default: by whether it is a terminal)",
    )


def _add_check(commands: Commands) -> None:
    check = _add(commands, "check", "check a configuration, and where events would go", _CHECK, _CHECK_EPILOG)
    _add_config(check)
    check.add_argument("--event", metavar="FILE", help="an event or several, JSON; - for standard input")


def _add_read(commands: Commands) -> None:
    read = _add(commands, "read", "read back what was exported", _READ, _READ_EPILOG)
    read.add_argument("place", metavar="PATH", help="a file, a folder, s3://..., gs://..., az://...; with -c: a sink")
    read.add_argument("-c", "--config", metavar="FILE", help="a configuration: PATH is the name of one of its sinks")
    read.add_argument("--duplicates", action="store_true", help="show also what was written twice")
    _add_filters(read, "only of the last 30s, 10m, 2h or 7d")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, TOML")


def _add_filters(parser: argparse.ArgumentParser, since: str) -> None:
    parser.add_argument("-n", "--namespace", metavar="NAME", action="append", help="only of this one; several times")
    parser.add_argument("--warning", action="store_true", help="only warnings")
    parser.add_argument("--kind", metavar="KIND", action="append", help="only about this kind, as Pod; several times")
    parser.add_argument("--name", metavar="GLOB", help="only about objects of such a name, as 'web-*'")
    parser.add_argument("--reason", metavar="GLOB", help="only with such a reason, as 'Back*'")
    parser.add_argument("--since", metavar="TIME", help=since)
    parser.add_argument("--json", action="store_true", help="a JSON line for each, as an export writes it")
