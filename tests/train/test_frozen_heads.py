"""Frozen trunks: features are computed once, and heads are solved to their optimum."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onetrunk import progress
from onetrunk.config import Recipe, Train
from onetrunk.config.check import check
from onetrunk.data.domain import Domain
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval import evaluate as evaluate_module
from onetrunk.eval.evaluate import evaluate, read_ahead
from onetrunk.eval.metrics import scores_of
from onetrunk.nn.saving import models_of
from onetrunk.runs.dry_run import dry_run
from onetrunk.runs.open import Run
from onetrunk.runs.train import train
from onetrunk.store.run_folder import RunFolder
from onetrunk.store.tensors import read_rows
from onetrunk.train import features, frozen_heads
from onetrunk.train import linear_heads as linear
from onetrunk.train.features import compute_features
from onetrunk.train.frozen_heads import LinearHead, only_decoders_trainable
from onetrunk.train.interrupt import Stop, Stopped
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source, labelled, picture
from tests.helpers.killing import outcome
from tests.helpers.worlds import CPU, SPLITS, network, noise, settings, weights, worlds

Labels = dict[str, Any]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use three λ and few images in a pass, so that everything happens several times."""
    monkeypatch.setattr(frozen_heads, "GRID", (1.0, 1e-1, 1e-2))
    monkeypatch.setattr(frozen_heads, "CONTRAST_GRID", (10.0, 0.1))
    monkeypatch.setattr(linear, "STEPS", 30)
    monkeypatch.setattr(evaluate_module, "BATCH_BYTES", 8 * 8 * 3 * 4 * 10)


def frozen(domains: list[Domain], out: Path, resume: bool = False, **trunk: Any) -> Run:
    """Train heads on the same fresh trunk."""
    model = network(domains, **{"norm": "shared", **trunk})
    return train(
        model, domains, out=out, resume=resume, device="cpu", train=Train(frozen=True, batch=8)
    )


def shade(i: int) -> np.ndarray:
    """8×8 pixels of noise whose brightness depends on the class of image i."""
    noisy = picture(i, 8, 8).astype(np.int64) // 4 + 60 * (i % 3)
    return noisy.astype(np.uint8)


def kinds(count: int = 60, **changed: Any) -> Domain:
    """A domain with a task of every kind that is not dense.

    Args:
        count: The number of images.
        changed: `lacks(i, task)`: whether image i has no label of a task; `labels(i, split)`: its
            labels that replace the usual ones.
    """
    tasks = (
        Task("class", "classify"),
        Task("tags", "multilabel"),
        Task("size", "regress", outputs=2),
        Task("like", "embed"),
    )
    listed = []
    for i in range(count):
        labels: Labels = {
            "class": "abc"[i % 3],
            "tags": tuple("xyz"[: 1 + i % 3]),
            "size": (float(i % 3), 100.0 - i % 3),
            "like": "abc"[i % 3],
        }
        split = SPLITS[(i // 3) % len(SPLITS)]
        labels = {k: v for k, v in labels.items() if not changed.get("lacks", lambda *_: 0)(i, k)}
        labels |= changed.get("labels", lambda *_: {})(i, split)
        listed.append(Item(f"{i:04}.png", str(i), f"stamp-{i}", split=split, labels=labels))
    return Domain("kinds", Fake(tasks, listed, {str(i): shade(i) for i in range(count)}), size=8)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def by_features(run: Run, domain: Domain, split: str) -> dict[str, float]:
    """Every metric, computed from the cached features and the heads."""
    model = run.model
    with RunFolder.open(run.folder, (run.folder / "recipe.toml").read_text(), resume=True) as open_:
        found = compute_features(model, domain, split, open_, Stop())
    out: dict[str, float] = {}
    for task in domain.tasks:
        head, scores = model.heads_of(domain.name).head(task.name), scores_of(task)
        label = torch.from_numpy(domain.splits[split].label(task.name).copy())
        with torch.no_grad():
            scores.update(head(torch.from_numpy(np.array(found.rows))), label)
        out |= {f"{task.name}/{name}": value for name, value in scores.compute().items()}
    return out


def test_scores_equal_those_from_cached_features(tmp_path: Path) -> None:
    domain = kinds()
    run = frozen([domain], tmp_path / "run")
    for split in ("val", "test"):
        expected = by_features(run, domain, split)
        table = evaluate(run.model, [domain], split)
        found = {f"{row.task}/{row.metric}": row.value for row in table.rows}
        assert found == pytest.approx(expected, rel=1e-5)
        kept = {f"{r['task']}/{r['metric']}": r["value"] for r in run.scores[split]["rows"]}
        assert kept == pytest.approx(expected, rel=1e-5)
    logged = {name: value for line in lines(run.folder) for name, value in line["val"].items()}
    assert logged["kinds/size/nrmse"] == pytest.approx(
        by_features(run, domain, "val")["size/nrmse"]
    )


def test_it_writes_an_ordinary_run_folder(tmp_path: Path) -> None:
    domains = worlds("one", "two")
    run = frozen(domains, tmp_path / "run")
    there = {path.name for path in run.folder.iterdir()}
    assert {"recipe.toml", "environment.json", "metrics.jsonl", "scores.json", "model"} <= there
    assert run.scores["frozen"] is True
    assert run.scores["best"][""]["step"] == 0
    assert set(run.scores["own_best"]) == {"one", "two"}
    models = models_of(run.folder)
    assert evaluate(models, domains).rows == evaluate(run.models[""], domains).rows
    card = models["one"].domains["one"]
    assert card.provenance["frozen"] is True and set(card.provenance["l2"]) == {"classify"}
    assert Recipe.read(run.folder).train.frozen is True


def test_only_heads_change(tmp_path: Path) -> None:
    domains = worlds("one")
    before, run = network(domains, norm="shared"), frozen(domains, tmp_path / "run")
    for name, tensor in run.model.trunk.state_dict().items():
        assert tensor.equal(before.trunk.state_dict()[name]), name
    ours, fresh = (m.heads_of("one").state_dict() for m in (run.model, before))
    assert not any(ours[name].equal(fresh[name]) for name in ours)
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_errors_are_low_on_easy_tasks(tmp_path: Path) -> None:
    found = frozen([kinds(120)], tmp_path / "run").table
    assert found.value("kinds", "class") < 10
    assert found.value("kinds", "tags") < 10
    assert found.value("kinds", "size") < 0.5
    assert found.value("kinds", "like") > 50  # a third by chance


def test_the_strongest_regularization_with_the_lowest_validation_error_is_chosen(
    tmp_path: Path,
) -> None:
    frozen([kinds(), *worlds("noise")], tmp_path / "run")
    for line in lines(tmp_path / "run"):
        errors = [error for _, error in line["grid"]]
        assert line["l2"] == line["grid"][errors.index(min(errors))][0]
        assert [l2 for l2, _ in line["grid"]] == sorted((l2 for l2, _ in line["grid"]))[::-1]
    gradients = {line["frozen"]: line["gradient"] for line in lines(tmp_path / "run")}
    assert gradients["kinds/class"] < 1e-5 and gradients["kinds/tags"] < 1e-5


def test_test_labels_have_no_influence(tmp_path: Path) -> None:
    def turned(i: int, split: str) -> Labels:
        return {"class": "abc"[(i + 1) % 3], "size": (7.0, float(i))} if split == "test" else {}

    one = frozen([kinds()], tmp_path / "one")
    other = frozen([kinds(labels=turned)], tmp_path / "other")
    for ours, theirs in zip(lines(one.folder), lines(other.folder), strict=True):
        for key in ("l2", "grid", "val"):
            assert ours[key] == theirs[key]
    heads = [run.model.heads_of("kinds").state_dict() for run in (one, other)]
    assert all(heads[0][name].equal(heads[1][name]) for name in heads[0])
    assert one.scores["test"] != other.scores["test"]


def test_validation_labels_influence_the_choice(tmp_path: Path) -> None:
    """With other validation labels the errors of the grid differ."""

    def turned(i: int, split: str) -> Labels:
        return {"size": (float(i % 5), float(i % 4))} if split == "val" else {}

    grids = []
    for name, domain in (("one", kinds()), ("other", kinds(labels=turned))):
        frozen([domain], tmp_path / name)
        grids += [line["grid"] for line in lines(tmp_path / name) if "size" in line["frozen"]]
    assert grids[0] != grids[1]


def test_images_without_label_are_left_out(tmp_path: Path) -> None:
    domain = kinds(80, lacks=lambda i, _: i % 4 == 1)
    run = frozen([domain], tmp_path / "run")
    train, rows = domain.train, {row.task: row.count for row in run.table.rows}
    labelled_test = sum(1 for i in range(len(domain.test)) if domain.test.label("class")[i] >= 0)
    assert rows["class"] == rows["tags"] == rows["size"] == labelled_test < len(domain.test)
    known = np.flatnonzero(train.label("class") >= 0)
    found = features_of_run(run, domain)
    x = linear.Design(found[known], np.arange(len(known)), CPU)
    target = torch.from_numpy(train.label("class")[known].astype(np.int64))
    l2 = run.model.domains["kinds"].provenance["l2"]["class"]
    (alone,) = linear.classify(x, target, None, 3, (l2,))
    head = run.model.heads_of("kinds").head("class")
    both = (
        torch.from_numpy(found).double() @ w.T + b
        for w, b in (
            (alone.weight, alone.bias),
            (head.get_parameter("weight").double(), head.get_parameter("bias").double()),
        )
    )
    one, other = (out.softmax(1) for out in both)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def features_of_run(run: Run, domain: Domain) -> np.ndarray:
    rows = read_rows(run.folder / "features" / domain.name / "train.rows")[1]["features"]
    return np.array(rows)


def test_without_validation_labels_the_default_strength_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks(i: int, task: str) -> bool:
        return SPLITS[(i // 3) % len(SPLITS)] == "val" and task in ("size", "like", "tags")

    run = frozen([kinds(lacks=lacks)], tmp_path / "run")
    chosen = run.model.domains["kinds"].provenance["l2"]
    assert chosen["size"] == chosen["tags"] == linear.DEFAULT
    assert chosen["like"] == linear.CONTRAST_DEFAULT
    grids = {line["frozen"]: line["grid"] for line in lines(run.folder)}
    assert grids["kinds/size"] == [[linear.DEFAULT, None]]
    assert "kinds/size: L2 0.001" in capsys.readouterr().err


def test_no_validation_labels_at_all_is_an_error(tmp_path: Path) -> None:
    listed = [
        replace(item, labels={"classify": None}) if item.split == "val" else item
        for item in labelled(24, "ab", SPLITS)
    ]
    domain = Domain("one", Fake((Task("classify", "classify"),), listed))
    with raises(Failed, "validation"):
        frozen([domain], tmp_path / "run")


def test_a_class_without_validation_images(tmp_path: Path) -> None:
    listed = [
        replace(item, split="train") if item.labels == {"classify": "c"} else item
        for item in labelled(60, "abc", SPLITS)
    ]
    listed[-1] = replace(listed[-1], split="test")
    images = {str(i): shade(i) for i in range(60)}
    domain = Domain("one", Fake((Task("classify", "classify"),), listed, images), size=8)
    run = frozen([domain], tmp_path / "run")
    assert run.model.heads_of("one").head("classify").get_parameter("weight").shape[0] == 3
    assert run.scores["val"]["rows"][0]["value"] < 10


def test_class_weights_are_used(tmp_path: Path) -> None:
    listed = [item for item in labelled(90, "ab", SPLITS) if int(item.where) % 10 != 1]
    domain = Domain("one", replace(noise(90), listed=listed), size=8)
    plain = frozen([domain], tmp_path / "plain")
    model = network([domain], norm="shared")
    even = train(
        model, [domain], out=tmp_path / "even", train=Train(frozen=True, class_weights="balanced")
    )
    one, other = (
        run.model.heads_of("one").head("classify").get_parameter("bias") for run in (plain, even)
    )
    assert not one.equal(other)


def result(run: Run) -> dict[str, Any]:
    """The contents of its folder, without the features, whose records hold times."""
    return {k: v for k, v in outcome(run.folder).items() if not k.startswith("features/")}


class Killed(BaseException):
    """An error that nothing catches."""


def dying(monkeypatch: pytest.MonkeyPatch, after: int, terminate: bool = False) -> list[int]:
    """Raise Killed, or send SIGTERM, when batch `after` is read; return the sizes of batches."""
    sizes: list[int] = []

    def ahead(images: Any, batches: Any) -> Iterator[Any]:
        for batch in read_ahead(images, batches):
            sizes.append(len(batch[0]))
            if len(sizes) == after and not terminate:
                raise Killed
            if len(sizes) == after:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(features, "read_ahead", ahead)
    return sizes


def test_a_run_killed_at_the_features_resumes_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = frozen(worlds("one", "two"), tmp_path / "uninterrupted/run")
    monkeypatch.setattr(features, "EVERY", 0.0)
    with monkeypatch.context() as patch:
        dying(patch, 3)
        with pytest.raises(Killed):
            frozen(worlds("one", "two"), tmp_path / "run")
    folder = tmp_path / "run/features/one"
    assert json.loads((folder / ".train.rows.json").read_text())["rows"] == 20
    with (folder / ".train.rows.part").open(
        "ab"
    ) as file:  # written, but not yet recorded as complete
        file.write(b"\x07" * 131)
    with monkeypatch.context() as patch:
        sizes = dying(patch, 10**9)
        run = frozen(worlds("one", "two"), tmp_path / "run", resume=True)
    assert sum(sizes) == 4 + 8 + 36 + 12  # of domain one, train: the rest of 24
    assert result(run) == result(expected)


def test_a_run_killed_at_the_heads_solves_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = frozen([kinds(), *worlds("two")], tmp_path / "uninterrupted/run")
    solved: list[str] = []
    real = LinearHead.choose

    def counted(self: LinearHead, *given: Any) -> Any:
        if len(solved) == 3:
            solved.append("killed")
            raise Killed
        solved.append(self.task.name)
        return real(self, *given)

    monkeypatch.setattr(LinearHead, "choose", counted)
    with pytest.raises(Killed):
        frozen([kinds(), *worlds("two")], tmp_path / "run")
    run = frozen([kinds(), *worlds("two")], tmp_path / "run", resume=True)
    assert solved == ["class", "tags", "size", "killed", "like", "classify"]
    assert result(run) == result(expected)


def test_a_signal_keeps_finished_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = frozen(worlds("one"), tmp_path / "uninterrupted/run")
    with monkeypatch.context() as patch:
        dying(patch, 2, terminate=True)
        with raises(Stopped, "image 20", "one", try_="--resume"):
            frozen(worlds("one"), tmp_path / "run")
    mark = tmp_path / "run/features/one/.train.rows.json"
    assert json.loads(mark.read_text())["rows"] == 20
    assert result(frozen(worlds("one"), tmp_path / "run", resume=True)) == result(expected)


def test_features_of_another_trunk_are_not_reused(tmp_path: Path) -> None:
    """The weights may change between a kill and the next start."""
    domains = worlds("one")
    frozen(domains, tmp_path / "run")
    (tmp_path / "run/scores.json").unlink()
    model = network(domains, seed=1, norm="shared")
    again = train(
        model,
        domains,
        out=tmp_path / "run",
        resume=True,
        device="cpu",
        train=Train(frozen=True, batch=8),
    )
    fresh = train(
        network(domains, seed=1, norm="shared"),
        domains,
        out=tmp_path / "fresh",
        device="cpu",
        train=Train(frozen=True, batch=8),
    )
    assert weights(again.model).keys() == weights(fresh.model).keys()
    assert all(t.equal(weights(fresh.model)[k]) for k, t in weights(again.model).items())


def test_features_that_are_not_finite_name_their_image(tmp_path: Path) -> None:
    domains = worlds("one")
    model = network(domains, norm="shared")
    with torch.no_grad():
        next(iter(model.trunk.parameters())).fill_(torch.nan)
    with raises(Failed, "0000.png", "one"):
        train(model, domains, out=tmp_path / "run", train=Train(frozen=True))


@pytest.mark.parametrize("norm", ["domain", "shared-batch", "instance-domain"])
def test_features_use_each_domains_own_slots(tmp_path: Path, norm: str) -> None:
    domains = worlds("one", "two")
    model = network(domains, norm=norm)
    for name in domains:
        for key, tensor in model.own(name.name).items():
            if key.startswith("slots/") and tensor.is_floating_point():
                tensor.data.add_(0.3 if name.name == "one" else 0.1)
    run = train(
        model, domains, out=tmp_path / "run", device="cpu", train=Train(frozen=True, batch=8)
    )
    for domain in domains:
        scores = {r["domain"]: r["value"] for r in run.scores["val"]["rows"] if r["headline"]}
        logged = {k: v for line in lines(run.folder) for k, v in line["val"].items()}
        assert logged[f"{domain.name}/classify/error"] == pytest.approx(scores[domain.name])


def rooms(**more: Any) -> Domain:
    return Domain("rooms", dense_source(24, 16, 16), size=16, **more)


def test_decoders_are_trained_by_the_loop_on_a_frozen_trunk(tmp_path: Path) -> None:
    source = dense_source(24, 16, 16)
    tasks = (*source.tasks, Task("classify", "classify"))
    listed = [
        replace(item, labels={"classify": "ab"[int(item.where) // 4 % 2]}) for item in source.listed
    ]
    domains = [
        Domain("rooms", replace(source, tasks=tasks, listed=listed), size=16),
        *worlds("one"),
    ]
    before = network(domains, norm="shared")
    given = network(domains, norm="shared")
    run = train(
        given,
        domains,
        out=tmp_path / "run",
        device="cpu",
        train=settings(steps=4, frozen=True),
    )
    for name, tensor in given.trunk.state_dict().items():
        assert tensor.equal(before.trunk.state_dict()[name]), name
    ours, fresh = given.heads_of("rooms"), before.heads_of("rooms")
    assert ours.decoder is not None and fresh.decoder is not None
    pairs = zip(ours.decoder.parameters(), fresh.decoder.parameters(), strict=True)
    assert not any(a.equal(b) for a, b in pairs)
    # the loop does not change solved heads
    for name, task in (("rooms", "classify"), ("one", "classify")):
        kept = load_file(run.folder / f"features/{name}/{task}.safetensors")["weight"].float()
        assert given.heads_of(name).head(task).get_parameter("weight").equal(kept)
    assert {row.task for row in run.table.rows} == {"segment", "depth", "normals", "classify"}
    assert run.scores["best"][""]["step"] > 0
    assert all(parameter.requires_grad for parameter in given.parameters())


def test_only_decoders_trainable_restores_the_flags() -> None:
    domains = [rooms(), *worlds("one")]
    model = network(domains, norm="domain")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with only_decoders_trainable(model, domains[:1]):
        learns = {name for name, p in model.named_parameters() if p.requires_grad}
        assert learns and all(name.startswith("heads.rooms.") for name in learns)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_heads_that_are_not_linear_are_refused(tmp_path: Path) -> None:
    domains = worlds("one")
    shared = network(domains, norm="shared", sharing="full")
    with raises(BadInput, "one/classify", "share", try_="sharing = 'deep'"):
        train(shared, domains, out=tmp_path / "run", train=Train(frozen=True))
    own = network(domains, norm="shared")
    own.heads_of("one").of["task_classify"] = torch.nn.Linear(64, 2)
    with raises(BadInput, "one/classify", got="Linear", try_="train.frozen = false"):
        train(own, domains, out=tmp_path / "other", train=Train(frozen=True))


def recipe(tmp_path: Path, **changed: str) -> Recipe:
    sets = [f"{key}={value}" for key, value in changed.items()]
    text = 'name = "x"\n[trunk]\narch = "resnet20"\n[[domains]]\nname = "o"\n'
    text += 'source = "pocket:optdigits"\n[train]\nfrozen = true\n'
    return Recipe.parse(text, tmp_path, sets)


def test_a_recipe_with_a_random_trunk_warns(tmp_path: Path) -> None:
    checked = check(recipe(tmp_path))
    assert [w for w in checked.warnings if w.startswith("train.frozen")]
    plain = check(recipe(tmp_path, **{"train.frozen": "false"}))
    assert not [w for w in plain.warnings if w.startswith("train.frozen")]


def test_a_recipe_that_shares_heads_is_refused(tmp_path: Path) -> None:
    with raises(BadInput, "train.frozen", "sharing = 'deep'"):
        check(recipe(tmp_path, **{"trunk.sharing": "full"}))


def test_a_dry_run_of_frozen_heads_is_refused(tmp_path: Path) -> None:
    with raises(BadInput, "dry run", got="train.frozen = true"):
        dry_run(recipe(tmp_path))


def test_solving_shows_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 1e-6)
    frozen(worlds("ants"), tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    about = "solving the head of ants/classify for each L2 strength: "
    shown = [line.removeprefix(about) for line in lines if line.startswith(about)]
    assert any(line.startswith("1 of 3") for line in shown)
    assert any(line.startswith("evaluating test: ") for line in lines)
