"""The baselines of a recipe: three runs next to its own, and their document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from onetrunk.config import Recipe, Train
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.table import Table
from onetrunk.nn.model_files import save_models
from onetrunk.nn.saving import models_of
from onetrunk.nn.universal import Universal
from onetrunk.runs import experiment
from onetrunk.runs.baselines import check_start, compare_baselines, mean_error, variant
from onetrunk.runs.experiment import seconds_of
from onetrunk.runs.open import Run
from onetrunk.runs.train import train, train_recipe
from tests.helpers.errors import raises
from tests.helpers.worlds import network, settings, worlds

TEXT = """
name = "two"
out = "runs/two"
[trunk]
arch = "resnet20"
adapters = "parallel"
[[domains]]
name = "one"
source = "folder:one"
size = 8
[[domains]]
name = "other"
source = "folder:other"
size = 8
[train]
steps = 2
batch = 4
optimizer = "sgd"
lr = 0.01
"""


def photos(root: Path, seed: int) -> None:
    """Write images of two classes, bright and dark, in three splits."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        for label, level in (("dark", 0), ("bright", 120)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                image = level + rng.integers(0, 120, (8, 8, 3))
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for seed, name in enumerate(("one", "other")):
        photos(tmp_path / name, seed)
    return Recipe.parse(TEXT, tmp_path)


def test_baselines_are_ordinary_runs(recipe: Recipe, tmp_path: Path) -> None:
    found = compare_baselines(recipe, device="cpu")
    assert json.loads((tmp_path / "runs/two-baselines.json").read_text()) == found
    assert list(found["runs"]) == ["frozen", "finetune", "joint"]
    assert not (tmp_path / "runs/two").exists()
    for kind, run in found["runs"].items():
        folder = tmp_path / f"runs/two-{kind}"
        assert run["out"] == f"runs/two-{kind}" and run["weights"] == "fresh"
        models = models_of(folder)
        domains = Recipe.read(folder).make_domains()
        table = evaluate(models, domains, intervals=False)
        values = {row["domain"]: row["values"][kind] for row in found["rows"]}
        assert values == pytest.approx({d: table.value(d) for d in ("one", "other")})
        assert run["mean_error"] == pytest.approx(sum(values.values()) / 2)
        networks = {id(model): model for model in models.values()}.values()
        assert run["parameters"] == sum(p.numel() for m in networks for p in trained(m))
        assert 0 < run["seconds"] == seconds_of(folder)
    multiples = {kind: run["networks"] for kind, run in found["runs"].items()}
    assert multiples["finetune"] == 2
    assert multiples["joint"] == multiples["frozen"] == pytest.approx(1, abs=0.01)
    assert found["try"] == (
        f"onetrunk report {tmp_path}/runs/two --baseline {tmp_path}/runs/two-finetune"
    )


def trained(model: Universal) -> list[nn.Parameter]:
    """Return the parameters that are trained, which excludes the templates of banks."""
    owned = [t for name in model.domains for t in model.parameters_of(name).values()]
    return list({id(p): p for p in [*model.shared_parameters().values(), *owned]}.values())


def test_finished_baselines_are_not_trained_again(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def counted(recipe: Recipe, **given: Any) -> Run:
        ran.append(recipe.out)
        return train_recipe(recipe, **given)

    monkeypatch.setattr(experiment, "train_recipe", counted)
    first = compare_baselines(recipe, ["frozen"], device="cpu")
    again = compare_baselines(recipe, ["frozen"], device="cpu")
    both = compare_baselines(recipe, ["joint", "frozen"], resume=True, device="cpu")
    assert ran == ["runs/two-frozen", "runs/two-joint"]
    assert again == first
    assert both["runs"]["frozen"] == first["runs"]["frozen"]
    assert list(both["runs"]) == ["joint", "frozen"]
    assert capsys.readouterr().err.count("runs/two-frozen is already finished") == 2


def test_a_stopped_baseline_continues(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = compare_baselines(
        recipe.with_sets(['out="runs/uninterrupted"']), ["finetune"], device="cpu"
    )

    def interrupted(recipe: Recipe, **given: Any) -> Run:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("onetrunk.runs.train.finish", interrupt)
            return train_recipe(recipe, **given)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train_recipe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare_baselines(recipe, ["finetune"], device="cpu")
    with raises(BadInput, "two-finetune", try_="--resume"):
        compare_baselines(recipe, ["frozen", "finetune"], device="cpu")
    assert not (tmp_path / "runs/two-frozen").exists()  # refused before any training
    found = compare_baselines(recipe, ["finetune"], resume=True, device="cpu")
    assert found["rows"] == uninterrupted["rows"]


def test_a_folder_with_another_run_is_refused_before_any_training(
    recipe: Recipe, tmp_path: Path
) -> None:
    compare_baselines(recipe.with_sets(["train.steps=1"]), ["joint"], device="cpu")
    with raises(BadInput, "two-joint", "train.steps", try_="another folder"):
        compare_baselines(recipe, ["frozen", "joint"], resume=True, device="cpu")
    assert not (tmp_path / "runs/two-frozen").exists()


@pytest.mark.parametrize(
    ("methods", "got"), [(["frosen"], "frosen"), ([], "none"), (["joint"] * 2, "joint, joint")]
)
def test_methods_are_checked(recipe: Recipe, methods: list[str], got: str) -> None:
    with raises(BadInput, got=got, available=["frozen", "finetune", "joint"]):
        compare_baselines(recipe, methods)


def changed(recipe: Recipe, kind: str) -> dict[str, Any]:
    """Return the keys of a baseline that differ from the recipe, with their values."""
    before, after = recipe.document(), variant(recipe, kind).document()
    flat = [
        {**d, **{f"{t}.{k}": v for t in ("trunk", "train") for k, v in d[t].items()}}
        for d in (before, after)
    ]
    return {k: v for k, v in flat[1].items() if v != flat[0][k] and k not in ("trunk", "train")}


def test_the_recipes_of_the_baselines(recipe: Recipe) -> None:
    partial = recipe.with_sets(['trunk.sharing="partial"', "trunk.own_stages=[1]"])
    assert changed(partial, "finetune") == {
        "name": "two-finetune",
        "out": "runs/two-finetune",
        "trunk.sharing": "none",
        "trunk.own_stages": [],
        "trunk.adapters": "none",
    }
    joint = {"trunk.sharing": "deep", "trunk.own_stages": [], "trunk.adapters": "none"}
    joint |= {"trunk.norm": "shared"}
    assert changed(partial, "joint") == {**joint, "name": "two-joint", "out": "runs/two-joint"}
    frozen = {**joint, "train.frozen": True, "name": "two-frozen", "out": "runs/two-frozen"}
    assert changed(partial, "frozen") == frozen
    long = variant(recipe.with_sets([f"name={'a' * 64}"]), "finetune")
    assert long.name == "a" * 55 + "-finetune"


def test_a_frozen_baseline_keeps_the_initial_trunk(recipe: Recipe, tmp_path: Path) -> None:
    start = train_recipe(recipe.with_sets(['out="runs/start"']), device="cpu")
    continued = recipe.with_sets(['init="runs/start"'])
    with raises(BadInput, "joint", got="norm = 'domain'", try_="--methods frozen,finetune"):
        compare_baselines(continued, device="cpu")
    found = compare_baselines(continued, ["frozen"], device="cpu")
    assert found["runs"]["frozen"]["weights"] == "of runs/start"
    ours = models_of(tmp_path / "runs/two-frozen")["one"]
    for name in ("one", "other"):
        for key, tensor in start.model.own(name).items():
            if key.startswith("slots/"):
                assert tensor.cpu().equal(ours.own(name)[key]), key
    for key, tensor in start.model.trunk.shared().items():
        assert tensor.cpu().equal(ours.trunk.shared()[key]), key


def test_a_baseline_cannot_drop_own_stages(recipe: Recipe, tmp_path: Path) -> None:
    sets = ['trunk.sharing="partial"', "trunk.own_stages=[1]", 'trunk.norm="shared"']
    partial = recipe.with_sets(sets)
    save_models(partial.make_model(partial.make_domains()), tmp_path / "runs/start")
    continued = partial.with_sets(['init="runs/start"'])
    for kind in ("finetune", "joint"):
        with raises(BadInput, kind, got="own_stages = [1]", try_="--methods frozen"):
            compare_baselines(continued, [kind])
    check_start(continued, "frozen")
    check_start(partial, "joint")  # without `init` there is nothing to drop


def test_a_frozen_baseline_of_specialists_shares_a_trunk(recipe: Recipe, tmp_path: Path) -> None:
    alone = recipe.with_sets(['trunk.sharing="none"', 'init="runs/start"'])
    (tmp_path / "runs/start/model").mkdir(parents=True)
    (tmp_path / "runs/start/model/trunk.safetensors").touch()
    assert variant(alone, "frozen").trunk.sharing == "deep"
    (tmp_path / "runs/start/model/trunk.safetensors").unlink()  # a network for each domain
    assert variant(alone, "frozen").trunk.sharing == "none"


def test_mean_error() -> None:
    def table(*rows: tuple[str, str, float]) -> Table:
        units = {"error": ("classify", "%"), "abs": ("depth", "m"), "nrmse": ("regress", "")}
        return Table.from_json(
            {
                "split": "test",
                "rows": [
                    {
                        "domain": domain,
                        "task": f"t{i}",
                        "metric": metric,
                        "value": value,
                        "count": 5,
                        "kind": units[metric][0],
                        "unit": units[metric][1],
                        "better": "lower",
                        "headline": True,
                        "low": None,
                        "high": None,
                    }
                    for i, (domain, metric, value) in enumerate(rows)
                ],
            }
        )

    assert mean_error(table(("a", "error", 10.0), ("a", "error", 20.0), ("b", "error", 5.0))) == 10
    assert mean_error(table(("a", "error", 10.0), ("b", "abs", 0.5))) is None
    assert mean_error(Table((), "val")) is None


def test_seconds_are_summed_over_heads_and_networks(tmp_path: Path) -> None:
    records = [
        {"step": 0, "part": "", "frozen": "a/t", "seconds": 2.0},
        {"step": 0, "part": "", "frozen": "b/t", "seconds": 3.0},
        {"step": 5, "part": "", "loss": {}, "seconds": 10.0},
        {"step": 9, "part": "", "loss": {}, "seconds": 20.0},
        {"step": 9, "part": "", "val": {}},
        {"step": 9, "part": "b", "loss": {}, "seconds": 7.5},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert seconds_of(tmp_path) == 32.5


def test_seconds_of_a_run_are_those_of_its_last_step(tmp_path: Path) -> None:
    domains = worlds("one")
    given = settings(steps=3).model_dump(exclude_unset=True)
    run = train(network(domains), domains, out=tmp_path / "run", device="cpu", train=Train(**given))
    last = [json.loads(x) for x in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert seconds_of(run.folder) == max(r.get("seconds", 0) for r in last)
