"""Tables of scores with one row per domain, task and metric, as text, JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

import rich.table
from annotated_types import Ge
from pydantic import ConfigDict
from rich.console import Console
from rich.markup import escape

from onetrunk.data.task import KINDS, check_name
from onetrunk.display import Described, Summary, plural
from onetrunk.errors import BadInput, printable
from onetrunk.settings import read_dataclass
from onetrunk.store.csv_text import csv_text

Better = Literal["lower", "higher"]
LATEX = {c: rf"\{c}" for c in "%_&#${}"} | {
    "°": r"$^\circ$",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}


@dataclass(frozen=True)
class Row:
    """The value of one metric of one task.

    Args:
        count: The number of images.
        headline: Whether this is the one metric by which tasks of this kind are compared.
        low: The lower end of the 95 % interval, where it is known.
        high: The upper end of the 95 % interval.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # of from_json

    domain: str
    task: str
    metric: str
    value: float
    count: Annotated[int, Ge(0)]
    kind: str
    unit: str = ""
    better: Better = "lower"
    headline: bool = False
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        name = f"{self.domain}/{self.task}/{self.metric}"
        check_name(self.domain, "domain")
        check_name(self.task, "task")
        if self.kind not in KINDS:
            raise BadInput(f"expected a kind of task for {name}", got=self.kind, available=KINDS)
        for field in ("value", "low", "high"):
            number = getattr(self, field)
            if number is not None and not math.isfinite(number):
                raise BadInput(f"expected a finite number as the {field} of {name}", got=number)

    @property
    def text(self) -> str:
        """The value with its unit and interval: `4.21 % (3.50–4.92)`."""
        return f"{number(self.value, self.unit)}{spaced(self.unit)}{self.interval}"

    @property
    def interval(self) -> str:
        """` (low–high)`, or nothing if the interval is not known."""
        if self.low is None or self.high is None:
            return ""
        return f" ({number(self.low, self.unit)}–{number(self.high, self.unit)})"


FIELDS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True, repr=False)
class Table(Described):
    """Rows in the order of domains and tasks, the headline of each task first.

    Args:
        split: The split that was evaluated.
        views: The views that dense predictions were averaged over, if any.
    """

    rows: tuple[Row, ...]
    split: str
    views: str = ""

    def __post_init__(self) -> None:
        keys: set[tuple[str, str, str]] = set()
        for row in self.rows:
            key = (row.domain, row.task, row.metric)
            if key in keys:
                raise BadInput("expected each metric of a task once", got="/".join(key))
            keys.add(key)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains, in order."""
        return tuple(dict.fromkeys(row.domain for row in self.rows))

    def tasks(self, domain: str) -> tuple[str, ...]:
        """Return the names of a domain's tasks, in order."""
        if domain not in self.domains:
            raise BadInput("expected a domain of the table", got=domain, available=self.domains)
        return tuple(dict.fromkeys(row.task for row in self.rows if row.domain == domain))

    def row(self, domain: str, task: str | None = None, metric: str | None = None) -> Row:
        """Return one row, by default the headline of the domain's only task."""
        tasks = self.tasks(domain)
        if task is None:
            if len(tasks) > 1:
                raise BadInput(
                    f"expected one of the tasks of {domain}", got="none", available=tasks
                )
            task = tasks[0]
        elif task not in tasks:
            raise BadInput(f"expected a task of {domain}", got=task, available=tasks)
        rows = [row for row in self.rows if (row.domain, row.task) == (domain, task)]
        for row in rows:
            if row.headline if metric is None else row.metric == metric:
                return row
        raise BadInput(
            f"expected a metric of {domain}/{task}",
            got="the headline" if metric is None else metric,
            available=[row.metric for row in rows],
        )

    def value(self, domain: str, task: str | None = None, metric: str | None = None) -> float:
        """Return the value of one row; see `row`."""
        return self.row(domain, task, metric).value

    def headlines(self) -> tuple[Row, ...]:
        """Return the headline of each task."""
        return tuple(row for row in self.rows if row.headline)

    def errors(self) -> dict[str, float]:
        """Return the error in percent of each classification domain (mean over its tasks)."""
        return {
            domain: math.fsum(row.value for row in rows) / len(rows)
            for domain, rows in self._classify().items()
        }

    def scores_of(self, domain: str) -> dict[str, float]:
        """Return a domain's scores by "split/task/metric", with the ends of intervals."""
        scores = {}
        for row in self.rows:
            if row.domain == domain:
                key = f"{self.split}/{row.task}/{row.metric}"
                scores[key] = row.value
                if row.low is not None and row.high is not None:
                    scores |= {f"{key}/low": row.low, f"{key}/high": row.high}
        return scores

    def counts(self) -> dict[str, int]:
        """Return the number of images behind each error (the smallest over a domain's tasks)."""
        return {d: min(row.count for row in rows) for d, rows in self._classify().items()}

    def _classify(self) -> dict[str, list[Row]]:
        by_domain: dict[str, list[Row]] = {}
        for row in self.headlines():
            if row.kind == "classify":
                by_domain.setdefault(row.domain, []).append(row)
        return by_domain

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        views = {"views": self.views} if self.views else {}
        return {"split": self.split, **views, "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Table:
        """Return the table that `to_json` wrote; an invalid document raises BadInput."""
        return read_dataclass(Table, document)

    def to_csv(self) -> str:
        """Return all fields of all rows as CSV, without rounding."""
        text = io.StringIO()
        views = {"views": self.views} if self.views else {}
        writer = csv.DictWriter(text, [*FIELDS, *views], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "unit": csv_text(row.unit), **views} for row in self.rows)
        return text.getvalue()

    def to_latex(self) -> str:
        """Return a LaTeX tabular (package booktabs) with the headlines in bold."""
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
        """Return the table for a terminal, with one line per domain and task."""
        title = f"scores on {self.split}" + f", {self.views}" * bool(self.views)
        table = rich.table.Table(title=escape(title))
        for column in ("domain", "task"):
            table.add_column(column, no_wrap=True)
        table.add_column("images", justify="right", no_wrap=True)
        table.add_column("score (95 %)", no_wrap=True)
        table.add_column("also")
        for domain in self.domains:
            for task in self.tasks(domain):
                rows = [row for row in self.rows if (row.domain, row.task) == (domain, task)]
                first = next((row for row in rows if row.headline), rows[0])
                also = ", ".join(f"{row.metric} {row.text}" for row in rows if row is not first)
                cells = (domain, task, f"{first.count:,}", f"{first.metric} {first.text}", also)
                table.add_row(*(escape(printable(cell)) for cell in cells))
        errors = self.errors()
        if len(errors) > 1:
            mean = math.fsum(errors.values()) / len(errors)
            table.add_section()
            table.add_row(f"mean of {len(errors)}", "", "", f"error {number(mean, '%')} %", "")
        return table

    def summary(self) -> Summary:
        """Return the headline of every task."""
        rows = [(r.domain, r.task, r.metric, r.text, f"{r.count:,}") for r in self.headlines()]
        title = f"Table({self.split}, {plural(len(self.domains), 'domain')})"
        views = [("maps", self.views)] if self.views else []
        columns = ("domain", "task", "metric", "score", "images")
        return Summary(title, views, columns, rows)

    def __rich__(self) -> rich.table.Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table())


def as_text(table: rich.table.Table) -> str:
    """Return a table as it is printed on a terminal of 120 columns."""
    console = Console(width=120)
    with console.capture() as text:
        console.print(table)
    return text.get()


def number(value: float, unit: str = "") -> str:
    """Format a number: percent and degrees with two decimals, all others with four digits."""
    if unit in ("%", "°"):
        return f"{value:.2f}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def spaced(unit: str) -> str:
    """Return the unit with a space before it, except for degrees."""
    return unit if unit in ("", "°") else f" {unit}"


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in printable(text))
