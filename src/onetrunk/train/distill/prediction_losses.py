"""Losses between a student's predictions and a teacher's (Hinton, Vinyals & Dean 2015).

| kind | loss | mean over |
|---|---|---|
| classify | T²·KL(softmax(t/T) ‖ softmax(s/T)) | images |
| segment | the same | pixels |
| multilabel | T²·KL of the Bernoulli distributions sigmoid(·/T) | (image, class) pairs |
| regress, depth, normals | the loss of the labels, with the teacher's prediction as target | |

There is none for `embed`: a student learns embeddings from features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.train.losses import make_loss

PredictionLoss = Callable[[Tensor, Tensor], Tensor]  # (student's, teacher's) to a scalar


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(teacher ‖ student) over dimension 1, averaged over all other dimensions."""
    t = F.log_softmax(teacher / temperature, 1)
    s = F.log_softmax(student / temperature, 1)
    return temperature**2 * (t.exp() * (t - s)).sum(1).mean()


def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(teacher ‖ student) of each label's probability, averaged over all labels."""
    t, s = teacher / temperature, student / temperature
    p = torch.sigmoid(t)
    on = p * (F.logsigmoid(t) - F.logsigmoid(s))
    off = (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return temperature**2 * (on + off).mean()


def make_prediction_loss(
    task: Task, domain: Domain | None, temperature: float
) -> PredictionLoss | None:
    """Return the loss for a task; None if its kind has none.

    Args:
        domain: Its training labels give the scale of predicted numbers.
    """
    if task.kind in ("classify", "segment"):
        return lambda s, t: softmax_kl(s, t, temperature)
    if task.kind == "multilabel":
        return lambda s, t: sigmoid_kl(s, t, temperature)
    if task.kind == "embed":
        return None
    label_loss = make_loss(task, domain)
    if task.kind == "depth":
        return lambda s, t: label_loss(s, t[:, 0])
    return label_loss
