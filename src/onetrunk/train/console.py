"""The console logger: a live table on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from onetrunk.progress import EVERY, Cell, say

REFRESH = 0.1  # seconds between two updates of the table
CELL_WIDTH = 100  # columns of the table in a notebook
NARROW = 60  # columns of a terminal, below which the table leaves out rates and metric names
NAMED = 8  # domains named in a plain line


@dataclass
class Line:
    """The newest values of one domain."""

    loss: dict[str, float] = field(default_factory=dict)  # by task
    val: dict[str, float] = field(default_factory=dict)  # by task and metric
    rate: float | None = None  # images per second


class ConsoleLogger:
    """Shows the training on standard error."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._cell: Cell | None = None  # of a notebook
        self._lines: dict[str, Line] = {}
        self._part, self._step, self._steps = "", 0, 0
        self._left: float | None = None
        self._seconds = 0.0
        self._best: tuple[float, int] | None = None  # score and step
        self._drawn = self._printed = 0.0
        self._begun = False

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Start a new table."""
        self.end()
        self._part, self._step, self._steps = plan["part"], plan["step"], plan["steps"]
        self._lines = {name: Line() for name in plan["domains"]}
        self._left, self._best, self._seconds = None, None, 0.0
        self._begun, self._printed, self._drawn = True, time.monotonic(), 0.0
        self._cell = Cell.current()
        console = Console(stderr=True)
        if self._cell is not None:
            self._draw_cell()
        elif sys.stderr.isatty() and not console.is_dumb_terminal:
            self._live = Live(self._table(console), console=console, auto_refresh=False)
            self._live.start()

    def log_step(self, record: Mapping[str, Any]) -> None:
        """Show losses, images per second, the time left."""
        self._step, self._left, self._seconds = record["step"], record["left_s"], record["seconds"]
        for unit, loss in record["loss"].items():
            domain, _, task = unit.partition("/")
            self._lines.setdefault(domain, Line()).loss[task] = loss
        for domain, rate in record["images_per_s"].items():
            self._lines.setdefault(domain, Line()).rate = rate
        now = time.monotonic()
        if self._live is not None or self._cell is not None:
            self._draw(now)
        elif now - self._printed >= EVERY:
            self._printed = now
            self._say(
                f"{self._at()}: loss {self._by_domain(lambda line: line.loss, _joined)}; "
                f"{self._rate():,.0f} images/s{self._remaining('; about {} left')}"
            )

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Show validation errors, and whether they are the best so far."""
        self._step = record["step"]
        for unit, value in record["val"].items():
            domain, _, task = unit.partition("/")
            self._lines.setdefault(domain, Line()).val[task] = value
        if record["best"] and record["val"]:
            self._best = record["score"], record["step"]
        now = time.monotonic()
        if self._live is not None or self._cell is not None:
            self._draw(now)
        elif record["val"]:  # no line if no domain has labels
            self._printed = now
            best = ", the best so far" if record["best"] else ""
            self._say(
                f"{self._at()}: validation {self._by_domain(lambda line: line.val, _val)}; "
                f"mean {number(record['score'])}{best}"
            )

    def end(self) -> None:
        """Leave the last table on the terminal, or print a last line."""
        if self._live is not None:
            self._live.update(self._table(self._live.console))
            self._live.stop()
            self._live = None
        elif self._cell is not None:
            self._draw_cell()
            self._cell = None
        elif self._begun:
            elapsed = f" after {duration(self._seconds)}" if self._seconds else ""
            self._say(f"{self._at()}: end{elapsed}{self._chosen('; best {} at step {}')}")
        self._begun = False

    def _draw(self, now: float) -> None:
        if now - self._drawn < REFRESH:
            return
        self._drawn = now
        if self._live is not None:
            self._live.update(self._table(self._live.console), refresh=True)
        else:
            self._draw_cell()

    def _draw_cell(self) -> None:
        """Show the table in a notebook, with room for all domains."""
        if self._cell is not None:
            console = Console(width=CELL_WIDTH, height=len(self._lines) + 6, color_system=None)
            with console.capture() as text:
                console.print(self._table(console))
            self._cell.show(text.get())

    def _table(self, console: Console) -> Group:
        width, height = console.size
        title = f"{self._part}: " if self._part else ""
        title += self._at() + self._remaining(" · {} left") + self._chosen(" · best {} at step {}")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        names = max(10, width // 4)  # columns: long names must leave room for numbers
        table.add_column("domain", no_wrap=True, overflow="ellipsis", max_width=names)
        columns = ["loss", "validation", *(["images/s"] if width >= NARROW else [])]
        for column in columns:
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        room = max(1, height - 4)  # rows, without title, header, count and cursor
        shown = list(self._lines.items())[:room]
        for name, line in shown:
            rate = "" if line.rate is None else f"{line.rate:,.0f}"
            cells = (_joined, _val) if width >= NARROW else (_bare, _bare)
            loss, val = cells[0](line.loss), cells[1](line.val)
            table.add_row(*map(Text, (name, loss, val, rate)[: 1 + len(columns)]))
        rows: list[Text | Table] = [Text(title, no_wrap=True, overflow="ellipsis"), table]
        if len(shown) < len(self._lines):
            more = f"… and {len(self._lines) - len(shown)} more domains"
            rows.append(Text(more, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*rows)

    def _at(self) -> str:
        return f"step {self._step:,}" + (f" of {self._steps:,}" if self._steps else "")

    def _remaining(self, form: str) -> str:
        return "" if self._left is None else form.format(duration(self._left))

    def _chosen(self, form: str) -> str:
        return (
            "" if self._best is None else form.format(number(self._best[0]), f"{self._best[1]:,}")
        )

    def _rate(self) -> float:
        return sum(line.rate or 0.0 for line in self._lines.values())

    def _by_domain(
        self, values_of: Callable[[Line], Mapping[str, float]], form: Callable[..., str]
    ) -> str:
        known = [(name, values_of(line)) for name, line in self._lines.items()]
        known = [(name, values) for name, values in known if values]
        named = [f"{name} {form(values)}" for name, values in known[:NAMED]]
        return ", ".join(named) + (f", … ({len(known)} domains)" if len(known) > NAMED else "")

    def _say(self, line: str) -> None:
        say(f"{self._part}: {line}" if self._part else line)


def number(value: float | None) -> str:
    """Format a number: three decimals below 10, two above."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}"


def duration(seconds: float) -> str:
    """Format a duration: 12 s, 3 min 20 s, 5 h 10 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600:,} h {total % 3600 // 60} min"


def _joined(values: Mapping[str, float]) -> str:
    """Format the number of one task; of several tasks, each with its name."""
    if len(values) == 1:
        return number(next(iter(values.values())))
    return " ".join(f"{task} {number(value)}" for task, value in values.items())


def _bare(values: Mapping[str, float]) -> str:
    """Format numbers without names."""
    return " ".join(map(number, values.values()))


def _val(values: Mapping[str, float]) -> str:
    """Format metrics: `error 12.30`; of several tasks `category 12.30 price 0.410`."""
    if len(values) == 1:
        ((unit, value),) = values.items()
        return f"{unit.rpartition('/')[2]} {number(value)}"
    return _joined({unit.partition("/")[0]: value for unit, value in values.items()})
