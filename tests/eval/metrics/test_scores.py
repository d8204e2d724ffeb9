"""Scores of every kind: slow references, torchmetrics where it is correct, pinned values."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.data.task import KINDS, NO_CLASS, NO_LABEL, NO_PIXEL, Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.metrics import SCORES, as_error, headline, image, metrics_of, scores_of
from onetrunk.eval.metrics.image import Embed
from tests.helpers.errors import raises
from tests.helpers.outputs import TASKS, random_outputs, scored

# -- slow references: loops over images and pixels


def slow_classify(out: Tensor, target: Tensor) -> dict[str, float]:
    wrong = []
    by_class: dict[int, list[bool]] = {}
    bins: dict[int, list[tuple[float, bool]]] = {}
    for logits, label in zip(out.double(), target.tolist(), strict=True):
        if label == NO_CLASS:
            continue
        p = (logits.exp() / logits.exp().sum()).tolist()
        missed = p.index(max(p)) != label
        wrong.append(missed)
        by_class.setdefault(label, []).append(missed)
        bins.setdefault(min(int(max(p) * 15), 14), []).append((max(p), not missed))
    ece = 0.0
    for members in bins.values():
        confidence, right = (float(np.mean(values)) for values in zip(*members, strict=True))
        ece += len(members) / len(wrong) * abs(confidence - right)
    return {
        "error": 100 * float(np.mean(wrong)),
        "balanced_error": 100 * float(np.mean([np.mean(v) for v in by_class.values()])),
        "ece": 100 * ece,
    }


def slow_multilabel(out: Tensor, target: Tensor) -> dict[str, float]:
    known = [i for i in range(len(target)) if target[i, 0] != NO_LABEL]
    found = []
    for c in range(out.shape[1]):
        pairs = [(float(out[i, c]), int(target[i, c])) for i in known]
        all_true = sum(t for _, t in pairs)
        if not all_true:
            continue
        area, before = 0.0, 0
        for limit in sorted({s for s, _ in pairs}, reverse=True):
            taken = [t for s, t in pairs if s >= limit]
            area += (sum(taken) - before) / all_true * sum(taken) / len(taken)
            before = sum(taken)
        found.append(area)
    return {"map_error": 100 * (1 - float(np.mean(found)))}


def slow_regress(out: Tensor, target: Tensor) -> dict[str, float]:
    y, t = out.double().numpy(), target.double().numpy()
    known = ~np.isnan(t[:, 0])
    y, t = y[known], t[known]
    rmse = np.sqrt(((y - t) ** 2).mean(0))
    return {
        "nrmse": float((rmse / t.std(0)).mean()),
        "rmse": float(rmse.mean()),
        "mae": float(np.abs(y - t).mean()),
    }


def slow_segment(out: Tensor, target: Tensor) -> dict[str, float]:
    confusion = np.zeros((out.shape[1], out.shape[1]))
    for label, best in zip(
        target.flatten().tolist(), out.argmax(1).flatten().tolist(), strict=True
    ):
        if label != NO_PIXEL:
            confusion[label, best] += 1
    either = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    iou = [confusion[c, c] / either[c] for c in range(len(either)) if either[c]]
    right = confusion.trace() / confusion.sum()
    return {"miou": 100 * float(np.mean(iou)), "pixel_accuracy": 100 * float(right)}


def slow_depth(out: Tensor, target: Tensor) -> dict[str, float]:
    pairs = zip(out.flatten().tolist(), target.flatten().tolist(), strict=True)
    known = [(y, t) for y, t in pairs if t > 0]
    return {
        "abs": float(np.mean([abs(y - t) for y, t in known])),
        "rel": float(np.mean([abs(y - t) / t for y, t in known])),
    }


def slow_normals(out: Tensor, target: Tensor) -> dict[str, float]:
    angles = []
    y, t = (m.double().movedim(1, -1).reshape(-1, 3).numpy() for m in (out, target))
    for a, b in zip(y, t, strict=True):
        if np.linalg.norm(b) > 0.5:
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            angles.append(math.degrees(math.acos(min(1, max(-1, cosine)))))
    within = {
        f"within_{int(x)}": float(100 * np.mean(np.array(angles) < x)) for x in (11.25, 22.5, 30)
    }
    return {"mean": float(np.mean(angles)), "median": float(np.median(angles)), **within}


def slow_embed(out: Tensor, target: Tensor) -> dict[str, float]:
    known = [i for i in range(len(target)) if target[i] != NO_CLASS]
    hits = []
    for i in known:
        others = [j for j in known if j != i]
        if any(target[j] == target[i] for j in others):
            nearest = max(others, key=lambda j: float(out[i] @ out[j]))
            hits.append(bool(target[nearest] == target[i]))
    return {"recall_at_1": 100 * float(np.mean(hits))}


SLOW = {
    "classify": slow_classify,
    "multilabel": slow_multilabel,
    "regress": slow_regress,
    "segment": slow_segment,
    "depth": slow_depth,
    "normals": slow_normals,
    "embed": slow_embed,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_slow_reference(kind: str, seed: int) -> None:
    out, target = random_outputs(kind, seed=seed)
    scores = scored(kind, out, target)
    expected = SLOW[kind](out, target)
    found = scores.compute()
    defined = [m.name for m in SCORES[kind].metrics if m.name != "top5_error"]  # of five classes
    assert list(found) == defined == list(expected)
    if kind == "normals":
        assert found.pop("median") == pytest.approx(expected.pop("median"), abs=0.0051)
    assert found == pytest.approx(expected, rel=1e-6)
    assert 0 < scores.count < len(out) == len(scores)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_depend_neither_on_order_nor_on_batches(kind: str) -> None:
    out, target = random_outputs(kind)
    together = scored(kind, out, target, len(out)).compute()
    assert scored(kind, out, target, 7).compute() == together
    order = torch.randperm(len(out), generator=torch.Generator().manual_seed(3))
    assert scored(kind, out[order], target[order], 13).compute() == together


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_a_label_are_not_counted(kind: str) -> None:
    out, target = random_outputs(kind)
    flat = target.flatten(1).float() if target.ndim > 1 else target[:, None].float()
    empty = {"classify": NO_CLASS, "embed": NO_CLASS, "depth": 0, "normals": 0}.get(kind, 255)
    known = ~(flat.isnan() if kind == "regress" else flat == empty).all(1)
    assert 0 < known.sum() < len(out)
    every, labelled = scored(kind, out, target), scored(kind, out[known], target[known])
    assert every.compute() == labelled.compute()
    assert every.count == labelled.count
    assert scored(kind, out[~known], target[~known]).compute() == {}
    assert scores_of(TASKS[kind]).compute() == {}
    assert scores_of(TASKS[kind]).count == 0


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_are_not_finite_are_refused(kind: str) -> None:
    out, target = random_outputs(kind)
    out[5].view(-1)[0] = math.inf if kind == "depth" else math.nan
    scores = scored(kind, out, target)
    assert scores.not_finite().tolist() == [5]
    with raises(Failed, "task t", "1 of 60", try_="learning rate"):
        scores.compute()


def test_outputs_of_another_shape_are_refused() -> None:
    for kind, expected, got in (
        ("classify", "60×5", "60×6"),
        ("segment", "60×5×5×7", "60×6×5×7"),
    ):
        out, target = random_outputs(kind)
        more = torch.cat([out, out[:, :1]], 1)
        with raises(BadInput, "task t", kind, expected, got=got):
            scores_of(TASKS[kind]).update(more, target)
    out, target = random_outputs("depth")
    with raises(BadInput, "60×1×5×7", got="60×1×3×7"):
        scores_of(TASKS["depth"]).update(out[:, :, :3], target)


# -- pinned values, and where torchmetrics differs


def test_balanced_error_is_a_mean_over_classes_with_images() -> None:
    out = torch.eye(5)[[0, 0, 1, 2]] * 9
    found = scored("classify", out, torch.tensor([0, 0, 1, 1])).compute()
    assert found["error"] == 25
    assert found["balanced_error"] == 25  # 50 if class c counted as all wrong


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    """50 of confidence 1 with 45 right, 50 of 0.95, all right: |0.95 − 0.975|."""
    certain = torch.tensor([200.0, 0, 0, 0, 0]).repeat(50, 1)
    less = torch.tensor([math.log(0.95 / 0.0125), 0, 0, 0, 0]).repeat(50, 1)
    target = torch.cat([torch.zeros(45), torch.ones(5), torch.zeros(50)]).long()
    found = scored("classify", torch.cat([certain, less]), target).compute()
    assert found["ece"] == pytest.approx(2.5, abs=1e-4)


def test_scores_equal_torchmetrics_where_it_is_correct() -> None:
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_calibration_error,
        multiclass_jaccard_index,
        multilabel_average_precision,
    )

    out, target = random_outputs("classify", 500)
    known = target != NO_CLASS
    found = scored("classify", out, target).compute()
    p, t = out[known].softmax(1), target[known]
    ece = multiclass_calibration_error(p, t, 5, n_bins=15)
    recall = multiclass_accuracy(p, t, 5, average="macro")
    assert found["ece"] == pytest.approx(100 * float(ece), rel=1e-4)
    assert found["balanced_error"] == pytest.approx(100 - 100 * float(recall), rel=1e-4)
    out, target = random_outputs("segment")
    miou = multiclass_jaccard_index(out.argmax(1), target.long(), 5, ignore_index=NO_PIXEL)
    found = scored("segment", out, target).compute()
    assert found["miou"] == pytest.approx(100 * float(miou), rel=1e-5)
    out, target = random_outputs("multilabel")
    known = target[:, 0] != NO_LABEL
    precision = multilabel_average_precision(out[known], target[known].long(), 5)
    found = scored("multilabel", out, target).compute()
    assert found["map_error"] == pytest.approx(100 - 100 * float(precision), rel=1e-5)


def test_average_precision_of_large_logits_and_of_a_class_without_images() -> None:
    out = torch.tensor([[40.0, 1, 0, 0, 0], [30.0, 0, 0, 0, 0], [20.0, 2, 0, 0, 0]])
    target = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]], dtype=torch.uint8)
    # class a: order 40, 30, 20 → (1 + 2/3)/2, though every sigmoid is 1; b: 1; others: no images
    found = scored("multilabel", out, target).compute()
    assert found["map_error"] == pytest.approx(100 * (1 - (5 / 6 + 1) / 2))
    assert scored("multilabel", out, target * 0).compute() == {}


def test_an_absent_class_is_left_out_of_the_mean_iou() -> None:
    out = torch.eye(5)[torch.tensor([[[0, 0, 1, 1]]])].movedim(-1, 1) * 5
    target = torch.tensor([[[0, 0, 0, 1]]], dtype=torch.uint8)
    found = scored("segment", out, target).compute()
    assert found["miou"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert found["pixel_accuracy"] == 75
    target[0, 0, 3] = 3  # labelled, never predicted; b is predicted, never labelled
    assert scored("segment", out, target).compute()["miou"] == pytest.approx(100 * (2 / 3) / 3)


def test_an_output_with_equal_targets_is_left_out_of_nrmse() -> None:
    out, target = random_outputs("regress")
    target[:, 1] = torch.where(target[:, 1].isnan(), math.nan, 3.0)
    found = scored("regress", out, target).compute()
    one = Task("t", "regress", outputs=1)
    alone = scored("regress", out[:, :1], target[:, :1], task=one).compute()
    assert found["nrmse"] == pytest.approx(alone["nrmse"])
    target[:, 1] = torch.where(target[:, 1].isnan(), math.nan, 0.1)  # their mean is rounded
    assert scored("regress", out, target).compute()["nrmse"] == pytest.approx(alone["nrmse"])
    target[:, 0] = target[:, 1]
    assert list(scored("regress", out, target).compute()) == ["rmse", "mae"]


def test_large_targets_keep_their_digits() -> None:
    """Around 1e6 with std 1, √(mean of squares − mean²) has no digits in single precision."""
    rng = np.random.default_rng(0)
    target = torch.from_numpy(1e6 + rng.normal(size=(400, 1)).round(1)).float()
    out = target + 0.5
    task = Task("t", "regress")
    found = scored("regress", out, target, task=task).compute()
    assert found["rmse"] == 0.5
    assert found["nrmse"] == pytest.approx(0.5 / target.double().numpy().std(), rel=1e-9)


def test_the_only_image_of_a_class_is_in_the_gallery_but_no_query() -> None:
    turns = torch.tensor([0.0, 0.4, 0.2, 1.5])
    points = torch.stack([turns.cos(), turns.sin()], 1)
    scores = scored("embed", points, torch.tensor([0, 0, 1, NO_CLASS]))
    assert isinstance(scores, Embed)
    assert (scores.count, scores.single) == (2, 1)
    assert scores.compute() == {"recall_at_1": 0}  # the single one is nearest to both
    alone = scored("embed", points, torch.tensor([0, 1, 2, 3]))
    assert alone.compute() == {} and alone.count == 0
    assert alone.per_image()["sum"].tolist() == [0] * 4


def test_equally_near_images_share_the_hit() -> None:
    """Equal embeddings score the chance level, whatever the order of the images."""
    points = torch.ones(6, 4) / 2
    for order in ([0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 0]):
        found = scored("embed", points, torch.tensor(order)).compute()
        assert found["recall_at_1"] == pytest.approx(100 * (2 * 1 / 5 + 4 * 3 / 5) / 6)


def test_neighbours_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    out, target = random_outputs("embed", 200)
    together = scored("embed", out, target).compute()
    monkeypatch.setattr(image, "CHUNK", 300)
    assert scored("embed", out, target).compute() == together


def test_small_angles_are_exact() -> None:
    tilt = math.radians(0.001)
    out = torch.tensor([math.sin(tilt), 0, math.cos(tilt)]).view(1, 3, 1, 1).double()
    target = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    found = scored("normals", out, target).compute()
    assert found["mean"] == pytest.approx(0.001, rel=1e-6)
    opposite = scored("normals", -target, target).compute()
    assert (opposite["mean"], opposite["within_30"]) == (180, 0)
    assert opposite["median"] == pytest.approx(180, abs=0.0051)


def test_the_median_of_an_even_count_is_the_middle() -> None:
    angles = [10.0, 20.0, 30.0, 90.0]
    out = torch.tensor([[math.sin(math.radians(a)), 0, math.cos(math.radians(a))] for a in angles])
    target = torch.tensor([0.0, 0, 1]).expand(4, 3)
    found = scored("normals", out[:, :, None, None], target[:, :, None, None]).compute()
    assert found["median"] == pytest.approx(25, abs=0.0051)


def test_headlines() -> None:
    names = {kind: (headline(kind).name, headline(kind).better) for kind in KINDS}
    assert names == {
        "classify": ("error", "lower"),
        "multilabel": ("map_error", "lower"),
        "regress": ("nrmse", "lower"),
        "segment": ("miou", "higher"),
        "depth": ("abs", "lower"),
        "normals": ("mean", "lower"),
        "embed": ("recall_at_1", "higher"),
    }
    assert (as_error("segment", 40), as_error("embed", 99), as_error("depth", 0.6)) == (60, 1, 0.6)
    assert [m.unit for m in metrics_of(Task("p", "regress", unit="€"))] == ["", "€", "€"]
    assert [m.unit for m in metrics_of(Task("d", "depth", unit="disparity"))] == ["disparity", ""]
    assert metrics_of(Task("d", "depth"))[0].unit == "m"
    with raises(BadInput, got="classfy", available=KINDS):
        headline("classfy")
