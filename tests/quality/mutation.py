"""The mutants of a module: its source with one change by an operator of cosmic-ray, or without one statement."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPERATORS: Final = re.compile(
    r"core/(AddNot|Replace(True|False|And|Or|Break|Continue)With\w+|NumberReplacer|ZeroIterationForLoop|ExceptionReplacer"
    r"|ReplaceUnaryOperator_(USub_UAdd|Delete_\w+)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|Mul_Add|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul"
    r"|BitOr_BitAnd|BitAnd_BitOr)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt"
    r"|Is_IsNot|IsNot_Is))"
)
"""One neighbour and one opposite of each operator: the other hundred add no information."""


@dataclass(frozen=True)
class Mutant:
    """A changed module: the operator, the index of the change, its line, and the whole source."""

    operator: str
    occurrence: int
    line: int
    text: str

    @property
    def name(self) -> str:
        """A readable name, also the key in the record."""
        return f"{self.operator}:{self.occurrence}"


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a module that differ from the original for Python, without duplicates."""
    original = path.read_text(encoding="utf-8")
    seen = {_meaning(original)}
    for mutant in (*_by_cosmic_ray(original), *_without_a_statement(original)):
        meaning = _meaning(mutant.text)
        if meaning not in seen:
            seen.add(meaning)
            yield mutant


class _Meaning(ast.NodeTransformer):
    """Removes the parts that tests cannot see: annotations, docstrings, type aliases, slots."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Remove an argument's annotation."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Remove a function's return annotation."""
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Remove an assignment's annotation, and a type alias as a whole."""
        if node.value is None or ast.unparse(node.annotation) == "TypeAlias":
            return ast.Pass()
        node.annotation = ast.Name("_")
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        """Remove blocks for type checkers."""
        return ast.Pass() if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Remove a class's slots."""
        return ast.Pass() if ast.unparse(node.targets[0]) == "__slots__" else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Remove a docstring."""
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def _meaning(text: str) -> str | None:
    try:
        tree = _Meaning().visit(ast.parse(text))
        tree.body = [node for node in tree.body if not isinstance(node, ast.Pass)]
        return ast.dump(tree)
    except SyntaxError:
        return None


def _by_cosmic_ray(original: str) -> Iterator[Mutant]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(original)))
    for name in filter(_OPERATORS.fullmatch, operator_names()):
        operator = get_operator(name)()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, _) in enumerate(places):
            text = mutate_code(original, operator, occurrence)
            if text is not None and _meaning(text) is not None:
                yield Mutant(name.removeprefix("core/"), occurrence, line, text)


def _without_a_statement(original: str) -> Iterator[Mutant]:
    lines = original.splitlines(keepends=True)
    kinds = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Delete, ast.Raise)
    found = [node for node in ast.walk(ast.parse(original)) if isinstance(node, kinds) and node.col_offset > 0]
    for occurrence, node in enumerate(sorted(found, key=lambda node: node.lineno)):
        head, tail = lines[: node.lineno - 1], lines[_end(node) :]
        yield Mutant(
            "StatementLeftOut", occurrence, node.lineno, "".join([*head, " " * node.col_offset, "pass\n", *tail])
        )


def _end(node: Any) -> int:
    return int(node.end_lineno)
