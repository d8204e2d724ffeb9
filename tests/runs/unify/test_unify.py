"""`onetrunk unify`: stages are ordinary runs, decisions come from validation, work continues."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onetrunk as ot
from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.errors import BadInput, Diverged, Failed
from onetrunk.eval.evaluate import evaluate
from onetrunk.report.unify import Result, plain, unify_recipe
from onetrunk.runs.open import Run
from onetrunk.runs.pack_store import remove
from onetrunk.runs.train import train_models, train_recipe
from onetrunk.runs.unify import trainer
from onetrunk.runs.unify import unify as module
from onetrunk.runs.unify.stages import DISTILLED, SPECIALISTS, specialist
from onetrunk.runs.update import update
from onetrunk.store.run_folder import RECIPE
from onetrunk.train.callbacks import Training
from tests.helpers.errors import raises
from tests.runs.unify.conftest import TEXT

Unified = tuple[Path, Result]


def weights(folder: Path) -> dict[str, bytes]:
    """Return the files of a model by their names."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "model").rglob("*.*")}


def work(recipe: Recipe, seconds: float = 3600.0) -> module.Unified:
    """Do everything but the report."""
    return module.unify_domains(
        recipe, check(recipe).domains, seconds=seconds, device="cpu", command="again"
    )


def document(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "runs/two/unify.json").read_text())
    return found


def test_the_result_is_a_run_of_the_chosen_network(unified: Unified) -> None:
    root, result = unified
    run = Run(root / "runs/two")
    assert run.state == "finished" and run.names == ["one", "other"]
    found = document(root)
    assert found["finished"] and found["chosen"] == result.chosen
    if not result.own:
        assert weights(run.folder) == weights(root / "runs/two/stages" / result.chosen)
    table = evaluate(run.networks, list(run.domains.values()), intervals=False)
    assert [r.value for r in table.headlines()] == pytest.approx(
        [r.value for r in run.table.headlines()]
    )
    assert result.page.is_file() and str(result.run.folder) in str(result)
    assert plain(result)["chosen"] == result.chosen
    names = [row.name for row in result.rows]
    assert names[:3] == [SPECIALISTS, "joint", DISTILLED]
    assert sum(row.chosen for row in result.rows) == 1


def test_the_choice_has_the_lowest_validation_score(unified: Unified) -> None:
    root, result = unified
    candidates = document(root)["candidates"]
    one = {n: c["score"] for n, c in candidates.items() if n != SPECIALISTS}
    smallest = min(candidates[n]["bytes"] for n in one)
    same_size = [s for n, s in one.items() if candidates[n]["bytes"] <= 1.02 * smallest]
    chosen = candidates[result.chosen]
    if chosen["bytes"] <= 1.02 * smallest:
        assert chosen["score"] == min(same_size)
    else:  # a larger network has to be better
        assert chosen["score"] < min(same_size)


def test_stages_are_ordinary_runs(unified: Unified, tmp_path: Path) -> None:
    root, _ = unified
    for name in (specialist("one"), DISTILLED):
        stage = root / "runs/two/stages" / name
        recipe = Recipe.read(stage).with_sets([f"out={json.dumps(str(tmp_path / name))}"])
        train_recipe(recipe, device="cpu")
        assert weights(tmp_path / name) == weights(stage)


def test_specialists_are_collected_into_one_run(unified: Unified) -> None:
    root, _ = unified
    stages = root / "runs/two/stages"
    run = Run(stages / SPECIALISTS)
    assert run.names == ["one", "other"] and len(run.models) == 2
    for name in run.names:
        alone = Run(stages / specialist(name))
        assert run.table.row(name) == alone.table.row(name)
        assert run.scores["best"][name] == alone.scores["best"][name]
        pack = run.pack_path(name).read_bytes()
        assert pack == alone.pack_path(name).read_bytes()
    assert run.outcomes is not None and set(run.outcomes.domains) == {"one", "other"}


def test_the_search_drops_rates_and_keeps_the_winner(unified: Unified) -> None:
    root, _ = unified
    stage = document(root)["stages"][DISTILLED]
    first, second = stage["rungs"]
    assert list(first["scores"]) == ["0.0003", "0.001", "0.003"]
    assert [first["step"], second["step"]] == [1, 3]
    assert set(second["scores"]) < set(first["scores"])
    winner = min(second["scores"], key=lambda rate: (second["scores"][rate], float(rate)))
    assert stage["lr"] == float(winner)
    assert Recipe.read(root / "runs/two/stages" / DISTILLED).train.lr == stage["lr"]
    assert not list((root / "runs/two/stages").glob("*-lr-*"))


def test_the_same_call_again_changes_nothing(unified: Unified) -> None:
    root, result = unified
    before = {p: p.stat().st_mtime_ns for p in (root / "runs/two/stages").rglob("*.*")}
    again = work(Recipe.parse(TEXT, root))
    assert again.chosen == result.chosen
    assert {p: p.stat().st_mtime_ns for p in (root / "runs/two/stages").rglob("*.*")} == before


@pytest.mark.parametrize(
    "at", [31, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 9, 20, 40, 52))]
)
def test_interrupted_work_continues_with_the_same_result(
    unified: Unified, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """`at` counts validations over all stages."""
    root, result = unified
    beat, count = trainer._Heartbeat.on_eval, 0

    def interrupt(self: Any, training: Training) -> None:
        nonlocal count
        count += 1
        beat(self, training)
        if count == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Heartbeat, "on_eval", interrupt)
    with raises(Failed, "interrupted", try_="again"):
        work(recipe)
    assert count == at
    again = work(recipe)
    assert again.chosen == result.chosen
    assert weights(tmp_path / "runs/two") == weights(root / "runs/two")
    for name in ("joint", DISTILLED, SPECIALISTS):
        ours, theirs = (r / "runs/two/stages" / name for r in (tmp_path, root))
        assert weights(ours) == weights(theirs)


def test_a_domain_keeps_its_own_network(unified: Unified, tmp_path: Path) -> None:
    root, result = unified
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs/two"
    found = document(tmp_path) | {"own": {"other": "because"}}
    (folder / "unify.json").write_text(json.dumps(found))
    for name in ("scores.json", "outcomes.safetensors"):
        (folder / name).unlink()
    shutil.rmtree(folder / "model")
    again = work(Recipe.parse(TEXT, tmp_path))
    assert again.own == {"other": "because"}
    run = Run(folder)
    assert run.names == ["one", "other"]
    specialists, one = Run(folder / "stages" / SPECIALISTS), Run(folder / "stages" / result.chosen)
    assert run.table.value("other") == specialists.table.value("other")
    assert run.table.value("one") == one.table.value("one")
    assert list(run.models) == ["", "other"] and list(run.model.domains) == ["one"]
    with raises(BadInput, "network of its own", available=["one"]):
        remove(folder, "other")
    with raises(BadInput, "network of its own"):
        update(folder, run.domains["other"])
    pixels = np.zeros((8, 8, 3), np.uint8)
    for name, source in (("other", specialists), ("one", one)):
        ours = run.network(name).predict(pixels, name)
        assert ours == source.network(name).predict(pixels, name)
    table = evaluate(run.networks, list(run.domains.values()), intervals=False)
    assert [r.value for r in table.headlines()] == pytest.approx(
        [r.value for r in run.table.headlines()]
    )


def test_one_domain_alone(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = unify_recipe(recipe.only(["one"]), seconds=3600.0, device="cpu")
    assert result.chosen == SPECIALISTS and Run(tmp_path / "runs/two").names == ["one"]
    assert "nothing to unify" in capsys.readouterr().err


def test_a_rate_that_diverges_after_the_search_is_left_out(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = train_models

    def diverging(models: Any, domains: Any, recipe: Recipe, **given: Any) -> Run:
        if recipe.name == "specialist-one" and given["pause_at"] is None and not diverged:
            diverged.append(recipe.train.lr)
            raise Diverged("not finite")
        return train(models, domains, recipe, **given)

    diverged: list[float] = []
    monkeypatch.setattr(trainer, "train_models", diverging)
    work(recipe.only(["one"]))
    stage = document(tmp_path)["stages"]["specialist-one"]
    assert stage["diverged"] == diverged and stage["lr"] not in diverged
    assert set(stage["rungs"][0]["scores"]) == {f"{r:g}" for r in module.RATES} - {
        f"{r:g}" for r in diverged
    }


@pytest.mark.slow
def test_in_python(recipe: Recipe, tmp_path: Path) -> None:
    domains = [ot.Domain(d.name, str(d.source), size=8, base=tmp_path) for d in recipe.domains]
    train = ot.Train(steps=10, batch=8)
    result = ot.unify(
        domains, out=tmp_path / "runs/two", trunk="resnet20", train=train, device="cpu"
    )
    found = document(tmp_path)
    assert len(found["stages"]["joint"]["rungs"]) == 2 and found["plan"]["steps"] == 10
    assert result.run.model.domains.keys() == {"one", "other"} and result.page.is_file()


@pytest.mark.slow
def test_the_report_of_a_domain_with_its_own_network(unified: Unified, tmp_path: Path) -> None:
    shutil.copytree(unified[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs/two"
    found = document(tmp_path) | {"own": {"other": "it is worse there"}}
    (folder / "unify.json").write_text(json.dumps(found))
    for name in ("scores.json", "outcomes.safetensors"):
        (folder / name).unlink()
    shutil.rmtree(folder / "model")
    result = unify_recipe(Recipe.parse(TEXT, tmp_path), seconds=3600.0, device="cpu")
    assert result.own and "it is worse there" in result.page.read_text("utf-8")


# -- bad input


def test_another_request_in_the_same_folder_is_refused(unified: Unified) -> None:
    root, _ = unified
    recipe = Recipe.parse(TEXT, root)
    with raises(BadInput, "differs in train.batch"):
        work(recipe.with_sets(["train.batch=4"]))
    with raises(BadInput, "--time"):
        work(recipe, 60.0)


def test_images_that_changed_are_noticed(unified: Unified, tmp_path: Path) -> None:
    shutil.copytree(unified[0], tmp_path, dirs_exist_ok=True)
    next((tmp_path / "other/train").rglob("*.png")).unlink()
    with raises(BadInput, "images of other"):
        work(Recipe.parse(TEXT, tmp_path))


def test_a_folder_with_other_files_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "runs/two").mkdir(parents=True)
    (tmp_path / "runs/two/photo.jpg").write_bytes(b"")
    with raises(BadInput, "photo.jpg"):
        work(recipe)


@pytest.mark.parametrize(
    "setting",
    [
        'trunk.sharing="none"',
        "train.frozen=true",
        'init="runs/x"',
        "train.hours=1",
        "train.eval_every=3",
        "train.patience=2",
        "distill.enabled=false",
    ],
)
def test_settings_that_unify_decides_are_refused(recipe: Recipe, setting: str) -> None:
    with pytest.raises(BadInput):
        work(recipe.with_sets([setting]))


def test_too_few_test_images_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    for path in (tmp_path / "one/test").rglob("*.png"):
        if int(path.stem) >= 5:
            path.unlink()
    with raises(BadInput, "at least 20 test images"):
        work(recipe)
    assert not (tmp_path / "runs/two/stages").exists()


@pytest.mark.usefixtures("recipe")
def test_a_request_that_was_refused_does_not_bind(tmp_path: Path) -> None:
    text = TEXT.replace("steps = 10\n", "")
    with raises(BadInput, "too short"):
        work(Recipe.parse(text, tmp_path), 5.0)
    with raises(BadInput, "too short"):  # not: another command
        work(Recipe.parse(text, tmp_path).with_sets(["train.batch=4"]), 6.0)


@pytest.mark.usefixtures("recipe")
def test_a_time_that_is_too_short_is_refused(tmp_path: Path) -> None:
    text = TEXT.replace("steps = 10\n", "")
    with raises(BadInput, "too short", try_="--time"):
        work(Recipe.parse(text, tmp_path), 5.0)


@pytest.mark.parametrize("content", ["", "{", '{"format": 9}', "[]"])
def test_a_damaged_record_is_an_error(
    unified: Unified, recipe: Recipe, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "runs/two"
    folder.mkdir(parents=True)
    shutil.copy(unified[0] / "runs/two/unify.toml", folder)
    (folder / "unify.json").write_text(content)
    with raises(BadInput, "unify.json"):
        work(recipe)
    assert not (folder / RECIPE).exists()
