"""Whole runs that remember: what they keep, what moved, and what is refused."""

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
from onetrunk.train.distill.lwf import Memory, find_memory
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
steps = 4
batch = 8
optimizer = "sgd"
lr = 0.05
log_every = 1
[distill]
lwf = REMEMBER
"""


def recipe(
    place: Path, name: str, domains: str, lwf: float = 0, init: str = "", sharing: str = "deep"
) -> Recipe:
    tables = "".join(
        f'[[domains]]\nname = "{n}"\nsource = "folder:{n}"\nsize = 8\n' for n in domains.split()
    )
    said = {"NAME": name, "INIT": f'init = "runs/{init}"' if init else "", "SHARING": sharing}
    said |= {"DOMAINS": tables, "REMEMBER": str(lwf)}
    text = TEXT
    for key, value in said.items():
        text = text.replace(key, value)
    return Recipe.parse(text, place)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folders of images, a run of one network over two of them, and one of two networks."""
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
    was = hashes(place / "runs/old")
    one = recipe(place, "alone", "cats dogs", 5.0, "old", "none")
    run = train_recipe(one, device="cpu")
    assert "old answers are held on the new images: ants, bees" in capsys.readouterr().err
    assert hashes(place / "runs/old") == was
    plain = train_recipe(recipe(place, "plain", "cats dogs", 0, "old", "none"), device="cpu")
    for name in ("cats", "dogs"):
        logged = [line for line in lines(run.folder) if line["part"] == name and "loss" in line]
        assert [set(line["taught"]) for line in logged] == [{f"{name} old predictions"}] * 4
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
    assert not any("taught" in line for line in lines(plain.folder))
    again = train_recipe(one, resume=True, device="cpu")
    assert again.scores == run.scores


def test_one_network_that_goes_on_with_a_domain(place: Path) -> None:
    """What is learned again is not old."""
    one = recipe(place, "on", "bees cats", 1.0, "old")
    held = find_memory(one, check(one).domains)
    assert held is not None
    assert held.old == ("ants",)
    run = train_recipe(one, device="cpu")
    logged = [line["taught"] for line in lines(run.folder) if "taught" in line]
    assert set(logged[-1]) == {"bees old predictions", "cats old predictions"}
    assert list(load(run.folder).domains) == ["bees", "cats"]


def test_nothing_to_lwf_is_what_there_was(place: Path) -> None:
    """To the bit, with the weight 0 or turned off."""
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


def test_a_dry_run_lwfs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    real = Memory.loss

    def noted(self: Memory, domain: str, images: Tensor, step: int) -> Tensor:
        asked.append((domain, len(images)))
        return real(self, domain, images, step)

    monkeypatch.setattr(Memory, "loss", noted)
    found = dry_run(recipe(place, "dry", "cats dogs", 1.0, "old", "none"), "cpu")
    assert set(asked) == {("cats", 8), ("dogs", 8)}
    assert set(found["parts"]) == {"cats", "dogs"}


def test_what_the_old_domains_are_behind_the_moved_trunk(place: Path) -> None:
    was = hashes(place / "runs/old")
    old = check(recipe(place, "x", "ants bees")).domains
    before = load(place / "runs/old")
    assert old_after(place / "runs/old", before, old) == evaluate(before, old)
    run = train_recipe(recipe(place, "moved", "cats", 0, "old", "none"), device="cpu")
    (learned,) = run.models.values()
    kept = weights(learned)
    table = old_after(place / "runs/old", learned, old)
    hand = load(place / "runs/old")
    hand.trunk.load_shared(learned.trunk.shared())
    assert table == evaluate(hand, old)
    assert table.domains == ("ants", "bees")
    assert hashes(place / "runs/old") == was
    assert same(weights(learned), kept)


def test_a_network_of_another_trunk_did_not_move_this_one(place: Path) -> None:
    (cats,) = worlds("cats")
    with pytest.raises(BadInput, match=r"trunk.norm of .* is 'domain'; got: 'shared'; try: a net"):
        old_after(place / "runs/old", network([cats], norm="shared"), [])
    with pytest.raises(
        BadInput, match=r"no one trunk .*; got: '2 networks'; available: ants, bees"
    ):
        old_after(place / "runs/several", network([cats]), [])


# -- bad input


def no_init(place: Path) -> None:
    recipe(place, "bad", "cats", 1.0)


def no_init_from_python(place: Path) -> None:
    (cats,) = worlds("cats")
    train(
        network([cats]),
        [cats],
        out=place / "runs/bad",
        teachers="a",
        distill=Distill(lwf=1.0),
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


BAD: list[tuple[Callable[[Path], None], str]] = [
    (no_init, r"distill.lwf: it holds old .* got: 'no init'; try: init = a finished run"),
    (no_init_from_python, r"distill.lwf: it holds old answers .*; got: 'no init'"),
    (frozen, r"got: 'train.frozen = true'; try: distill.enabled = false"),
    (several, r"distill.lwf: .*several holds no one trunk .*available: ants, bees; try: a run"),
    (
        nothing_old,
        r"none is old; got: 'ants, bees, cats'; available: ants, bees; try: remember = 0",
    ),
    (embeddings, r"an embedding alone has no answers to hold; got: 'ants'; try: learn such"),
    (negative, r"distill.lwf: expected a number at least 0; got: -1.0"),
]


@pytest.mark.parametrize(("act", "said"), BAD, ids=lambda it: getattr(it, "__name__", ""))
def test_what_is_wrong_is_said_before_training(
    act: Callable[[Path], None], said: str, place: Path
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        act(place)
    assert "\n" not in str(caught.value)
    assert not (place / "runs/bad").exists()
