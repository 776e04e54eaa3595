"""The command ``kevents``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from kevents._cli.api import ClusterError
from kevents._cli.arguments import parser
from kevents._cli.demo.main import SECONDS, demonstrate
from kevents._cli.record import UsageError, record
from kevents._clients.kubeconfig import KubeconfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

_REFUSED: Final = 1
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; None for those of the process.

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
        return demonstrate(sys.stdout, options.server, options.seconds, plain=options.plain)
    if options.command == "record":
        return record(options, sys.stdout)
    try:
        from kevents.export._operate import commands  # noqa: PLC0415 - the base install lacks its dependencies
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
