"""The trunk: a backbone in which a bank stands wherever domains may differ."""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn import backbone as backbones
from onetrunk.nn.adapters import ADAPTERS, AdapterBank, make_adapter, why_not
from onetrunk.nn.bank import Bank, ReadsLayer, Unfit
from onetrunk.nn.batches import check_tensors as check
from onetrunk.nn.norm_banks import Instance
from onetrunk.nn.norms import check_norm, is_norm, load, make_norm
from onetrunk.nn.own_stages import OwnStage
from onetrunk.nn.shapes import Shape
from onetrunk.nn.switch import Mixed, Switch
from onetrunk.nn.traversal import places, plain_tensors
from onetrunk.nn.trunk_settings import Sharing, TrunkSettings

LARGE = 1024 * 1024  # pixels; larger images are tried at a half, a quarter, … of their sides


class Trunk(nn.Module):
    """The shared network, images to features; its domains come with a Universal."""

    def __init__(
        self,
        arch: str,
        *,
        pretrained: bool | str | Path = False,
        norm: str = "domain",
        sharing: Sharing = "deep",
        own_stages: Sequence[int | str] = (),
        adapters: str = "none",
        adapter_layers: Sequence[str] = (),
    ) -> None:
        """Build the network and put banks into it.

        The arguments are the keys of a recipe's [trunk] table: `onetrunk recipes keys`.
        """
        given = {key: value for key, value in locals().items() if key in TrunkSettings.model_fields}
        settings = TrunkSettings.of(given, "trunk")
        super().__init__()
        if ":" in adapters:
            load(adapters, "adapter", ADAPTERS)
        self.net, backbone = backbones.build(arch, pretrained)
        self.arch, self.norm, self.sharing, self.adapters = arch, norm, sharing, adapters
        self.adapter_layers = settings.adapter_layers
        self.backbone = backbone
        self.licence = backbone.licence
        self.switch = Switch()
        self.skipped: dict[str, str] = {}  # layers without a bank, and why
        self._tried: dict[tuple[str, int | None, tuple[int, int]], Shape] = {}
        self.own_stages = self._own(settings.own_stages)
        self._put_norms()

    @classmethod
    def of(cls, settings: TrunkSettings, root: Path = Path()) -> Self:
        """Return the trunk with these settings; a file of weights is searched from `root`."""
        given = {name: value for name, value in settings if name != "pair"}
        if not isinstance(settings.pretrained, bool):
            given["pretrained"] = root / settings.pretrained
        return cls(**given)

    @property
    def settings(self) -> TrunkSettings:
        """The settings that build a trunk of the same layout, with fresh weights."""
        kept = TrunkSettings.model_fields.keys() - {"pretrained", "pair"}
        return TrunkSettings.of({name: getattr(self, name) for name in kept})

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages' names, the stem's first."""
        return tuple(self.backbone.stages)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Input pixels per pixel of each map of the pyramid, finest first."""
        return self.backbone.reductions

    def forward(
        self, images_BCHW: Tensor, pooled: bool = True, maps: Sequence[int] = ()
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Pooled features (B, C), and these maps of the pyramid."""
        return self.backbone.forward(self.net, images_BCHW, pooled, maps)

    # -- banks

    def _own(self, given: Sequence[int | str]) -> tuple[str, ...]:
        stages = self.stages
        names: list[str] = []
        for stage in given:
            if isinstance(stage, int) and 0 <= stage < len(stages):
                stage = stages[stage]
            if stage not in stages:
                raise BadInput("own_stages: unknown stage", got=str(stage), available=stages)
            names.append(str(stage))
        for name in names:
            for path in self.backbone.stages[name]:
                if not path:
                    raise BadInput(
                        f"{self.arch}: stage {name!r} holds parameters of the network itself, "
                        "which no domain can own",
                        available=[
                            s for s, paths in self.backbone.stages.items() if "" not in paths
                        ],
                    )
                self._put(path, OwnStage(self.net.get_submodule(path), path, self.switch))
        return tuple(names)

    def _put_norms(self) -> None:
        norms = {path: layer for path, layer in self._free() if is_norm(layer)}
        check_norm(self.norm, self.arch, list(norms.values()))
        made: dict[int, nn.Module] = {}  # a layer that stands in two places gets one bank
        for path, layer in norms.items():
            if id(layer) not in made:
                made[id(layer)] = make_norm(self.norm, layer, path, self.switch)
            if made[id(layer)] is not layer:
                self._put(path, made[id(layer)])

    def _make_adapters(self, kind: str, rank: int | None) -> dict[str, nn.Module]:
        """A fresh adapter for every layer that this kind bends, by the layer's place."""
        made: dict[str, nn.Module] = {}
        if kind == "none":
            return made
        for path, layer in self._free():
            layer = layer.layer if isinstance(layer, AdapterBank) else layer
            named = any(fnmatch.fnmatchcase(path, pattern) for pattern in self.adapter_layers)
            if is_norm(layer) or path in self.skipped or (self.adapter_layers and not named):
                continue
            if ":" not in kind and not isinstance(layer, (nn.Conv2d, nn.Linear)):
                continue
            if ":" not in kind and (reason := why_not(layer)):
                self.skipped[path] = reason
            elif (adapter := make_adapter(kind, layer, rank)) is not None:
                made[path] = adapter
        if not made:
            raise BadInput(
                f"{self.arch}: no layer takes {kind!r} adapters",
                got=", ".join(self.adapter_layers) or "every layer",
                try_="other patterns in adapter_layers, or adapters = 'none'",
            )
        return made

    def _free(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers that no bank holds, and the adapter banks themselves."""
        held: list[str] = []
        for path, module in places(self.net):
            if any(path.startswith(prefix) for prefix in held) or not path:
                continue
            if isinstance(module, (Bank, Instance)):
                held.append(path + ".")
                if not isinstance(module, AdapterBank):
                    continue
            yield path, module

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, key = path.rpartition(".")
        self.net.get_submodule(parent)._modules[key] = module

    def banks(self) -> dict[str, Bank]:
        """All banks by their place in the network."""
        found: dict[int, tuple[str, Bank]] = {}
        for path, module in places(self.net):
            if isinstance(module, Bank):
                found.setdefault(id(module), (path, module))
        return dict(found.values())

    # -- domains

    def make_slots(self, adapters: str, rank: int | None = None) -> dict[str, nn.Module]:
        """Fresh slots for one domain, by the layer's place; the trunk stays as it is."""
        slots = self._make_adapters(adapters, rank)
        for path, bank in self.banks().items():
            slot = bank.make_slot()
            if slot is not None:
                slots[path] = slot
        return {path: slot.train(self.training) for path, slot in slots.items()}

    def bytes_per_domain(
        self, adapters: str | None = None, rank: int | None = None
    ) -> dict[str, int]:
        """Bytes of one more domain's slots by layer, before anything is trained (heads aside)."""
        slots = self.make_slots(self.adapters if adapters is None else adapters, rank)
        return {
            path: sum(t.numel() * t.element_size() for t in slot.state_dict().values())
            for path, slot in slots.items()
        }

    def attach(self, name: str, slots: Mapping[str, nn.Module]) -> None:
        """These slots are the domain's from now on; layers without a bank get one for adapters."""
        for path in slots:
            layer = self.net.get_submodule(path)
            if not isinstance(layer, Bank):
                self._put(path, AdapterBank(layer, path, self.switch).train(layer.training))
        for path, bank in self.banks().items():
            bank.attach(name, slots.get(path))
        if name not in self.switch.names:
            self.switch.names = (*self.switch.names, name)

    def detach(self, name: str) -> None:
        """The domain's slots are gone; no other's change."""
        for path, bank in self.banks().items():
            bank.detach(name)
            if isinstance(bank, AdapterBank) and not len(bank.slots):
                self._put(path, bank.layer)
        self.switch.names = tuple(other for other in self.switch.names if other != name)

    def try_on(
        self,
        name: str,
        slots: Mapping[str, nn.Module],
        size: tuple[int, int],
        kind: tuple[str, int | None],
    ) -> tuple[dict[str, nn.Module], Shape]:
        """Those of the slots that can stand, and what comes out; the trunk stays as it is.

        Nothing is run where slots of this kind have been tried at this size before: what can stand
        and what comes out depends on shapes alone. (On code of the user's own it may not.)
        """
        shape = self._tried.get((*kind, size))
        if shape is None or ":" in kind[0]:
            self.attach(name, slots)
            try:
                shape = self._tried[(*kind, size)] = self.measure(name, size)
                banks = self.banks()  # where measuring found that none can stand, none is left
                slots = {path: slot for path, slot in slots.items() if path in banks}
            finally:
                self.detach(name)
        return dict(slots), shape

    @torch.no_grad()
    def measure(self, name: str, size: tuple[int, int]) -> Shape:
        """Run this domain once at its size, pure and mixed: what comes out, and whether it can.

        Layers at which no bank can stand show here: adapters there are taken back, with the reason.
        """
        like = next(self.net.parameters())
        tried = size
        while tried[0] * tried[1] > LARGE and self.backbone.size is None:
            tried = (tried[0] // 2, tried[1] // 2)
        images = torch.zeros(3, 3, *tried, dtype=like.dtype, device=like.device)
        index = torch.full((3,), self.switch.names.index(name), device=like.device)
        run = [module for _, module in places(self)]
        for bank in self.banks().values():
            slot = bank.slots.get(name)
            run += [] if slot is None else slot.modules()
        before = [(module, module.training) for module in run]
        for module in run:
            module.training = False
        try:
            while True:
                try:
                    with self.switch.using(name):
                        pooled, maps = self(images, True, range(len(self.reductions)))
                    with self.switch.using(Mixed(index, (name,), (3,))):
                        self(images)
                    break
                except Unfit as unfit:
                    self._give_up(unfit)
        except OnetrunkError:
            raise
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
            reason = str(error).split("\n")[0][:160]
            raise BadInput(
                f"domain {name}: {self.arch} cannot take images of {size[0]}×{size[1]} ({reason})",
                available=[f"{h}×{w}" for h, w in [self.backbone.size or (224, 224)]],
                try_="another size, or another trunk",
            ) from None
        finally:
            for module, mode in before:
                module.training = mode
        assert pooled is not None
        shapes = [(m.shape[1], r) for m, r in zip(maps, self.reductions, strict=True)]
        return Shape(pooled.shape[1], tuple(shapes), self.backbone.decoded)

    def _give_up(self, unfit: Unfit) -> None:
        bank = self.banks().get(unfit.where)
        named = any(fnmatch.fnmatchcase(unfit.where, pattern) for pattern in self.adapter_layers)
        if (
            bank is None
            or (named and isinstance(bank, AdapterBank))
            or (isinstance(unfit, ReadsLayer) and not isinstance(bank, AdapterBank))
        ):
            raise BadInput(
                f"{self.arch} cannot have a bank at {unfit.where} ({unfit.reason})",
                try_="norm = 'shared', or another trunk",
            )
        self.skipped[unfit.where] = unfit.reason
        self._put(unfit.where, bank.get_submodule(bank.inner).requires_grad_(True))

    # -- what is shared

    def shared(self) -> dict[str, Tensor]:
        """The shared tensors by their names in the plain backbone: no slot, no trace of banks."""
        return plain_tensors(self.net)

    @torch.no_grad()
    def load_shared(self, tensors: Mapping[str, Tensor]) -> None:
        """The shared tensors that `shared` named, from a file; refused whole or taken whole."""
        mine = self.shared()
        check(mine, tensors, f"trunk {self.arch}")
        for name, tensor in mine.items():
            tensor.copy_(tensors[name])

    def fingerprint(self) -> str:
        """SHA-256 over the architecture and `shared`: sorted names, types, shapes, bytes."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for name, tensor in sorted(self.shared().items()):
            plain = tensor.detach().cpu().contiguous()
            digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, object]:
        """What a pack must agree on."""
        return {
            "arch": self.arch,
            "norm": self.norm,
            "sharing": self.sharing,
            "own_stages": list(self.own_stages),
        }

    def plain(self, name: str) -> Trunk:
        """A copy for one domain in which every bank has become that domain's plain module."""
        memo: dict[int, object] = {}
        for bank in self.banks().values():
            memo[id(bank)] = bank.resolve(name)
        return copy.deepcopy(self, memo)

    @torch.no_grad()
    def independent(self, name: str, size: tuple[int, int]) -> bool:
        """Whether an image's features depend on it alone (csatv2 of timm mixes a batch)."""
        like = next(self.net.parameters())
        chance = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, *size, generator=chance).to(like)
        before = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with self.switch.using(name):
                together, _ = self(images)
                alone, _ = self(images[:1])
        finally:
            for module, mode in before:
                module.training = mode
        assert together is not None
        assert alone is not None
        scale = alone.abs().max().clamp_min(1e-6)
        return bool((together[:1] - alone).abs().max() <= 1e-3 * scale)
