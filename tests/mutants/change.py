"""A mutant applied to the source of its module: the tree of it changes, lines and layout do not matter."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from functools import lru_cache

from .table import Misplaced, Mutant

NAMES = ("id", "attr", "arg", "name", "value")  # of nodes that hold a name or a text


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the tree of a module's source with the mutant's change. Raises `Misplaced` as `places` does."""
    places(source, mutant)
    tree = copy.deepcopy(_parsed(source))
    scope = _scope(tree, mutant)
    if mutant.swap:
        _swap(scope, *mutant.swap)
    else:
        _Change(mutant).visit(scope)
    return ast.fix_missing_locations(tree)


def places(source: str, mutant: Mutant) -> int:
    """Return at how many places a mutant changes its module.

    Raises `Misplaced` where the scope or what is to change is not there, or stands at more places or fewer.
    """
    scope = _scope(_parsed(source), mutant)
    if mutant.swap:
        seen = {name for node in ast.walk(scope) for _, name in _names(node)}
        if not seen >= set(mutant.swap):
            raise Misplaced(f"{mutant.name}: looked for both names, saw {len(seen & set(mutant.swap))}")
        return 1
    before, count = _code(mutant.before), 0
    for node in ast.walk(scope):
        if isinstance(before, ast.expr):
            count += _same(node, before)
        else:
            count += sum(len(list(_runs(body, before))) for _, body in _bodies(node))
    if count != mutant.times:
        raise Misplaced(f"{mutant.name}: looked for {mutant.times} such place(s), saw {count}")
    return count


@lru_cache(maxsize=64)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@lru_cache(maxsize=1024)
def _code(text: str) -> ast.expr | list[ast.stmt]:
    """Return the expression, or the statements, that a text is; nothing is `pass`."""
    body = ast.parse(text.strip() or "pass").body
    return body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else body


def _scope(tree: ast.Module, mutant: Mutant) -> ast.AST:
    """Return the function or class of that qualified name, or the whole module."""
    at: ast.AST = tree
    for name in filter(None, mutant.scope.split(".")):
        kinds = (ast.FunctionDef, ast.ClassDef)
        inside = [x for x in ast.walk(at) if x is not at and isinstance(x, kinds) and x.name == name]
        if len(inside) != 1:
            raise Misplaced(f"{mutant.name}: {len(inside)} functions or classes named {name}")
        at = inside[0]
    return at


def _names(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the fields of a node that hold names or texts, and what they hold."""
    for field in NAMES:
        name = getattr(node, field, None)
        if isinstance(name, str):
            yield field, name


def _swap(scope: ast.AST, one: str, other: str) -> None:
    """Swap two names wherever they stand: as variables, attributes, keywords or texts."""
    instead = {one: other, other: one}
    for node in ast.walk(scope):
        for field, name in _names(node):
            if name in instead:
                setattr(node, field, instead[name])


class _Change(ast.NodeTransformer):
    """Put one text of code in the place of another, an expression or statements."""

    def __init__(self, mutant: Mutant) -> None:
        self.before, self.after = _code(mutant.before), _code(mutant.after)
        if isinstance(self.before, ast.expr) and not isinstance(self.after, ast.expr):
            raise Misplaced(f"{mutant.before!r} is an expression, {mutant.after!r} is none")

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(self.before, ast.expr):
            return copy.deepcopy(self.after) if _same(node, self.before) else self.generic_visit(node)  # type: ignore[return-value]
        node = self.generic_visit(node)
        after = [ast.Expr(self.after)] if isinstance(self.after, ast.expr) else self.after
        for field, body in _bodies(node):
            for at in reversed(list(_runs(body, self.before))):
                body[at : at + len(self.before)] = copy.deepcopy(after)
            setattr(node, field, body)
        return node


def _bodies(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yield the lists of statements of a node."""
    for field in ("body", "orelse", "finalbody"):
        body = getattr(node, field, None)
        if isinstance(body, list):
            yield field, body


def _runs(body: list[ast.stmt], before: list[ast.stmt]) -> Iterator[int]:
    """Yield where in a list of statements others stand, one after another."""
    for at in range(len(body) - len(before) + 1):
        if all(map(_same, body[at : at + len(before)], before)):
            yield at


def _same(one: object, other: object) -> bool:
    """Return whether two trees are equal; that a name is read or written makes no difference."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if not isinstance(one, ast.AST):
        return one == other
    fields = (field for field in one._fields if field not in ("ctx", "type_comment", "kind"))
    return all(_same(getattr(one, field, None), getattr(other, field, None)) for field in fields)
