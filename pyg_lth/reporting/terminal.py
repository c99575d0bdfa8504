"""A terminal that shows texts as they are: no markup in them, nothing that steers it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from pyg_lth.errors import printable


class Terminal(Console):
    r"""Rich's console for texts that hold names from anywhere.

    A file may be called ``log[v2].csv``, which is markup to Rich, or hold an escape sequence, which
    is a command to the terminal. Here both are text; styles are given by ``style`` alone.

    Args:
        **options: Of :class:`rich.console.Console`.

    Example:
        >>> from pyg_lth.reporting.terminal import Terminal
        >>> Terminal().print("log[v2].csv\x1b[31m")
        log[v2].csv\x1b[31m
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As the parent, escaped before it is measured, so that it gets the room that it takes."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As the parent, with control characters written as escapes."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)
