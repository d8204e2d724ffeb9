"""The report of finished runs, for those who decide: `ot.report`.

What is measured and drawn lies in `onetrunk.report`, which knows neither recipes nor
losses; here it is given both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.eval.gradient_agreement import Loss
from onetrunk.report.write import write_report
from onetrunk.runs.open import Run
from onetrunk.train.losses import Losses

Place = str | PathLike[str]


def report(
    runs: Place | Sequence[Place],
    baseline: Place | None = None,
    out: Place = "report.html",
    images: bool = True,
) -> Path:
    """Write one self-contained page that answers "one network or N?"; its path.

    `runs`: folders of runs, each a column (the seeds of one recipe, `seed-0`, `seed-1`, …, are
    one); `baseline`: the run of separate networks, or a table of someone else's predictions.
    `images=False` leaves out every picture and every name of a file.
    """
    several = [runs] if isinstance(runs, str | PathLike) else list(runs)
    return write_report(
        several,
        baseline,
        Path(out),
        open_domains=lambda folder: list(Run(folder).domains.values()),
        make_loss=loss_of,
        images=images,
    )


def loss_of(domains: Sequence[Domain]) -> Loss:
    """A domain's loss as training sees it: the mean over its tasks."""
    losses = Losses(domains)

    def loss(name: str, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(losses(name, outputs, [(1.0, targets)]).values())).mean()

    return loss
