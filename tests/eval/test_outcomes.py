"""Outcomes: sums over images give the headline; files are read back; damaged files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onetrunk.data.domain import Domain
from onetrunk.data.task import KINDS
from onetrunk.errors import BadInput
from onetrunk.eval.metrics import headline
from onetrunk.eval.outcomes import HEADER, Outcomes, TaskOutcomes
from onetrunk.eval.result import EvaluationResult, TaskResult
from tests.helpers.errors import raises
from tests.helpers.fakes import small
from tests.helpers.outputs import TASKS, random_outputs, scored

WITH_OUTCOMES = [kind for kind in KINDS if kind != "multilabel"]


def evaluated(kind: str, seed: int = 0, order: Any = None) -> TaskResult:
    """Return the result of random outputs for images that are evaluated in this order."""
    out, target = random_outputs(kind, seed=seed)
    order = np.arange(len(out)) if order is None else order
    images = Domain(kind, small(4 * len(out), classes=("a",)), size=8).test
    return TaskResult(kind, TASKS[kind], images, scored(kind, out[order], target[order]), order)


@pytest.fixture
def outcomes() -> Outcomes:
    return EvaluationResult("test", [evaluated(kind) for kind in KINDS]).outcomes()


@pytest.mark.parametrize("kind", WITH_OUTCOMES)
def test_sums_over_images_give_the_headline(kind: str) -> None:
    result = evaluated(kind)
    one = result.outcomes()
    assert one is not None and one.kind == kind
    value = result.scores.compute()[headline(kind).name]
    assert one.headline() == pytest.approx(value, rel=1e-12)
    assert (len(one), one.images) == (len(result.scores), result.scores.count)


@pytest.mark.parametrize("kind", WITH_OUTCOMES)
def test_outcomes_are_in_the_order_of_the_split(kind: str) -> None:
    order = np.random.default_rng(0).permutation(60)
    one, other = evaluated(kind).outcomes(), evaluated(kind, order=order).outcomes()
    assert one is not None and other is not None
    for name, array in one.arrays.items():
        assert other.arrays[name] == pytest.approx(array, rel=1e-12)


def test_multilabel_equal_targets_and_unlabelled_images_have_no_outcomes() -> None:
    multilabel = evaluated("multilabel")
    assert multilabel.outcomes() is None
    assert "multilabel" not in EvaluationResult("test", [multilabel]).outcomes().domains
    equal = evaluated("regress")
    equal.scores.tensor("target")[:] = 3
    assert equal.scores.count > 0 and equal.outcomes() is None
    unlabelled = evaluated("classify")
    unlabelled.scores.tensor("labelled")[:] = False
    assert unlabelled.outcomes() is None


def test_a_file_is_read_back(outcomes: Outcomes, tmp_path: Path) -> None:
    path = outcomes.save(tmp_path / "run" / "outcomes.safetensors")
    back = Outcomes.open(path)
    assert (back.split, back.image_digests) == ("test", outcomes.image_digests)
    assert back.tasks.keys() == outcomes.tasks.keys()
    for key, one in outcomes.tasks.items():
        assert back.tasks[key].kind == one.kind
        for name, array in one.arrays.items():
            assert back.tasks[key].arrays[name].dtype == array.dtype
            assert np.array_equal(back.tasks[key].arrays[name], array)
    raw = load_file(path)
    assert raw["classify/t/sum"].dtype == np.float64 and raw["classify/t/sum"].shape == (60,)
    assert raw["regress/t/sum"].shape == (60, 2)
    assert raw["segment/t/areas"].shape == (60, 3, 5)


def test_other_images_have_another_digest() -> None:
    first, second = evaluated("classify"), evaluated("classify")
    second.split = Domain("x", small(239, classes=("a",)), size=8).test
    results = [EvaluationResult("test", [result]) for result in (first, second)]
    digests = [result.outcomes().image_digests["classify"] for result in results]
    assert digests[0] != digests[1]


def rewritten(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Any:
    def write(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            document = json.loads(file.metadata()[HEADER])
        arrays = load_file(path)
        change(document, arrays)
        save_file(arrays, path, {HEADER: json.dumps(document)})

    return write


DAMAGED: dict[str, Callable[[Path], object]] = {
    "half of it": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "text": lambda path: path.write_text("domain,task\n"),
    "an empty file": lambda path: path.write_bytes(b""),
    "no file": lambda path: path.unlink(),
    "a file without a header": lambda path: save_file({"x": np.ones(3)}, path),
    "a document of another shape": rewritten(lambda d, _: d.update(kinds=["classify"])),
    "a later format": rewritten(lambda d, _: d.update(format=2)),
    "an unknown kind": rewritten(lambda d, _: d["kinds"].update({"classify/t": "detect"})),
    "a path": rewritten(lambda d, _: d["kinds"].update({"../t": "classify"})),
    "an array less": rewritten(lambda _, a: a.pop("depth/t/sum")),
    "an array more": rewritten(lambda _, a: a.update(x=np.ones(3))),
    "other images": rewritten(lambda _, a: a.update({"depth/t/sum": np.ones(3)})),
    "single precision": rewritten(lambda _, a: a.update({"depth/t/sum": np.ones(60, "f4")})),
    "NaN": rewritten(lambda _, a: a.update({"depth/t/sum": np.full(60, np.nan)})),
    "negative counts": rewritten(lambda _, a: a.update({"depth/t/count": np.full(60, -1.0)})),
    "four areas": rewritten(lambda _, a: a.update({"segment/t/areas": np.ones((60, 4, 5), "i4")})),
    "no digest": rewritten(lambda d, _: d["names"].pop("depth")),
    "a number for a split": rewritten(lambda d, _: d.update(split=3)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(
    damage: str, outcomes: Outcomes, tmp_path: Path
) -> None:
    path = outcomes.save(tmp_path / "outcomes.safetensors")
    DAMAGED[damage](path)
    with raises(BadInput, path.name) as error:
        Outcomes.open(path)
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_an_error_has_the_fields_of_its_cause(outcomes: Outcomes, tmp_path: Path) -> None:
    path = outcomes.save(tmp_path / "outcomes.safetensors")
    DAMAGED["an unknown kind"](path)
    with raises(BadInput, path.name, "classify/t", got="detect", available=WITH_OUTCOMES):
        Outcomes.open(path)
    path = outcomes.save(path)
    DAMAGED["a later format"](path)
    with raises(BadInput, path.name, got=2, try_="pip install"):
        Outcomes.open(path)


def test_tasks_of_one_domain_have_the_same_images(outcomes: Outcomes, tmp_path: Path) -> None:
    arrays = outcomes.tasks["depth", "t"].arrays
    short = TaskOutcomes("depth", {name: array[:9] for name, array in arrays.items()})
    tasks = {**outcomes.tasks, ("depth", "u"): short}
    path = replace(outcomes, tasks=tasks).save(tmp_path / "o.safetensors")
    with raises(BadInput, path.name, "depth/u", "60", got=9):
        Outcomes.open(path)


def test_domains_and_their_tasks() -> None:
    keys = (("d", "a"), ("d", "b"), ("e", "a"))
    outcomes = Outcomes("test", {key: TaskOutcomes("depth", {}) for key in keys}, {})
    assert outcomes.domains == ("d", "e")
    assert [task for task, _ in outcomes.of("d")] == ["a", "b"]
