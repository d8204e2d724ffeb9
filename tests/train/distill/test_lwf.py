"""Learning without forgetting: its loss and gradients, and resumed runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.config import Distill
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import perturb
from onetrunk.train.device import Precision
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.initialize import copy_weights
from onetrunk.train.learner import NotFinite
from tests.helpers.errors import raises
from tests.helpers.worlds import (
    CPU,
    assert_same_run,
    at,
    checkpoints,
    go,
    learner,
    network,
    same,
    specialists,
    steps,
    weights,
    worlds,
)

T = 2.0
EQUAL = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))  # one normalization for all: no image is converted
TRUNKS: dict[str, dict[str, Any]] = {
    "domain": {},
    "shared": {"norm": "shared"},
    "stats": {"norm": "domain-stats"},
    "adapters": {"adapters": "parallel"},
    "full": {"sharing": "full"},
    "own stages": {"sharing": "partial", "own_stages": ["stem", 3]},
}
TASKS = (
    Task("kind", "classify", ("a", "b", "c")),
    Task("marks", "multilabel", ("x", "y")),
    Task("price", "regress", outputs=2),
    Task("near", "embed", ("a", "b")),
    Task("parts", "segment", ("p", "q")),
)


def old_network(domains: Sequence[Domain], **trunk: Any) -> Universal:
    """A network with random weights and statistics for each domain."""
    model = network(domains, 5, **trunk)
    perturb(model, 8, 5)
    return model.eval()


def student(domains: Sequence[Domain], before: Universal, **trunk: Any) -> Universal:
    """A network that starts from the old trunk."""
    model = network(domains, 1, **trunk)
    copy_weights(model, before)
    return model


def lwf(before: Universal, domains: Sequence[Domain], weight: float = 1.0) -> OldPredictions:
    """The loss on every domain that is not trained here."""
    config = Distill.of({"lwf": weight, "temperature": T})
    return OldPredictions(copy.deepcopy(before), domains, config)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """T²·KL over classes, averaged over everything else, with torch's kl_div."""
    each = F.kl_div(
        F.log_softmax(student / T, 1), F.softmax(teacher / T, 1), reduction="none", log_target=False
    )
    return T**2 * each.sum(1).mean()


def shifted(model: Universal) -> None:
    """Change everything that is shared, including shared statistics."""
    chance = torch.Generator().manual_seed(3)
    kept = {id(t) for name in model.domains for t in model.own(name).values()}
    alone = model.trunk.sharing == "none"
    with torch.no_grad():
        for tensor in model.trunk.shared().values():
            if tensor.is_floating_point() and (alone or id(tensor) not in kept):
                tensor.mul_(1 + 0.1 * torch.rand(tensor.shape, generator=chance))


@pytest.mark.parametrize("alone", [False, True], ids=["joint", "alone"])
@pytest.mark.parametrize("kind", TRUNKS)
def test_the_loss_and_its_gradient_by_hand(kind: str, alone: bool) -> None:
    """Against the old network with the changed trunk copied into it."""
    trunk = TRUNKS[kind]
    ants, bees, cats = worlds("ants", "bees", "cats", normalize=EQUAL)
    before = old_network([ants, bees], **trunk)
    theirs = {"norm": trunk.get("norm", "domain"), "sharing": "none"}
    if kind != "own stages":
        model = student([cats], before, **(theirs if alone else trunk))
    else:
        model = student([cats], before, **trunk)
    shifted(model)
    made = lwf(before, [cats], 0.7)
    made.follow(model, Precision(CPU), False)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for step, name in enumerate(["ants", "bees", "ants"]):
        model.zero_grad()
        loss = made.loss("cats", images, step)
        torch.autograd.backward(loss)
        hand = copy.deepcopy(before)
        hand.trunk.load_shared(model.trunk.shared())
        with torch.no_grad():
            then = before(images, name)["classify"]
        expected = 0.7 * kl(hand(images, name)["classify"], then)
        torch.autograd.backward(expected)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert loss.item() > 1e-6
        theirs_by_name, reached = hand.trunk.shared(), 0
        for key, tensor in model.trunk.shared().items():
            grad = theirs_by_name[key].grad
            if grad is not None and tensor.requires_grad:
                assert tensor.grad is not None
                torch.testing.assert_close(tensor.grad, grad, rtol=1e-3, atol=1e-6)
                reached += 1
        assert reached > 10
        shared = {id(t) for t in model.trunk.shared().values()}
        rest = [p for p in model.parameters() if id(p) not in shared]
        assert rest and all(p.grad is None for p in rest)
        assert all(p.grad is None for p in made.before.parameters())
    assert same(weights(made.before), weights(before))


def test_the_loss_is_zero_at_the_start() -> None:
    ants, cats = worlds("ants", "cats")
    before = old_network([ants])
    model = student([cats], before)
    made = lwf(before, [cats])
    made.follow(model, Precision(CPU), False)
    # inference and training round differently on a CPU
    assert made.loss("cats", torch.randn(4, 3, 8, 8), 0).item() == pytest.approx(0, abs=1e-6)


def test_the_old_domain_has_its_own_size_and_normalization() -> None:
    old = Domain(
        "ants", worlds("ants")[0].source, size=12, normalize=((0.2, 0.2, 0.2), (0.5, 0.5, 0.5))
    )
    (cats,) = worlds("cats")
    before = old_network([old])
    model = student([cats], before)
    shifted(model)
    made = lwf(before, [cats])
    made.follow(model, Precision(CPU), False)
    images = torch.randn(4, 3, 8, 8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (cats.pixels.mean, cats.pixels.std))
    grey = images * std + mean
    converted = F.interpolate((grey - 0.2) / 0.5, (12, 12), mode="bilinear", antialias=True)
    hand = copy.deepcopy(before)
    hand.trunk.load_shared(model.trunk.shared())
    expected = kl(hand(converted, "ants")["classify"], before(converted, "ants")["classify"])
    assert made.loss("cats", images, 0).item() == pytest.approx(expected.item(), rel=1e-4)


def test_all_kinds_of_tasks_but_embeddings_have_equal_weight() -> None:
    old = Domain("ants", None, TASKS, size=8, normalize=EQUAL)
    (cats,) = worlds("cats", normalize=EQUAL)
    before = old_network([old])
    scale = torch.tensor([2.0, 50.0])
    before.heads_of("ants").head("price").get_buffer("std").copy_(scale)
    model = student([cats], before)
    shifted(model)
    made = lwf(before, [cats])
    made.follow(model, Precision(CPU), False)
    images = torch.randn(4, 3, 8, 8)
    hand = copy.deepcopy(before)
    hand.trunk.load_shared(model.trunk.shared())
    now, then = hand(images, "ants"), before(images, "ants")
    p, q = torch.sigmoid(then["marks"] / T), torch.sigmoid(now["marks"] / T)
    two = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    each = [
        kl(now["kind"], then["kind"]),
        T**2 * two.mean(),
        (((now["price"] - then["price"]) / scale) ** 2).mean(),
        kl(now["parts"], then["parts"]),
    ]
    expected = torch.stack(each).mean().item()
    assert made.loss("cats", images, 0).item() == pytest.approx(expected, rel=1e-4)


def test_a_step_descends_both_losses() -> None:
    """One step of plain SGD: the trunk by the sum of both gradients, own parts by the labels'."""
    ants, cats, dogs = worlds("ants", "cats", "dogs")
    before = old_network([ants])
    given: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0, "lr": 0.1}
    given["schedule"] = "constant"
    new = [cats, dogs]
    distill = {"label_weight": 0.5}
    held = lwf(before, new, 3.0)
    made = learner(new, student(new, before), old_predictions=held, distill=distill, **given)
    twin = student(new, before).train()
    start = weights(twin)
    (passes,) = steps(made, 1)
    loss = torch.zeros(())
    for group in passes:
        (batch,) = group
        out = twin(batch.images, batch.domain)["classify"]
        hand = lwf(before, new, 3.0)
        hand.follow(twin, Precision(CPU), False)
        labels = F.cross_entropy(out, batch.targets["classify"])
        loss = loss + (0.5 * labels + hand.loss(batch.domain, batch.images, 0)) / 2
    torch.autograd.backward(loss)
    made.step(passes)
    now = dict(made.model.named_parameters())
    for name, parameter in twin.named_parameters():
        if parameter.grad is not None:
            mine = "slots." in name or name.startswith("heads.")  # averaged over its own batches
            expected = start[name] - 0.1 * parameter.grad * (2 if mine else 1)
            torch.testing.assert_close(now[name], expected, rtol=1e-4, atol=1e-6)
    record = made.means.take(made.clock)
    assert set(record["distilled"]) == {"cats old predictions", "dogs old predictions"}
    assert set(record["loss"]) == {"cats/classify", "dogs/classify"}


def test_old_predictions_change_less() -> None:
    ants, bees, cats = worlds("ants", "bees", "cats")
    before = old_network([ants, bees])
    images, _ = cats.train.batch(np.arange(16))
    moved = []
    for weight in (0.0, 2.0):
        held = lwf(before, [cats], weight) if weight else None
        given: dict[str, Any] = {"steps": 30, "batch": 8, "optimizer": "adamw", "lr": 2e-4}
        made = learner([cats], student([cats], before), old_predictions=held, clip=1.0, **given)
        for passes in steps(made, 30):
            made.step(passes)
            made.clock.tick()
        after = copy.deepcopy(before)
        after.trunk.load_shared(made.model.trunk.shared())
        with torch.no_grad():
            moves = [(after(images, n)["classify"] - before(images, n)["classify"]).abs().mean()
                    for n in ("ants", "bees")]  # fmt: skip
        moved.append(float(sum(moves)))
    assert moved[1] < 0.85 * moved[0]


@pytest.mark.parametrize("weighting", ["famo", "stch", "cagrad"])
def test_its_gradient_reaches_the_trunk_under_every_kind_of_weighting(weighting: str) -> None:
    ants, cats, dogs = worlds("ants", "cats", "dogs")
    before, new = old_network([ants]), [cats, dogs]
    trunks = []
    for weight in (0.0, 2.0):
        held = lwf(before, new, weight) if weight else None
        made = learner(new, student(new, before), old_predictions=held, weighting=weighting)
        for passes in steps(made, 2):  # the loss is 0 in the first step
            made.step(passes)
        trunks.append({key: t.clone() for key, t in made.model.trunk.shared().items()})
    assert trunks[0].keys() == trunks[1].keys()
    assert not same(*trunks)


def test_a_loss_that_is_not_finite_is_named() -> None:
    ants, cats = worlds("ants", "cats")
    before = old_network([ants])
    with torch.no_grad():
        before.heads_of("ants").head("classify").get_parameter("bias").fill_(math.inf)
    made = learner([cats], student([cats], before), old_predictions=lwf(before, [cats]))
    with raises(NotFinite, "cats/old predictions", "nan", "step 1") as caught:
        made.step(steps(made, 1)[0])
    assert isinstance(caught.value, NotFinite)
    assert caught.value.record["task"] == "old predictions"


def test_with_teachers_and_joined_batches() -> None:
    ants, cats, dogs = worlds("ants", "cats", "dogs")
    before = old_network([ants])
    new = [cats, dogs]
    made = learner(
        new,
        student(new, before),
        teachers=specialists(new),
        distill={"teachers": "x"},
        old_predictions=lwf(before, new),
        sampling="joined",
        batch=8,
        channels_last=True,
    )
    for passes in steps(made, 2):
        made.step(passes)
    record = made.means.take(made.clock)
    assert set(record["distilled"]) == {
        f"{d} {w}" for d in ("cats", "dogs") for w in ("features", "logits", "old predictions")
    }
    assert record["distilled"]["cats old predictions"] > 0


# -- resumed runs


class Interrupted(Exception):
    """Raised in the middle of a run."""


def interrupt() -> None:
    raise Interrupted


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared norm, channels last": {"norm": "shared", "channels_last": True},
    "alone, averaged": {"sharing": "none", "ema": 0.5},
    "half": {"precision": "float16", "clip": 1.0, "accumulate": 2},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    given = dict(SETTINGS[name])
    trunk = {key: given.pop(key) for key in ("norm", "sharing") if key in given}
    given = {"steps": 7, "eval_every": 4, "log_every": 1, "keep_checkpoints": 9, **given}
    ants, bees, cats = worlds("ants", "bees", "cats")
    before = old_network([ants, bees], **{k: v for k, v in trunk.items() if k == "norm"})
    expected, other = (student([cats], before, **trunk) for _ in range(2))
    go(tmp_path / "uninterrupted", [cats], expected, old_predictions=lwf(before, [cats]), **given)
    held = lwf(before, [cats])
    with pytest.raises(Interrupted):
        go(tmp_path / "run", [cats], other, at("step", 6, interrupt), old_predictions=held, **given)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    held = lwf(before, [cats])
    go(tmp_path / "run", [cats], other, old_predictions=held, **given)
    assert same(weights(other), weights(expected))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")
    assert same(weights(held.before), weights(before))
    plain = learner([cats], student([cats], before, **trunk), **given)
    plain.step(steps(plain, 1)[0])
    _, kept = checkpoints(tmp_path / "run")[7]
    assert kept.keys() == plain.state()[0].keys()  # nothing of the old network
