"""Small changes of Python source, one at a time: the mutants of :mod:`benchmarks.mutants`.

A mutant changes one expression or statement: a comparison (``<`` to ``<=``), an operator, a condition (negated), a number (plus one), a
text (``XX`` before it), ``True``, ``min`` to ``max`` and similar functions, a keyword argument (left out), an assigned or returned value
(``None``), a call, an assignment in place or a ``raise`` (left out), ``break`` to ``continue``.

Not changed: annotations, names of types, decorators, docstrings, imports; prose, that is, parts of f-strings and texts of several words, whose wording
no test fixes; ``strict=`` of ``zip``, which like an assertion states what cannot happen; type names in ``cast``; ``field(repr=False)``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.MatMult: ast.Mult,
}
_FUNCTIONS = dict(
    pair
    for one, other in [
        ("min", "max"),
        ("any", "all"),
        ("floor", "ceil"),
        ("lower", "upper"),
        ("startswith", "endswith"),
        ("removeprefix", "removesuffix"),
        ("lstrip", "rstrip"),
        ("bisect_left", "bisect_right"),
        ("partition", "rpartition"),
        ("find", "rfind"),
    ]
    for pair in ((one, other), (other, one))
) | {"rint": "trunc", "round": "int", "sorted": "list", "fullmatch": "match", "match": "search", "casefold": "upper"}
_WITH_A_LIMIT = {"split": "rsplit", "rsplit": "split"}
"""Functions that differ only if they have a second argument."""
_NOT_VISITED = {"annotation", "returns", "decorator_list", "type_params"}
_PROSE = re.compile(r"[^\\^$|*+?\[]*[a-z] [^\\^$|*+?\[]*")
_UNCHANGED_KEYWORDS = {"strict", "repr", "slots", "kw_only"}


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        path: The module.
        number: Which of the changes of the module it is.
        line: The line of the changed node.
        lines: The lines of the statement that contains it. A test that runs none of them cannot notice the change.
        before: The node, in one line.
        after: Its replacement, in one line.
        function: Name and first line of the outermost function that contains it; ``None`` for code that runs at import.
    """

    path: Path
    number: int
    line: int
    lines: range
    before: str
    after: str
    function: tuple[str, int] | None

    def __str__(self) -> str:
        return f"{self.path.relative_to(Path.cwd())}:{self.line}: {self.before}  ->  {self.after}"

    def compile(self) -> CodeType:
        """Return the code of the changed module."""
        tree = ast.parse(self.path.read_bytes())
        for number, _ in enumerate(_changes(tree)):
            if number == self.number:
                return compile(tree, str(self.path), "exec", dont_inherit=True)
        raise LookupError(f"{self.path} has no change {self.number}")


@cache
def mutants_of(path: Path) -> tuple[Mutant, ...]:
    """Return all mutants of a module, in the order of its source."""
    found = []
    for number, change in enumerate(_changes(ast.parse(path.read_bytes()))):
        statement, function = change.statement, change.function
        body = getattr(statement, "body", None)
        end = body[0].lineno - 1 if isinstance(body, list) and body else statement.end_lineno or statement.lineno
        lines = range(statement.lineno, max(end, statement.lineno) + 1)
        found.append(Mutant(path, number, change.line, lines, change.before, change.after, function))
    return tuple(found)


@dataclass(frozen=True)
class _Change:
    statement: ast.stmt
    line: int
    before: str
    after: str
    function: tuple[str, int] | None


@dataclass(frozen=True)
class _Scope:
    """Where a node is: the statement, the names of the classes and of the outermost function around it."""

    statement: ast.stmt | None = None
    names: tuple[str, ...] = ()
    function: tuple[str, int] | None = None


def _changes(tree: ast.Module) -> Iterator[_Change]:
    """Change the tree in place, once per iteration, and restore it afterwards."""
    yield from _visit(tree, _Scope())


def _visit(node: ast.AST, scope: _Scope) -> Iterator[_Change]:
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) or _is_for_type_checking(node):
        return
    for name, value in ast.iter_fields(node):
        if name in _NOT_VISITED:
            continue
        inner = _scope_of(node, name, scope)
        if isinstance(value, list):
            for index, child in enumerate(value):
                if isinstance(child, ast.AST):
                    yield from _change_child(node, value, index, child, inner)
        elif isinstance(value, ast.AST):
            yield from _change_child(node, node.__dict__, name, value, inner)


def _scope_of(node: ast.AST, field: str, scope: _Scope) -> _Scope:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and field == "body":
        names = (*scope.names, node.name)
        if isinstance(node, ast.FunctionDef) and scope.function is None:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return _Scope(scope.statement, names, (".".join(names), first))
        return _Scope(scope.statement, names, scope.function)
    return scope


def _change_child(
    parent: ast.AST, slots: list[ast.AST] | dict[str, ast.AST], key: int | str, node: ast.AST, scope: _Scope
) -> Iterator[_Change]:
    if _is_unchanged(parent, node):
        return
    if isinstance(node, ast.stmt):
        scope = _Scope(node, scope.names, scope.function)
    statement = scope.statement
    assert statement is not None or not isinstance(node, ast.expr)
    for replacement in _replacements(parent, node):
        assert statement is not None
        ast.fix_missing_locations(ast.copy_location(replacement, node))
        before, after = _one_line(node), _one_line(replacement)
        slots[key] = replacement  # type: ignore[index, call-overload]
        yield _Change(statement, getattr(node, "lineno", statement.lineno), before, after, scope.function)
        slots[key] = node  # type: ignore[index, call-overload]
    yield from _visit(node, scope)


def _is_unchanged(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "cast":
        return node is parent.args[0]
    if isinstance(node, ast.keyword) and node.arg in _UNCHANGED_KEYWORDS:
        return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name[0].isupper() and not name.isupper()  # a type
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # a docstring


def _is_for_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _replacements(parent: ast.AST, node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.expr):
        yield from _expressions(node)
        if _is_condition(parent, node):
            yield ast.UnaryOp(ast.Not(), node)
    elif isinstance(node, (ast.Raise, ast.AugAssign)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Yield, ast.YieldFrom))
    ):
        yield ast.Pass()
        if isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
            yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
    elif isinstance(node, ast.Assign) and not isinstance(node.value, ast.Constant):
        if not isinstance(node.targets[0], ast.Tuple):
            yield ast.Assign(node.targets, ast.Constant(None))
    elif isinstance(node, ast.Return) and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        if node.value is not None:
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Break()


def _is_condition(parent: ast.AST, node: ast.expr) -> bool:
    """Whether a node is a condition whose negation is not one of the changes of the node itself."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return False
    if isinstance(node, ast.Compare) and not isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
        return False
    if isinstance(parent, ast.comprehension):
        return node in parent.ifs
    return isinstance(parent, (ast.If, ast.While, ast.IfExp)) and node is parent.test


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            changed = [*node.ops[:index], _COMPARISONS[type(operator)](), *node.ops[index + 1 :]]
            yield ast.Compare(node.left, changed, node.comparators)
    elif isinstance(node, ast.BinOp):
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _FUNCTIONS:
        yield ast.Name(_FUNCTIONS[node.id], ast.Load())
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in _FUNCTIONS:
        yield ast.Attribute(node.value, _FUNCTIONS[node.attr], ast.Load())
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in _WITH_A_LIMIT and len(node.args) > 1:
            yield ast.Call(ast.Attribute(node.func.value, _WITH_A_LIMIT[node.func.attr], ast.Load()), node.args, [])
        for index, keyword in enumerate(node.keywords):
            if keyword.arg and keyword.arg not in _UNCHANGED_KEYWORDS:
                yield ast.Call(node.func, node.args, [*node.keywords[:index], *node.keywords[index + 1 :]])


def _constants(value: object) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, (int, float)):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and not _PROSE.fullmatch(value):
        yield ast.Constant("XX" + value)
    elif isinstance(value, bytes):
        yield ast.Constant(b"XX" + value)


def _one_line(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
