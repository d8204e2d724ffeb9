"""Losses against loops over images and pixels, pinned values, and invariances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.sources import Item, Label
from onetrunk.data.task import KINDS, NO_CLASS, NO_LABEL, NO_PIXEL, Kind, Task
from onetrunk.train.losses import Losses, class_weights, make_loss, regress, target_stats
from tests.helpers.fakes import Fake, dense_source, picture

CLASSES = ("a", "b", "c")
SCALE = (2.0, 0.5)  # standard deviations of the two regression targets
DOUBLE = torch.float64


def task_of(kind: Kind) -> Task:
    classes = CLASSES if kind in ("classify", "multilabel", "segment", "embed") else ()
    return Task("it", kind, classes, outputs=2 if kind == "regress" else 1)


def loss_of(kind: Kind, smooth: float = 0.0) -> Any:
    if kind != "regress":
        return make_loss(task_of(kind), smooth=smooth)
    return lambda out, target: regress(out, target, torch.tensor(SCALE, dtype=out.dtype))


def sample(kind: Kind, count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs of a head and targets of a split, all labelled."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, dtype=DOUBLE)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=chance)

    if kind == "classify":
        return normal(count, 3), integers(3, count)
    if kind == "embed":
        return torch.nn.functional.normalize(normal(count, 5)), integers(3, count)
    if kind == "multilabel":
        return normal(count, 3), integers(2, count, 3).to(torch.uint8)
    if kind == "regress":
        return normal(count, 2), normal(count, 2).float()
    if kind == "segment":
        return normal(count, 3, 4, 5), integers(3, count, 4, 5).to(torch.uint8)
    if kind == "depth":
        return normal(count, 1, 4, 5), normal(count, 4, 5).abs().float() + 0.1
    return (
        torch.nn.functional.normalize(normal(count, 3, 4, 5)),
        torch.nn.functional.normalize(normal(count, 3, 4, 5)).float(),
    )


def remove_labels(kind: Kind, target: Tensor, images: Any) -> Tensor:
    """Remove the labels of these images."""
    marks = {"classify": NO_CLASS, "embed": NO_CLASS, "multilabel": NO_LABEL, "segment": NO_PIXEL}
    target = target.clone()
    target[images] = marks.get(kind, math.nan if kind == "regress" else 0)
    return target


def holes(kind: Kind, target: Tensor) -> Tensor:
    """Remove single labels: of an image, a number or a pixel."""
    target = target.clone()
    if kind in ("classify", "embed"):
        target[1] = NO_CLASS
    elif kind == "multilabel":
        target[0] = NO_LABEL
        target[2, 1] = NO_LABEL
    elif kind == "regress":
        target[0] = math.nan
        target[3, 1] = math.nan
    elif kind == "normals":
        target[1, :, 2, 3] = 0
        target[4, :, 0] = 0
    else:
        target[1, 2, 3] = NO_PIXEL if kind == "segment" else 0
        target[4, 0] = NO_PIXEL if kind == "segment" else 0
    return target


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(v) for v in logits))
    return [v - total for v in logits]


def slow(kind: Kind, out: Tensor, target: Tensor) -> float:
    """The loss by loops over images, numbers and pixels."""
    each: list[float] = []
    count = len(out)
    if kind == "classify":
        for i in range(count):
            if int(target[i]) != NO_CLASS:
                each.append(-log_softmax(out[i].tolist())[int(target[i])])
    elif kind == "multilabel":
        for i in range(count):
            for c in range(3):
                if int(target[i, c]) != NO_LABEL:
                    p = 1 / (1 + math.exp(-float(out[i, c])))
                    each.append(-math.log(p if int(target[i, c]) == 1 else 1 - p))
    elif kind == "regress":
        for i in range(count):
            for n in range(2):
                if not math.isnan(float(target[i, n])):
                    each.append(((float(out[i, n]) - float(target[i, n])) / SCALE[n]) ** 2)
    elif kind == "embed":
        known = [i for i in range(count) if int(target[i]) != NO_CLASS]
        for i in known:
            positives = [j for j in known if j != i and int(target[j]) == int(target[i])]
            others = [math.exp(float(out[i] @ out[a]) / 0.1) for a in known if a != i]
            if positives:
                terms = [
                    math.log(math.exp(float(out[i] @ out[p]) / 0.1) / sum(others))
                    for p in positives
                ]
                each.append(-sum(terms) / len(positives))
    else:
        for i in range(count):
            for y in range(out.shape[2]):
                for x in range(out.shape[3]):
                    each += slow_pixel(kind, out[i, :, y, x], target[i, ..., y, x])
    return sum(each) / len(each) if each else 0.0


def slow_pixel(kind: Kind, out: Tensor, target: Tensor) -> list[float]:
    if kind == "segment":
        return [] if int(target) == NO_PIXEL else [-log_softmax(out.tolist())[int(target)]]
    if kind == "depth":
        return [abs(float(out) - float(target))] if float(target) > 0 else []
    length = math.sqrt(sum(float(v) ** 2 for v in target))
    if length == 0:
        return []
    return [1 - sum(float(a) * float(b) / length for a, b in zip(out, target, strict=True))]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_its_formula_with_and_without_missing_labels(kind: Kind) -> None:
    for seed in range(3):
        out, target = sample(kind, seed=seed)
        for labels in (target, holes(kind, target)):
            expected = slow(kind, out, labels)
            assert expected > 0
            # normals are normalised in float32
            close = pytest.approx(expected, rel=1e-7 if kind == "normals" else 1e-10)
            assert float(loss_of(kind)(out, labels)) == close


def test_pinned_values() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=DOUBLE)
    found = loss_of("classify")(logits, torch.tensor([1, 0]))
    assert float(found) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    found = loss_of("multilabel")(logits, torch.tensor([[1, 1], [255, 0]], dtype=torch.uint8))
    assert float(found) == pytest.approx((2 * math.log(2) + math.log(4 / 3)) / 3)
    found = loss_of("regress")(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    assert float(found) == pytest.approx((1 + 4) / 2)
    maps = torch.tensor([[[[2.0, 5.0]]]])
    assert float(loss_of("depth")(maps, torch.tensor([[[1.5, 0.0]]]))) == 0.5
    up, right = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    both = torch.stack([up, right]).view(2, 3, 1, 1)
    assert float(loss_of("normals")(both, torch.stack([up, up]).view(2, 3, 1, 1))) == 0.5
    # two opposite pairs of positives: log(1 + 2·exp(−2/τ)) for each of the four
    z = torch.stack([up, up, -up, -up])
    found = loss_of("embed")(z, torch.tensor([0, 0, 1, 1]))
    assert float(found) == pytest.approx(math.log1p(2 * math.exp(-20)), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_a_batch_does_not_matter(kind: Kind) -> None:
    out, target = sample(kind)
    target = holes(kind, target)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    one, other = loss_of(kind)(out, target), loss_of(kind)(out[order], target[order])
    assert float(one) == pytest.approx(float(other), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_a_label_have_no_gradient(kind: Kind) -> None:
    out, target = sample(kind, 8)
    out.requires_grad_()
    loss_of(kind)(out, remove_labels(kind, target, slice(4, 8))).backward()
    assert out.grad is not None
    half = out.detach()[:4].clone().requires_grad_()
    loss_of(kind)(half, target[:4]).backward()
    assert half.grad is not None
    assert torch.allclose(out.grad[:4], half.grad, rtol=1e-12, atol=0)
    assert out.grad[:4].abs().sum() > 0
    assert not out.grad[4:].any()


@pytest.mark.parametrize("smooth", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_label_is_0_and_has_no_nan(kind: Kind, smooth: float) -> None:
    out, target = sample(kind)
    out.requires_grad_()
    weight = torch.ones((), dtype=DOUBLE, requires_grad=True)
    loss = loss_of(kind, smooth)(out * weight, remove_labels(kind, target, slice(None)))
    assert float(loss.detach()) == 0
    loss.backward()
    assert out.grad is not None and not out.grad.any()
    assert weight.grad is not None and float(weight.grad) == 0


def test_images_without_a_positive_are_left_out() -> None:
    out, _ = sample("embed", 4)
    loss = loss_of("embed")
    assert float(loss(out, torch.tensor([0, 1, 2, 3]))) == 0
    assert float(loss(out[:1], torch.tensor([0]))) == 0
    target = torch.tensor([0, 0, 1, 2])  # the last two only count as negatives
    assert float(loss(out, target)) == pytest.approx(slow("embed", out, target))


def test_label_smoothing_is_uniform_over_classes() -> None:
    out, target = sample("classify")
    target[2] = NO_CLASS
    each = [
        -sum((0.9 * (c == int(t)) + 0.1 / 3) * v for c, v in enumerate(log_softmax(o.tolist())))
        for o, t in zip(out, target, strict=True)
        if int(t) != NO_CLASS
    ]
    assert float(loss_of("classify", 0.1)(out, target)) == pytest.approx(sum(each) / len(each))


def source(**columns: list[Any]) -> Fake:
    """Training images with these labels, and one image of each other split."""
    kinds: dict[str, Kind] = {
        "what": "classify",
        "also": "classify",
        "size": "regress",
        "much": "regress",
    }
    tasks = tuple(Task(name, kinds[name]) for name in columns)
    count = len(next(iter(columns.values())))
    listed = [
        Item(f"{i:03}", str(i), "", "train", labels={k: v[i] for k, v in columns.items()})
        for i in range(count)
    ]
    first = {k: v[0] for k, v in columns.items()}
    listed += [Item(s, str(900 + i), "", s, labels=first) for i, s in enumerate(("val", "test"))]
    return Fake(tasks, listed, {str(i): picture(0, 4, 4) for i in range(count)})


def test_balanced_class_weights_make_classes_count_the_same() -> None:
    what = ["a"] * 6 + ["b"] * 3 + [None] + ["c"]
    domain = Domain("skew", source(what=what), size=4)
    task = domain.tasks[0]
    weights = class_weights(domain, task)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    known = [c for c in what if c is not None]
    assert sum(float(weights["abc".index(c)]) for c in known) / len(known) == pytest.approx(1)

    out = torch.randn(11, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([-1 if c is None else "abc".index(c) for c in what])
    total = mass = 0.0
    for o, t in zip(out, target.tolist(), strict=True):
        if t != NO_CLASS:
            total -= float(weights[t]) * log_softmax(o.tolist())[t]
            mass += float(weights[t])
    found = make_loss(task, domain, weighted=True)(out, target)
    assert float(found) == pytest.approx(total / mass)
    none = torch.full_like(target, NO_CLASS)
    assert float(make_loss(task, domain, weighted=True)(out, none)) == 0
    plain = make_loss(task, domain)(out, target)
    assert float(plain) == pytest.approx(slow("classify", out, target))


def test_regression_errors_are_divided_by_the_std_of_the_training_labels() -> None:
    domain = Domain("sizes", source(size=[(1.0, 5.0), (3.0, 5.0), None, (5.0, 5.0)]), size=4)
    task = domain.tasks[0]
    mean, std = target_stats(domain, task)
    assert mean.tolist() == [3.0, 5.0]
    assert std.tolist() == pytest.approx([math.sqrt(8 / 3), 1.0])  # constant: not scaled
    out = torch.tensor([[3.0, 7.0]])
    found = make_loss(task, domain)(out, torch.tensor([[1.0, 5.0]]))
    assert float(found) == pytest.approx((4 / (8 / 3) + 4) / 2)


def test_two_tasks_of_one_kind_each_have_their_labels_and_scale() -> None:
    columns: dict[str, Any] = {"what": list("aab"), "also": list("yxy")}
    columns |= {"size": [1.0, 3.0, 5.0], "much": [10.0, 30.0, 50.0]}
    domain = Domain("both", source(**columns), size=4)
    out = {name: torch.zeros(3, 2, dtype=DOUBLE) for name in ("what", "also")}
    out["also"][:, 1] = 2.0
    out |= {name: torch.zeros(3, 1, dtype=DOUBLE) for name in ("size", "much")}
    targets = {n: torch.from_numpy(domain.train.label(n).astype(np.int64)) for n in columns}
    targets |= {n: torch.from_numpy(domain.train.label(n)) for n in ("size", "much")}
    found = Losses([domain])("both", out, [(1.0, targets)])
    assert list(found) == ["what", "also", "size", "much"]
    assert float(found["what"]) == pytest.approx(math.log(2))
    assert float(found["also"]) == pytest.approx(math.log(1 + math.e**2) - 4 / 3)
    assert float(found["size"]) == pytest.approx(float(found["much"]))  # the same, times ten
    assert float(found["size"]) == pytest.approx((1 + 9 + 25) / 3 / (8 / 3))


def test_shares_of_several_targets() -> None:
    domain = Domain("skew", source(what=list("abca")), size=4)
    out, one = sample("classify", 4)
    other = one.flip(0)
    losses = Losses([domain])
    found = losses("skew", {"what": out}, [(0.25, {"what": one}), (0.75, {"what": other})])
    expected = 0.25 * slow("classify", out, one) + 0.75 * slow("classify", out, other)
    assert float(found["what"]) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_computed_in_float32(kind: Kind) -> None:
    dense = dense_source(8, 4, 5)
    domain = {
        True: Domain("rooms", dense, size=(4, 5)),
        False: Domain("many", every(), size=4),
    }[task_of(kind).dense]
    name = next(t.name for t in domain.tasks if t.kind == kind)
    losses = Losses([domain])
    out, target = sample(kind)
    others = {t.name: t.kind for t in domain.tasks if t.name != name}
    rest = {n: sample(k) for n, k in others.items()}
    outs, targets = {n: o for n, (o, _) in rest.items()}, {n: t for n, (_, t) in rest.items()}
    for half in (torch.float16, torch.bfloat16):
        found = losses(
            domain.name, {**outs, name: out.to(half)}, [(1.0, {**targets, name: target})]
        )
        wide = losses(
            domain.name, {**outs, name: out.to(half).float()}, [(1.0, {**targets, name: target})]
        )
        assert found[name].dtype == torch.float32
        assert found[name].equal(wide[name])
    assert (
        losses(domain.name, {**outs, name: out}, [(1.0, {**targets, name: target})])[name].dtype
        == DOUBLE
    )


def every() -> Fake:
    """All kinds that are not dense, in one domain."""
    tasks = (
        Task("what", "classify", CLASSES),
        Task("tags", "multilabel", CLASSES),
        Task("size", "regress", outputs=2),
        Task("like", "embed", CLASSES),
    )
    split = ("train", "train", "train", "val", "test")
    listed = []
    for i in range(15):
        letter = CLASSES[i % 3]
        labels: dict[str, Label] = {"what": letter, "tags": (letter,), "like": letter}
        labels["size"] = (float(i), 0.0)
        listed.append(Item(str(i), str(i), "", split[i % 5], labels=labels))
    return Fake(tasks, listed, {str(i): picture(i, 4, 4) for i in range(15)})
