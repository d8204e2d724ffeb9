"""Runs that learn without forgetting: what they save, what changes, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from torch import Tensor

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.check import check
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.saving import load, save
from onetrunk.runs.baselines import variant
from onetrunk.runs.dry_run import dry_run
from onetrunk.runs.forgetting import old_after
from onetrunk.runs.train import train, train_recipe
from onetrunk.train.distill.lwf import OldPredictions, find_old_predictions
from tests.helpers.errors import raises
from tests.helpers.fakes import encoded, picture
from tests.helpers.worlds import lines, network, same, weights, worlds


def folder(place: Path, classes: str, first: int) -> Path:
    for name in classes:
        for i in range(24):
            path = place / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(first + i + 1000 * ord(name), 8, 8)))
    return place


TEXT = """
name = "NAME"
INIT
[trunk]
arch = "resnet20"
sharing = "SHARING"
DOMAINS
[train]
evaluate_start = false
steps = 4
batch = 8
optimizer = "sgd"
lr = 0.05
log_every = 1
[distill]
lwf = LWF
"""


def recipe(
    place: Path, name: str, domains: str, lwf: float = 0, init: str = "", sharing: str = "deep"
) -> Recipe:
    tables = "".join(
        f'[[domains]]\nname = "{n}"\nsource = "folder:{n}"\nsize = 8\n' for n in domains.split()
    )
    values = {"NAME": name, "INIT": f'init = "runs/{init}"' if init else "", "SHARING": sharing}
    values |= {"DOMAINS": tables, "LWF": str(lwf)}
    text = TEXT
    for key, value in values.items():
        text = text.replace(key, value)
    return Recipe.parse(text, place)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folders of images; a run of one network for two of them, and one of two networks."""
    found = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("ants", "bees", "cats", "dogs")):
        folder(found / name, "abc"[: 2 + number % 2], 500 * number)
    train_recipe(recipe(found, "old", "ants bees"), device="cpu")
    train_recipe(recipe(found, "several", "ants bees", sharing="none"), device="cpu")
    return found


def hashes(place: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def test_a_network_for_each_new_domain(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = hashes(place / "runs/old")
    one = recipe(place, "alone", "cats dogs", 5.0, "old", "none")
    run = train_recipe(one, device="cpu")
    assert "predictions of ants, bees are kept" in capsys.readouterr().err
    assert hashes(place / "runs/old") == files
    plain = train_recipe(recipe(place, "plain", "cats dogs", 0, "old", "none"), device="cpu")
    for name in ("cats", "dogs"):
        logged = [line for line in lines(run.folder) if line["part"] == name and "loss" in line]
        assert [set(line["distilled"]) for line in logged] == [{f"{name} old predictions"}] * 4
        assert not same(weights(run.models[name]), weights(plain.models[name]))
        for kind in ("trunk.safetensors", f"packs/{name}.pack"):
            keys = []
            for each in (run, plain):
                path = each.folder / "model" / name / kind
                with safe_open(path, "pt") as file:
                    keys.append(sorted(file.keys()))
                assert sorted(p.stem for p in (each.folder / "model").rglob("*.pack")) == [
                    "cats",
                    "dogs",
                ]
            assert keys[0] == keys[1]
    assert not any("distilled" in line for line in lines(plain.folder))
    again = train_recipe(one, resume=True, device="cpu")
    assert again.scores == run.scores


def test_domains_that_are_trained_again_are_not_old(place: Path) -> None:
    one = recipe(place, "on", "bees cats", 1.0, "old")
    held = find_old_predictions(one, check(one).domains)
    assert held is not None
    assert held.old == ("ants",)
    run = train_recipe(one, device="cpu")
    logged = [line["distilled"] for line in lines(run.folder) if "distilled" in line]
    assert set(logged[-1]) == {"bees old predictions", "cats old predictions"}
    assert list(load(run.folder).domains) == ["bees", "cats"]


def test_weight_zero_is_the_same_as_disabled(place: Path) -> None:
    runs = [
        train_recipe(recipe(place, "none", "cats", 0, "old"), device="cpu"),
        train_recipe(
            recipe(place, "off", "cats", 2.0, "old").with_sets(["distill.enabled=false"]),
            device="cpu",
        ),
    ]
    assert same(*(weights(run.model) for run in runs))
    assert lines(runs[0].folder) == lines(runs[1].folder)
    assert not variant(recipe(place, "base", "cats", 2.0, "old"), "finetune").distill.uses_lwf


def test_dry_runs_include_the_loss(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    real = OldPredictions.loss

    def recorded(self: OldPredictions, domain: str, images: Tensor, step: int) -> Tensor:
        calls.append((domain, len(images)))
        return real(self, domain, images, step)

    monkeypatch.setattr(OldPredictions, "loss", recorded)
    found = dry_run(recipe(place, "dry", "cats dogs", 1.0, "old", "none"), "cpu")
    assert set(calls) == {("cats", 8), ("dogs", 8)}
    assert set(found["parts"]) == {"cats", "dogs"}


def test_old_domains_are_evaluated_with_the_changed_trunk(place: Path) -> None:
    files = hashes(place / "runs/old")
    old = check(recipe(place, "x", "ants bees")).domains
    before = load(place / "runs/old")
    assert old_after(place / "runs/old", before, old) == evaluate(before, old)
    run = train_recipe(recipe(place, "moved", "cats", 0, "old", "none"), device="cpu")
    (trained,) = run.models.values()
    kept = weights(trained)
    table = old_after(place / "runs/old", trained, old)
    hand = load(place / "runs/old")
    hand.trunk.load_shared(trained.trunk.shared())
    assert table == evaluate(hand, old)
    assert table.domains == ("ants", "bees")
    assert hashes(place / "runs/old") == files
    assert same(weights(trained), kept)


def test_a_network_with_another_trunk_is_refused(place: Path) -> None:
    (cats,) = worlds("cats")
    with raises(BadInput, "trunk.norm", "domain", got="shared"):
        old_after(place / "runs/old", network([cats], norm="shared"), [])
    with raises(BadInput, "several", got="2 networks", available=["ants", "bees"]):
        old_after(place / "runs/several", network([cats]), [])


# -- bad input


def no_init(place: Path) -> None:
    recipe(place, "bad", "cats", 1.0)


def no_init_from_python(place: Path) -> None:
    (cats,) = worlds("cats")
    distill = Distill(lwf=1.0)
    train(
        network([cats]),
        [cats],
        out=place / "runs/bad",
        teachers="a",
        distill=distill,
        train=Train(steps=1),
    )


def frozen(place: Path) -> None:
    recipe(place, "bad", "cats", 1.0, "old").with_sets(["train.frozen=true"])


def several(place: Path) -> None:
    train_recipe(recipe(place, "bad", "ants", 1.0, "several", "none"), device="cpu")


def nothing_old(place: Path) -> None:
    train_recipe(recipe(place, "bad", "ants bees cats", 1.0, "old"), device="cpu")


def embeddings(place: Path) -> None:
    (bees,) = worlds("bees")
    near = (Task("near", "embed", ("a", "b")),)
    save(network([bees, Domain("ants", None, near, size=8)]), place / "runs/near")
    train_recipe(recipe(place, "bad", "cats", 1.0, "near"), device="cpu")


def negative(place: Path) -> None:
    recipe(place, "bad", "cats", -1.0, "old")


MISTAKES: list[tuple[Callable[[Path], None], list[str]]] = [
    (no_init, ["got: 'no init'", "try: init = "]),
    (no_init_from_python, ["got: 'no init'", "try: init = "]),
    (frozen, ["got: 'train.frozen = true'", "try: distill.enabled = false"]),
    (several, ["several", "got: '2 networks'", "available: ants, bees", "try: a run"]),
    (nothing_old, ["got: 'ants, bees, cats'", "available: ants, bees", "try: lwf = 0"]),
    (embeddings, ["got: 'ants'", "an embedding", "lwf = 0"]),
    (negative, ["got: -1.0"]),
]


@pytest.mark.parametrize(("act", "facts"), MISTAKES)
def test_mistakes_are_found_before_training(
    act: Callable[[Path], None], facts: list[str], place: Path
) -> None:
    with raises(BadInput, "distill.lwf", *facts) as caught:
        act(place)
    assert len(caught.value.errors) == 1
    assert not (place / "runs/bad").exists()
