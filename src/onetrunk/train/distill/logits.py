"""The teacher's predictions as targets (Hinton, Vinyals & Dean 2015), by kind of task.

| kind | loss | mean over |
|---|---|---|
| classify | T²·KL(softmax(t/T) ‖ softmax(s/T)) | images |
| segment | the same | pixels |
| multilabel | T²·KL of the two-sided probabilities sigmoid(·/T) | (image, class) pairs |
| regress, depth, normals | the task's own loss, the teacher's answer its target | as there |

An embedding has no answer of its own to teach; its features have.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.train.losses import make_loss

Predictions = Callable[[Tensor, Tensor], Tensor]  # (student's, teacher's) to a scalar


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) over dimension 1, mean over all the others."""
    t = F.log_softmax(teacher / temperature, 1)
    s = F.log_softmax(student / temperature, 1)
    return temperature**2 * (t.exp() * (t - s)).sum(1).mean()


def two_sided(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL of each label's two outcomes, mean over images and labels."""
    t, s = teacher / temperature, student / temperature
    p = torch.sigmoid(t)
    on = p * (F.logsigmoid(t) - F.logsigmoid(s))
    off = (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return temperature**2 * (on + off).mean()


def make_predictions(task: Task, domain: Domain | None, temperature: float) -> Predictions | None:
    """The loss between two networks' predictions to this task; None where there is none.

    `domain`: whose training labels give numbers their scale.
    """
    if task.kind in ("classify", "segment"):
        return lambda s, t: softened(s, t, temperature)
    if task.kind == "multilabel":
        return lambda s, t: two_sided(s, t, temperature)
    if task.kind == "embed":
        return None
    own = make_loss(task, domain)
    if task.kind == "depth":
        return lambda s, t: own(s, t[:, 0])
    return own
