"""Mixup (Zhang et al. 2018): train on λx + (1 − λ)x̃ with λℓ(y) + (1 − λ)ℓ(ỹ), λ ~ Beta(α, α).

The partner x̃ is another image of the same batch, so batches stay pure.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.loader import Batch
from onetrunk.data.seeded import seed_of
from onetrunk.train.losses import Shares

MIXABLE = ("classify", "multilabel", "regress")  # kinds of tasks that a mixed image has targets for


class Mixup:
    """Mixes batches; the draws depend on seed, domain and step alone."""

    def __init__(self, alpha: float, seed: int) -> None:
        self.alpha, self.seed = alpha, seed

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Shares]:
        """Return the images to train on, and the targets with their shares of the loss."""
        if not self.alpha or len(batch.images) < 2:
            return batch.images, ((1.0, batch.targets),)
        key = [seed_of(self.seed, batch.domain, "mixup"), step]
        chance = np.random.Generator(np.random.Philox(key=key))
        share = float(chance.beta(self.alpha, self.alpha))
        order = torch.from_numpy(chance.permutation(len(batch.images))).to(batch.images.device)
        partners = {task: target[order] for task, target in batch.targets.items()}
        mixed = torch.lerp(batch.images[order], batch.images, share)
        return mixed, ((share, batch.targets), (1 - share, partners))
