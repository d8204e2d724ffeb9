"""What an object shows: one line as its `repr`, a few lines in `print`, a table in a notebook."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from onetrunk.errors import printable

GAP = "  "  # between two columns


@dataclass(frozen=True)
class Summary:
    """A title, facts, and a table.

    Names and labels are arbitrary text: both forms escape them.

    Args:
        facts: Pairs of a name and a value.
        columns: The names of the table's columns.
        rows: The cells of the table, as many per row as there are columns.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def __str__(self) -> str:
        lines = [printable(self.title)]
        lines += [f"{GAP}{printable(name)}: {printable(value)}" for name, value in self.facts]
        table = [self.columns, *self.rows] if self.rows else []
        cells = [[printable(cell) for cell in row] for row in table]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(GAP + GAP.join(padded).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """Return the summary as HTML without scripts and styles."""
        parts = [f"<p><strong>{_escape(self.title)}</strong></p>"]
        if self.facts:
            pairs = (
                f"<tr><th>{_escape(name)}</th><td>{_escape(value)}</td></tr>"
                for name, value in self.facts
            )
            parts.append(f"<table><tbody>{''.join(pairs)}</tbody></table>")
        if self.rows:
            head = "".join(f"<th>{_escape(name)}</th>" for name in self.columns)
            body = "".join(
                f"<tr>{''.join(f'<td>{_escape(cell)}</td>' for cell in row)}</tr>"
                for row in self.rows
            )
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        return "\n".join(parts)


class Described:
    """An object with a summary."""

    @abstractmethod
    def summary(self) -> Summary:
        """Return what matters about the object."""

    def __repr__(self) -> str:
        return printable(self.summary().title)

    def __str__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary().html()


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Format a count: `1 image`, `2,000 images`.

    Args:
        nouns: The plural, if it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def three_digits(number: float) -> str:
    """Format a number with three digits, zeros at the end included: `1.10`; larger ones whole."""
    return f"{number:#.3g}".rstrip(".") if abs(number) < 999.5 else f"{number:.0f}"


def scaled(number: float, unit: str = "") -> str:
    """Format a number with three digits and a prefix: `5.58 M`, `22.4 MB`, `37 B`."""
    if number < 999.5:  # 999.5 rounds to four digits
        return f"{number:.3g} {unit}".strip()
    for prefix in ("k", "M", "G"):
        number /= 1000
        if number < 999.5:
            return f"{three_digits(number)} {prefix}{unit}"
    return f"{three_digits(number / 1000)} T{unit}"


def _escape(text: str) -> str:
    return html.escape(printable(text))
