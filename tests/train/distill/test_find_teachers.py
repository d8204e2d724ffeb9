"""Teachers by name: which are found, and everything that is refused before training."""

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
from onetrunk.errors import BadInput
from onetrunk.nn.saving import save, save_models
from onetrunk.runs.train import train
from onetrunk.train.distill.find_teachers import find_teachers
from onetrunk.train.distill.foreign import Foreign
from onetrunk.train.distill.plan import plan
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import network, noise, settings, worlds


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def foreign(look: Any = mean) -> Foreign:
    return Foreign(nn.Identity(), look, pixels=Pixels((8, 8)))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """`many`: a network for each domain; `one`: a domain alone; `half`: a run that is not over."""
    domains = worlds("ants", "bees")
    save_models({d.name: network([d], sharing="none") for d in domains}, tmp_path / "many")
    save(network(domains[:1]), tmp_path / "one")
    save(network([Domain("ants", noise(24, ["x", "b"]), size=8)]), tmp_path / "others")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/recipe.toml").write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


def refused(given: Any, domains: list[Domain], root: Path, logits: bool = True) -> list[str]:
    with pytest.raises(BadInput) as caught:
        find_teachers(given, domains, root, logits)
    return str(caught.value).split("\n")


def test_a_run_teaches_the_domains_it_knows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    domains = worlds("ants", "bees", "cats")
    found = find_teachers("many", domains, runs)
    assert {n: [t.tasks for t in ts] for n, ts in found.items()} == {
        "ants": [("classify",)], "bees": [("classify",)], "cats": []
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "note: no teacher for cats: its labels alone" in said
    assert "resized" not in said
    small = worlds("ants", size=6)
    find_teachers("many", small, runs)
    said = capsys.readouterr().err
    assert "views are resized or normalized anew for the teachers of ants" in said
    assert "no teacher" not in said
    both = find_teachers(["many", "one"], domains[:1], runs)
    assert len(both["ants"]) == 2


def test_a_run_of_one_domain_named_for_another_teaches_it(runs: Path) -> None:
    (moths,) = worlds("moths")
    (teacher,) = find_teachers({"moths": "one"}, [moths], runs)["moths"]
    assert teacher.tasks == teacher.predictions == ("classify",)
    assert refused("one", [moths], runs) == [
        "distill.teachers: none of them teaches a domain here; got: 'moths'; available: ants"
    ]


def test_everything_wrong_is_listed_at_once(runs: Path) -> None:
    domains = worlds("ants", "bees", "cats", "dogs", "emus")
    said = refused(
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
    assert len(said) == 6
    fish, ants, bees, cats, dogs, emus = said
    assert "no such domain; got: 'fish'" in fish
    assert "teacher others: ants/classify: its classes are not those of the domain" in ants
    assert "it lacks a; the domain has no x" in ants
    assert "this run is not finished; try: onetrunk train" in bees and "--resume" in bees
    assert "teacher many does not know cats; got: 'cats/classify'; available: ants/classify" in cats
    assert "no finished run is there" in dogs and "no finished run is there" in emus
    with pytest.raises(BadInput, match="no such task; got: 'sex'"):
        find_teachers({"ants": {"sex": "many"}}, domains[:1], runs)


def test_other_classes_may_still_teach_features(runs: Path) -> None:
    (teacher,) = find_teachers("others", worlds("ants"), runs, logits=False)["ants"]
    assert (teacher.tasks, teacher.predictions) == (("classify",), ())


def test_a_run_of_another_kind_of_task_is_refused(runs: Path) -> None:
    source = noise(24)
    source.tasks = (Task("classify", "embed"),)
    said = refused("many", [Domain("ants", source, size=8)], runs)
    assert "is a embed task for the student; got: \"a teacher's classify task" in said[0]


def test_what_is_no_teacher(runs: Path) -> None:
    domains = worlds("ants")
    assert (
        "this is no teacher; got: 'Linear'; available: a run's folder, timm/NAME"
        in (refused({"ants": nn.Linear(2, 2)}, domains, runs)[0])
    )
    assert (
        "a recipe cannot say this teacher; got: 'python:mine'"
        in (refused("python:mine", domains, runs)[0])
    )
    assert "cannot read none.safetensors" in refused("features:none.safetensors", domains, runs)[0]


def planned(
    domain: Domain, teacher: Any, distill: dict[str, Any], **given: Any
) -> dict[str, list[dict[str, Any]]]:
    said = Distill.of({"teachers": "x", **distill})
    found = find_teachers({domain.name: teacher}, [domain], Path(), said.logits)
    model = network([domain])
    return plan({"": model}, [domain], found, said, settings(**given))


def test_features_that_are_not_there() -> None:
    (ants,) = worlds("ants")
    nothing = "it has no features to hold against; got: "
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (
            foreign(),
            {"feature_layers": ["bottleneck", "stem"]},
            f"{nothing}'stem'; available: pooled",
        ),
        (foreign(lambda x: {"deep": x}), {}, f"{nothing}'pooled'; available: deep"),
        (
            foreign(),
            {"feature_layers": ["decoded"]},
            "ants has no features at this point; got: 'decoded'",
        ),
        (foreign(), {"features": "none"}, "it teaches nothing"),
        (foreign(), {"features": "nowhere:thing"}, "cannot import nowhere"),
    ]
    for teacher, distill, match in cases:
        with pytest.raises(BadInput, match=match) as caught:
            planned(ants, teacher, distill)
        assert len(str(caught.value).split("\n")) == 1


def test_students_meet_what_a_teacher_has() -> None:
    rooms = Domain("rooms", dense_source(8, 16, 16), size=16)
    line = {"teacher": "Identity", "predictions": [], "loss": "l2"}
    for look, theirs in ((mean, "pooled"), (lambda x: x, "bottleneck")):
        (found,) = planned(rooms, foreign(look), {})["rooms"]
        pairs = [["bottleneck", theirs], ["decoded", theirs]]
        assert found == {**line, "features": pairs}
    (ants,) = worlds("ants")
    (found,) = planned(ants, foreign(lambda x: x), {})["ants"]
    assert found == {**line, "features": [["pooled", "bottleneck"]]}


def test_a_users_own_loss_is_taken(tmp_path: Path) -> None:
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
    assert run.scores["taught"]["ants"][0]["loss"] == "torch.nn.functional:mse_loss"


def test_frozen_heads_have_no_teacher(tmp_path: Path) -> None:
    (ants,) = worlds("ants")
    with pytest.raises(BadInput, match=r"distill\.teachers: train\.frozen"):
        train(
            network([ants]),
            [ants],
            out=tmp_path / "run",
            teachers={"ants": foreign()},
            train=Train(frozen=True),
        )
    text = '[[domains]]\nname = "ants"\nsource = "pocket:optdigits"\n[train]\nfrozen = true\n'
    one = Recipe.parse(f'name = "x"\n{text}[distill]\nteachers = "runs/x"\n', tmp_path)
    with pytest.raises(BadInput, match=r"distill.teachers: train.frozen"):
        check(one)
    check(one.with_sets(["distill.enabled=false"]))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ("views = -1", "distill.views"),
        ("teacher_dropout = 1.0", "distill.teacher_dropout"),
        ("teachers = 3", "expected a teacher, several in a list, or a table by domain"),
        ('features = "l3"', "unknown feature loss; got: 'l3'"),
        ("logit_weight = { ants = -1.0 }", "distill.logit_weight: .*; got: -1.0"),
    ],
)
def test_keys_that_a_recipe_cannot_have(keys: str, match: str) -> None:
    text = 'name = "x"\n[[domains]]\nname = "ants"\nsource = "pocket:optdigits"\n[distill]\n'
    with pytest.raises(BadInput, match=match):
        Recipe.parse(text + keys)
    assert Recipe.parse(text + 'teachers = ["a", "b"]').distill.teachers == ["a", "b"]
