"""The network of one domain without banks, as `Universal.for_domain` returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from onetrunk.nn.card import Card
from onetrunk.nn.feature_points import Predictions
from onetrunk.nn.heads import Heads
from onetrunk.nn.pieces import Plans
from onetrunk.nn.trunk import Trunk

if TYPE_CHECKING:
    from onetrunk.nn.fold import FoldReport


class DomainNetwork(nn.Module):
    """A plain network for one domain: normalized images to {task: tensor}."""

    def __init__(self, card: Card, trunk: Trunk, heads: Heads) -> None:
        super().__init__()
        self.card = card
        self.trunk = trunk
        self.heads = heads
        self.report: FoldReport | None = None  # of folding
        self._plans = Plans()

    def forward(self, images_BCHW: Tensor) -> Predictions:
        """Return the predictions of this domain by task."""
        card = self.card

        def divisible() -> bool:
            return self.trunk.divisible(card.name, card.pixels.size, self.modules())

        return self._plans.run(self._run, images_BCHW, card.name, divisible)

    def _run(self, images_BCHW: Tensor) -> Predictions:
        heads = self.heads
        levels = heads.decoder.levels if heads.decoder is not None else ()
        pooled, pyramid = self.trunk(images_BCHW, heads.needs_pooled, levels)
        size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
        maps = dict(zip(levels, pyramid, strict=True))
        return heads(pooled, maps, size)  # type: ignore[no-any-return]

    if TYPE_CHECKING:
        __call__ = forward
