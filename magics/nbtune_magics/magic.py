"""One magic: what it is called with, how its line and body become values, and how it is run and explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from nbtune.body import read_body
from nbtune.errors import Problem, SpecError
from nbtune.spec import Option
from nbtune_magics.help import help_text
from nbtune_magics.line import asks_for_help, read_line
from nbtune_magics.output import say
from nbtune_magics.steps import Steps, awaited, blocking
from nbtune_magics.transform import AWAITED

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbtune.spec import Spec
    from nbtune_magics.output import Shown

__all__ = ["AS", "BACKGROUND", "Call", "Magic", "flag"]


def flag(name: str, meaning: str, *, switch: bool = False) -> Option:
    """A flag of the notebook's own, beside those of a spec."""
    return Option(
        name=name,
        kind="bool" if switch else "text",
        default=False if switch else None,
        required=False,
        low=None,
        high=None,
        scale="linear",
        choices=(),
        optional=not switch,
        meaning=meaning,
        aliases=(),
        group="notebook",
    )


AS: Final = flag("as", "name it, and bind the variable of that name (- becomes _)")
BACKGROUND: Final = flag("background", "return at once; the panel goes on", switch=True)


@dataclass(frozen=True)
class Call:
    """One use of a magic: the line's words and flags, the body's values, and where each stood.

    `values` holds line and body together; a flag wins over the body's key for the same option.
    """

    shell: InteractiveShell
    shown: Shown
    words: tuple[str, ...]
    own: dict[str, Any]
    values: dict[str, Any]
    items: list[Any] | None = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def with_values(self, values: dict[str, Any]) -> Call:
        """The same call with other values."""
        return replace(self, values=values)

    def refuse(self) -> None:
        """Raises what is wrong so far, before anything is asked of the backend.

        Raises:
            SpecError: where there is any problem.
        """
        if self.problems:
            raise SpecError.of(self.problems)


@dataclass(frozen=True)
class Magic:
    """A `%name` and `%%name`; `run` yields where it waits and returns what the cell returns.

    `spec` gives what the line and body may say, by the line's words (a method's name); `names` lists what the first word may be,
    `choice` says what it chooses, `describe` tells of one in a line; `more_names` lists what the words after it may be. `parts` lists
    what may stand in the body with options of its own, which `part_spec` gives.
    """

    name: str
    usage: str
    about: str
    run: Callable[[Call], Steps[Any]]
    spec: Callable[[tuple[str, ...]], type[Spec] | None]
    own: tuple[Option, ...] = ()
    names: Callable[[], Iterable[str]] = tuple
    more_names: Callable[[], Iterable[str]] = tuple
    choice: str = ""
    describe: Callable[[str], str] = str
    parts: Callable[[], Iterable[str]] = tuple
    part_spec: Callable[[str], type[Spec] | None] = lambda _name: None
    body: str = "options, one `key: value` a line"
    waits: bool = False

    def table(self, words: tuple[str, ...] = ()) -> dict[str, Option]:
        """{every name and alias that may be a flag: its option}."""
        spec = self.spec(words)
        table = {item.name: item for item in self.own}
        for item in spec.options() if spec is not None else ():
            table.update(dict.fromkeys((item.name, *item.aliases), item))
        return table

    def help(self, words: tuple[str, ...] = ()) -> str:
        """The help text, with the options of the method in `words` where one is named."""
        return help_text(self, words)

    def read(self, shell: InteractiveShell, shown: Shown, line: str, cell: str | None) -> Call:
        """The call that a line and a body make; problems are kept in it, to be told together with the spec's.

        Raises:
            SpecError: the body is not YAML as it must be, or a quote or bracket of the line is not closed.
        """
        said = read_line(line, self.table())
        spec = self.spec(said.words[:1])
        table = self.table(said.words[:1])
        said = read_line(line, table)
        body = read_body(cell or "")
        names = spec.names() if spec is not None else {}
        own = {item.name: said.values[item.name] for item in self.own if item.name in said.values}
        flags = {name: value for name, value in said.values.items() if name not in own}
        mapping = body.values if isinstance(body.values, dict) else {}
        kept = {key: value for key, value in mapping.items() if names.get(key.replace("-", "_")) not in flags}
        return Call(
            shell=shell,
            shown=shown,
            words=said.words,
            own=own,
            values={**flags, **kept},
            items=body.values if isinstance(body.values, list) else None,
            lines={**dict.fromkeys(flags, 1), **{key: body.lines[key] for key in body.lines if key in kept or key.isdigit()}},
            problems=said.problems,
        )


def _words(line: str, magic: Magic) -> tuple[str, ...]:
    """The first word of a line that asks for help, in one that is not finished too."""
    try:
        return read_line(line, magic.table()).words[:1]
    except SpecError:
        return tuple(line.split()[:1])


class Registered:
    """A magic as a shell calls it; `getdoc` is what `%%name?` shows."""

    _ipython_magic_no_var_expand = True

    def __init__(self, magic: Magic, shell: InteractiveShell, shown: Shown) -> None:
        self.magic = magic
        self.__name__ = magic.name
        self._shell = shell
        self._shown = shown

    def __call__(self, line: str, cell: str | None = None) -> Any:
        """The cell's result, or a coroutine of it where the transformer has put `await` before the call."""
        steps = self._steps(line.removeprefix(AWAITED), cell)
        return awaited(steps) if line.startswith(AWAITED) else blocking(steps)

    def _steps(self, line: str, cell: str | None) -> Steps[Any]:
        if asks_for_help(line):
            say(self.magic.help(_words(line, self.magic)))
            return None
        call = self.magic.read(self._shell, self._shown, line, cell)
        return (yield from self.magic.run(call))

    def getdoc(self) -> str:
        """IPython asks objects for their own documentation by this name."""
        return self.magic.help()
