"""The universal network: one trunk, and for every domain its bank slots and heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn import batches
from onetrunk.nn import ownership as owners
from onetrunk.nn import shared_heads as together
from onetrunk.nn.bank import Slots
from onetrunk.nn.card import Card
from onetrunk.nn.feature_points import NOWHERE, POOLED, Inside, Points, at, level_of
from onetrunk.nn.heads import Heads, MakeHead
from onetrunk.nn.plain_network import Plain
from onetrunk.nn.switch import Choice, Mixed
from onetrunk.nn.trunk import Trunk

if TYPE_CHECKING:
    from onetrunk.nn.pack import Pack
    from onetrunk.nn.predict import Images

FIRST = itemgetter(0)
Predictions = dict[str, Tensor]
OwnHeads = Mapping[str, Mapping[str, "str | MakeHead"]]  # by domain, by task


class Universal(nn.Module):
    """A trunk made universal over its domains.

    `model(images, domain="digits")` runs a pure batch; `domain=[one name per image]` a mixed one in
    one pass; `domain=index` (a tensor, see `index`) the mixed form for compilers and exporters.
    """

    def __init__(
        self,
        trunk: Trunk,
        domains: Sequence[Domain] = (),
        heads: OwnHeads | None = None,
        pair: str = "name",
    ) -> None:
        """`heads`: the user's own; `pair`: how full sharing pairs classes, by name or index."""
        super().__init__()
        if trunk.switch.names:
            raise BadInput(
                "a trunk belongs to one model",
                got=f"one with {', '.join(trunk.switch.names)}",
                try_="copy.deepcopy(trunk), or model.add_domain(domain)",
            )
        if pair not in ("name", "index"):
            raise BadInput("classes are paired by", got=pair, available=("name", "index"))
        self.trunk = trunk
        self.heads = Slots()
        self.together = nn.ModuleList()  # with sharing = "full": the heads that domains share
        self.domains: dict[str, Card] = {}
        self.pair = pair
        self._only: str | None = None  # the one domain that learns, with all else in evaluation
        self._independent: bool | None = None
        for name in heads or {}:
            if name not in [domain.name for domain in domains]:
                raise BadInput(
                    "heads for a domain that is not there",
                    got=name,
                    available=[domain.name for domain in domains],
                )
        for domain in domains:
            self.add_domain(domain, heads=(heads or {}).get(domain.name))

    # -- sharing

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a onetrunk model",
        revision: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub; see `onetrunk.nn.hub.push_to_hub`."""
        from onetrunk.nn import hub

        return hub.push_to_hub(
            self,
            repo_id,
            private=private,
            token=token,
            commit_message=commit_message,
            revision=revision,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Universal:
        """Load a model from the Hub or a folder; see `onetrunk.nn.hub.from_pretrained`."""
        from onetrunk.nn import hub

        return hub.from_pretrained(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )

    # -- running

    def forward(
        self, images: Tensor | Sequence[Tensor], domain: str | Sequence[str] | Tensor
    ) -> Any:
        """Normalized images to predictions by task.

        One domain: {task: (B, …)}. A list of domains, one per image: a list of {task: (…)}, where
        images may be a list of several sizes. An index tensor: {domain: {task: (B, …)}}, every head
        over all images, of which row i means something for image i's own domain.
        """
        if isinstance(domain, str):
            x = batches.check(images)
            pooled, maps = self._features(x, domain, [domain])
            return self.heads_of(domain)(pooled, maps, x.shape[-2:])
        if isinstance(domain, Tensor):
            x = batches.check(images)
            if domain.ndim != 1 or domain.shape[0] != x.shape[0]:
                raise BadInput("the index has one number per image", got=tuple(domain.shape))
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

    def _features(
        self, x: Tensor, choice: Choice, names: Sequence[str], points: Iterable[str] = ()
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Pooled features and the maps that these domains' heads read, through the banks."""
        heads = [self.heads_of(name) for name in names]
        pooled = POOLED in points or any(head.needs_pooled for head in heads)
        wanted = {level for point in points for level in level_of(self.trunk, point)}
        for head in heads:
            if head.decoder is not None:
                wanted.update(head.decoder.levels)
        maps = sorted(wanted)
        with self.trunk.switch.using(choice):
            features, pyramid = self.trunk(x, pooled or not maps, maps)
        self.trunk.switch.keep([*pyramid, *([] if features is None else [features])], choice)
        return features, dict(zip(maps, pyramid, strict=True))

    def _mixed(self, x: Tensor, names: list[str]) -> list[Predictions]:
        """One pass over images of one size, sorted by domain on the way."""
        order = self._order(names)
        present = list(dict.fromkeys(names[i] for i in order))
        sizes = [names.count(name) for name in present]
        if order != list(range(len(names))):
            x = x[torch.tensor(order, device=x.device)]
        predictions: list[Predictions] = [
            {task: values[row] for task, values in out.predictions.items()}
            for out, size in zip(self._segments(x, present, sizes), sizes, strict=True)
            for row in range(size)
        ]
        return [
            prediction for _, prediction in sorted(zip(order, predictions, strict=True), key=FIRST)
        ]

    def joined(
        self, images: Sequence[Tensor], names: Sequence[str], points: Points = NOWHERE
    ) -> list[Inside]:
        """Batches of a domain each, of one size, in one pass; `points`: whose features are kept."""
        order = self._order(names)
        present = [names[i] for i in order]
        sizes = [len(images[i]) for i in order]
        x = batches.check(torch.cat([images[i] for i in order]) if len(order) > 1 else images[0])
        found = self._segments(x, present, sizes, points)
        return [prediction for _, prediction in sorted(zip(order, found, strict=True), key=FIRST)]

    def _order(self, names: Sequence[str]) -> list[int]:
        """Places of these names, those of one domain together."""
        rows = {name: row for row, name in enumerate(self.trunk.switch.names)}
        return sorted(range(len(names)), key=lambda i: rows[names[i]])

    def _segments(
        self, x: Tensor, present: list[str], sizes: list[int], points: Points = NOWHERE
    ) -> list[Inside]:
        """Images sorted by domain through one pass; each domain's predictions and features."""
        if len(present) == 1:
            choice: Choice = present[0]
        else:
            self._check_independent(present[0])
            rows = {name: row for row, name in enumerate(self.trunk.switch.names)}
            index = [rows[n] for n, size in zip(present, sizes, strict=True) for _ in range(size)]
            choice = Mixed(torch.tensor(index, device=x.device), tuple(present), tuple(sizes))
        asked = {point: None for name in present for point in points.get(name, ())}
        pooled, maps = self._features(x, choice, present, asked)
        predictions = []
        start = 0
        for name, size in zip(present, sizes, strict=True):
            rest = slice(start, start + size)
            mine = {level: m[rest] for level, m in maps.items()}
            whole = None if pooled is None else pooled[rest]
            heads = self.heads_of(name)
            decoded = heads.decoded(mine)
            said = heads.prediction(whole, decoded, (x.shape[-2], x.shape[-1]))
            inside = at(self.trunk, points.get(name, ()), whole, mine, decoded)
            predictions.append(Inside(said, inside))
            start += size
        return predictions

    def index(self, names: Sequence[str], device: torch.device | str | None = None) -> Tensor:
        """The index tensor of a mixed batch, for `torch.compile` and `torch.export`."""
        for name in names:
            self._known(name)
        if len(self.domains) > 1:
            self._check_independent(next(iter(self.domains)))
        for bank in self.trunk.banks().values():
            bank.lay_out()
        rows = {name: row for row, name in enumerate(self.trunk.switch.names)}
        return torch.tensor([rows[name] for name in names], device=device)

    def _check_independent(self, name: str) -> None:
        if self.trunk.norm == "shared-batch":
            return  # each domain's part of a batch is normalised by itself
        if self._independent is None:
            size = self.domains[name].pixels.size
            self._independent = self.trunk.independent(name, size)
        if not self._independent:
            raise BadInput(
                f"{self.trunk.arch} mixes the images of a batch, so domains cannot share one",
                got="a mixed batch",
                try_="one domain per call: model(images, domain=NAME)",
            )

    def _known(self, name: str) -> Card:
        card = self.domains.get(name)
        if card is None:
            raise BadInput("unknown domain", got=str(name), available=self.domains)
        return card

    # -- domains that come and go

    def add_domain(
        self,
        domain: Domain,
        adapters: str | None = None,
        heads: Mapping[str, str | MakeHead] | None = None,
        rank: int | None = None,
    ) -> None:
        """A new domain: slots that do what the trunk's own layers do, and fresh heads."""
        card = Card.of(domain, self.trunk.adapters if adapters is None else adapters, rank)
        self.place(card, *self.make(card, heads))

    def make(
        self, card: Card, heads: Mapping[str, str | MakeHead] | None = None
    ) -> tuple[dict[str, nn.Module], Heads]:
        """Slots and heads for a domain that is not there yet; the model stays as it is."""
        if card.name in self.domains:
            raise BadInput(
                "a domain of this name is there already",
                got=card.name,
                available=self.domains,
                try_=f"another name, or model.remove({card.name!r})",
            )
        if self.trunk.sharing == "none" and self.domains:
            raise BadInput(
                "with sharing = 'none' each domain has a network of its own",
                got=f"{card.name} beside {next(iter(self.domains))}",
                try_="one Universal for each domain, or sharing = 'deep'",
            )
        trunk, size = self.trunk, card.pixels.size
        fresh = trunk.make_slots(card.adapters, card.rank)
        slots, shape = trunk.try_on(card.name, fresh, size, (card.adapters, card.rank))
        made = Heads(card.tasks, shape.features, shape.pyramid, heads, shape.decoded)
        made.to(next(trunk.net.parameters()))
        return slots, made.train(self.training)

    def place(self, card: Card, slots: Mapping[str, nn.Module], heads: Heads) -> None:
        """The domain is there from now on."""
        if self.trunk.sharing == "full":
            together.join(self.together, self.domains, self.heads, card, heads, self.pair)
        self.trunk.attach(card.name, slots)
        self.heads[card.name] = heads
        self.domains[card.name] = card

    def remove(self, name: str) -> None:
        """The domain is gone; every other answers as before, to the bit."""
        self._known(name)
        self.trunk.detach(name)
        del self.heads[name]
        del self.domains[name]
        if self._only == name:
            self._only = None

    # -- who owns what

    def own(self, name: str) -> dict[str, Tensor]:
        """The domain's own tensors: `slots/LAYER/…` and `heads/…`."""
        self._known(name)
        return owners.own(self, name)

    def heads_of(self, name: str) -> Heads:
        """The domain's heads."""
        self._known(name)
        heads: Any = self.heads[name]
        mine: Heads = heads
        return mine

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """The domain's own parameters, by the names of `own`."""
        return {k: v for k, v in self.own(name).items() if isinstance(v, nn.Parameter)}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that all domains share and that may learn."""
        return owners.shared(self)

    def learn_only(self, name: str | None) -> None:
        """Only this domain's own parameters learn; all that is shared stays in evaluation mode.

        None: everything learns again.
        """
        if name is not None:
            self._known(name)
        self._only = name
        for parameter in self.shared_parameters().values():
            parameter.requires_grad_(name is None)
        for other in self.domains:
            for parameter in self.parameters_of(other).values():
                parameter.requires_grad_(name in (None, other))
        self.train(self.training)

    def train(self, mode: bool = True) -> Universal:
        """As of any module; under `learn_only`, of what that domain owns and nothing else."""
        if self._only is None:
            super().train(mode)
            return self
        super().train(False)
        self.training = mode
        for bank in self.trunk.banks().values():
            slot = bank.slots.get(self._only)
            if slot is not None:
                slot.train(mode)
                bank.training = mode
        self.heads[self._only].train(mode)
        return self

    # -- what one does with it

    def for_domain(self, name: str, fold: bool = True) -> Plain:
        """A plain module, images to {task: tensor}, that shares nothing with the model."""
        card = self._known(name)
        plain = Plain(card, self.trunk.plain(name), together.separate(self.heads_of(name))).eval()
        if not fold:
            return plain
        from onetrunk.nn.fold import fold as folded

        made, report = folded(plain, [card.pixels.size])
        assert isinstance(made, Plain)
        made.report = report
        return made

    def predict(self, images: Images, domain: str | Sequence[str]) -> Any:
        """Labels with scores, numbers or maps for images as they come; see predict.py."""
        from onetrunk.nn.predict import predict

        return predict(self, images, domain)

    def pack(self, name: str) -> Pack:
        """All that the domain owns, to save or to send."""
        from onetrunk.nn.pack import Pack

        return Pack.of(self, name)

    def load_pack(self, path: str | PathLike[str]) -> str:
        """The domain that a file holds joins the model; its name."""
        from onetrunk.nn.pack import Pack

        return Pack.open(path).join(self)
