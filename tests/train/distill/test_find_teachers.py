"""Finding teachers, and everything that is refused before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.check import check
from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.model_files import save_models
from onetrunk.nn.saving import save
from onetrunk.runs.train import train
from onetrunk.train.distill.find_teachers import find_teachers
from onetrunk.train.distill.foreign import Foreign
from onetrunk.train.distill.plan import plan
from tests.helpers.errors import UNSET, raises
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import network, noise, settings, worlds


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def foreign(look: Any = mean) -> Foreign:
    return Foreign(nn.Identity(), look, pixels=Pixels((8, 8)))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """`many`: a network for each domain; `one`: a single domain; `half`: an unfinished run."""
    domains = worlds("ants", "bees")
    save_models({d.name: network([d], sharing="none") for d in domains}, tmp_path / "many")
    save(network(domains[:1]), tmp_path / "one")
    save(network([Domain("ants", noise(24, ["x", "b"]), size=8)]), tmp_path / "others")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/recipe.toml").write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


def refused(given: Any, domains: list[Domain], root: Path) -> tuple[OnetrunkError, ...]:
    with pytest.raises(BadInput) as caught:
        find_teachers(given, domains, root)
    return caught.value.errors


def test_a_run_teaches_the_domains_that_it_has(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = worlds("ants", "bees", "cats")
    found = find_teachers("many", domains, runs)
    assert {n: [t.tasks for t in ts] for n, ts in found.items()} == {
        "ants": [("classify",)], "bees": [("classify",)], "cats": []
    }  # fmt: skip
    printed = capsys.readouterr().err
    assert "note: no teacher for cats" in printed
    assert "converted" not in printed
    small = worlds("ants", size=6)
    find_teachers("many", small, runs)
    printed = capsys.readouterr().err
    assert "note: the teachers of ants use another image size or normalization" in printed
    assert "no teacher" not in printed
    both = find_teachers(["many", "one"], domains[:1], runs)
    assert len(both["ants"]) == 2


def test_a_run_of_one_domain_can_teach_a_domain_of_another_name(runs: Path) -> None:
    (moths,) = worlds("moths")
    (teacher,) = find_teachers({"moths": "one"}, [moths], runs)["moths"]
    assert teacher.tasks == teacher.predictions == ("classify",)
    with raises(BadInput, "distill.teachers", got="moths", available=["ants"]):
        find_teachers("one", [moths], runs)


def test_all_problems_are_listed_at_once(runs: Path) -> None:
    domains = worlds("ants", "bees", "cats", "dogs", "emus")
    fish, ants, bees, cats, dogs, emus = refused(
        {
            "ants": "others",
            "bees": "half",
            "cats": "many",
            "dogs": "nowhere",
            "emus": "empty",
            "fish": "many",
        },
        domains,
        runs,
    )
    assert fish.got == "fish" and set(fish.available or ()) == {domain.name for domain in domains}
    assert "teacher others: ants/classify" in str(ants)
    assert ants.got == "missing a; unknown x"
    assert "half" in str(bees) and bees.try_ is not None
    assert bees.try_.startswith("onetrunk train ") and bees.try_.endswith("--resume")
    assert "teacher many" in str(cats) and cats.got == "cats/classify"
    assert cats.available == ("ants/classify", "bees/classify")
    assert (dogs.got, emus.got) == (str(runs / "nowhere"), str(runs / "empty"))
    assert dogs.try_ == emus.try_ == "onetrunk train RECIPE"
    with raises(BadInput, "distill.teachers.ants", got="sex", available=["classify"]):
        find_teachers({"ants": {"sex": "many"}}, domains[:1], runs)


def test_a_teacher_with_other_classes_can_teach_features(runs: Path) -> None:
    (teacher,) = find_teachers("others", worlds("ants"), runs, logits=False)["ants"]
    assert (teacher.tasks, teacher.predictions) == (("classify",), ())


def test_a_run_of_another_kind_of_task_is_refused(runs: Path) -> None:
    source = noise(24)
    source.tasks = (Task("classify", "embed"),)
    with raises(BadInput, "ants/classify", "embed", got="classify task classify"):
        find_teachers("many", [Domain("ants", source, size=8)], runs)


def test_objects_that_are_no_teachers(runs: Path) -> None:
    domains = worlds("ants")
    with raises(BadInput, "ants", got="Linear", available=["timm/NAME", "Foreign"]):
        find_teachers({"ants": nn.Linear(2, 2)}, domains, runs)  # type: ignore[dict-item]
    with raises(BadInput, "ants", got="python:mine", try_="teachers="):
        find_teachers("python:mine", domains, runs)
    with raises(BadInput, "none.safetensors"):
        find_teachers("features:none.safetensors", domains, runs)


def planned(
    domain: Domain, teacher: Any, distill: dict[str, Any], **given: Any
) -> dict[str, list[dict[str, Any]]]:
    config = Distill.of({"teachers": "x", **distill})
    found = find_teachers({domain.name: teacher}, [domain], Path(), config.logits)
    model = network([domain])
    return plan({"": model}, [domain], found, config, settings(**given))


def test_missing_features_are_refused() -> None:
    (ants,) = worlds("ants")
    student = ["pooled", "bottleneck"]
    cases: list[tuple[Any, dict[str, Any], str, object, list[str]]] = [
        (foreign(), {"feature_layers": ["bottleneck", "stem"]}, "Identity", "stem", ["pooled"]),
        (foreign(lambda x: {"deep": x}), {}, "Identity", "pooled", ["deep"]),
        (foreign(), {"feature_layers": ["decoded"]}, "distill.feature_layers", "decoded", student),
        (
            foreign(),
            {"features": "none"},
            "Identity",
            "features = 'none', predictions of nothing",
            [],
        ),
        (foreign(), {"features": "nowhere:thing"}, "nowhere:thing", UNSET, ["l2", "cka", "cosine"]),
    ]
    for teacher, distill, fact, got, available in cases:
        with raises(BadInput, fact, got=got, available=available) as caught:
            planned(ants, teacher, distill)
        assert len(caught.value.errors) == 1


def test_points_of_student_and_teacher_are_matched() -> None:
    rooms = Domain("rooms", dense_source(8, 16, 16), size=16)
    entry = {"teacher": "Identity", "predictions": [], "loss": "l2"}
    for look, theirs in ((mean, "pooled"), (lambda x: x, "bottleneck")):
        (found,) = planned(rooms, foreign(look), {})["rooms"]
        pairs = [["bottleneck", theirs], ["decoded", theirs]]
        assert found == {**entry, "features": pairs}
    (ants,) = worlds("ants")
    (found,) = planned(ants, foreign(lambda x: x), {})["ants"]
    assert found == {**entry, "features": [["pooled", "bottleneck"]]}


def test_a_users_feature_loss_is_used(tmp_path: Path) -> None:
    (ants,) = worlds("ants")
    run = train(
        network([ants]),
        [ants],
        out=tmp_path / "run",
        device="cpu",
        teachers={"ants": foreign()},
        distill=Distill(features="torch.nn.functional:mse_loss"),
        train=Train(steps=2, batch=4),
    )
    assert run.scores["teachers"]["ants"][0]["loss"] == "torch.nn.functional:mse_loss"


def test_frozen_training_has_no_teachers(tmp_path: Path) -> None:
    (ants,) = worlds("ants")
    with raises(BadInput, "distill.teachers", "train.frozen", try_="distill.enabled = false"):
        train(
            network([ants]),
            [ants],
            out=tmp_path / "run",
            teachers={"ants": foreign()},
            train=Train(frozen=True),
        )
    text = '[[domains]]\nname = "ants"\nsource = "pocket:optdigits"\n[train]\nfrozen = true\n'
    text += '[distill]\nteachers = "runs/x"\n[trunk]\narch = "resnet20"\n'
    one = Recipe.parse(f'name = "x"\n{text}', tmp_path)
    with raises(BadInput, "distill.teachers", "train.frozen"):
        check(one)
    check(one.with_sets(["distill.enabled=false"]))


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        ("views = -1", ["distill.views", "-1"]),
        ("teacher_dropout = 1.0", ["distill.teacher_dropout", "1.0"]),
        ("teachers = 3", ["distill.teachers", "3"]),
        ('features = "l3"', ["distill.features", "l3", "cosine"]),
        ("logit_weight = { ants = -1.0 }", ["distill.logit_weight"]),
    ],
)
def test_invalid_values_in_a_recipe(keys: str, facts: list[str]) -> None:
    text = 'name = "x"\n[[domains]]\nname = "ants"\nsource = "pocket:optdigits"\n[distill]\n'
    with raises(BadInput, *facts):
        Recipe.parse(text + keys)
    assert Recipe.parse(text + 'teachers = ["a", "b"]').distill.teachers == ["a", "b"]
