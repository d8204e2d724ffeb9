"""The trunk: a backbone with banks in place of the layers in which domains may differ."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn import backbone as backbones
from onetrunk.nn import pieces
from onetrunk.nn.adapters import (
    NO_ADAPTERS,
    AdapterBank,
    check_adapters,
    find_adapter,
    make_adapter,
)
from onetrunk.nn.auto_trunk import choose_trunk
from onetrunk.nn.bank import (
    Bank,
    ReadsLayer,
    Replacement,
    StageBank,
    Unfit,
    modules_without_slots,
    shared_tensors,
)
from onetrunk.nn.batches import check_tensors
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.norms import Norm, check_norm, find_norm, is_norm
from onetrunk.nn.published_weights import AUTO, is_file
from onetrunk.nn.switch import Mixed, Switch
from onetrunk.nn.trunk_settings import Sharing, TrunkSettings
from onetrunk.progress import say
from onetrunk.store.tensors import fingerprint_of

LARGE = 1024 * 1024  # pixels; for larger images, shapes are measured at 1/2, 1/4, … of their sides


@dataclass(frozen=True)
class Shape:
    """The shapes of a trunk's outputs for one domain."""

    features: int  # width of the pooled features
    pyramid: tuple[tuple[int, int], ...]  # channels and reduction of each map, finest first
    decoded: bool = False  # whether the last map is the output of a decoder


class Trunk(nn.Module):
    """The shared network, images to features. A `Universal` adds the domains."""

    def __init__(
        self,
        arch: str = AUTO,
        *,
        pretrained: bool | str | Path = AUTO,
        norm: str = "domain",
        sharing: Sharing = "deep",
        own_stages: Sequence[int | str] = (),
        adapters: str = "none",
        adapter_layers: Sequence[str] = (),
    ) -> None:
        """Build the network and put banks into it.

        The arguments are the keys of a recipe's [trunk] table: `onetrunk recipes keys`.
        `arch = "auto"` prints what it chooses for this machine.

        Attributes:
            arch: The architecture.
            pretrained: The weights that it started from; False: random ones.
            normalization: Mean and std of pixels that these weights expect; None: unknown, or
                random weights.
        """
        given = {key: value for key, value in locals().items() if key in TrunkSettings.model_fields}
        settings = TrunkSettings.of(given, "trunk")
        super().__init__()
        check_adapters(adapters)
        arch, weights = settings.arch, settings.pretrained
        if settings.is_auto:
            chosen = choose_trunk()
            arch, weights = chosen.arch, chosen.pretrained
            say(str(chosen))
        self.net, backbone = backbones.build(arch, weights)
        self.pretrained = weights
        self.arch, self.norm, self.sharing, self.adapters = arch, norm, sharing, adapters
        self.adapter_layers = settings.adapter_layers
        self.backbone = backbone
        self.licence = backbone.licence
        self.normalization = backbone.normalization  # that its weights expect
        self.switch = Switch()
        self.skipped: dict[str, str] = {}  # why layers have no adapters, by path
        self._tried: dict[tuple[str, int | None, tuple[int, int]], Shape] = {}
        self._independent: bool | None = None
        self.own_stages = self._own(settings.own_stages)
        self._put_norms()

    @classmethod
    def of(cls, settings: TrunkSettings, root: Path = Path()) -> Self:
        """Return the trunk with these settings; a file of weights is searched from `root`."""
        given = {name: value for name, value in settings if name != "pair"}
        if is_file(settings.pretrained):
            given["pretrained"] = root / str(settings.pretrained)
        return cls(**given)

    @property
    def settings(self) -> TrunkSettings:
        """The settings that build a trunk of the same layout, with fresh weights."""
        kept = TrunkSettings.model_fields.keys() - {"pretrained", "pair"}
        return TrunkSettings.of({name: getattr(self, name) for name in kept})

    @property
    def norm_method(self) -> Norm:
        """The norm method."""
        return find_norm(self.norm)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, the stem's first."""
        return tuple(self.backbone.stages)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Input pixels per pixel of each map of the pyramid, finest first."""
        return self.backbone.reductions

    def forward(
        self, images_BCHW: Tensor, pooled: bool = True, maps: Sequence[int] = ()
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return pooled features (B, C), and these maps of the pyramid."""
        return self.backbone.forward(self.net, images_BCHW, pooled, maps)

    # -- banks

    def _own(self, given: Sequence[int | str]) -> tuple[str, ...]:
        """Replace these stages by banks; return their names."""
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
                        f"{self.arch}: no domain can own the stage {name!r}, which contains "
                        "parameters of the network itself",
                        available=[
                            s for s, paths in self.backbone.stages.items() if "" not in paths
                        ],
                    )
                self._put(path, StageBank(self.net.get_submodule(path), path, self.switch))
        return tuple(names)

    def _put_norms(self) -> None:
        norms = {path: layer for path, layer in self._unowned() if is_norm(layer)}
        check_norm(self.norm, self.arch, list(norms.values()))
        method = self.norm_method
        replaced: dict[int, nn.Module] = {}  # a layer that is used in two places gets one bank
        for path, layer in norms.items():
            if id(layer) not in replaced:
                replaced[id(layer)] = method.replace(layer, path, self.switch)
            if replaced[id(layer)] is not layer:
                self._put(path, replaced[id(layer)])

    def _make_adapters(self, name: str, rank: int | None) -> dict[str, nn.Module]:
        """Return a new adapter for every layer that takes one of this method, by path."""
        adapters: dict[str, nn.Module] = {}
        if name == NO_ADAPTERS:
            return adapters
        method = find_adapter(name)
        for path, layer in self._unowned():
            layer = layer.layer if isinstance(layer, AdapterBank) else layer
            if self.adapter_layers and not self._is_named(path):
                continue
            if is_norm(layer) or path in self.skipped or not isinstance(layer, method.layer_types):
                continue
            if reason := method.why_not(layer):
                self.skipped[path] = reason
            elif (adapter := make_adapter(name, layer, rank)) is not None:
                adapters[path] = adapter
        if not adapters:
            raise BadInput(
                f"{self.arch}: no layer takes {name!r} adapters",
                got=", ".join(self.adapter_layers) or "every layer",
                try_="other patterns in adapter_layers, or adapters = 'none'",
            )
        return adapters

    def _is_named(self, path: str) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.adapter_layers)

    def _unowned(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the layers outside of replacements, and the adapter banks, by path."""
        owned: list[str] = []
        for path, module in modules_without_slots(self.net):
            if any(path.startswith(prefix) for prefix in owned) or not path:
                continue
            if isinstance(module, Replacement):
                owned.append(path + ".")
                if not isinstance(module, AdapterBank):
                    continue
            yield path, module

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, key = path.rpartition(".")
        self.net.get_submodule(parent)._modules[key] = module

    def banks(self) -> dict[str, Bank]:
        """Return all banks by their path in the network."""
        banks: dict[int, tuple[str, Bank]] = {}
        for path, module in modules_without_slots(self.net):
            if isinstance(module, Bank):
                banks.setdefault(id(module), (path, module))
        return dict(banks.values())

    def modules_of(self, names: Sequence[str]) -> Iterator[nn.Module]:
        """Yield the modules outside of slots, and those of these domains' slots."""
        for _, module in modules_without_slots(self):
            yield module
            if isinstance(module, Bank):
                for name in names:
                    slot = module.slots.get(name)
                    yield from () if slot is None else slot.modules()

    # -- domains

    def make_slots(self, adapters: str, rank: int | None = None) -> dict[str, nn.Module]:
        """Return new slots for one domain by path; the trunk does not change."""
        slots = self._make_adapters(adapters, rank)
        for path, bank in self.banks().items():
            slot = bank.make_slot()
            if slot is not None:
                slots[path] = slot
        return {path: slot.train(self.training) for path, slot in slots.items()}

    def bytes_per_domain(
        self, adapters: str | None = None, rank: int | None = None
    ) -> dict[str, int]:
        """Return the bytes of the slots of one more domain by path, without heads."""
        slots = self.make_slots(self.adapters if adapters is None else adapters, rank)
        return {
            path: sum(t.numel() * t.element_size() for t in slot.state_dict().values())
            for path, slot in slots.items()
        }

    def attach(self, name: str, slots: Mapping[str, nn.Module]) -> None:
        """Add the slots of a domain; layers without a bank get one for adapters."""
        for path in slots:
            layer = self.net.get_submodule(path)
            if not isinstance(layer, Bank):
                self._put(path, AdapterBank(layer, path, self.switch).train(layer.training))
        for path, bank in self.banks().items():
            bank.attach(name, slots.get(path))
        if name not in self.switch.names:
            self.switch.names = (*self.switch.names, name)

    def detach(self, name: str) -> None:
        """Remove the slots of a domain; those of other domains do not change."""
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
        adapters: tuple[str, int | None],
    ) -> tuple[dict[str, nn.Module], Shape]:
        """Return the slots that the network can run with, and its shapes, without changing it.

        Both depend on shapes alone, so the network runs only for a new size or new adapters. (A
        user's adapters may depend on more, so they always run.)

        Args:
            adapters: The name of the adapters and their rank.
        """
        shape = self._tried.get((*adapters, size))
        if shape is None or ":" in adapters[0]:
            self.attach(name, slots)
            try:
                shape = self._tried[(*adapters, size)] = self.measure(name, size)
                banks = self.banks()  # without those that `measure` has removed
                slots = {path: slot for path, slot in slots.items() if path in banks}
            finally:
                self.detach(name)
        return dict(slots), shape

    @torch.no_grad()
    def measure(self, name: str, size: tuple[int, int]) -> Shape:
        """Run a domain's pure and mixed batch at its size; return the shapes of the outputs.

        Adapters of layers that a bank cannot replace are removed here, with the reason in
        `skipped`.
        """
        like = next(self.net.parameters())
        tried = size
        while tried[0] * tried[1] > LARGE and self.backbone.size is None:
            tried = (tried[0] // 2, tried[1] // 2)
        images = torch.zeros(3, 3, *tried, dtype=like.dtype, device=like.device)
        index = torch.full((3,), self.switch.names.index(name), device=like.device)
        modules = [module for _, module in modules_without_slots(self)]
        for bank in self.banks().values():
            slot = bank.slots.get(name)
            modules += [] if slot is None else slot.modules()
        before = [(module, module.training) for module in modules]
        for module in modules:
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
                    self._restore_layer(unfit)
        except OnetrunkError:
            raise
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
            reason = str(error).split("\n")[0][:160]
            height, width = self.backbone.size or (224, 224)
            raise BadInput(
                f"domain {name}: {self.arch} cannot take images of {size[0]}×{size[1]} ({reason})",
                available=[f"{height}×{width}"],
                try_="another size, or another trunk",
            ) from None
        finally:
            for module, mode in before:
                module.training = mode
        assert pooled is not None
        shapes = [(m.shape[1], r) for m, r in zip(maps, self.reductions, strict=True)]
        return Shape(pooled.shape[1], tuple(shapes), self.backbone.decoded)

    def _restore_layer(self, unfit: Unfit) -> None:
        """Put the layer back in place of a bank; raise BadInput if the user requested the bank."""
        bank = self.banks().get(unfit.path)
        adapts = isinstance(bank, AdapterBank)
        if (
            bank is None
            or (adapts and self._is_named(unfit.path))
            or (isinstance(unfit, ReadsLayer) and not adapts)
        ):
            raise BadInput(
                f"{self.arch} cannot have a bank at {unfit.path} ({unfit.reason})",
                try_="norm = 'shared', or another trunk",
            )
        self.skipped[unfit.path] = unfit.reason
        self._put(unfit.path, bank.get_submodule(bank.inner).requires_grad_(True))

    # -- shared tensors

    def shared(self) -> dict[str, Tensor]:
        """Return the shared tensors by their names in the backbone without banks."""
        return shared_tensors(self.net)

    @torch.no_grad()
    def load_shared(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors by the names of `shared`; if one does not fit, none is loaded."""
        shared = self.shared()
        check_tensors(shared, tensors, f"trunk {self.arch}")
        for name, tensor in shared.items():
            tensor.copy_(tensors[name])

    def fingerprint(self) -> str:
        """Return the SHA-256 of the architecture and of `shared`: names, types, shapes, bytes."""
        return fingerprint_of(self.shared(), self.describe())

    def describe(self) -> dict[str, object]:
        """Return the settings in which a pack must agree with the trunk."""
        return {
            "arch": self.arch,
            "norm": self.norm,
            "sharing": self.sharing,
            "own_stages": list(self.own_stages),
        }

    def plain(self, name: str) -> Trunk:
        """Return a copy for one domain, with plain modules in place of banks."""
        memo: dict[int, object] = {}
        for bank in self.banks().values():
            memo[id(bank)] = bank.resolve(name)
        return copy.deepcopy(self, memo)

    def independent(self, name: str, size: tuple[int, int]) -> bool:
        """Return whether features depend on their own image alone (timm's csatv2 mixes images)."""
        if self._independent is None:
            self._independent = self._compare_alone(name, size)
        return self._independent

    def divisible(self, name: str, size: tuple[int, int], modules: Iterable[nn.Module]) -> bool:
        """Return whether a batch can run in pieces, with the same outputs.

        Args:
            size: A size of images that the trunk accepts.
            modules: The modules of the pass.
        """
        return (
            not self.norm_method.batch_statistics
            and pieces.undisturbed(modules)
            and self.independent(name, size)
        )

    @torch.no_grad()
    def _compare_alone(self, name: str, size: tuple[int, int]) -> bool:
        """Compare the features of an image in a batch with those of the image alone."""
        like = next(self.net.parameters())
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, *size, generator=generator).to(like)
        with eval_mode(self), self.switch.using(name):
            together, _ = self(images)
            alone, _ = self(images[:1])
        assert together is not None
        assert alone is not None
        scale = alone.abs().max().clamp_min(1e-6)
        return bool((together[:1] - alone).abs().max() <= 1e-3 * scale)
