"""The geometry of confusion matrices and reliability diagrams, drawn by classes.html.j2 as SVG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onetrunk.eval.metrics.calibration import Reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix

SHOWN = 20  # classes of a confusion matrix; of more, those that are confused most
LETTERS = 16  # of a class name
LETTER = 6.4  # pixels, the width of a letter at 11 pixels
CELL = 25.0  # pixels
DARK = 0.55  # share from which letters are light
PLOT, LEFT, BOTTOM, TOP = 220.0, 34.0, 62.0, 8.0  # pixels of a reliability diagram
COUNTS = 26.0  # pixels: the height of the bars that count images


@dataclass(frozen=True)
class Label:
    """A class name at a row or column, shortened; the full name is its tooltip."""

    at: float
    text: str
    name: str


@dataclass(frozen=True)
class ConfusionCell:
    """A cell with images: its place, the share of the row, and a tooltip."""

    x: float
    y: float
    text: str
    share: float
    title: str

    @property
    def dark(self) -> bool:
        """Whether its colour is so strong that its letters are light."""
        return self.share > DARK


@dataclass(frozen=True)
class ConfusionChart:
    """A confusion matrix in pixels."""

    label: str
    width: float
    height: float
    left: float
    top: float
    cell: float
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cells: tuple[ConfusionCell, ...]
    shown: int  # classes
    total: int


@dataclass(frozen=True)
class ReliabilityBar:
    """One bin: the tops of accuracy and mean confidence, and of the bar that counts images."""

    x: float
    width: float
    accuracy: float
    confidence: float
    count: float
    over: bool  # more confident than right
    title: str


@dataclass(frozen=True)
class ReliabilityChart:
    """A reliability diagram in pixels."""

    label: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float  # of the diagram
    base: float  # of the bars that count images
    ticks: tuple[tuple[float, float, str], ...]  # x, y and text
    bars: tuple[ReliabilityBar, ...]


def confusion_chart(matrix: ConfusionMatrix, label: str) -> ConfusionChart:
    """Place the most confused classes of a matrix; colours are shares of the true class."""
    shown = matrix.most_confused(SHOWN)
    support = dict(zip(matrix.labels, matrix.support.tolist(), strict=True))
    names = [*map(_shorten, shown.labels)]
    tops = [*map(_shorten, shown.columns)]
    left = LETTER * max(map(len, names)) + 10
    top = LETTER * max(map(len, tops)) + 10
    columns = shown.columns
    cells = tuple(
        ConfusionCell(
            x=left + CELL * p,
            y=top + CELL * t,
            text=f"{n}" if n < 1000 else f"{n // 1000}k",
            share=n / support[columns[t]],
            title=f"{n:,} images of {columns[t]} ({n / support[columns[t]]:.0%}) "
            f"predicted as {columns[p]}",
        )
        for t, p, n in shown.cells.tolist()
    )
    return ConfusionChart(
        label=label,
        width=left + CELL * len(columns) + 2,
        height=top + CELL * len(names) + 2,
        left=left,
        top=top,
        cell=CELL,
        rows=_labels(top, names, shown.labels),
        columns=_labels(left, tops, columns),
        cells=cells,
        shown=len(names),
        total=len(matrix.labels),
    )


def reliability_chart(found: Reliability, label: str) -> ReliabilityChart:
    """Place the bins of a reliability diagram."""
    bottom, base = TOP + PLOT, TOP + PLOT + 6 + COUNTS
    most = max(*(each.count for each in found.bins), 1)
    bars = tuple(
        ReliabilityBar(
            x=LEFT + PLOT * each.low + 0.5,
            width=PLOT * (each.high - each.low) - 1,
            accuracy=bottom - PLOT * each.accuracy,
            confidence=bottom - PLOT * each.confidence,
            count=base - COUNTS * each.count / most,
            over=each.confidence > each.accuracy,
            title=f"confidence {each.low:.2f} to {each.high:.2f}: {each.count:,} images, "
            f"accuracy {each.accuracy:.0%}, mean confidence {each.confidence:.0%}",
        )
        for each in found.bins
        if each.accuracy is not None and each.confidence is not None
    )
    return ReliabilityChart(
        label=label,
        width=LEFT + PLOT + 12,
        height=TOP + PLOT + BOTTOM,
        left=LEFT,
        right=LEFT + PLOT,
        top=TOP,
        bottom=bottom,
        base=base,
        ticks=tuple((LEFT + PLOT * t, bottom - PLOT * t, f"{t:g}") for t in np.linspace(0, 1, 6)),
        bars=bars,
    )


def _labels(start: float, texts: list[str], names: tuple[str, ...]) -> tuple[Label, ...]:
    return tuple(
        Label(start + CELL * (i + 0.5), text, name)
        for i, (text, name) in enumerate(zip(texts, names, strict=True))
    )


def _shorten(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
