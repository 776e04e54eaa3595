"""The configuration of an export: a strict TOML file; what is wrong is told all at once, with line, value and fix."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from kevents.export._config.lines import Lines
from kevents.export._config.schema import read
from kevents.export._config.settings import Config
from kevents.export._config.table_reader import Problems, TableReader

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PARSER: Final = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


class ConfigError(Exception):
    """A configuration that cannot be used.

    Args:
        lines: Each thing that is wrong with it.
    """

    def __init__(self, lines: list[str]) -> None:
        """Take what is wrong."""
        super().__init__("\n".join(lines))
        self.lines = lines


def load(file: str | Path) -> Config:
    """Read a configuration file.

    Args:
        file: Its path.

    Raises:
        ConfigError: If it cannot be read or used: each error with its line, key, value and fix.
    """
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read ({error.strerror or type(error).__name__})"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    return parse(text.removeprefix("\ufeff"), str(file))


def parse(text: str, file: str = "configuration") -> Config:
    """Read a configuration's text.

    Args:
        text: TOML.
        file: Its name, for errors.

    Raises:
        ConfigError: If it cannot be used.
    """
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # of the parser's own kind, or a number of more digits than Python reads
        raise ConfigError([_no_toml(file, str(error), text)]) from None
    except RecursionError:
        raise ConfigError([f"{file}: is nested too deeply"]) from None
    problems = Problems()
    config = read(TableReader(table, (), problems), file)
    if problems:
        raise ConfigError(problems.told(file, Lines(text)))
    return config


def _no_toml(file: str, error: str, text: str) -> str:
    match = _PARSER.fullmatch(error)
    why, line, column = match.groups() if match else (error, None, None)
    place = f"{file}:{line or text.count(chr(10)) + 1}"
    fix = "; texts stand in double quotes" if why == "Invalid value" else ""
    return f"{place}: is not valid TOML: {why}{f', column {column}' if column else ''}{fix}"
