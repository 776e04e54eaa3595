"""The command ``kevents``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

import kevents
from kevents._cli.demo.main import SECONDS, ClusterError, Settings, demonstrate
from kevents._cli.export import add_export_commands
from kevents._cli.help import HelpFormatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kevents._cli.export import Commands

_SHORTEST: Final = 3.0
_LONGEST: Final = 60.0
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_NOBODY_READS: Final = 141

_DESCRIPTION: Final = """\
kevents records Kubernetes Events from Python as client-go's tools/record does from Go: aggregated, rate-limited,
never in the caller's way, and with an account of every event that was not written. The other way round, it follows a
cluster's events and writes them to durable places, none lost.
"""
_EPILOG: Final = """\
see it at work, on an embedded API server, in a quarter of a minute:
  kevents demo

see it on a cluster of yours (namespace default; what it writes it removes):
  kevents demo --server ~/.kube/config

record:
  import kevents

  with kevents.EventBroadcaster() as broadcaster:
      broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
      recorder = broadcaster.new_recorder("backup-operator")
      recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")

look on, keep, and read back (pip install 'kevents[export]'):
  kevents tail --warning
  kevents check -c cfg.toml
  kevents export -c cfg.toml
  kevents read events/ --since 2h

'kevents COMMAND --help' has examples, and says what each exit status means.
"""
_DEMO: Final = """\
A pretend backup operator records events about a backup that fails in every way: the same event again and again,
similar ones, a storm of them, one that is deleted, and an API server that goes away. A table shows what the API server
holds, as 'kubectl get events' would; at the end every number is explained, and checked against what it must be.
"""
_DEMO_EPILOG: Final = """\
exit status:
  0  the numbers are what they must be
  1  they are not: a bug in kevents
  2  it could not run: the arguments, the kubeconfig, the cluster, or its permissions

environment:
  NO_COLOR  set to anything, there are no colours
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit status.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return _USAGE_ERROR
    try:
        return options.run(options)  # type: ignore[no-any-return]
    except ClusterError as error:
        sys.stderr.write(f"kevents: {error}\n")
        return _USAGE_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("\nkevents: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # so that the exit does not stumble over it again
        return _NOBODY_READS


def _demonstrate(options: argparse.Namespace) -> int:
    return demonstrate(Settings(options.server, options.seconds, options.plain), sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kevents", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=HelpFormatter)
    parser.add_argument("--version", action="version", version=f"kevents {kevents.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_demo(commands)
    add_export_commands(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="watch kevents at work for a quarter of a minute",
        description=_DEMO,
        epilog=_DEMO_EPILOG,
        formatter_class=HelpFormatter,
    )
    demo.set_defaults(run=_demonstrate)
    demo.add_argument("--server", metavar="KUBECONFIG", help="write to this cluster instead of an embedded API server")
    demo.add_argument(
        "--seconds",
        metavar="N",
        type=_seconds,
        default=SECONDS,
        help=f"about how long it takes, {_SHORTEST:g} to {_LONGEST:g} (default: {SECONDS:g})",
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
