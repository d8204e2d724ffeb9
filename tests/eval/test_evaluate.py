"""Evaluation: the same numbers as one image after another, and what is refused."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import BadImage, Pixels
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval import evaluate as module
from onetrunk.eval.evaluate import evaluate, evaluating, plan, run_evaluation, shuffled
from onetrunk.eval.metrics import scores_of
from onetrunk.nn.card import Card
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source, small

EVERY = (
    Task("what", "classify", ("a", "b", "c")),
    Task("tags", "multilabel", ("p", "q")),
    Task("much", "regress"),
    Task("like", "embed", ("a", "b", "c")),
)


def many(count: int = 160, splits: tuple[str, ...] = ("train", "val", "test", "test")) -> Fake:
    """Noise with four tasks that have nothing to do with it; some images have no labels."""
    chance = np.random.default_rng(0)
    listed = []
    for i in range(count):
        letter = "abc"[chance.integers(3)]
        labels: dict[str, Any] = {
            "what": letter,
            "tags": tuple(t for t in "pq" if chance.random() < 0.5),
            "much": (float(chance.normal()),),
            "like": letter,
        }
        if i % 11 == 10:
            labels = {"what": letter} if i % 2 else {}
        listed.append(Item(f"{i:04}.png", str(i), f"s{i}", split=splits[i % 4], labels=labels))
    return Fake(EVERY, listed)


@pytest.fixture
def domains() -> list[Domain]:
    return [
        Domain("flat", many(), size=16),
        Domain("deep", dense_source(24), size=(10, 14)),
        Domain("small", small(40), size=12, normalize="imagenet"),
    ]


@pytest.fixture
def model(domains: list[Domain]) -> Universal:
    torch.manual_seed(0)
    return Universal(Trunk("resnet20", norm="domain"), domains)


def test_as_one_image_after_another(model: Universal, domains: list[Domain]) -> None:
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
    assert evaluate(model, domains[2], "val") == table  # type: ignore[arg-type]


def test_modes_and_gradients_stay_as_they_were(model: Universal, domains: list[Domain]) -> None:
    model.train()
    model.heads_of("flat").eval()
    before = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    evaluate(model, domains)
    assert [m.training for m in model.modules()] == before
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    with evaluating(model):
        assert not model.training and torch.is_inference_mode_enabled()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        print(1 / 0)
    assert [m.training for m in model.modules()] == before


def test_threads_stay_as_many(model: Universal, domains: list[Domain]) -> None:
    """The thread that reads ahead computes on one core; whoever evaluates keeps theirs."""
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
    with pytest.raises(BadInput, match="no model for this domain; got: 'small'; available: flat"):
        evaluate({"flat": own["flat"]}, domains[2:])


def changed(domain: Domain, **fields: Any) -> Domain:
    """The same source with its first task another."""
    source = domain.opened
    assert isinstance(source, Fake)
    tasks = (replace(source.tasks[0], **fields), *source.tasks[1:])
    listed = source.listed
    if "name" in fields:
        listed = [replace(i, labels={fields["name"]: i.labels["classify"]}) for i in listed]
    if "kind" in fields and fields["kind"] == "regress":
        listed = [replace(i, labels={"classify": (float(n),)}) for n, i in enumerate(listed)]
    return Domain(domain.name, Fake(tasks, listed), size=12)


REFUSED = {
    "no such domain": (
        lambda _: [Domain("smal", small(), size=12)],
        "does not know this domain; got: 'smal'; available: small",
    ),
    "no domain": (lambda _: [], "at least one domain"),
    "twice": (lambda d: [d[0], d[0]], "each domain once; got: 'flat'"),
    "another task": (
        lambda d: [changed(d[2], name="species")],
        "learned a task that the domain lacks; got: 'species'; available: classify",
    ),
    "a task more": (
        lambda _: [Domain("flat", many(), (*EVERY[1:],), size=16)],
        "learned a task that the domain lacks; got: 'tags, much, like'; available: what",
    ),
    "another kind": (lambda d: [changed(d[2], kind="embed")], "learned to classify; got: 'embed'"),
    "more classes": (
        lambda _: [Domain("small", small(40, ("a", "b", "cat")), size=12)],
        r"learned \(2\); got: '3, new: cat'",
    ),
    "other classes": (
        lambda _: [Domain("small", small(40, ("a", "c")), size=12)],
        "got: '2, new: c; gone: b'",
    ),
    "another order": (lambda d: [changed(d[2], classes=("b", "a"))], "in another order"),
    "no source": (
        lambda _: [Domain("small", None, [Task("classify", "classify", ("a", "b"))], size=12)],
        "has no source",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(model: Universal, domains: list[Domain], case: str) -> None:
    made, says = REFUSED[case]
    with pytest.raises(BadInput, match=says):
        evaluate(model, made(domains))


def test_an_unknown_split_or_batch(model: Universal, domains: list[Domain]) -> None:
    with pytest.raises(BadInput, match="unknown split; got: 'tset'; available: test"):
        evaluate(model, domains, "tset")
    with pytest.raises(BadInput, match="at least one image; got: 0"):
        evaluate(model, domains, batch=0)


def test_a_model_that_learned_a_task_more(model: Universal) -> None:
    more = (*EVERY, Task("also", "regress"))
    source = many()
    listed = [replace(i, labels={**i.labels, "also": (1.0,)}) for i in source.listed]
    with pytest.raises(BadInput, match="the model has no such task; got: 'also'; available: tags"):
        evaluate(model, [Domain("flat", Fake(more, listed), size=16)])


# -- pixels: the card's contract is right


def test_another_normalization_is_put_right(model: Universal, domains: list[Domain]) -> None:
    expected = evaluate(model, domains[:1])
    other = Domain("flat", domains[0].opened, size=16, normalize=((0.1, 0.2, 0.3), (0.9, 0.9, 0.9)))
    assert evaluate(model, [other]) == expected


@pytest.mark.parametrize(
    "keys", [{"size": 24}, {"size": (16, 20)}, {"size": 16, "margin": 8}, {"size": 20, "margin": 4}]
)
@pytest.mark.parametrize("cache", [None, False])
def test_another_size_is_decoded_anew(
    keys: dict[str, Any],
    cache: Any,
    model: Universal,
    domains: list[Domain],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = evaluate(model, domains[:1])
    assert evaluate(model, [Domain("flat", domains[0].opened, cache=cache, **keys)]) == expected
    assert "flat: seen as the model learned it, 16×16 (squash" in capsys.readouterr().err


def test_the_middle_of_equally_stored_images_is_no_other_size() -> None:
    """Size 16 with margin 4 and size 20 store the same pixels; each model sees its own middle."""
    sizes = [Domain("flat", many(), size=16, margin=4), Domain("flat", many(), size=20)]
    for mine, other in (sizes, sizes[::-1]):
        torch.manual_seed(0)
        model = Universal(Trunk("resnet20"), [mine])
        assert evaluate(model, [other]) == evaluate(model, [mine])


# -- splits with holes


def test_an_empty_split_and_unlabelled_tasks_are_left_out_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = []
    for item in many().listed:
        if "much" in item.labels:
            labels = item.labels if item.split == "train" else {"what": item.labels["what"]}
            listed.append(replace(item, labels=labels, split=item.split.replace("test", "val")))
    listed[-1] = replace(listed[-1], split="test")
    torn = {listed[-1].where: BadImage("torn")}
    flat = Domain("flat", Fake(EVERY, listed, torn), size=16)
    every = [flat, Domain("small", small(40), size=12)]
    model = Universal(Trunk("resnet20"), every)
    assert evaluate(model, every).domains == ("small",)
    assert "flat: its test split has no images: left out" in capsys.readouterr().err
    assert evaluate(model, every, "val").tasks("flat") == ("what",)
    said = capsys.readouterr().err
    evaluate(model, every, progress=False)
    evaluate(model, every, "val", progress=False)
    assert capsys.readouterr().err == ""
    assert "flat/tags: val has no image with a label: left out" in said
    assert "flat/much: val has no labelled images whose numbers differ: left out" in said
    assert "flat/like: val has no two labelled images of one class: left out" in said


def test_unreadable_images_are_not_counted() -> None:
    broken = {str(i): BadImage("torn") for i in (7, 14)}
    domain = Domain("small", small(40, images=broken, splits=("train", "val", "test", "test")))
    model = Universal(Trunk("resnet20"), [domain])
    assert evaluate(model, [domain]).row("small").count == len(domain.index.rows("test")) - 2


def test_outputs_that_are_no_numbers_are_named(model: Universal, domains: list[Domain]) -> None:
    with torch.no_grad():
        model.parameters_of("small")["heads/of.task_classify.bias"].fill_(torch.nan)
    first = domains[2].test.key(0)
    with pytest.raises(Failed, match=f"small/classify.*not finite for 10 of 10 test.*{first}"):
        evaluate(model, domains)


# -- batches


def test_passes_are_small_enough_for_memory() -> None:
    def step(size: int, tasks: tuple[Task, ...]) -> int:
        return len(plan(Card("d", tasks, Pixels((size, size))), 10_000, "test")[0])

    one = (Task("t", "classify", ("a", "b")),)
    assert step(32, one) == 256
    assert step(224, one) == 64 * 2**20 // (4 * 3 * 224**2)
    assert step(1024, one) == 5
    classes = tuple(map(str, range(100)))
    assert step(224, (Task("t", "segment", classes),)) == 64 * 2**20 // (224**2 * 100)
    assert step(224, (Task("t", "depth"),)) == step(224, one)


def test_every_place_once_and_in_order(model: Universal) -> None:
    places = plan(model.domains["flat"], 1000, "test", batch=33)
    assert np.concatenate(places).tolist() == list(range(1000))
    assert {len(p) for p in places[:-1]} == {33}


@pytest.mark.parametrize(
    ("count", "sizes"), [(64, [32, 32]), (70, [32, 38]), (72, [32, 32, 8]), (9, [9]), (33, [33])]
)
def test_a_batch_norm_without_statistics_keeps_its_batches(count: int, sizes: list[int]) -> None:
    model = Universal(Trunk("resnet20", norm="shared-batch"), [Domain("d", small(), size=12)])
    card = model.domains["d"].with_record({"batch": 32}, {})
    places = shuffled(card, count, "test")
    assert [len(p) for p in places] == sizes
    joined = np.concatenate(places)
    assert sorted(joined.tolist()) == list(range(count)) and joined.tolist() != list(range(count))
    again = shuffled(card, count, "test")
    assert all(np.array_equal(a, b) for a, b in zip(places, again, strict=True))
    assert not np.array_equal(joined, np.concatenate(shuffled(card, count, "val")))
    assert [len(p) for p in plan(card, count, "test", by_batch=True, batch=3)] == sizes


def test_shared_batch_is_evaluated_by_its_own_batches() -> None:
    domain = Domain("flat", many(), size=16)
    torch.manual_seed(0)
    model = Universal(Trunk("resnet20", norm="shared-batch"), [domain])
    model.domains["flat"] = model.domains["flat"].with_record({"batch": 20}, {})
    table = evaluate(model, [domain])
    assert evaluate(model, [domain], batch=5) == table
    scores = scores_of(EVERY[0])
    with torch.no_grad():
        for places in shuffled(model.domains["flat"], len(domain.test), "test"):
            images, targets = domain.test.batch(places)
            scores.update(model(images, "flat")["what"], targets["what"])
    assert scores.compute()["error"] == table.value("flat", "what")
    few = Domain("few", small(20), size=12)
    alone = Universal(Trunk("resnet20", norm="shared-batch"), [few])
    with pytest.raises(BadInput, match=r"few: the norm 'shared-batch'.*got: '4 test images'"):
        evaluate(alone, [few])


def test_order_of_arrival_is_known() -> None:
    domain = Domain("flat", many(), size=16)
    model = Universal(Trunk("resnet20", norm="shared-batch"), [domain])
    for one in run_evaluation(model, [domain]).tasks:
        if one.task.name == "what":
            labels = one.scores.held("target")  # as they came
            assert np.array_equal(labels, domain.test.label("what")[one.order])
            assert not np.array_equal(one.order, np.arange(len(one.order)))


def test_progress_can_be_silent(
    model: Universal, domains: list[Domain], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    class Spy:
        def __init__(self, what: str, total: int) -> None:
            self.total, self.done = total, 0

        def __enter__(self) -> "Spy":
            return self

        def __exit__(self, *_: object) -> None:
            seen.append((self.done, self.total))

        def __call__(self, steps: int) -> None:
            self.done += steps

    monkeypatch.setattr(module, "Track", Spy)
    evaluate(model, domains)
    evaluate(model, domains, progress=False)
    total = sum(len(domain.test) for domain in domains)
    assert seen == [(total, total), (0, total)]


def test_a_source_that_breaks_while_it_is_read(model: Universal) -> None:
    images: dict[str, Any] = {}
    source = small(40, images=images)
    domain = Domain("small", source, size=12, cache=False)
    evaluate(model, [domain])
    images.update({str(i): BadImage("gone") for i in range(40)})
    with raises(Failed, got="gone"):
        evaluate(model, [domain])
