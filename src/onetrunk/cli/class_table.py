"""The scores of classes as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from onetrunk.errors import printable
from onetrunk.eval.metrics.by_class import (
    ClassScores,
    macro_mean,
    shown_fields,
    weighted_mean,
)

HEADINGS = {"label": "class", "f1": "F1", "average_precision": "AP", "iou": "IoU"}


def class_table(title: str, classes: Sequence[ClassScores]) -> Table:
    """Return a table with a row for each class and for the means over them; shares in percent."""
    names = shown_fields(classes)
    table = Table(title=escape(title), title_justify="left")
    for name in names:
        heading = HEADINGS.get(name, name)
        unit = "" if name in ("label", "support", "predicted") else " %"
        justify = "left" if name == "label" else "right"
        table.add_column(heading + unit, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for one in classes:
        table.add_row(*(_cell(one, name) for name in names))
    table.add_section()
    for mean in (macro_mean(classes), weighted_mean(classes)):
        table.add_row(*(_cell(mean, name) for name in names))
    return table


def _cell(one: ClassScores, name: str) -> str:
    value = getattr(one, name)
    if value is None:
        return "–"
    if isinstance(value, str):
        return escape(printable(value))
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f}"
