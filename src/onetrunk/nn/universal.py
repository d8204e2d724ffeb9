"""The universal network: one trunk, and the bank slots and heads of every domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import list_domains
from onetrunk.data.pixels import Raw
from onetrunk.display import Described, Summary
from onetrunk.errors import BadInput
from onetrunk.nn import shared_heads
from onetrunk.nn.card import Card
from onetrunk.nn.domain_network import DomainNetwork
from onetrunk.nn.forward_pass import ForwardPass, Names
from onetrunk.nn.heads import Heads, UserHead, named_heads
from onetrunk.nn.hub import HubMixin
from onetrunk.nn.model_summary import summary_of
from onetrunk.nn.normalization import check_normalization, stats_of
from onetrunk.nn.pack import Pack
from onetrunk.nn.predict import Images, Prediction, predict
from onetrunk.nn.trunk import Trunk
from onetrunk.objects import Trust, trusting

OwnHeads = Mapping[str, Mapping[str, UserHead]]  # by domain, by task


class Universal(HubMixin, Described, ForwardPass):
    """A trunk with several domains.

    `model(images, domain="digits")` runs a batch of one domain, `domain=[one name per image]` a
    mixed batch in one pass, and `domain=index` (a tensor, see `index`) the mixed batch for
    compilers and exporters.

    Args:
        trunk: The shared network; it belongs to this model alone.
        domains: The domains to add.
        heads: Users' heads, by domain and task: "package.module:thing", or a class. A class that
            no other process can import (of a notebook, or a lambda) can be used, but not saved.
        pair: How full sharing pairs classes: by "name" or "index".
    """

    def __init__(
        self,
        trunk: Trunk,
        domains: Sequence[Domain] = (),
        heads: OwnHeads | None = None,
        pair: str = "name",
    ) -> None:
        if not isinstance(trunk, Trunk):
            raise BadInput(
                "expected a trunk, an object of ot.Trunk",
                got=trunk if isinstance(trunk, str) else type(trunk).__name__,
                try_=f"ot.Trunk({trunk!r})" if isinstance(trunk, str) else None,
            )
        if trunk.switch.names:
            raise BadInput(
                "a trunk belongs to one model",
                got=f"one with {', '.join(trunk.switch.names)}",
                try_="copy.deepcopy(trunk), or model.add_domain(domain)",
            )
        if pair not in ("name", "index"):
            raise BadInput("unknown pairing of classes", got=pair, available=("name", "index"))
        super().__init__(trunk)
        self.together = nn.ModuleList()  # with sharing = "full": the heads that domains share
        self.pair = pair
        self.not_importable: dict[str, str] = {}  # heads that cannot be saved, by domain
        self._only: str | None = None  # the one domain that is trained, see `learn_only`
        domains = list_domains(domains)
        names = [domain.name for domain in domains]
        for name in heads or {}:
            if name not in names:
                raise BadInput("heads for an unknown domain", got=name, available=names)
        for domain in domains:
            self.add_domain(domain, heads=(heads or {}).get(domain.name))

    def summary(self) -> Summary:
        """Return the trunk, its parameters and the domains; `print(model.trunk)` has all layers."""
        return summary_of(self.trunk, self.domains, self.shared_parameters(), self.parameters_of)

    # -- adding and removing domains

    def add_domain(
        self,
        domain: Domain,
        adapters: str | None = None,
        heads: Mapping[str, UserHead] | None = None,
        rank: int | None = None,
    ) -> None:
        """Add a domain with new heads, and slots that do not change the outputs of the trunk.

        If its `normalize` is "auto", the domain then has the normalization that pretrained weights
        expect; if it has set another one, it is refused.

        Args:
            adapters: Its adapters; by default the trunk's.
            heads: Users' heads, by task; by default those of the domain.
            rank: The rank of the adapters.
        """
        check_normalization(domain, self.trunk.normalization)
        domain.expect(stats_of(self.trunk.normalization))
        card = Card.of(domain, self.trunk.adapters if adapters is None else adapters, rank)
        named, reason = named_heads(heads or {})
        card = replace(card, heads={**card.heads, **named})
        self.attach(card, *self.make_parts(card, {**card.heads, **(heads or {})}))
        if reason:
            self.not_importable[card.name] = reason

    def make_parts(
        self, card: Card, heads: Mapping[str, UserHead] | None = None
    ) -> tuple[dict[str, nn.Module], Heads]:
        """Return slots and heads for a new domain; the model does not change.

        Args:
            heads: Users' heads, by task; by default those of the card.
        """
        if card.name in self.domains:
            raise BadInput(
                "the model already has a domain of this name",
                got=card.name,
                available=self.domains,
                try_=f"another name, or model.remove({card.name!r})",
            )
        if self.trunk.sharing == "none" and self.domains:
            raise BadInput(
                "with sharing = 'none' each domain has a separate network",
                got=f"{card.name} beside {next(iter(self.domains))}",
                try_="sharing = 'deep'; or for separate networks, as a report compares with, "
                "`onetrunk train RECIPE --set trunk.sharing=none`, or ot.train with a Universal "
                "of each domain",
            )
        trunk, size = self.trunk, card.pixels.size
        slots = trunk.make_slots(card.adapters, card.rank)
        slots, shape = trunk.try_on(card.name, slots, size, (card.adapters, card.rank))
        own = card.heads if heads is None else heads
        try:
            new_heads = Heads(card.tasks, shape.features, shape.pyramid, own, shape.decoded)
        except BadInput as error:
            raise error.within(f"domain {card.name}") from error.__cause__
        new_heads.to(next(trunk.net.parameters()))
        return slots, new_heads.train(self.training)

    def attach(self, card: Card, slots: Mapping[str, nn.Module], heads: Heads) -> None:
        """Add a domain with these slots and heads."""
        if self.trunk.sharing == "full":
            shared_heads.join(self.together, self.domains, self.heads, card, heads, self.pair)
        self.trunk.attach(card.name, slots)
        self.heads[card.name] = heads
        self.domains[card.name] = card
        self._plans.clear()

    def remove(self, name: str) -> None:
        """Remove a domain; the predictions of all others stay the same to the bit."""
        self._known(name)
        self.trunk.detach(name)
        del self.heads[name]
        del self.domains[name]
        self.not_importable.pop(name, None)
        self._plans.clear()
        if self._only == name:
            self._only = None

    def pack(self, name: str, sha256: str | None = None) -> Pack:
        """Return a copy of everything that the domain owns, to save or to send.

        Args:
            sha256: The trunk's fingerprint, if it is known.
        """
        self.check_importable(name)
        tensors = {k: v for k, v in self.own(name).items() if not k.startswith("trunk/")}
        heads = shared_heads.separate(self.heads_of(name))
        tensors |= {f"heads/{key}": value for key, value in heads.state_dict().items()}
        kinds = {type(bank).__name__ for bank in self.trunk.banks().values() if name in bank.slots}
        return Pack(
            self.domains[name],
            self.trunk.describe(),
            sha256 or self.trunk.fingerprint(),
            self.trunk.licence,
            {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()},
            tuple(sorted(kinds)),
        )

    def check_importable(self, *names: str) -> None:
        """Raise BadInput if another process could not build these domains, by default all."""
        for name in names or self.domains:
            if reason := self.not_importable.get(name):
                raise BadInput(f"domain {name} cannot be saved or trained into a run: {reason}")

    @property
    def objects(self) -> tuple[str, ...]:
        """The users' objects that the model is built with, as `package.module:thing`."""
        heads = [head.object for card in self.domains.values() for head in card.heads.values()]
        adapters = [card.adapters for card in self.domains.values()]
        trunk = self.trunk
        names = [trunk.arch, trunk.norm, trunk.adapters, *adapters, *heads]
        return tuple(dict.fromkeys(name for name in names if ":" in name))

    def add_pack(self, pack: Pack, sha256: str | None = None) -> str:
        """Add the domain of a pack and return its name; a pack that does not fit changes nothing.

        Args:
            sha256: The trunk's fingerprint, if it is known.
        """
        name = pack.card.name
        pack.check_trunk(self.trunk, sha256 or self.trunk.fingerprint())
        pack.check_trusted(self.objects)
        slots, heads = self.make_parts(pack.card)
        pack.load_into(slots, heads)
        self.attach(pack.card, slots, heads)
        if self.trunk.sharing == "full":
            try:
                shared_heads.check_equal(heads, pack.tensors_under("heads/"), f"pack {name}")
            except BadInput:
                self.remove(name)
                raise
        return name

    def load_pack(self, path: str | PathLike[str], trust: Trust = ()) -> str:
        """Add the domain of a pack's file; return its name.

        Args:
            trust: Modules whose code the file may name, such as that of a user's head.
        """
        with trusting(trust):
            return self.add_pack(Pack.open(path))

    # -- shared tensors, and those of one domain

    def own(self, name: str) -> dict[str, Tensor]:
        """Return the tensors that the domain owns: `slots/LAYER/…` and `heads/…`.

        With sharing = "none" also `trunk/…`.
        """
        self._known(name)
        own: dict[str, Tensor] = {}
        for path, bank in self.trunk.banks().items():
            slot = bank.slots.get(name)
            if slot is not None:
                for key, value in slot.state_dict(keep_vars=True).items():
                    own[f"slots/{path}/{key}"] = value
        for key, value in self.heads[name].state_dict(keep_vars=True).items():
            own[f"heads/{key}"] = value
        if self.trunk.sharing == "none":
            templates = self._templates()
            for key, value in self.trunk.shared().items():
                if id(value) not in templates:
                    own[f"trunk/{key}"] = value
        return own

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """Return the parameters that the domain owns, by the names of `own`."""
        return {k: v for k, v in self.own(name).items() if isinstance(v, nn.Parameter)}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters that all domains share."""
        shared = {} if self.trunk.sharing == "none" else self.trunk.shared()
        for key, value in self.together.state_dict(keep_vars=True).items():
            shared[f"heads/{key}"] = value
        templates = self._templates()
        return {
            key: value
            for key, value in shared.items()
            if isinstance(value, nn.Parameter) and id(value) not in templates
        }

    def _templates(self) -> set[int]:
        """Return the ids of parameters that are only templates of new slots."""
        return {
            id(parameter)
            for bank in self.trunk.banks().values()
            if bank.is_template
            for parameter in bank.get_submodule(bank.inner).parameters()
        }

    def learn_only(self, name: str | None) -> None:
        """Train only this domain's parameters; shared modules stay in evaluation mode.

        None: everything is trained again.
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
        """Set training mode; after `learn_only` only for the modules of that domain."""
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

    # -- using the model

    def for_domain(self, name: str, fold: bool = True) -> DomainNetwork:
        """Return a plain network for one domain, images to {task: tensor}, as a copy.

        Args:
            fold: Whether to merge norms and adapters into their neighbours where possible.
        """
        card = self._known(name)
        heads = shared_heads.separate(self.heads_of(name))
        network = DomainNetwork(card, self.trunk.plain(name), heads).eval()
        if not fold:
            return network
        from onetrunk.nn.fold import fold as fold_network  # timm is slow to import

        folded, report = fold_network(network, [card.pixels.size])
        folded.report = report
        return folded

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a sequence
        self, images: str | PathLike[str] | NDArray[np.generic], domain: str | Names
    ) -> Prediction | list[Prediction]: ...

    @overload
    def predict(self, images: bytes | Image.Image, domain: str | Names) -> Prediction: ...

    @overload
    def predict(self, images: Sequence[Raw], domain: str | Names) -> list[Prediction]: ...

    def predict(self, images: Images, domain: str | Names) -> Prediction | list[Prediction]:
        """Return labels with scores, numbers or maps for files, folders, pictures or arrays.

        One image gives one prediction; a list, a folder or a 4-D array a list of them. A prediction
        has one entry per task, as `onetrunk.nn.predict.output_of` describes it.

        Args:
            images: One image, or several.
            domain: The domain of all images, or one name per image.
        """
        return predict(self, self.domains, self.trunk.norm_method, images, domain)
