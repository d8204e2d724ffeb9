"""The table of scores: one row for each domain, task and metric; as text, JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import rich.table
from rich.console import Console
from rich.markup import escape

from onetrunk.data.task import KINDS, check_name
from onetrunk.errors import BadInput, printable

Better = Literal["lower", "higher"]
LATEX = {c: rf"\{c}" for c in "%_&#${}"} | {
    "°": r"$^\circ$",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}


@dataclass(frozen=True)
class Row:
    """One number: which metric of which task of which domain, over how many images.

    `headline`: the one score by which its kind of task is evaluated; `low`, `high`: its 95 % interval,
    where one is known.
    """

    domain: str
    task: str
    metric: str
    value: float
    count: int
    kind: str
    unit: str = ""
    better: Better = "lower"
    headline: bool = False
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        where = f"{self.domain}/{self.task}/{self.metric}"
        check_name(self.domain, "domain")
        check_name(self.task, "task")
        if self.kind not in KINDS:
            raise BadInput(f"{where}: unknown kind of task", got=self.kind, available=KINDS)
        if self.better not in ("lower", "higher"):
            raise BadInput(f"{where}: better is", got=self.better, available=("lower", "higher"))
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is None and name != "value":
                continue
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise BadInput(f"{where}: {name} is a number", got=type(number).__name__)
            if not math.isfinite(number):
                raise BadInput(f"{where}: {name} is a finite number", got=number)
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 0:
            raise BadInput(f"{where}: count is a whole number of images", got=self.count)

    @property
    def shown(self) -> str:
        """The value as people read it, with its unit and interval: `4.21 % (3.50–4.92)`."""
        return f"{number(self.value, self.unit)}{spaced(self.unit)}{self.interval}"

    @property
    def interval(self) -> str:
        """` (low–high)`, or nothing where none is known."""
        if self.low is None or self.high is None:
            return ""
        return f" ({number(self.low, self.unit)}–{number(self.high, self.unit)})"


FIELDS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Table:
    """Rows in the order of domains and tasks, each task's headline first; `split`: of what;
    `views`: what each map was averaged over, where it was."""

    rows: tuple[Row, ...] = ()
    split: str = ""
    views: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        met: set[tuple[str, str, str]] = set()
        for row in self.rows:
            if not isinstance(row, Row):
                raise BadInput("a table consists of rows", got=type(row).__name__)
            name = (row.domain, row.task, row.metric)
            if name in met:
                raise BadInput("a table has each metric of a task once", got="/".join(name))
            met.add(name)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(row.domain for row in self.rows))

    def tasks(self, domain: str) -> tuple[str, ...]:
        """Names of a domain's tasks, in order."""
        if domain not in self.domains:
            raise BadInput("the table has no such domain", got=domain, available=self.domains)
        return tuple(dict.fromkeys(row.task for row in self.rows if row.domain == domain))

    def row(self, domain: str, task: str | None = None, metric: str | None = None) -> Row:
        """One row: `task` may be left out where the domain has one; `metric`: the headline."""
        tasks = self.tasks(domain)
        if task is None:
            if len(tasks) > 1:
                raise BadInput(f"{domain} has several tasks", got="no task", available=tasks)
            task = tasks[0]
        elif task not in tasks:
            raise BadInput(f"{domain} has no such task", got=task, available=tasks)
        mine = [row for row in self.rows if (row.domain, row.task) == (domain, task)]
        for row in mine:
            if row.headline if metric is None else row.metric == metric:
                return row
        raise BadInput(
            f"{domain}/{task} has no such metric",
            got="the headline" if metric is None else metric,
            available=[row.metric for row in mine],
        )

    def value(self, domain: str, task: str | None = None, metric: str | None = None) -> float:
        """The number of one row; see `row`."""
        return self.row(domain, task, metric).value

    def headlines(self) -> tuple[Row, ...]:
        """The one row of each task by which it is evaluated."""
        return tuple(row for row in self.rows if row.headline)

    def errors(self) -> dict[str, float]:
        """Error in percent of each domain that classifies (mean over its classify tasks)."""
        return {
            domain: math.fsum(row.value for row in rows) / len(rows)
            for domain, rows in self._classify().items()
        }

    def counts(self) -> dict[str, int]:
        """Images that the errors are of (the fewest, where a domain has several such tasks)."""
        return {d: min(row.count for row in rows) for d, rows in self._classify().items()}

    def _classify(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in self.headlines():
            if row.kind == "classify":
                found.setdefault(row.domain, []).append(row)
        return found

    def to_json(self) -> dict[str, Any]:
        """A plain document; `from_json` reads it back."""
        said = {"views": self.views} if self.views else {}
        return {"split": self.split, **said, "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Table:
        """The table that `to_json` wrote; whatever is wrong with it is a BadInput."""
        try:
            split, rows, views = document["split"], document["rows"], document.get("views", "")
            if not all(isinstance(text, str) for text in (split, views)):
                raise TypeError("split and views are texts")
            if not isinstance(rows, list):
                raise TypeError("rows are a list")
            for row in rows:
                if not all(isinstance(row[k], str) for k in ("domain", "task", "metric", "unit")):
                    raise TypeError("names and units are texts")
                if not isinstance(row["headline"], bool):
                    raise TypeError("headline is true or false")
            return cls(tuple(Row(**row) for row in rows), split, views)
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput("this is no table of scores", got=f"{error!r}"[:120]) from None

    def to_csv(self) -> str:
        """Every row with every field; numbers as they are, not rounded."""
        text = io.StringIO()
        said = {"views": self.views} if self.views else {}
        writer = csv.DictWriter(text, [*FIELDS, *said], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), **said} for row in self.rows)
        return text.getvalue()

    def to_latex(self) -> str:
        """A tabular of the booktabs package; headlines in bold."""
        lines = [
            *([f"% {printable(self.views)}"] if self.views else []),
            r"\begin{tabular}{lllrrr}",
            r"\toprule",
            r"domain & task & metric & value & 95\,\% interval & images \\",
            r"\midrule",
        ]
        before = ("", "")
        for row in self.rows:
            if before[0] and before[0] != row.domain:
                lines.append(r"\addlinespace")
            names = ["" if (row.domain, row.task) == before else row.task]
            names.insert(0, "" if row.domain == before[0] else row.domain)
            before = (row.domain, row.task)
            metric = row.metric + (f" ({row.unit})" if row.unit else "")
            value, span = number(row.value, row.unit), row.interval.strip(" ()").replace("–", "--")
            cells = [*map(_latex, (*names, metric)), value, span, str(row.count)]
            if row.headline:
                cells[3] = rf"\textbf{{{value}}}"
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def table(self) -> rich.table.Table:
        """For people: a line for each domain and task, its headline with interval first."""
        said = [f"scores on {self.split}"] * bool(self.split) + [self.views] * bool(self.views)
        table = rich.table.Table(title=escape(", ".join(said)) or None)
        for column in ("domain", "task"):
            table.add_column(column, no_wrap=True)
        table.add_column("images", justify="right", no_wrap=True)
        table.add_column("score (95 %)", no_wrap=True)
        table.add_column("also")
        for domain in self.domains:
            for task in self.tasks(domain):
                mine = [row for row in self.rows if (row.domain, row.task) == (domain, task)]
                first = next((row for row in mine if row.headline), mine[0])
                also = ", ".join(f"{row.metric} {row.shown}" for row in mine if row is not first)
                cells = (domain, task, f"{first.count:,}", f"{first.metric} {first.shown}", also)
                table.add_row(*(escape(printable(cell)) for cell in cells))
        errors = self.errors()
        if len(errors) > 1:
            mean = math.fsum(errors.values()) / len(errors)
            table.add_section()
            table.add_row(f"mean of {len(errors)}", "", "", f"error {number(mean, '%')} %", "")
        return table

    def __rich__(self) -> rich.table.Table:
        return self.table()

    def __str__(self) -> str:
        console = Console(width=120)
        with console.capture() as text:
            console.print(self.table())
        return text.get()


def number(value: float, unit: str = "") -> str:
    """Percents and degrees to a hundredth, everything else to four digits."""
    if unit in ("%", "°"):
        return f"{value:.2f}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def spaced(unit: str) -> str:
    """A unit behind its number: degrees stand close, all others apart."""
    return unit if unit in ("", "°") else f" {unit}"


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in printable(text))
