"""`onetrunk add`, `update`, `remove`: what is asked, what is said, what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onetrunk.cli.add import share
from onetrunk.config import Recipe
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.saving import load
from onetrunk.runs import pack_store as shelf
from onetrunk.runs.train import train_recipe
from tests.helpers.verbs import Ran, one_line, photos

Onetrunk = Callable[..., Ran]
TEXT = """
name = "shop"
out = "run"
trunk = { arch = "resnet20" }
domains = [{ name = "digits", source = "pocket:optdigits", size = 8 }]
train = { steps = 2, batch = 4 }
"""
PETS = ("--set", "domains.pets.size=8", "--set", "train.steps=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    train_recipe(Recipe.parse(TEXT, folder))
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    photos(tmp_path / "pets")
    return tmp_path / "run"


def test_a_domain_comes_is_evaluated_goes_and_comes_back(onetrunk: Onetrunk, run: Path) -> None:
    ran = onetrunk("add", "run", "pets", "folder:pets", *PETS)
    assert ran.code == 0, ran.err
    assert "pets: unchanged to the bit: digits (outputs on 128 images" in ran.out
    assert "wrote run/model/packs/pets.pack: " in ran.out
    assert "of the trunk" in ran.out
    assert "try: onetrunk predict run IMAGE --domain pets" in ran.out
    ran = onetrunk("info", "run")
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.out.splitlines() if line.startswith("│ pets")]
    assert "folder:pets, added 2" in line and " kB " in line and "error " in line
    found = json.loads(onetrunk("info", "run", "--json").out)["domains"]["pets"]
    assert found["provenance"]["history"][0]["what"] == "added"
    assert found["pack_bytes"] == (run / "model/packs/pets.pack").stat().st_size
    table = json.loads(onetrunk("eval", "run", "--json").out)
    assert {row["domain"] for row in table["rows"]} == {"digits", "pets"}
    image = next((run.parent / "pets/cat").iterdir())
    before = onetrunk("predict", "run", str(image), "--domain", "pets").out
    ran = onetrunk("remove", "run", "pets")
    assert "its pack is kept: run/removed/pets/pets.pack" in ran.out
    assert "try: onetrunk add run pets pack:run/removed/pets/pets.pack brings it back" in ran.out
    assert list(load(run).domains) == ["digits"]
    ran = onetrunk("add", "run", "pets", "pack:run/removed/pets/pets.pack")
    assert ran.code == 0, ran.err
    assert onetrunk("predict", "run", str(image), "--domain", "pets").out == before
    assert onetrunk("eval", "run", "--domain", "pets").code == 0


def test_updates_from_the_command_line(onetrunk: Onetrunk, run: Path) -> None:
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    photos(run.parent / "more", ("cat", "dog", "fish"))
    ran = onetrunk("add", "run", "pets", "folder:more", *PETS)
    assert "with other classes" in one_line(ran)
    assert ran.err.strip().endswith("try: onetrunk update run pets folder:more")
    ran = onetrunk("eval", "run", "--domain", "pets")
    assert ran.code == 0
    ran = onetrunk("update", "run", "pets", "folder:more", *PETS, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["grown"]["version"] == 2
    assert "2 classes keep their rows; new: fish" in ran.err
    ran = onetrunk("update", "run", "pets", "--rename", "fish=cod", "--drop", "cat")
    assert ran.code == 0, ran.err
    assert load(run).domains["pets"].task("classify").classes == ("cod", "dog")
    for classes in (("cat", "dog", "fish"), ("cat", "dog")):
        assert onetrunk("update", "run", "pets", "--undo").code == 0
        assert load(run).domains["pets"].task("classify").classes == classes


def test_an_image_that_cannot_be_read_is_named(onetrunk: Onetrunk, run: Path) -> None:
    for name in ("000", "001", "002"):
        (run.parent / f"pets/cat/{name}.png").write_bytes(b"no image")
    ran = onetrunk("add", "run", "pets", "folder:pets", *PETS)
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.err.splitlines() if "train images cannot be read" in line]
    assert "first: cat/00" in line
    words = ("--set", "domains.more.size=8", "--methods", "feature-extractor", "--out", "rows")
    ran = onetrunk("compare", "run", "--domain", "more=folder:pets", *words)
    assert ran.err.count("train images cannot be read") == 1


def test_a_renamed_class_is_evaluated_on_the_images_of_its_old_name(
    onetrunk: Onetrunk, run: Path
) -> None:
    def error() -> float:
        ran = onetrunk("eval", "run", "--domain", "pets", "--json")
        assert ran.code == 0, ran.err
        rows = json.loads(ran.out)["rows"]
        return next(float(row["value"]) for row in rows if row["metric"] == "error")

    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    before = error()
    assert onetrunk("update", "run", "pets", "--rename", "cat=zebra").code == 0
    assert onetrunk("update", "run", "pets", "--rename", "zebra=tiger").code == 0
    assert error() == before
    others = onetrunk("add", "run", "more", "folder:pets", "--set", "domains.more.size=8")
    assert "cannot be reached" not in others.out
    (run.parent / "pets/cat").rename(run.parent / "pets/tiger")  # the source follows
    assert 0 <= error() <= 100  # in other splits, as the hash is of the path
    assert onetrunk("update", "run", "pets", "--drop", "dog").code == 0
    assert error() == 0.0  # of one class


def test_one_that_the_run_was_trained_with_is_relabelled_and_undone(
    onetrunk: Onetrunk, run: Path
) -> None:
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    ran = onetrunk("update", "run", "digits", "--rename", "0=zero", "--drop", "7")
    assert ran.code == 0, ran.err
    assert "digits: unchanged to the bit: pets" in ran.out
    grown = json.loads((run / "grown/digits/scores.json").read_text())
    tensors = load(run).pack("digits").tensors.values()
    assert grown["grown"]["bytes"] == sum(t.numel() * t.element_size() for t in tensors)
    own = load(run).parameters_of("digits").values()
    assert grown["cost"]["own"]["parameters"] == sum(p.numel() for p in own)
    ran = onetrunk("update", "run", "digits", "--undo")
    assert ran.code == 0, ran.err
    assert "digits: unchanged to the bit: pets" in ran.out  # which came after that version


def test_a_removed_pack_comes_back_beside_another_of_its_name(
    onetrunk: Onetrunk, run: Path
) -> None:
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    assert onetrunk("update", "run", "pets", "--rename", "cat=kitten").code == 0
    assert onetrunk("remove", "run", "pets").code == 0
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS, "--adapters", "none").code == 0
    scores = json.loads((run / "scores.json").read_text())
    ran = onetrunk("add", "run", "cats", "pack:run/removed/pets/pets.pack")
    assert ran.code == 0, ran.err
    assert list(load(run).domains) == ["digits", "pets", "cats"]
    after = json.loads((run / "scores.json").read_text())
    assert after["test"] == scores["test"]
    assert [d["name"] for d in after["budget"][""]["domains"]] == ["digits", "pets", "cats"]
    assert "never updated" in one_line(onetrunk("update", "run", "cats", "--undo"))


def test_what_is_to_be_typed_next_can_be_typed(onetrunk: Onetrunk, run: Path) -> None:
    run.rename(run.parent / "my run")
    photos(run.parent / "my pets")
    ran = onetrunk("add", "my run", "digits", "folder:my pets", "--set", "domains.digits.size=8")
    assert one_line(ran).endswith("try: onetrunk update 'my run' digits 'folder:my pets'")
    left = run.parent / "my run/growing/pets"
    left.mkdir(parents=True)
    (left / "recipe.toml").write_text("seed = 1\n")
    ran = onetrunk("add", "my run", "pets", "folder:pets", *PETS)
    assert one_line(ran).endswith("try: remove 'my run/growing/pets'")


def test_what_waits_to_be_in_use_is_not_taken_for_something_else(
    onetrunk: Onetrunk, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Failed("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "publish", full)
        assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 1
    photos(run.parent / "more", ("cat", "dog", "fish"))
    ran = onetrunk("add", "run", "pets", "folder:more", *PETS)
    assert "holds a finished pets of folder:pets" in one_line(ran)
    assert list(load(run).domains) == ["digits"]
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    assert load(run).domains["pets"].task("classify").classes == ("cat", "dog")


def test_what_is_known_of_a_pack_from_elsewhere(onetrunk: Onetrunk, run: Path) -> None:
    shutil.copytree(run, run.parent / "other")
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    here = json.loads(onetrunk("info", "run", "--json").out)["domains"]["pets"]["scores"]
    pack = "pack:run/model/packs/pets.pack"
    assert onetrunk("add", "other", "pets", pack).code == 0
    there = json.loads(onetrunk("info", "other", "--json").out)["domains"]["pets"]["scores"]
    error = here["classify"].split(" (")[0]  # without its interval
    assert there == {"classify": f"{error}, as its pack says"}


@pytest.mark.usefixtures("run")
def test_a_run_that_every_domain_left(onetrunk: Onetrunk) -> None:
    assert onetrunk("remove", "run", "digits").code == 0
    ran = onetrunk("info", "run")
    assert "resnet20, norm domain, sharing deep; 1 network of 268 k" in ran.out
    assert ran.out.endswith("no domain is in it; try: onetrunk add run NAME SOURCE\n")
    assert onetrunk("add", "run", "digits", "pack:run/removed/digits/digits.pack").code == 0
    assert "try: onetrunk eval run" in onetrunk("info", "run").out


@pytest.mark.usefixtures("run")
def test_the_ladder_is_shown(onetrunk: Onetrunk) -> None:
    ran = onetrunk(
        "add", "run", "pets", "folder:pets", *PETS, "--adapters", "auto", "--budget", "2%"
    )
    assert ran.code == 0, ran.err
    assert "what was tried, errors on validation" in ran.out
    assert "parallel: " in ran.err and "over the budget" in ran.err
    assert "chosen: n" in ran.out  # none or norm


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "run", "digits", "pocket:optdigits"), "already.*onetrunk update run digits"),
        (("add", "run", "Pets", "folder:pets"), "call it 'pets'"),
        (("add", "run", "pets", "folder:nowhere"), "nowhere"),
        (("add", "run", "pets", "pets"), "PREFIX:REST"),
        (("add", "run", "pets", "folder:pets", "--adapters", "paralel"), "available: parallel"),
        (("add", "run", "pets", "folder:pets", "--adapters", "none", "--rank", "3"), "rank"),
        (("add", "run", "pets", "folder:pets", "--budget", "much"), "--budget 5%"),
        (
            ("add", "run", "pets", "folder:pets", "--budget", "5%"),
            "parallel'; try: --adapters auto",
        ),
        (("add", "run", "pets", "folder:pets", "--set", "lr=3"), "unknown key"),
        (("add", "run", "pets", "folder:pets", "--set", "train.stepz=3"), "unknown key"),
        (("add", "run", "pets", "folder:pets", "--set", "grow.start=nowhere"), "no such domain"),
        (("add", "run", "pets", "pack:nowhere.pack"), "cannot read the pack"),
        (("add", "run", "pets", "pack:x.pack", "--rank", "3"), "taken as it is"),
        (("add", "nowhere", "pets", "folder:pets"), "no model in nowhere"),
        (("remove", "run", "pets"), "no such domain"),
        (("update", "run", "pets", "folder:pets"), "try: onetrunk add run pets"),
        (("update", "run", "digits"), "expected a SOURCE"),
        (
            ("update", "run", "digits", "--drop", "7", "--set", "train.steps=2"),
            "nothing is learned",
        ),
        (("update", "run", "digits", "--drop", "7", "--resume"), "nothing is learned"),
        (("update", "run", "digits", "--rename", "7"), "OLD=NEW"),
        (("update", "run", "digits", "--undo", "--drop", "7"), "--undo goes alone"),
        (("update", "run", "digits", "--undo"), "never updated"),
        (("update", "run", "digits", "pocket:optdigits", "--drop", "7"), "its classes decide"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    onetrunk: Onetrunk, run: Path, words: tuple[str, ...], says: str
) -> None:
    assert re.search(says, one_line(onetrunk(*words)))
    assert list(load(run).domains) == ["digits"]
    assert not (run / "growing/pets").exists()  # where it would stand in the way of the next


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("150%", 1.5)])
def test_a_share(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)
    for wrong in ("0", "-1%", "nan", "inf", "%"):
        with pytest.raises(BadInput):
            share(wrong)
