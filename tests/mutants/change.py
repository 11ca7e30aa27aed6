"""A mutant applied to the source of its module: the tree of it changes, lines and layout do not matter."""

from __future__ import annotations

import ast

from .table import Misplaced, Mutant


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the tree of a module's source with the mutant's change.

    Raises `Misplaced` where the scope or what is to change is not there, or stands at more places or fewer.
    """
    tree = ast.parse(source)
    scope = _scope(tree, mutant)
    change = _Swap(*mutant.swap) if mutant.swap else _Change(mutant.before, mutant.after)
    change.visit(scope)
    enough = change.found > 0 if mutant.swap else change.found == mutant.times
    if not enough:
        what = "both names" if mutant.swap else f"{mutant.times} such place(s)"
        raise Misplaced(f"{mutant.name}: looked for {what}, saw {change.found}")
    return ast.fix_missing_locations(tree)


def _scope(tree: ast.Module, mutant: Mutant) -> ast.AST:
    """Return the function or class of that qualified name, or the whole module."""
    at: ast.AST = tree
    for name in filter(None, mutant.scope.split(".")):
        inside = [
            x
            for x in ast.walk(at)
            if isinstance(x, ast.FunctionDef | ast.ClassDef) and x.name == name and x is not at
        ]
        if len(inside) != 1:
            raise Misplaced(f"{mutant.name}: {len(inside)} functions or classes named {name}")
        at = inside[0]
    return at


class _Swap(ast.NodeTransformer):
    """Swap two names wherever they stand: as variables, attributes, keywords or texts."""

    def __init__(self, one: str, other: str) -> None:
        self.other = {one: other, other: one}
        self.seen: set[str] = set()

    @property
    def found(self) -> int:
        """Return 1 where both names were seen, else 0."""
        return int(len(self.seen) == 2)

    def visit(self, node: ast.AST) -> ast.AST:
        for field in ("id", "attr", "arg", "value", "name"):
            here = getattr(node, field, None)
            if isinstance(here, str) and here in self.other:
                setattr(node, field, self.other[here])
                self.seen.add(here)
        return self.generic_visit(node)


class _Change(ast.NodeTransformer):
    """Put one text of code in the place of another, an expression or statements; nothing gives way to pass."""

    def __init__(self, before: str, after: str) -> None:
        self.before = ast.parse(before.strip()).body
        self.after = ast.parse(after.strip() or "pass").body
        self.found = 0
        self.expression = len(self.before) == 1 and isinstance(self.before[0], ast.Expr)
        if self.expression and (len(self.after) != 1 or not isinstance(self.after[0], ast.Expr)):
            raise Misplaced(f"{before!r} is an expression, {after!r} is none")

    def visit(self, node: ast.AST) -> ast.AST:
        if self.expression and _same(node, self.before[0].value):  # type: ignore[attr-defined]
            self.found += 1
            return ast.copy_location(_fresh(self.after[0].value), node)  # type: ignore[attr-defined]
        node = self.generic_visit(node)
        if not self.expression:
            for field in ("body", "orelse"):
                if isinstance(getattr(node, field, None), list):
                    setattr(node, field, self._statements(getattr(node, field)))
        return node

    def _statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        count, out, at = len(self.before), list[ast.stmt](), 0
        while at < len(body):
            here = body[at : at + count]
            if len(here) == count and all(map(_same, here, self.before)):
                self.found += 1
                out += [ast.copy_location(_fresh(x), here[0]) for x in self.after]
                at += count
            else:
                out.append(body[at])
                at += 1
        return out


def _same(one: ast.AST, other: ast.AST) -> bool:
    """Return whether two trees are equal, whether they are read or written aside."""
    if type(one) is not type(other):
        return False
    return _text(one) == _text(other)


def _text(node: ast.AST) -> str:
    return ast.dump(node).replace("ctx=Store()", "ctx=Load()")


def _fresh(node: ast.AST) -> ast.AST:
    """Return a copy of a tree, whose locations are filled in where it is put."""
    copy: ast.AST = ast.parse(ast.unparse(node), mode="eval" if isinstance(node, ast.expr) else "exec")
    return copy.body if isinstance(copy, ast.Expression) else copy.body[0]  # type: ignore[attr-defined]
