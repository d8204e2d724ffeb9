"""The conformance suite: what every trunk, norm and adapter has to do, a third party's too.

    from onetrunk.testing import conform
    conform(lambda: Trunk("resnet20", norm="mypackage.norms:thing"), size=32)

runs every check that applies and raises AssertionError with what was wrong. `conform_balance` does
the same for a weighting, `conform_feature_loss` for a feature loss of distillation.
"""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.nn import backbone as backbones
from onetrunk.nn.norm_banks import Stats
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.feature_losses import conform_feature_loss as conform_feature_loss
from onetrunk.testing.weightings import conform_weighting as conform_weighting

Make = Callable[[], Trunk]
Size = int | tuple[int, int]
NAMES = ("ants", "bees", "cats")
SAME_AT_START = ("shared", "domain-stats", "domain")  # norms that answer as the plain trunk did


def domain(name: str, size: Size = 32, classes: tuple[str, ...] = ("x", "y", "z")) -> Domain:
    """A domain without images and with one task."""
    return Domain(name, None, [Task("classify", "classify", classes)], size=size)


def build(make: Make, size: Size, names: tuple[str, ...] = NAMES, seed: int = 0) -> Universal:
    """A model over domains that differ: slots of their own numbers, statistics of their own images."""
    torch.manual_seed(seed)
    model = Universal(make(), [domain(name, size) for name in names])
    scatter(model, size, seed)
    return model.eval()


def scatter(model: Universal, size: Size, seed: int = 0) -> None:
    """Give every domain numbers of its own, as training would, with statistics that fit its images."""
    chance = torch.Generator().manual_seed(seed)
    for rank, name in enumerate(model.domains):
        with torch.no_grad():
            for parameter in model.parameters_of(name).values():
                noise = torch.randn(parameter.shape, generator=chance).to(parameter)
                parameter.add_(0.1 * noise * (parameter.abs().mean() + 0.1))
        settle(model, name, images(8, size, seed + rank).to(next(model.parameters())))


@torch.no_grad()
def settle(model: Universal, name: str, x: Tensor) -> None:
    """Statistics of this batch, by one pass of the domain's slots in training mode."""
    moving: list[tuple[nn.Module, object]] = []
    for bank in model.trunk.banks().values():
        for layer in (bank, *bank.modules()):
            momentum = getattr(layer, "momentum", None)
            if isinstance(layer, _BatchNorm) and momentum is not None:
                moving.append((layer, momentum))
                layer.momentum = 1.0
        slot = bank.slots.get(name)
        for part in () if slot is None else slot.modules():
            if isinstance(part, (_BatchNorm, Stats)):
                part.training = True
    model(x, name)
    for layer, momentum in moving:
        layer.momentum = momentum  # type: ignore[assignment]
    model.eval()


def images(count: int, size: Size, seed: int = 0) -> Tensor:
    """Normalized noise, smooth enough to survive a network."""
    height, width = (size, size) if isinstance(size, int) else size
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=chance)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, height, width, generator=chance)


def far(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest number expected."""
    scale = expected.abs().max().clamp_min(1e-6)
    return float((got - expected).abs().max() / scale)


def conform(make: Make, size: Size = 64, fold: bool = True) -> None:
    """Every check, on one trunk with its norm and its adapters."""
    starts_as_the_plain_trunk(make, size)
    model = build(make, size)
    pure_is_plain(model, size)
    mixed_is_pure(model, size)
    gradients_stay_home(copy.deepcopy(model), size)
    others_never_move(copy.deepcopy(model), size)
    packs_come_back(model, size)
    copies_are_apart(model, size)
    if fold:
        folded_is_unfolded(model, size)


def starts_as_the_plain_trunk(make: Make, size: Size) -> None:
    """Made universal, before anything is learned, it answers to the bit as the trunk it was."""
    torch.manual_seed(0)
    trunk = make()
    if trunk.norm not in SAME_AT_START or trunk.sharing not in ("deep", "full"):
        return
    net, facts = backbones.build(trunk.arch, False)
    net.load_state_dict({k: v.detach().clone() for k, v in trunk.shared().items()})
    model = Universal(trunk, [domain("ants", size)]).eval()
    x = images(4, size)
    with torch.no_grad():
        before, _ = facts.forward(net.eval(), x, True, ())
        with model.trunk.switch.using("ants"):
            after, _ = model.trunk(x)
    assert before is not None
    assert after is not None
    assert torch.equal(before, after), f"made universal it differs by {far(after, before):.1e}"


def pure_is_plain(model: Universal, size: Size) -> None:
    """A pure batch answers as the plain network with that domain's parameters, to 1e-12."""
    double = copy.deepcopy(model).double().eval()
    x = images(4, size).double()
    with torch.no_grad():
        for name in NAMES[:2]:
            plain = double.for_domain(name, fold=False)
            expected, got = plain(x)["classify"], double(x, name)["classify"]
            assert far(got, expected) <= 1e-12, f"{name}: {far(got, expected):.1e} off"
            assert not list(plain.trunk.banks()), "a bank is left in the plain network"
            if model.trunk.adapters == "none" and model.trunk.norm in SAME_AT_START:
                by_hand = _by_hand(double, name, x)
                assert far(plain.trunk(x)[0], by_hand) <= 1e-12, f"{name}: not as by hand"


def _by_hand(model: Universal, name: str, x: Tensor) -> Tensor:
    """Pooled features of a fresh backbone that was given the domain's numbers."""
    trunk = model.trunk
    net, facts = backbones.build(trunk.arch, False)
    state = dict(trunk.shared())
    for path, bank in trunk.banks().items():
        slot = bank.slots.get(name)
        for key, value in {} if slot is None else slot.state_dict().items():
            state[f"{path}.{key}"] = value
    net.double().load_state_dict(state)
    pooled, _ = facts.forward(net.eval(), x, True, ())
    assert pooled is not None
    return pooled


def mixed_is_pure(model: Universal, size: Size) -> None:
    """Every image of a mixed batch answers as in a pure one, in any order, to 1e-5."""
    order = [NAMES[i] for i in (2, 0, 1, 0, 2, 2, 1)]
    x = images(len(order), size, seed=9)
    with torch.no_grad():
        mixed = model(x, order)
        pure = {
            name: iter(model(x[[i for i, o in enumerate(order) if o == name]], name)["classify"])
            for name in NAMES
        }
    expected = torch.stack([next(pure[name]) for name in order])
    got = torch.stack([prediction["classify"] for prediction in mixed])
    assert far(got, expected) <= 1e-5, f"mixed is {far(got, expected):.1e} off"


def gradients_stay_home(model: Universal, size: Size) -> None:
    """A pure batch teaches the shared weights and its own slots; no optimizer moves another's."""
    model.train()
    parameters = list(model.parameters())
    before = {name: _state(model, name) for name in NAMES}
    sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        sgd.zero_grad()
        model(images(4, size), "ants")["classify"].square().sum().backward()
        sgd.step()
    for name in NAMES[1:]:
        for key, parameter in model.parameters_of(name).items():
            assert parameter.grad is None or not parameter.grad.any(), f"{name} learned at {key}"
        assert _same(before[name], _state(model, name)), f"{name} moved while ants learned"
    mine = model.parameters_of("ants")
    moved = [k for k, p in mine.items() if p.grad is not None and p.grad.any()]
    assert moved, "ants' own parameters got no gradient"


def others_never_move(model: Universal, size: Size) -> None:
    """A domain that is added, learned and removed leaves every other answer, to the bit."""
    x = images(4, size)
    with torch.no_grad():
        before = {name: model(x, name)["classify"] for name in NAMES}
    sha = model.trunk.fingerprint()

    def unmoved(when: str) -> None:
        model.eval()
        with torch.no_grad():
            for name, expected in before.items():
                assert torch.equal(model(x, name)["classify"], expected), f"{name} moved: {when}"
        assert model.trunk.fingerprint() == sha, f"the trunk moved: {when}"

    model.add_domain(domain("dogs", size))
    unmoved("dogs was added")
    model.learn_only("dogs")
    model.train()
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    start = _state(model, "dogs")
    for _ in range(2):
        adam.zero_grad()
        model(images(4, size, seed=5), "dogs")["classify"].square().sum().backward()
        adam.step()
    assert not _same(start, _state(model, "dogs")), "dogs did not learn"
    # torch.matmul takes another kernel for a weight that requires a gradient, with other last bits
    # (levit's linear layers have no bias and go there), so the flags are to be as they were
    model.learn_only(None)
    unmoved("dogs learned")
    model.remove("dogs")
    unmoved("dogs was removed")


def packs_come_back(model: Universal, size: Size) -> None:
    """Packed, saved, and loaded into a fresh copy of the trunk, a domain answers to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = model.pack("bees").save(Path(folder) / "bees.pack")
        fresh = copy.deepcopy(model)
        for name in NAMES:
            fresh.remove(name)
        fresh.load_pack(path)
    x = images(4, size)
    with torch.no_grad():
        expected, got = model(x, "bees")["classify"], fresh(x, "bees")["classify"]
    assert torch.equal(got, expected), f"from its pack it is {far(got, expected):.1e} off"


def copies_are_apart(model: Universal, size: Size) -> None:
    """A deep copy, and a pickled one, answer the same and share nothing."""
    x = images(4, size)
    with torch.no_grad():
        model(x, [NAMES[i % 3] for i in range(4)])  # so that tables are laid out
        expected = model(x, "ants")["classify"]
        twin = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for other in (twin, torch.load(file, weights_only=False)):
            assert torch.equal(other(x, "ants")["classify"], expected), "a copy differs"
        for parameter in twin.parameters():
            parameter.add_(1.0)
        assert torch.equal(model(x, "ants")["classify"], expected), "a copy shares parameters"


def folded_is_unfolded(model: Universal, size: Size) -> None:
    """The folded plain module answers as the model, to 1e-4, with no more parameters."""
    x = images(4, size)
    with torch.no_grad():
        expected = model(x, "cats")["classify"]
        folded = model.for_domain("cats")
        assert far(folded(x)["classify"], expected) <= 1e-4, "folded, it answers otherwise"


def _state(model: Universal, name: str) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.own(name).items()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
