"""Evaluation: the same scores as for single images, and bad input."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import BadImage, Pixels
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Diverged, Failed
from onetrunk.eval import evaluate as module
from onetrunk.eval.evaluate import (
    evaluate,
    evaluate_split,
    inference,
    plan_batches,
    shuffled_batches,
)
from onetrunk.eval.metrics import scores_of
from onetrunk.nn.card import Card
from onetrunk.nn.norms import find_norm
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source, small

TASKS = (
    Task("letter", "classify", ("a", "b", "c")),
    Task("tags", "multilabel", ("p", "q")),
    Task("number", "regress"),
    Task("similar", "embed", ("a", "b", "c")),
)


def flat_source(
    count: int = 160, splits: tuple[str, ...] = ("train", "val", "test", "test")
) -> Fake:
    """Return noise with four tasks of random labels; some images have no labels."""
    rng = np.random.default_rng(0)
    listed = []
    for i in range(count):
        letter = "abc"[rng.integers(3)]
        labels: dict[str, Any] = {
            "letter": letter,
            "tags": tuple(t for t in "pq" if rng.random() < 0.5),
            "number": (float(rng.normal()),),
            "similar": letter,
        }
        if i % 11 == 10:
            labels = {"letter": letter} if i % 2 else {}
        listed.append(Item(f"{i:04}.png", str(i), f"s{i}", split=splits[i % 4], labels=labels))
    return Fake(TASKS, listed)


@pytest.fixture
def domains() -> list[Domain]:
    return [
        Domain("flat", flat_source(), size=16),
        Domain("dense", dense_source(24), size=(10, 14)),
        Domain("small", small(40), size=12, normalize="imagenet"),
    ]


@pytest.fixture
def model(domains: list[Domain]) -> Universal:
    torch.manual_seed(0)
    return Universal(Trunk("resnet20", norm="domain"), domains)


def test_scores_equal_those_of_single_images(model: Universal, domains: list[Domain]) -> None:
    table = evaluate(model, domains, batch=7)
    model.eval()
    for domain in domains:
        for task in domain.tasks:
            scores = scores_of(task)
            for i in range(len(domain.test)):
                images, targets = domain.test.batch(np.array([i]))
                with torch.no_grad():
                    scores.update(model(images, domain.name)[task.name], targets[task.name])
            for metric, value in scores.compute().items():
                row = table.row(domain.name, task.name, metric)
                assert row.value == pytest.approx(value, rel=1e-4), row
                assert row.count == scores.count
    assert table.split == "test"
    assert [row.task for row in table.headlines()] == [t.name for d in domains for t in d.tasks]
    assert evaluate(model, domains).rows[0] == table.rows[0]


def test_other_splits_and_one_domain(model: Universal, domains: list[Domain]) -> None:
    table = evaluate(model, domains[2:], "val")
    assert (table.domains, table.split) == (("small",), "val")
    assert table.row("small").count == len(domains[2].val)


def test_the_model_is_left_unchanged(model: Universal, domains: list[Domain]) -> None:
    model.train()
    model.heads_of("flat").eval()
    before = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    evaluate(model, domains)
    assert [m.training for m in model.modules()] == before
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    with inference(model):
        assert not model.training and torch.is_inference_mode_enabled()
    with pytest.raises(ZeroDivisionError), inference(model):
        print(1 / 0)
    assert [m.training for m in model.modules()] == before


def test_the_number_of_threads_is_kept(model: Universal, domains: list[Domain]) -> None:
    """The thread that reads ahead computes on one core; the calling thread keeps its cores."""
    torch.set_num_threads(2)
    evaluate(model, domains)
    assert torch.get_num_threads() == 2


def test_one_model_for_each_domain(domains: list[Domain]) -> None:
    torch.manual_seed(1)
    own = {d.name: Universal(Trunk("resnet20", sharing="none"), [d]) for d in domains}
    table = evaluate(own, domains)
    for domain in domains:
        alone = evaluate(own[domain.name], [domain])
        assert [row for row in table.rows if row.domain == domain.name] == list(alone.rows)
    with raises(BadInput, got="small", available=["flat"]):
        evaluate({"flat": own["flat"]}, domains[2:])


def with_first_task(domain: Domain, **fields: Any) -> Domain:
    """Return a domain of the same source with its first task changed."""
    source = domain.opened
    assert isinstance(source, Fake)
    tasks = (replace(source.tasks[0], **fields), *source.tasks[1:])
    listed = source.listed
    if "name" in fields:
        listed = [replace(i, labels={fields["name"]: i.labels["classify"]}) for i in listed]
    if "kind" in fields and fields["kind"] == "regress":
        listed = [replace(i, labels={"classify": (float(n),)}) for n, i in enumerate(listed)]
    return Domain(domain.name, Fake(tasks, listed), size=12)


SMALL = Task("classify", "classify", ("a", "b"))
# domains, and the facts and fields of the error
REFUSED: dict[str, tuple[Callable[[list[Domain]], list[Domain]], tuple[str, ...], dict[str, Any]]]
REFUSED = {
    "an unknown domain": (
        lambda _: [Domain("smal", small(), size=12)],
        (),
        {"got": "smal", "available": ["flat", "dense", "small"]},
    ),
    "no domain": (lambda _: [], ("at least one",), {"got": "none"}),
    "a repeated domain": (lambda d: [d[0], d[0]], ("once",), {"got": "flat"}),
    "another task": (
        lambda d: [with_first_task(d[2], name="species")],
        ("small",),
        {"got": "species", "available": ["classify"]},
    ),
    "a missing task": (
        lambda _: [Domain("flat", flat_source(), TASKS[1:], size=16)],
        ("flat",),
        {"got": "tags, number, similar", "available": ["letter"]},
    ),
    "another kind": (
        lambda d: [with_first_task(d[2], kind="embed")],
        ("small/classify", "kind classify"),
        {"got": "embed"},
    ),
    "a new class": (
        lambda _: [Domain("small", small(40, ("a", "b", "cat")), size=12)],
        ("small/classify", "2 classes"),
        {"got": "3, new: cat", "try_": "onetrunk update"},
    ),
    "other classes": (
        lambda _: [Domain("small", small(40, ("a", "c")), size=12)],
        ("small/classify",),
        {"got": "2, new: c; removed: b"},
    ),
    "another order": (
        lambda d: [with_first_task(d[2], classes=("b", "a"))],
        ("small/classify", "order"),
        {"got": "b, a", "available": ["a", "b"]},
    ),
    "no source": (lambda _: [Domain("small", None, [SMALL], size=12)], ("small", "source"), {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_domains_that_do_not_fit_the_model_are_refused(
    model: Universal, domains: list[Domain], case: str
) -> None:
    given, facts, fields = REFUSED[case]
    with raises(BadInput, *facts, **fields):
        evaluate(model, given(domains))


def test_an_unknown_split_and_an_empty_batch_are_refused(
    model: Universal, domains: list[Domain]
) -> None:
    with raises(BadInput, got="tset", available=["train", "val", "test"]):
        evaluate(model, domains, "tset")
    with raises(BadInput, "batch", got=0):
        evaluate(model, domains, batch=0)


def test_a_task_that_the_model_lacks_is_refused(model: Universal) -> None:
    tasks = (*TASKS, Task("extra", "regress"))
    listed = [replace(i, labels={**i.labels, "extra": (1.0,)}) for i in flat_source().listed]
    with raises(BadInput, "flat", got="extra", available=[task.name for task in TASKS]):
        evaluate(model, [Domain("flat", Fake(tasks, listed), size=16)])


# -- pixels: those of the card are used


def test_the_normalization_is_that_of_the_card(model: Universal, domains: list[Domain]) -> None:
    expected = evaluate(model, domains[:1])
    other = Domain("flat", domains[0].opened, size=16, normalize=((0.1, 0.2, 0.3), (0.9, 0.9, 0.9)))
    assert evaluate(model, [other]) == expected


@pytest.mark.parametrize(
    "keys", [{"size": 24}, {"size": (16, 20)}, {"size": 16, "margin": 8}, {"size": 20, "margin": 4}]
)
@pytest.mark.parametrize("cache", [None, False])
def test_images_of_another_size_are_decoded_as_in_training(
    keys: dict[str, Any],
    cache: Any,
    model: Universal,
    domains: list[Domain],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = evaluate(model, domains[:1])
    assert evaluate(model, [Domain("flat", domains[0].opened, cache=cache, **keys)]) == expected
    assert "flat: images are prepared as in training, 16×16 (squash" in capsys.readouterr().err


def test_domains_with_equal_decoded_images_are_cropped_as_in_training() -> None:
    """Size 16 with margin 4 and size 20 store the same pixels and crop different ones."""
    sizes = [
        Domain("flat", flat_source(), size=16, margin=4),
        Domain("flat", flat_source(), size=20),
    ]
    for mine, other in (sizes, sizes[::-1]):
        torch.manual_seed(0)
        model = Universal(Trunk("resnet20"), [mine])
        assert evaluate(model, [other]) == evaluate(model, [mine])


# -- empty splits, missing labels, unreadable images


def test_an_empty_split_and_unlabelled_tasks_are_left_out_with_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = []
    for item in flat_source().listed:
        if "number" in item.labels:
            labels = item.labels if item.split == "train" else {"letter": item.labels["letter"]}
            split = "val" if item.split == "test" else item.split
            listed.append(replace(item, labels=labels, split=split))
    listed[-1] = replace(listed[-1], split="test")
    torn = {listed[-1].where: BadImage("torn")}
    flat = Domain("flat", Fake(TASKS, listed, torn), size=16)
    every = [flat, Domain("small", small(40), size=12)]
    model = Universal(Trunk("resnet20"), every)
    assert evaluate(model, every).domains == ("small",)
    assert "flat is left out: its test split has no images" in capsys.readouterr().err
    assert evaluate(model, every, "val").tasks("flat") == ("letter",)
    lines = capsys.readouterr().err
    evaluate(model, every, progress=False)
    evaluate(model, every, "val", progress=False)
    evaluate(model, every, "val", notes=False)
    assert capsys.readouterr().err == ""
    assert "flat/tags is left out: val lacks an image with a label" in lines
    assert "flat/number is left out: val lacks labelled images whose numbers differ" in lines
    assert "flat/similar is left out: val lacks two labelled images of one class" in lines


def test_unreadable_images_are_not_counted() -> None:
    broken = {str(i): BadImage("torn") for i in (7, 14)}
    domain = Domain("small", small(40, images=broken, splits=("train", "val", "test", "test")))
    model = Universal(Trunk("resnet20"), [domain])
    assert evaluate(model, [domain]).row("small").count == len(domain.index.rows("test")) - 2


def test_outputs_that_are_not_finite_are_refused(model: Universal, domains: list[Domain]) -> None:
    with torch.no_grad():
        model.parameters_of("small")["heads/of.task_classify.bias"].fill_(torch.nan)
    first = domains[2].test.key(0)
    with raises(Diverged, "small/classify", "10 of 10 test", first, try_="checkpoint"):
        evaluate(model, domains)


# -- batches


def test_the_batch_size_is_limited_by_memory() -> None:
    def step(size: int, tasks: tuple[Task, ...]) -> int:
        return len(plan_batches(Card("d", tasks, Pixels((size, size))), 10_000, "test")[0])

    one = (Task("t", "classify", ("a", "b")),)
    assert step(32, one) == 256
    assert step(224, one) == 64 * 2**20 // (4 * 3 * 224**2)
    assert step(1024, one) == 5
    classes = tuple(map(str, range(100)))
    assert step(224, (Task("t", "segment", classes),)) == 64 * 2**20 // (224**2 * 100)
    assert step(224, (Task("t", "depth"),)) == step(224, one)


def test_batches_cover_the_split_in_order(model: Universal) -> None:
    batches = plan_batches(model.domains["flat"], 1000, "test", batch=33)
    assert np.concatenate(batches).tolist() == list(range(1000))
    assert {len(p) for p in batches[:-1]} == {33}


@pytest.mark.parametrize(
    ("count", "sizes"), [(64, [32, 32]), (70, [32, 38]), (72, [32, 32, 8]), (9, [9]), (33, [33])]
)
def test_a_norm_without_statistics_has_shuffled_batches_of_training_size(
    count: int, sizes: list[int]
) -> None:
    model = Universal(Trunk("resnet20", norm="shared-batch"), [Domain("d", small(), size=12)])
    card = model.domains["d"].with_record({"batch": 32}, {})
    batches = shuffled_batches(card, count, "test", 8)
    assert [len(p) for p in batches] == sizes
    joined = np.concatenate(batches)
    assert sorted(joined.tolist()) == list(range(count)) and joined.tolist() != list(range(count))
    again = shuffled_batches(card, count, "test", 8)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not np.array_equal(joined, np.concatenate(shuffled_batches(card, count, "val", 8)))
    batches = plan_batches(card, count, "test", find_norm("shared-batch"), batch=3)
    assert [len(p) for p in batches] == sizes


def test_shared_batch_is_evaluated_in_shuffled_batches() -> None:
    domain = Domain("flat", flat_source(), size=16)
    torch.manual_seed(0)
    model = Universal(Trunk("resnet20", norm="shared-batch"), [domain])
    model.domains["flat"] = model.domains["flat"].with_record({"batch": 20}, {})
    table = evaluate(model, [domain])
    assert evaluate(model, [domain], batch=5) == table
    scores = scores_of(TASKS[0])
    with torch.no_grad():
        for rows in shuffled_batches(model.domains["flat"], len(domain.test), "test", 8):
            images, targets = domain.test.batch(rows)
            scores.update(model(images, "flat")["letter"], targets["letter"])
    assert scores.compute()["error"] == table.value("flat", "letter")
    few = Domain("few", small(20), size=12)
    alone = Universal(Trunk("resnet20", norm="shared-batch"), [few])
    with raises(BadInput, "few", "8 images", got="4 test images"):
        evaluate(alone, [few])


def test_results_have_the_order_of_evaluation() -> None:
    domain = Domain("flat", flat_source(), size=16)
    model = Universal(Trunk("resnet20", norm="shared-batch"), [domain])
    result = evaluate_split(model, [domain]).tasks[0]
    labels = result.scores.array("target")  # in the order of evaluation
    assert np.array_equal(labels, domain.test.label("letter")[result.order])
    assert not np.array_equal(result.order, np.arange(len(result.order)))


def test_progress_can_be_turned_off(
    model: Universal, domains: list[Domain], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks: list[tuple[int, int]] = []

    class Spy:
        def __init__(self, description: str, total: int) -> None:
            self.total, self.done = total, 0

        def __enter__(self) -> "Spy":
            return self

        def __exit__(self, *_: object) -> None:
            tracks.append((self.done, self.total))

        def __call__(self, steps: int) -> None:
            self.done += steps

    monkeypatch.setattr(module, "Track", Spy)
    evaluate(model, domains)
    evaluate(model, domains, progress=False)
    total = sum(len(domain.test) for domain in domains)
    assert tracks == [(total, total)]


def test_an_image_that_becomes_unreadable_fails(model: Universal) -> None:
    images: dict[str, Any] = {}
    source = small(40, images=images)
    domain = Domain("small", source, size=12, cache=False)
    evaluate(model, [domain])
    images.update({str(i): BadImage("gone") for i in range(40)})
    with raises(Failed, got="gone"):
        evaluate(model, [domain])
