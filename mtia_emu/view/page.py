"""The layout of terminal texts: tables that fit the width, bars and safe text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, OverflowMethod, RenderableType
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from .text import clean, shorten

Cell = str | int | float | Text
HEADING = "bold cyan"
_GAP = 3  # cells between two columns
_INDENT = 2
_LEAST = 23  # cells that a flexible column keeps before optional columns are dropped
_LINE = 16  # cells of a line of a heading, and those that a column of texts needs
_CAP = 28  # cells that no other cell exceeds
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_QUANTITY = re.compile(r"[-+<]?\d[\d,.]*(e[-+]?\d+)?x?( ?[a-zA-Zµ%/]{1,7})?|-|nan|inf")


class Page:
    """A console and what it can show."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.ascii_only = console.options.ascii_only
        self.width = console.width

    def text(self, value: Cell, style: str = "") -> Text:
        """Return a cell as text that neither rich nor the terminal interprets."""
        if isinstance(value, Text):
            return value
        if isinstance(value, float):
            value = f"{value:g}"
        return Text(clean(str(value), ascii_only=self.ascii_only), style=style)

    def bar(self, fraction: float, cells: int, style: str = "cyan") -> Text:
        """Return a bar of `fraction` of `cells`."""
        fraction = min(max(fraction, 0.0), 1.0) if fraction == fraction else 0.0
        if self.ascii_only:
            return Text("#" * round(fraction * cells), style)
        full, part = divmod(round(fraction * cells * 8), 8)
        return Text("█" * full + _EIGHTHS[part].strip(), style)

    def print(self, *parts: RenderableType) -> None:
        """Print parts one under the other, without blanks at the ends of lines."""
        segments: list[Segment] = []
        for line in self._console.render_lines(Group(*parts), pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
            segments += [*line, Segment.line()]
        self._console.print(Segments(segments), end="")

    def section(self, title: str, *body: RenderableType, note: str = "") -> Group:
        """Return a headed part, indented, with an optional remark beside the heading."""
        head = self.text(title, HEADING)
        if note:
            head.append_text(self.text(f"  {note}", "dim"))
        return Group(head, *(Padding(part, (0, 0, 0, _INDENT), expand=False) for part in body), "")

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        flex: int | None = None,
        optional: Sequence[int] = (),
        total: bool = False,
    ) -> Table:
        """Return a table no wider than the page; columns that hold only quantities are aligned right.

        The column `flex` takes what width is left, its texts shortened in the middle; for its sake `optional`
        columns are left out, the first before the last. Without it texts wrap and are shown whole.
        `total`: the last row is bold.
        """
        cells = [[self.text(cell) for cell in row] for row in rows]
        heads = [self.text(name, "dim") for name in columns]
        keep = list(range(len(columns)))
        if flex is not None:
            self._cap(cells, flex)
            keep, room = self._fit([heads, *cells], flex, optional)
            self._cap_column(cells, flex, room)
        elif cells:
            heads = self._headings(heads, cells)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, border_style="dim")
        for i in keep:
            numbers = _quantities([row[i].plain for row in cells])
            side: JustifyMethod = "right" if numbers else "left"
            whole = numbers or flex is not None
            cut: OverflowMethod = "ellipsis" if whole else "fold"
            table.add_column(heads[i], justify=side, no_wrap=whole, overflow=cut)
        for row in cells:
            table.add_row(*(row[i] for i in keep), style="bold" if total and row is cells[-1] else None)
        return table

    def _headings(self, heads: list[Text], cells: list[list[Text]]) -> list[Text]:
        """Return headings, long ones of quantities in lines where texts would have no room beside them."""
        columns = [[row[i].plain for row in cells] for i in range(len(heads))]
        numbers = [_quantities(column) for column in columns]
        least = sum(
            max(cell_len(text) for text in (head.plain, *column)) if number else _LINE
            for head, column, number in zip(heads, columns, numbers, strict=True)
        )
        if self.width - _INDENT >= least + _GAP * (len(heads) - 1):
            return heads
        return [
            Text("\n".join(wrap(head.plain, _LINE, break_long_words=False)), head.style) if number else head
            for head, number in zip(heads, numbers, strict=True)
        ]

    def _cap(self, cells: list[list[Text]], flex: int) -> None:
        """Shorten the cells of all columns but one to the most that any may take."""
        for column in range(len(cells[0]) if cells else 0):
            if column != flex:
                self._cap_column(cells, column, _CAP)

    def _cap_column(self, cells: list[list[Text]], column: int, width: int) -> None:
        gap = ".." if self.ascii_only else "…"
        for row in cells:
            if cell_len(row[column].plain) > width:
                row[column] = Text(shorten(row[column].plain, width, gap=gap), row[column].style)

    def _fit(self, rows: list[list[Text]], flex: int, optional: Sequence[int]) -> tuple[list[int], int]:
        """Return the columns that fit, and the room for `flex`; the last optional one is tried first."""
        widths = [max(cell_len(row[i].plain) for row in rows) for i in range(len(rows[0]))]

        def room(columns: Iterable[int]) -> int:
            return self.width - _INDENT - sum(widths[i] + _GAP for i in columns if i != flex)

        keep = [i for i in range(len(widths)) if i not in optional]
        for i in reversed(optional):
            if room([*keep, i]) >= min(_LEAST, widths[flex]):
                keep = sorted([*keep, i])
        return keep, max(room(keep), 4)


def _quantities(column: Sequence[str]) -> bool:
    """Return whether there is something in the column, and it is numbers, with units or without."""
    filled = [text for text in column if text]
    return bool(filled) and all(map(_QUANTITY.fullmatch, filled))


def beside(page: Page, left: RenderableType, right: RenderableType, *, least: int) -> RenderableType:
    """Return two parts side by side on a page of at least that width, else one above the other."""
    if page.width < least:
        return Group(left, right)
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_row(left, right)
    return grid
