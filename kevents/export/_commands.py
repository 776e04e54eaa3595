"""The commands of an export: what the user asked for, done; what went wrong, told in a line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kevents._wire import printable, told
from kevents.export._check import EventFileError, check
from kevents.export._config import ConfigError
from kevents.export._secrets import KNOWN, SecretError

USAGE_ERROR: Final = 2
FAILED: Final = 1
_USERS: Final = (EventFileError, SecretError)


def run(options: argparse.Namespace) -> int:
    """Run a command.

    Args:
        options: As the parser of the command ``kevents`` gives them.

    Returns:
        The exit status.
    """
    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        number = len(error.lines)
        errors = f"kevents: {number} {'error' if number == 1 else 'errors'}"
        sys.stderr.write("".join(f"{line}\n" for line in [*error.lines, errors]))
        return USAGE_ERROR
    except _USERS as error:
        _tell(printable(KNOWN.clean(str(error))))
        return USAGE_ERROR
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.debug:
            raise
        _tell(f"{printable(KNOWN.clean(told(error)))}; with --debug it is shown where this happened")
        return FAILED


def _tell(line: str) -> None:
    sys.stderr.write(f"kevents: {line}\n")


def _check(options: argparse.Namespace) -> int:
    return check(Path(options.config), options.event, sys.stdout)


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {"check": _check}
