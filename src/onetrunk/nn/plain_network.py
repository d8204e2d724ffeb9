"""A plain network for one domain: what remains of a universal one when nothing has to switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from onetrunk.nn.card import Card
from onetrunk.nn.heads import Heads
from onetrunk.nn.trunk import Trunk

if TYPE_CHECKING:
    from onetrunk.nn.fold import FoldReport


class Plain(nn.Module):
    """Normalized images of one domain to {task: tensor}."""

    def __init__(self, card: Card, trunk: Trunk, heads: Heads) -> None:
        super().__init__()
        self.card = card
        self.trunk = trunk
        self.heads = heads
        self.report: FoldReport | None = None  # what was folded, where something was

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """As the model's own answer for this domain."""
        heads = self.heads
        maps = heads.decoder.levels if heads.decoder is not None else ()
        pooled, pyramid = self.trunk(images_BCHW, heads.needs_pooled, maps)
        size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
        prediction: dict[str, Tensor] = heads(pooled, dict(zip(maps, pyramid, strict=True)), size)
        return prediction
