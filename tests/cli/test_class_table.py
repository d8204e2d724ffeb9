"""The table of the scores of classes: shares in percent, and what is not defined."""

from __future__ import annotations

from io import StringIO

import numpy as np
from rich.console import Console

from onetrunk.cli.class_table import class_table
from onetrunk.eval.metrics.by_class import class_scores


def test_shares_are_in_percent_and_names_are_text() -> None:
    right, predicted, support = (np.array(n) for n in ((3, 0, 0), (4, 0, 1200), (4, 2, 1500)))
    classes = class_scores(["[red]cat", "dog\x1b[31m", "cow"], right, predicted, support)
    paper = Console(file=StringIO(), width=120)
    table = class_table("pets: classes", classes)
    paper.print(table)
    headings = [str(column.header) for column in table.columns]
    assert headings == ["class", "support", "predicted", "precision %", "recall %", "F1 %"]
    assert isinstance(paper.file, StringIO)
    shown = paper.file.getvalue()
    lines = [line for line in shown.splitlines() if "│" in line]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert rows[0] == ["[red]cat", "4", "4", "75.0", "75.0", "75.0"]
    assert rows[1] == [r"dog\x1b[31m", "2", "0", "–", "0.0", "0.0"]  # it was never predicted
    assert rows[2] == ["cow", "1,500", "1,200", "0.0", "0.0", "0.0"]
    assert rows[3] == ["macro mean", "1,506", "1,204", "25.0", "25.0", "25.0"]
    assert rows[4] == ["weighted mean", "1,506", "1,204", "0.2", "0.2", "0.2"]
    assert len(rows) == 5
