"""Runs with teachers: interrupted and resumed, what they save, two stages of distillation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.check import check
from onetrunk.config.to_toml import inline
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn.saving import load, models_of
from onetrunk.runs.baselines import variant
from onetrunk.runs.dry_run import dry_run
from onetrunk.runs.train import train, train_models, train_recipe
from onetrunk.train.distill.distiller import Distiller
from onetrunk.train.distill.precompute import precompute
from onetrunk.train.distill.teachers import Specialist
from onetrunk.train.loop import Paused
from tests.helpers.errors import raises
from tests.helpers.fakes import encoded, picture
from tests.helpers.worlds import (
    CPU,
    assert_same_run,
    at,
    checkpoints,
    go,
    learner,
    lines,
    network,
    same,
    specialists,
    steps,
    weights,
    worlds,
)

SHORT: dict[str, Any] = {"steps": 7, "eval_every": 4, "log_every": 1, "keep_checkpoints": 9}
SETTINGS: dict[str, dict[str, Any]] = {
    "l2": {"distill": {"features": "l2"}},
    "cosine, hidden, annealed": {
        "distill": {"features": "cosine", "aligner": "hidden", "annealing": "cosine"}
    },
    "cka, joined": {"distill": {"features": "cka"}, "sampling": "joined", "batch": 8},
    "drop": {"distill": {"features": "l2", "teacher_dropout": 0.6}, "accumulate": 2},
    "float16": {
        "distill": {"features": "l2", "teacher_dropout": 0.6},
        "precision": "float16",
        "clip": 1.0,
    },
}


class Interrupted(Exception):
    """Raised in the middle of a run."""


def interrupt() -> None:
    raise Interrupted


def several(domains: list[Domain]) -> dict[str, Any]:
    """Two teachers for each domain."""
    one, other = specialists(domains, 7), specialists(domains, 70)
    return {name: [*one[name], *other[name]] for name in one}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    expected, other = network(domains), network(domains)
    given = {**SHORT, **SETTINGS[name], "teachers": several(domains)}
    given["distill"] = {"teachers": "x", **given["distill"]}
    go(tmp_path / "uninterrupted", domains, expected, **given)
    with pytest.raises(Interrupted):
        go(tmp_path / "run", domains, other, at("step", 6, interrupt), **given)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    go(tmp_path / "run", domains, other, **given)
    assert same(weights(other), weights(expected))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")
    _, kept = checkpoints(tmp_path / "run")[7]
    assert any(key.startswith("distill/weights/ants/1/") for key in kept)
    assert any(key.startswith("distill/optim/bees:0/") for key in kept)


def test_checkpoints_hold_no_tensor_of_a_teacher() -> None:
    """Only aligners and their optimizers are added to those of the student."""
    domains = worlds("ants", "bees")
    teachers = specialists(domains)
    plain = learner(domains)
    made = learner(domains, teachers=teachers, distill={"teachers": "x"})
    for one in (plain, made):
        for passes in steps(one, 2):
            one.step(passes)
    (without, _), (tensors, state) = plain.state(), made.state()
    added = tensors.keys() - without.keys()
    assert added == {f"distill/{key}" for key in made.distiller.state()} and added
    aligner = sum(p.numel() for own in made.distiller.parameters.values() for p in own.values())
    assert aligner == 2 * 64 * 64
    new = sum(tensors[key].numel() for key in added if "/weights/" in key)
    assert new == aligner
    taught = set()
    for (teacher,) in teachers.values():
        assert isinstance(teacher, Specialist)
        taught |= {tensor.data_ptr() for tensor in teacher.net.state_dict().values()}
    assert not taught & {tensor.data_ptr() for tensor in tensors.values()}
    assert json.loads(json.dumps(state))["means"]["distilled"].keys() == {
        "ants features", "ants logits", "bees features", "bees logits"
    }  # fmt: skip


def test_a_restored_distiller_is_identical() -> None:
    domains = worlds("ants")
    given: dict[str, Any] = {"teachers": specialists(domains), "distill": {"teachers": "x"}}
    made = learner(domains, **given)
    taken = steps(made, 4)
    for passes in taken[:2]:
        made.step(passes)
    tensors = {key: tensor.clone() for key, tensor in made.distiller.state().items()}
    torch.manual_seed(99)
    other = learner(domains, **given)
    assert not same(tensors, other.distiller.state())
    other.distiller.restore(tensors)
    assert same(tensors, other.distiller.state())
    assert isinstance(other.distiller, Distiller)


def folder(place: Path, classes: str = "ab", first: int = 0, count: int = 24) -> Path:
    for name in classes:
        for i in range(count):
            path = place / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(first + i + 1000 * ord(name), 8, 8)))
    return place


TEXT = """
name = "NAME"
[trunk]
arch = "ARCH"
sharing = "SHARING"
[[domains]]
name = "ants"
source = "folder:ants"
size = 8
[[domains]]
name = "bees"
source = "folder:bees"
size = 8
[train]
steps = 3
batch = 8
optimizer = "sgd"
lr = 0.05
"""


def recipe(
    place: Path, name: str, arch: str = "resnet20", sharing: str = "deep", more: str = ""
) -> Recipe:
    text = TEXT.replace("NAME", name).replace("ARCH", arch).replace("SHARING", sharing)
    return Recipe.parse(text + more, place)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of images, and a run of specialists on them."""
    found = tmp_path_factory.mktemp("runs")
    folder(found / "ants")
    folder(found / "bees", "abc", 500)
    train_recipe(recipe(found, "specialists", sharing="none"), device="cpu")
    return found


def test_two_stages(place: Path) -> None:
    """Specialists teach a large network, which then teaches a small one."""
    taught = '[distill]\nteachers = "runs/{}"\nfeatures = "cosine"\n'
    proxy = train_recipe(
        recipe(place, "proxy", "resnet38", more=taught.format("specialists")), device="cpu"
    )
    student = train_recipe(
        recipe(place, "student", "resnet20", more=taught.format("proxy")), device="cpu"
    )
    for run, teacher in ((proxy, "runs/specialists"), (student, "runs/proxy")):
        scores = json.loads((run.folder / "scores.json").read_text())
        assert scores["teachers"]["bees"] == [
            {
                "teacher": teacher,
                "predictions": ["classify"],
                "features": [["pooled", "pooled"]],
                "loss": "cosine",
            }
        ]
        logged = [line["distilled"] for line in lines(run.folder) if "distilled" in line]
        assert set(logged[-1]) == {
            f"{d} {w}" for d in ("ants", "bees") for w in ("features", "logits")
        }
    # no aligner and no teacher is saved
    plain = train_recipe(recipe(place, "plain"), device="cpu")
    assert weights(load(student.folder)).keys() == weights(load(plain.folder)).keys()
    for kind in ("model/trunk.safetensors", "model/packs/ants.pack", "model/packs/bees.pack"):
        names = []
        for run in (student, plain):
            with safe_open(run.folder / kind, "pt") as file:
                names.append(sorted(file.keys()))
        assert names[0] == names[1]


def test_too_small_batches_use_the_fallback_and_are_recorded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = 'workers = 0\n[distill]\nteachers = "runs/specialists"\nfeatures = "cka"\n'
    small = recipe(place, "small", more=more).with_sets(["domains.bees.batch=4"])
    run = train_recipe(small, device="cpu")
    printed = capsys.readouterr().err
    assert "too small for cka: bees (batches of 4): cosine" in printed
    taught = json.loads((run.folder / "scores.json").read_text())["teachers"]
    assert [taught["ants"][0]["loss"], taught["bees"][0]["loss"]] == ["cka", "cosine"]
    assert taught["bees"][0]["replaces"] == "cka" and "replaces" not in taught["ants"][0]


@pytest.mark.parametrize("kind", ["run", "views"])
def test_a_teacher_that_was_replaced_is_noticed(place: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    text = '[distill]\nteachers = "runs/specialists"\n'
    one = recipe(tmp_path, "replaced", more="eval_every = 1\n" + text)
    if kind == "views":
        models = models_of(tmp_path / "runs/specialists")
        for domain in one.make_domains():
            precompute(models[domain.name], domain, tmp_path / f"{domain.name}.rows", views=1)
        files = {d: f"features:{d}.rows" for d in ("ants", "bees")}
        one = one.with_sets([f"distill.teachers={inline(files)}"])
    checked = check(one)
    with pytest.raises(Paused):
        train_models(one.make_model(checked.domains), checked.domains, one, resume=False,
                     device="cpu", pause_at=1)  # fmt: skip
    other = recipe(tmp_path, "other", sharing="none").with_sets(["seed=5"])
    train_recipe(other, device="cpu")
    if kind == "views":
        models = models_of(tmp_path / "runs/other")
        (tmp_path / "bees.rows").unlink()
        domain = one.make_domains()[1]
        precompute(models["bees"], domain, tmp_path / "bees.rows", views=1)
    else:
        shutil.rmtree(tmp_path / "runs/specialists/model/bees")
        shutil.copytree(
            tmp_path / "runs/other/model/bees", tmp_path / "runs/specialists/model/bees"
        )
    with raises(BadInput, "teachers of bees"):
        train_recipe(one, resume=True, device="cpu")


def test_a_finished_run_does_not_need_its_teachers(place: Path) -> None:
    more = '[distill]\nteachers = "runs/gone"\n'
    (place / "runs/specialists").rename(place / "runs/gone")
    one = recipe(place, "orphan", more=more)
    run = train_recipe(one, device="cpu")
    (place / "runs/gone").rename(place / "runs/specialists")
    again = train_recipe(one, resume=True, device="cpu")
    assert same(weights(again.model), weights(run.model))


def test_dry_runs_include_teachers_and_baselines_do_not(place: Path) -> None:
    one = recipe(place, "dry", more='[distill]\nteachers = "runs/specialists"\n')
    found = dry_run(one, "cpu")
    plain = dry_run(one.with_sets(["distill.enabled=false"]), "cpu")
    assert found["parts"][""]["checkpoint_bytes"] > plain["parts"][""]["checkpoint_bytes"]
    assert found["parts"][""]["parameters"] == plain["parts"][""]["parameters"]
    for kind in ("frozen", "finetune", "joint"):
        assert not variant(one, kind).distill.on


def test_models_in_memory_teach_as_their_run_does(place: Path, tmp_path: Path) -> None:
    domains = [Domain(n, f"folder:{place}/{n}", size=8) for n in ("ants", "bees")]
    models = models_of(place / "runs/specialists")
    runs = [
        train(
            network(domains),
            domains,
            out=tmp_path / name,
            device=CPU,
            teachers=teachers,
            distill=Distill(features="l2"),
            train=Train(steps=3, batch=4),
        )
        for name, teachers in (("memory", models), ("files", str(place / "runs/specialists")))
    ]
    assert same(*(weights(run.model) for run in runs))
    written = Recipe.read(runs[0].folder).distill
    assert written.teachers == {"ants": "python:Universal", "bees": "python:Universal"}
