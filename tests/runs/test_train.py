"""Training a model or a recipe: the folder of the run, and bad input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.config import Recipe, Train
from onetrunk.config.check import check
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.saving import load, models_of
from onetrunk.runs import train as module
from onetrunk.runs.environment import environment
from onetrunk.runs.open import Run
from onetrunk.runs.train import scale_numbers, train, train_models, train_recipe
from onetrunk.train.learner import NotFinite
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source, labelled, picture
from tests.helpers.worlds import (
    Recorder,
    assert_same_run,
    at,
    checkpoints,
    learner,
    lines,
    network,
    noise,
    recipe,
    same,
    settings,
    weights,
    worlds,
)

SHORT: dict[str, Any] = {
    "steps": 4, "batch": 4, "eval_every": 2, "log_every": 1, "optimizer": "sgd", "lr": 0.05
}  # fmt: skip
CLOCKS = ("finished", "seconds")


def log_to(monkeypatch: pytest.MonkeyPatch, logger: Recorder) -> None:
    monkeypatch.setattr(module, "make_logger", lambda *_: logger)


def scores_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "scores.json").read_text())
    return {key: value for key, value in found.items() if key not in CLOCKS}


class Broken(Exception):
    """An error that no code catches."""


def fail() -> None:
    raise Broken


def test_a_finished_run(tmp_path: Path) -> None:
    domains = worlds("ants", "bees", batch=6)
    model = network(domains)
    run = train(model, domains, out=tmp_path / "run", seed=3, train=Train(**SHORT))
    assert isinstance(run, Run) and run.model is model
    names = {path.name for path in (tmp_path / "run").iterdir()} - {".lock"}
    assert names == {
        "recipe.toml", "environment.json", "metrics.jsonl", "checkpoints", "model",
        "scores.json", "outcomes.safetensors",
    }  # fmt: skip
    found = scores_of(tmp_path / "run")
    assert (found["format"], found["seed"]) == (1, 3)
    assert run.table == evaluate(model, domains, "test", intervals=True)
    evaluated = {line["step"]: line["score"] for line in lines(tmp_path / "run") if "val" in line}
    best = min(evaluated, key=lambda step: (evaluated[step], step))
    assert found["best"] == {"": {"step": best, "score": evaluated[best]}}
    assert found["own_best"].keys() == {"ants", "bees"}
    counts = {d.name: {s: len(d.splits[s]) for s in ("train", "val", "test")} for d in domains}
    assert {n: {k: v for k, v in s.items() if k != "how"} for n, s in found["splits"].items()} == (
        counts
    )
    assert found["bad"] == {n: {"train": 0, "val": 0, "test": 0} for n in ("ants", "bees")}
    again = load(tmp_path / "run")
    assert same(weights(again), weights(model))
    card = again.domains["bees"]
    assert {"run": "run", "seed": 3, "batch": 6}.items() <= card.provenance.items()
    row = run.table.row("bees")
    assert card.scores["test/classify/error"] == row.value
    assert card.scores["test/classify/error/low"] == row.low
    assert card.scores["test/classify/error/high"] == row.high


def test_the_environment_of_a_run() -> None:
    domains = worlds("ants", "bees")
    one = environment(domains, 3, torch.device("cpu"))
    assert one["hardware"]["device"] == "cpu" and one["seed"] == 3
    assert torch.__version__.startswith(one["versions"]["torch"])
    digests = one["data"]
    assert digests["ants"] != digests["bees"]
    assert environment(worlds("ants", "bees"), 4, torch.device("cpu"))["data"] == digests

    def digest(images: Fake, **given: Any) -> str:
        domain = Domain("ants", images, **{"size": 8, **given})
        found: str = environment([domain], 3, torch.device("cpu"))["data"]["ants"]
        return found

    assert digest(noise(40)) == digests["ants"]
    other = noise(40)
    others = [
        digest(noise(41)),
        digest(noise(40, first=1)),
        digest(noise(40, "ba")),
        digest(Fake(other.tasks, labelled(40, "ab", ("train", "val", "test")), other.images)),
        digest(noise(40), size=9),
        digest(noise(40), normalize="imagenet"),
    ]
    assert len({digests["ants"], *others}) == 7


def test_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domains = worlds("ants", "bees")
    log_to(monkeypatch, at("step", 3, fail))
    with pytest.raises(Broken):
        train(network(domains), domains, out=tmp_path / "run", train=Train(**SHORT))
    log_to(monkeypatch, Recorder())
    changed = [domains[0], Domain("bees", noise(60, "abc", 7), size=8)]
    with raises(BadInput, "images of bees", tmp_path / "run"):
        train(network(changed), changed, out=tmp_path / "run", resume=True, train=Train(**SHORT))
    train(network(domains), domains, out=tmp_path / "run", resume=True, train=Train(**SHORT))


def test_a_folder_with_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains, out = worlds("ants"), tmp_path / "run"
    log_to(monkeypatch, at("step", 3, fail))
    with pytest.raises(Broken):
        train(network(domains), domains, out=out, train=Train(**SHORT))
    log_to(monkeypatch, Recorder())
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    with raises(BadInput, out, "step 2", try_="--resume"):
        train(network(domains), domains, out=out, train=Train(**SHORT))
    for resume in (True, False):
        with raises(BadInput, out, "train.lr"):
            train(
                network(domains),
                domains,
                out=out,
                resume=resume,
                train=Train(**{**SHORT, "lr": 0.01}),
            )
    after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    domains, out = worlds("ants", "cats"), tmp_path / "run"
    model, other = network(domains, sharing="full"), network(domains, 1, sharing="full")
    first = train(model, domains, out=out, train=Train(**SHORT))
    stamp = (out / "scores.json").read_bytes()
    with raises(BadInput, out, try_="onetrunk eval"):
        train(other, domains, out=out, train=Train(**SHORT))
    again = train(other, domains, out=out, resume=True, train=Train(**SHORT))
    assert again.scores == first.scores
    assert (out / "scores.json").read_bytes() == stamp
    assert same(weights(other), weights(model))


def test_models_of_other_domains_are_refused(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    with raises(BadInput, "with bees", available=["ants"]):
        train(network(domains[:1]), domains, out=tmp_path / "run", train=Train(**SHORT))
    with raises(BadInput, "sped"):
        train(network(domains), domains, out=tmp_path / "run", train=Train(sped=1))  # type: ignore[call-arg]  # on purpose
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains, out = worlds("ants", "bees"), tmp_path / "run"
    model = network(domains)

    def set_nan() -> None:
        with torch.no_grad():
            model.heads_of("bees").head("classify").get_parameter("bias").fill_(float("nan"))

    log_to(monkeypatch, at("step", 3, set_nan))
    with pytest.raises(NotFinite):
        train(model, domains, out=out, train=Train(**SHORT))
    failed = json.loads((out / "failed.json").read_text())
    assert (failed["step"], failed["domain"], failed["task"]) == (4, "bees", "classify")
    assert set(failed["files"]) <= {domains[1].train.key(i) for i in range(len(domains[1].train))}
    assert len(failed["files"]) == 4
    assert list(checkpoints(out)) == [2]
    assert lines(out)[-1]["step"] == 3
    assert not (out / "scores.json").exists() and not (out / "model").exists()
    log_to(monkeypatch, Recorder())
    train(model, domains, out=out, resume=True, train=Train(**SHORT))  # now without NaN


def specialists(folder: Path, out: str) -> Recipe:
    sets = [
        f"out={out}",
        "trunk.sharing=none",
        "train.eval_every=2",
        "train.log_every=1",
        "train.steps=4",
    ]
    one = recipe(folder).with_sets(sets)
    other = {"name": "again", "source": "pocket:optdigits", "size": 10}
    document = one.document()
    return Recipe.parse(
        Recipe.of({**document, "domains": [*document["domains"], other]}).to_toml(), folder
    )


def test_an_interrupted_run_of_specialists_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    class Second(Recorder):
        def begin(self, plan: Mapping[str, Any]) -> None:
            begun.append(plan["part"])

        def log_step(self, record: Mapping[str, Any]) -> None:
            if (record["part"], record["step"]) == ("again", 3):
                raise Broken

    expected = train_recipe(specialists(tmp_path, "expected"), device="cpu")
    assert list(expected.models) == ["digits", "again"]
    with raises(BadInput, available=["digits", "again"]):
        _ = expected.model
    log_to(monkeypatch, Second())
    with pytest.raises(Broken):
        train_recipe(specialists(tmp_path, "run"), device="cpu")
    log_to(monkeypatch, Recorder())
    run = train_recipe(specialists(tmp_path, "run"), resume=True, device="cpu")
    assert begun == ["digits", "again"]
    for part in ("digits", "again"):
        assert_same_run(tmp_path / "run", tmp_path / "expected", part)
        assert same(weights(run.models[part]), weights(expected.models[part]))
    one, other = scores_of(tmp_path / "run"), scores_of(tmp_path / "expected")
    assert one == other
    assert one["best"].keys() == {"digits", "again"}
    found = models_of(tmp_path / "run")
    assert all(same(weights(found[name]), weights(run.models[name])) for name in found)


def test_a_run_starts_from_another(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    first = train_recipe(one, device="cpu")
    again = one.with_sets(["init=runs", "out=more", "train.lr=1e-9", "train.steps=1"])
    run = train_recipe(again, device="cpu")
    before, after = first.model.state_dict(), run.model.state_dict()
    for name, tensor in after.items():
        if "running" not in name and tensor.is_floating_point():
            assert torch.allclose(tensor, before[name], atol=1e-5), name


def test_settings_that_a_kind_of_task_does_not_support(tmp_path: Path) -> None:
    rooms = [Domain("rooms", dense_source(12, 16, 16), size=16)]
    with raises(BadInput, "train.mixup", "rooms", got=0.2, available=["classify"]):
        train(network(rooms), rooms, out=tmp_path / "run", train=Train(mixup=0.2, **SHORT))
    assert not (tmp_path / "run").exists()


def test_missing_validation_images_are_refused_before_training(tmp_path: Path) -> None:
    plain = noise(40)
    listed = [i for i in plain.listed if i.split != "val"]
    listed += [type(i)("v" + i.key, "bad", i.stamp, "val", labels=i.labels) for i in listed[:1]]
    images = {**plain.images, "bad": OSError("broken")}
    unvalidated = [Domain("blind", Fake(plain.tasks, listed, images), size=8)]
    assert len(unvalidated[0].val) == 0
    with raises(BadInput, "blind", "validation", got="24 for training"):
        train(network(unvalidated), unvalidated, out=tmp_path / "run", train=Train(**SHORT))
    assert not (tmp_path / "run").exists()
    both = [*unvalidated, *worlds("ants")]
    train(network(both), both, out=tmp_path / "run", train=Train(**SHORT))


def test_regression_heads_start_from_the_scale_of_the_labels() -> None:
    items = labelled(20, "ab", ("train", "train", "val", "test"))
    items = [
        replace(item, labels={**item.labels, "size": 100.0 + i}) for i, item in enumerate(items)
    ]
    source = Fake(
        (Task("classify", "classify"), Task("size", "regress")),
        items,
        {str(i): picture(i, 8, 8) for i in range(20)},
    )
    domains = [Domain("both", source, size=8), *worlds("ants")]
    model = network(domains)
    scale_numbers(model, domains)
    head = model.heads_of("both").head("size")
    known = domains[0].train.label("size")
    assert float(head.get_buffer("mean")) == pytest.approx(known.mean())
    assert float(head.get_buffer("std")) == pytest.approx(known.std())
    trained = learner(domains, model)
    losses = trained.step(next(trained.passes()))
    assert losses["both/size"] < 10  # in units of the standard deviation


def test_a_network_of_one_domain(tmp_path: Path) -> None:
    domains = worlds("ants")
    model = network(domains, sharing="none")
    run = train(model, domains, out=tmp_path / "run", train=Train(**SHORT))
    assert list(run.models) == ["ants"] and run.model is model
    assert same(weights(load(tmp_path / "run", "ants")), weights(model))
    assert scores_of(tmp_path / "run")["best"].keys() == {"ants"}


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        train(network(domains), domains, out=tmp_path / name, seed=seed, train=Train(**SHORT))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert lines(tmp_path / "one") != lines(tmp_path / "three")


def test_train_models_takes_the_models_of_a_recipe(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    checked = check(one)
    models = one.make_model(checked.domains)
    run = train_models(models, checked.domains, one, resume=False, device="cpu")
    assert run.folder == tmp_path / "runs"
    assert Recipe.read(run.folder).train == one.train == settings(**one.train.model_dump())
