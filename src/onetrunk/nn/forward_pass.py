"""The forward pass of a universal network: pure batches, mixed batches, and batches joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn import batches, pieces
from onetrunk.nn.bank import Slots
from onetrunk.nn.card import Card
from onetrunk.nn.feature_points import (
    NO_POINTS,
    POOLED,
    Outputs,
    Points,
    Predictions,
    features_at,
    level_of,
)
from onetrunk.nn.heads import Heads
from onetrunk.nn.switch import Choice, Mixed
from onetrunk.nn.trunk import Trunk

Names = list[str] | tuple[str, ...]
_FIRST = itemgetter(0)


class ForwardPass(nn.Module):
    """Runs batches through a trunk and the heads of their domains."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = Slots()
        self.domains: dict[str, Card] = {}
        self._plans = pieces.Plans()

    @overload
    def forward(self, images: Tensor, domain: str) -> Predictions: ...

    @overload
    def forward(self, images: Tensor | Sequence[Tensor], domain: Names) -> list[Predictions]: ...

    @overload
    def forward(self, images: Tensor, domain: Tensor) -> dict[str, Predictions]: ...

    def forward(
        self, images: Tensor | Sequence[Tensor], domain: str | Names | Tensor
    ) -> Predictions | list[Predictions] | dict[str, Predictions]:
        """Return predictions by task for normalized images.

        One domain: {task: (B, …)}. A list of domains, one per image: a list of {task: (…)}, where
        images may be a list of several sizes. An index tensor: {domain: {task: (B, …)}}, every head
        over all images, of which row i is meaningful for the domain of image i.
        """
        if isinstance(domain, str):
            x = batches.check(images)
            return self._plans.run(self._pure(domain), x, domain, lambda: self._divisible([domain]))
        if isinstance(domain, Tensor):
            x = batches.check(images)
            if domain.ndim != 1 or domain.shape[0] != x.shape[0]:
                raise BadInput(
                    "expected an index with one number per image", got=tuple(domain.shape)
                )
            pooled, maps = self._features(x, Mixed(domain), list(self.domains))
            size = x.shape[-2:]
            return {name: self.heads_of(name)(pooled, maps, size) for name in self.domains}
        for name in domain:
            self._known(name)
        predictions: list[Predictions] = [{} for _ in domain]
        for x, names, places in batches.by_size(images, list(domain)):
            for place, prediction in zip(places, self._mixed(x, names), strict=True):
                predictions[place] = prediction
        return predictions

    if TYPE_CHECKING:
        __call__ = forward

    def _pure(self, name: str) -> pieces.Run:
        """Return the pass of a domain."""

        def run(x: Tensor) -> Predictions:
            pooled, maps = self._features(x, name, [name])
            return self.heads_of(name)(pooled, maps, x.shape[-2:])  # type: ignore[no-any-return]

        return run

    def _divisible(self, names: Sequence[str]) -> bool:
        """Return whether a batch of these domains can run in pieces."""
        heads = (self.heads_of(name).modules() for name in names)
        modules = itertools.chain(self.trunk.modules_of(names), *heads)
        return self.trunk.divisible(names[0], self.domains[names[0]].pixels.size, modules)

    def _features(
        self, x: Tensor, choice: Choice, names: Sequence[str], points: Iterable[str] = ()
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Return pooled features and the maps that these domains' heads and the points need."""
        heads = [self.heads_of(name) for name in names]
        pooled = POOLED in points or any(head.needs_pooled for head in heads)
        levels = {level for point in points for level in level_of(self.trunk, point)}
        for head in heads:
            if head.decoder is not None:
                levels.update(head.decoder.levels)
        maps = sorted(levels)
        with self.trunk.switch.using(choice):
            features, pyramid = self.trunk(x, pooled or not maps, maps)
        self.trunk.switch.keep([*pyramid, *([] if features is None else [features])], choice)
        return features, dict(zip(maps, pyramid, strict=True))

    def _mixed(self, x: Tensor, names: list[str]) -> list[Predictions]:
        """Run images of one size, sorted by domain; return each image's predictions."""
        order = self._order(names)
        present = list(dict.fromkeys(names[i] for i in order))
        sizes = [names.count(name) for name in present]
        if order != list(range(len(names))):
            x = x[torch.tensor(order, device=x.device)]
        cuts = [len(x)]
        if pieces.applies(x):
            x = x.contiguous(memory_format=torch.channels_last)
            if len(x) >= pieces.MIN_IMAGES and self._divisible(present):
                cost = self._plans.cost(self._pure(present[0]), x, present[0])
                cuts = pieces.cut_mixed(cost, sizes)
        predictions: list[Predictions] = []
        for piece, own in zip(
            torch.split(x, cuts), batches.segments(present, sizes, cuts), strict=True
        ):
            outputs = self._segments(piece, list(own), list(own.values()))
            for out, size in zip(outputs, own.values(), strict=True):
                rows = range(size)
                predictions += [
                    {task: values[row] for task, values in out.predictions.items()} for row in rows
                ]
        pairs = sorted(zip(order, predictions, strict=True), key=_FIRST)
        return [prediction for _, prediction in pairs]

    def joined(
        self, images: Sequence[Tensor], names: Sequence[str], points: Points = NO_POINTS
    ) -> list[Outputs]:
        """Run batches of one domain each, all of one size, in one pass.

        Args:
            names: The domain of each batch.
            points: The points, by domain, whose features are returned.
        """
        order = self._order(names)
        present = [names[i] for i in order]
        sizes = [len(images[i]) for i in order]
        x = batches.check(torch.cat([images[i] for i in order]) if len(order) > 1 else images[0])
        outputs = self._segments(x, present, sizes, points)
        return [output for _, output in sorted(zip(order, outputs, strict=True), key=_FIRST)]

    def _order(self, names: Sequence[str]) -> list[int]:
        """Return the positions of these names, sorted by domain."""
        rows = self.trunk.switch.rows
        return sorted(range(len(names)), key=lambda i: rows[names[i]])

    def _segments(
        self, x: Tensor, present: list[str], sizes: list[int], points: Points = NO_POINTS
    ) -> list[Outputs]:
        """Run images sorted by domain in one pass; return the outputs of each domain."""
        if len(present) == 1:
            choice: Choice = present[0]
        else:
            self._check_independent(present[0])
            rows = self.trunk.switch.rows
            index = [rows[n] for n, size in zip(present, sizes, strict=True) for _ in range(size)]
            choice = Mixed(torch.tensor(index, device=x.device), tuple(present), tuple(sizes))
        requested = {point: None for name in present for point in points.get(name, ())}
        pooled, maps = self._features(x, choice, present, requested)
        outputs = []
        start = 0
        for name, size in zip(present, sizes, strict=True):
            rows_of = slice(start, start + size)
            own_maps = {level: m[rows_of] for level, m in maps.items()}
            own_pooled = None if pooled is None else pooled[rows_of]
            heads = self.heads_of(name)
            decoded = heads.decoded(own_maps)
            predictions = heads.prediction(own_pooled, decoded, (x.shape[-2], x.shape[-1]))
            features = features_at(self.trunk, points.get(name, ()), own_pooled, own_maps, decoded)
            outputs.append(Outputs(predictions, features))
            start += size
        return outputs

    def index(self, names: Sequence[str], device: torch.device | str | None = None) -> Tensor:
        """Return the index tensor of a mixed batch, for `torch.compile` and `torch.export`."""
        for name in names:
            self._known(name)
        if len(self.domains) > 1:
            self._check_independent(next(iter(self.domains)))
        for bank in self.trunk.banks().values():
            bank.build_table()
        rows = self.trunk.switch.rows
        return torch.tensor([rows[name] for name in names], device=device)

    def _check_independent(self, name: str) -> None:
        if self.trunk.norm_method.batch_statistics:
            return  # each domain's part of a batch is normalized by itself
        if not self.trunk.independent(name, self.domains[name].pixels.size):
            raise BadInput(
                f"{self.trunk.arch} mixes the images of a batch, so domains cannot share one",
                got="a mixed batch",
                try_="one domain per call: model(images, domain=NAME)",
            )

    def heads_of(self, name: str) -> Heads:
        """Return the domain's heads."""
        self._known(name)
        heads = self.heads[name]
        assert isinstance(heads, Heads)
        return heads

    def _known(self, name: str) -> Card:
        card = self.domains.get(name)
        if card is None:
            raise BadInput("unknown domain", got=str(name), available=self.domains)
        return card
