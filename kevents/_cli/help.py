"""How the help of the command is laid out: paragraphs fill the terminal, examples stay as they are."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import Final

_ROW: Final = re.compile(r" +\S+ {2,}(?=\S)")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Fills the paragraphs of descriptions and epilogs to the terminal's columns, less two.

    What is indented stays as it is: examples above all. Only a row of a table, ``  0  the numbers are what they must
    be``, goes on below its text where the terminal ends.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = text.strip("\n").split("\n\n")
        return "\n\n".join(_block(block.split("\n"), width, indent) for block in blocks) + "\n"


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
