"""Cell text before it runs: magics that wait become awaited ones, and a body-less `%%finetune x` becomes the line magic.

Rewriting must not be blind. `await` inside a `def` that is no coroutine is a syntax error, and under `%%time` or
`%%capture` the loop is already running: there the call is left alone, and a magic that was not rewritten blocks.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["AWAITED", "AwaitMagics", "BodylessCells"]

AWAITED: Final = "--awaited "
"""What begins the line of a call that was rewritten; the magic then returns a coroutine."""

_CALLS: Final = ("run_line_magic", "run_cell_magic")


class BodylessCells:
    """Rewrites a cell of `%%name ...` alone to `%name ...`; IPython refuses it before the magic could say what is wrong."""

    def __init__(self, names: Collection[str]) -> None:
        self._pattern = re.compile(rf"%%({'|'.join(names)})\b(?!\?)")

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines, the first without one of its `%` where it is the only one."""
        first = next((number for number, line in enumerate(lines) if line.strip()), None)
        if first is None or not self._pattern.match(lines[first]) or any(line.strip() for line in lines[first + 1 :]):
            return lines
        return [lines[first][1:]]


class AwaitMagics:
    """Rewrites calls of our magics to `await` where that can stand: not while a cell runs already, nor inside a function.

    `allowed` says whether the shell awaits cells at all (`%autoawait`), and on asyncio.
    """

    def __init__(self, names: Collection[str], allowed: Callable[[], bool] = lambda: True) -> None:
        self._names = frozenset(names)
        self._allowed = allowed
        self.running = 0

    def enter(self, *_: Any) -> None:
        """A cell begins (pre_run_cell)."""
        self.running += 1

    def leave(self, *_: Any) -> None:
        """A cell ended (post_run_cell)."""
        self.running = max(0, self.running - 1)

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines with `await` before our calls, or the same lines where the result would not compile."""
        source = "".join(lines)
        if self.running or not self._allowed() or not any(f"magic('{name}'" in source for name in self._names):
            return lines
        rewritten = self._rewrite(source)
        return lines if rewritten is None else rewritten.splitlines(keepends=True)

    def _rewrite(self, source: str) -> str | None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            tree = compile(source, "<cell>", "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        except SyntaxError:
            return None
        places = [place for call in _top_level_calls(tree) if (place := self._place(call, source)) is not None]
        data = source.encode()
        for start, line in sorted(places, reverse=True):
            data = data[:start] + b"await " + data[start:line] + AWAITED.encode() + data[line:]
        try:
            compile(data, "<cell>", "exec", flags, dont_inherit=True)
        except SyntaxError:
            return None
        return data.decode() if places else None

    def _place(self, call: ast.Call, source: str) -> tuple[int, int] | None:
        """(start of the call, inside of its line's quotes) in bytes, where it is a call of one of our magics."""
        function, arguments = call.func, call.args
        if not isinstance(function, ast.Attribute) or function.attr not in _CALLS or len(arguments) < 2:  # noqa: PLR2004
            return None
        name, line = arguments[0], arguments[1]
        if not (isinstance(name, ast.Constant) and name.value in self._names and isinstance(line, ast.Constant)):
            return None
        if str(line.value).startswith(AWAITED):
            return None
        return _offset(source, call), _offset(source, line) + 1


def _offset(source: str, node: ast.expr) -> int:
    before = source.split("\n")[: node.lineno - 1]
    return sum(len(line.encode()) + 1 for line in before) + node.col_offset


def _top_level_calls(tree: ast.AST) -> list[ast.Call]:
    """The calls outside functions, lambdas, classes and comprehensions."""
    closed = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)
    calls: list[ast.Call] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, closed):
            continue
        if isinstance(node, ast.Call):
            calls.append(node)
        waiting.extend(ast.iter_child_nodes(node))
    return calls
