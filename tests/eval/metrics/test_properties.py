"""Properties of scores: order, batches, precision, missing labels, other names."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onetrunk.data.domain import Domain
from onetrunk.data.task import KINDS, NO_CLASS, NO_LABEL, NO_PIXEL, Task
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.metrics.calibration import calibration_error
from onetrunk.eval.metrics.image import average_precision
from onetrunk.eval.metrics.pixel import histogram, histogram_median, mean_iou
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.fakes import Fake, small
from tests.helpers.outputs import TASKS, random_outputs, scored

EMPTY = {"classify": NO_CLASS, "embed": NO_CLASS, "multilabel": NO_LABEL, "segment": NO_PIXEL}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_scores_of_any_batches_in_any_order_are_equal(kind: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    out, target = random_outputs(kind, count, data.draw(st.integers(0, 999)))
    order = torch.tensor(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(0, count))) | {0, count})
    scores = scores_of(TASKS[kind])
    for start, end in itertools.pairwise(cuts):
        scores.update(out[order][start:end], target[order][start:end])
    together = scored(kind, out, target, count)
    assert scores.compute() == pytest.approx(together.compute(), rel=1e-12)
    assert scores.count == together.count
    arrays = together.per_image()
    for name, array in scores.per_image().items():
        assert array == pytest.approx(arrays[name][order.numpy()], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), data=st.data())
def test_images_with_hidden_labels_do_not_change_the_scores(
    kind: str, seed: int, data: st.DataObject
) -> None:
    count = 24
    out, target = random_outputs(kind, count, seed)
    hidden = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    masked = target.clone()
    masked[hidden] = EMPTY.get(kind, float("nan") if kind == "regress" else 0)
    alone = scored(kind, out[~hidden], target[~hidden])
    assert scored(kind, out, masked).compute() == pytest.approx(alone.compute(), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_and_memory_formats(kind: str) -> None:
    out, target = random_outputs(kind)
    for dtype in (torch.bfloat16, torch.float16):
        low = out.to(dtype)
        assert scored(kind, low, target).compute() == scored(kind, low.float(), target).compute()
    if out.ndim == 4:
        strided = out.to(memory_format=torch.channels_last)
        assert scored(kind, strided, target).compute() == scored(kind, out, target).compute()


@pytest.mark.parametrize("kind", ["classify", "multilabel", "segment", "embed"])
def test_the_order_of_classes_does_not_matter(kind: str) -> None:
    out, target = random_outputs(kind)
    order = torch.tensor([3, 0, 4, 1, 2])
    position = order.argsort()  # of class c in the new order
    if kind == "multilabel":
        moved, renamed = out[:, order], target[:, order]
    else:
        moved = out if kind == "embed" else out[:, order]
        empty = EMPTY[kind]
        known = target != empty
        renamed = torch.where(known, position[target.long() * known], empty).to(target.dtype)
    found = scored(kind, moved, renamed).compute()
    assert found == pytest.approx(scored(kind, out, target).compute(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_true_outputs_have_the_best_scores(kind: str) -> None:
    _, target = random_outputs(kind, 40)
    if kind in ("classify", "embed"):
        out = torch.eye(5)[target.clamp(min=0)] * (100 if kind == "classify" else 1)
    elif kind == "multilabel":
        out = target.float()
    elif kind == "regress":
        out = target.nan_to_num()
    elif kind == "segment":
        out = torch.eye(5)[target.long().clamp(max=4)].movedim(-1, 1)
    else:
        out = target[:, None] if kind == "depth" else target
    best = {"miou", "pixel_accuracy", "recall_at_1", "within_11", "within_22", "within_30"}
    for name, value in scored(kind, out, target).compute().items():
        assert value == pytest.approx(100 if name in best else 0, abs=0.006), name


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_is_between_the_mean_gap_and_one(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    error = calibration_error(confidence, right)
    assert abs(confidence.mean() - right.mean()) - 1e-12 <= error <= 1 + 1e-12


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_depends_on_ranks_alone(pairs: list[tuple[int, bool]]) -> None:
    scores, true = np.array([s for s, _ in pairs], float), np.array([t for _, t in pairs])
    if not true.any():
        return
    area = average_precision(scores, true)
    assert true.mean() / 2 - 1e-12 <= area <= 1 + 1e-12
    assert average_precision(np.exp(scores) - 7, true) == area
    order = np.random.default_rng(0).permutation(len(scores))
    assert average_precision(scores[order], true[order]) == area
    assert average_precision(np.zeros(len(true)), true) == pytest.approx(true.mean())


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_the_median_of_a_histogram_is_numpys(values: list[int]) -> None:
    bins = np.bincount(values, minlength=51)
    assert histogram_median(bins) == np.median(values) + 0.5


@given(st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_histogram_per_row(rows: list[list[int]]) -> None:
    found = histogram(torch.tensor(rows), 7)
    assert found.tolist() == [np.bincount(row, minlength=7).tolist() for row in rows]


@given(st.lists(st.integers(0, 4), min_size=4, max_size=30), st.integers(0, 99))
def test_mean_iou_of_stacked_areas(label: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sets = []
    for _ in range(3):
        best = rng.integers(0, 5, len(label))
        true = np.array(label)
        counts = [true[true == best], best, true]
        sets.append([np.bincount(c, minlength=5) for c in counts])
    together = mean_iou(np.array(sets))
    assert together == pytest.approx([float(mean_iou(np.array(one))) for one in sets])
    assert ((together >= 0) & (together <= 1)).all()


def test_image_names_do_not_change_the_scores() -> None:
    """Names decide the order of a split and its batches, nothing else."""
    source = small(60, classes=("a", "b", "c"))
    torch.manual_seed(0)
    domain = Domain("d", source, size=12, normalize="imagenet")
    model = Universal(Trunk("resnet20"), [domain])
    table = evaluate(model, [domain])
    listed = [replace(item, key=f"{97 * int(item.where) % 61:03}") for item in source.listed]
    other = Domain("d", Fake(source.tasks, listed), size=12, normalize="imagenet")
    assert other.test.label("classify").tolist() != domain.test.label("classify").tolist()
    for row in evaluate(model, [other], batch=4).rows:
        assert row.value == pytest.approx(table.value("d", metric=row.metric), abs=1e-4)


def test_two_tasks_of_one_kind_have_separate_scores() -> None:
    source = small(60, classes=("a", "b"))
    listed: list[Any] = [
        replace(i, labels={"left": i.labels["classify"], "right": "ab"[n % 3 == 0]})
        for n, i in enumerate(source.listed)
    ]
    domain = Domain("d", Fake((Task("left", "classify"), Task("right", "classify")), listed))
    model = Universal(Trunk("resnet20"), [domain])
    table = evaluate(model, [domain])
    assert table.tasks("d") == ("left", "right")
    assert table.errors()["d"] == (table.value("d", "left") + table.value("d", "right")) / 2
