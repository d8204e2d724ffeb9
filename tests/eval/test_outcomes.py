"""Outcomes: sums over images give the headline, files come back, damaged ones do not."""

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
from onetrunk.eval.evaluation import EvaluationResult, TaskResult
from onetrunk.eval.metrics import headline
from onetrunk.eval.outcomes import KEY, Outcomes, Part
from tests.helpers.fakes import dense_source, small
from tests.helpers.making import TASKS, made, scored

SUMMED = [kind for kind in KINDS if kind != "multilabel"]


def evaluated(kind: str, seed: int = 0, order: Any = None) -> TaskResult:
    """Noise as if a model had said it of a domain's images, which came in this order."""
    out, target = made(kind, seed=seed)
    order = np.arange(len(out)) if order is None else order
    images = Domain(kind, small(4 * len(out), classes=("a",)), size=8).test
    return TaskResult(kind, TASKS[kind], images, scored(kind, out[order], target[order]), order)


@pytest.fixture
def outcomes() -> Outcomes:
    return EvaluationResult("test", [evaluated(kind) for kind in KINDS]).outcomes()


@pytest.mark.parametrize("kind", SUMMED)
def test_sums_over_images_give_the_headline(kind: str) -> None:
    one = evaluated(kind)
    part = one.part()
    assert part is not None and part.kind == kind
    value = one.scores.compute()[headline(kind).name]
    assert part.headline() == pytest.approx(value, rel=1e-12)
    assert (len(part), part.images) == (len(one.scores), one.scores.count)


@pytest.mark.parametrize("kind", SUMMED)
def test_the_order_is_that_of_the_split_and_not_of_arrival(kind: str) -> None:
    order = np.random.default_rng(0).permutation(60)
    one, other = evaluated(kind).part(), evaluated(kind, order=order).part()
    assert one is not None and other is not None
    for name, array in one.arrays.items():
        assert other.arrays[name] == pytest.approx(array, rel=1e-12)


def test_what_no_image_adds_to_has_no_outcomes() -> None:
    assert evaluated("multilabel").part() is None
    assert (
        "multilabel" not in EvaluationResult("test", [evaluated("multilabel")]).outcomes().domains
    )
    same = evaluated("regress")
    same.scores.tensor("target")[:] = 3
    assert same.scores.count == 60 and same.part() is None
    bare = evaluated("classify")
    bare.scores.tensor("target")[:] = -1
    assert bare.part() is None


def test_files_come_back(outcomes: Outcomes, tmp_path: Path) -> None:
    path = outcomes.save(tmp_path / "run" / "outcomes.safetensors")
    back = Outcomes.open(path)
    assert (back.split, back.names) == ("test", outcomes.names)
    assert back.parts.keys() == outcomes.parts.keys()
    for key, part in outcomes.parts.items():
        assert back.parts[key].kind == part.kind
        for name, array in part.arrays.items():
            assert back.parts[key].arrays[name].dtype == array.dtype
            assert np.array_equal(back.parts[key].arrays[name], array)
    raw = load_file(path)
    assert raw["classify/t/sum"].dtype == np.float64 and raw["classify/t/sum"].shape == (60,)
    assert raw["regress/t/sum"].shape == (60, 2)
    assert raw["segment/t/areas"].shape == (60, 3, 5)


def test_names_tell_other_images() -> None:
    first, second = evaluated("classify"), evaluated("classify")
    second.split = Domain("x", small(239, classes=("a",)), size=8).test
    names = [
        EvaluationResult("test", [one]).outcomes().names["classify"] for one in (first, second)
    ]
    assert names[0] != names[1]


def rewritten(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Any:
    def write(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            document = json.loads(file.metadata()[KEY])
        arrays = load_file(path)
        change(document, arrays)
        save_file(arrays, path, {KEY: json.dumps(document)})

    return write


DAMAGED: dict[str, Callable[[Path], object]] = {
    "half of it": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "text": lambda path: path.write_text("domain,task\n"),
    "nothing": lambda path: path.write_bytes(b""),
    "not there": lambda path: path.unlink(),
    "a bare file": lambda path: save_file({"x": np.ones(3)}, path),
    "a document of another shape": rewritten(lambda d, _: d.update(kinds=["classify"])),
    "a later format": rewritten(lambda d, _: d.update(format=2)),
    "an unknown kind": rewritten(lambda d, _: d["kinds"].update({"classify/t": "detect"})),
    "a path": rewritten(lambda d, _: d["kinds"].update({"../t": "classify"})),
    "an array less": rewritten(lambda _, a: a.pop("depth/t/sum")),
    "an array more": rewritten(lambda _, a: a.update(x=np.ones(3))),
    "other images": rewritten(lambda _, a: a.update({"depth/t/sum": np.ones(3)})),
    "single precision": rewritten(lambda _, a: a.update({"depth/t/sum": np.ones(60, "f4")})),
    "no number": rewritten(lambda _, a: a.update({"depth/t/sum": np.full(60, np.nan)})),
    "below nothing": rewritten(lambda _, a: a.update({"depth/t/count": np.full(60, -1.0)})),
    "four areas": rewritten(lambda _, a: a.update({"segment/t/areas": np.ones((60, 4, 5), "i4")})),
    "no digest": rewritten(lambda d, _: d["names"].pop("depth")),
    "a number for a split": rewritten(lambda d, _: d.update(split=3)),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(
    how: str, outcomes: Outcomes, tmp_path: Path
) -> None:
    path = outcomes.save(tmp_path / "outcomes.safetensors")
    DAMAGED[how](path)
    with pytest.raises(BadInput, match=r"outcomes\.safetensors") as caught:
        Outcomes.open(path)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_tasks_of_one_domain_have_the_same_images(outcomes: Outcomes, tmp_path: Path) -> None:
    part = outcomes.parts["depth", "t"]
    short = Part("depth", {name: array[:9] for name, array in part.arrays.items()})
    parts = {**outcomes.parts, ("depth", "u"): short}
    path = replace(outcomes, parts=parts).save(tmp_path / "o.safetensors")
    with pytest.raises(BadInput, match="depth/u: as many images as the domain's other tasks"):
        Outcomes.open(path)


def test_a_domain_knows_its_tasks() -> None:
    assert Domain("d", dense_source(12)).test  # three tasks of one domain
    two = {("d", "a"): Part("depth", {}), ("d", "b"): Part("depth", {}), ("e", "a"): Part("x", {})}
    found = Outcomes("test", two, {})
    assert found.domains == ("d", "e")
    assert [task for task, _ in found.of("d")] == ["a", "b"]
