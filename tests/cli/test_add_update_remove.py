"""`onetrunk add`, `update` and `remove`: their results, and their errors."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onetrunk.cli.add import share
from onetrunk.cli.output import repeat
from onetrunk.config import Recipe
from onetrunk.display import scaled
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.saving import load
from onetrunk.runs import pack_store
from onetrunk.runs.open import Run
from onetrunk.runs.train import train_recipe
from tests.helpers.verbs import Ran, error_line, one_line, photos

Onetrunk = Callable[..., Ran]
TEXT = """
name = "shop"
out = "run"
trunk = { arch = "resnet20" }
domains = [{ name = "digits", source = "pocket:optdigits", size = 8 }]
train = { steps = 2, batch = 4 }
"""
PETS = ("--set", "domains.pets.size=8", "--set", "train.steps=2", "--set", "add.few=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_recipe(Recipe.parse(TEXT, folder))
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    photos(tmp_path / "pets")
    return tmp_path / "run"


def test_a_domain_is_added_evaluated_removed_and_imported(onetrunk: Onetrunk, run: Path) -> None:
    ran = onetrunk("add", "run", "pets", "folder:pets", *PETS)
    assert ran.code == 0, ran.err
    assert "pets: unchanged to the bit: digits (outputs on 128 images" in ran.out
    assert "wrote run/model/packs/pets.pack: " in ran.out
    assert "of the trunk" in ran.out
    assert "  onetrunk predict run IMAGE --domain pets\n" in ran.out
    ran = onetrunk("info", "run")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    (first,) = [place for place, line in enumerate(lines) if line.startswith("pets: ")]
    block = " ".join(" ".join(lines[first : first + 5]).split())
    assert "from folder:pets, added 2" in block and " kB" in block and "test error " in block
    found = json.loads(onetrunk("info", "run", "--json").out)["domains"]["pets"]
    assert found["provenance"]["history"][0]["event"] == "added"
    size = (run / "model/packs/pets.pack").stat().st_size
    assert found["pack_bytes"] == size
    assert json.loads((run / "added/pets/scores.json").read_text())["added"]["bytes"] == size
    table = json.loads(onetrunk("eval", "run", "--json").out)
    assert {row["domain"] for row in table["rows"]} == {"digits", "pets"}
    image = next((run.parent / "pets/cat").iterdir())
    before = onetrunk("predict", "run", str(image), "--domain", "pets").out
    ran = onetrunk("remove", "run", "pets")
    assert "run/removed/pets/pets.pack" in ran.out.splitlines()[0]
    assert ran.out.endswith("  onetrunk add run pets pack:run/removed/pets/pets.pack\n")
    assert list(load(run).domains) == ["digits"]
    ran = onetrunk("add", "run", "pets", "pack:run/removed/pets/pets.pack")
    assert ran.code == 0, ran.err
    assert onetrunk("predict", "run", str(image), "--domain", "pets").out == before
    assert onetrunk("eval", "run", "--domain", "pets").code == 0


def test_updates_from_the_command_line(onetrunk: Onetrunk, run: Path) -> None:
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    photos(run.parent / "more", ("cat", "dog", "fish"))
    ran = onetrunk("add", "run", "pets", "folder:more", *PETS)
    refused = one_line(ran)
    assert "with other classes" in refused and "new: fish" in refused
    assert ran.err.strip().endswith("try: onetrunk update run pets folder:more")
    ran = onetrunk("eval", "run", "--domain", "pets")
    assert ran.code == 0
    ran = onetrunk("update", "run", "pets", "folder:more", *PETS, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["added"]["version"] == 2
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


@pytest.mark.slow
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
    ran = onetrunk("add", "run", "more", "folder:pets", "--set", "domains.more.size=8")
    assert "random images" not in ran.out
    (run.parent / "pets/cat").rename(run.parent / "pets/tiger")  # the folder is renamed, too
    assert 0 <= error() <= 100  # the splits change: they depend on a hash of the path
    assert onetrunk("update", "run", "pets", "--drop", "dog").code == 0
    assert error() == 0.0  # one class is left


def test_a_domain_of_the_training_is_relabeled_and_restored(onetrunk: Onetrunk, run: Path) -> None:
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    ran = onetrunk("update", "run", "digits", "--rename", "0=zero", "--drop", "7")
    assert ran.code == 0, ran.err
    assert "digits: unchanged to the bit: pets" in ran.out
    record = Run(run).record("digits")
    assert record["added"]["bytes"] == (run / "model/packs/digits.pack").stat().st_size
    own = load(run).parameters_of("digits").values()
    assert record["cost"]["own"]["parameters"] == sum(p.numel() for p in own)
    ran = onetrunk("update", "run", "digits", "--undo")
    assert ran.code == 0, ran.err
    assert "digits: unchanged to the bit: pets" in ran.out  # pets was added after that version
    size = (run / "model/packs/digits.pack").stat().st_size
    assert f"digits.pack: {scaled(size, 'B')}, " in ran.out


def test_a_removed_pack_is_imported_under_another_name(onetrunk: Onetrunk, run: Path) -> None:
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    assert onetrunk("update", "run", "pets", "--rename", "cat=kitten").code == 0
    assert onetrunk("remove", "run", "pets").code == 0
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS, "--adapters", "none").code == 0
    scores = Run(run).scores
    ran = onetrunk("add", "run", "cats", "pack:run/removed/pets/pets.pack")
    assert ran.code == 0, ran.err
    assert list(load(run).domains) == ["digits", "pets", "cats"]
    after = Run(run).scores
    assert after["test"] == scores["test"]
    assert [d["name"] for d in after["budget"][""]["domains"]] == ["digits", "pets", "cats"]
    assert "cats" in one_line(onetrunk("update", "run", "cats", "--undo"))


def test_suggested_commands_are_quoted(onetrunk: Onetrunk, run: Path) -> None:
    run.rename(run.parent / "my run")
    photos(run.parent / "my pets")
    ran = onetrunk("add", "my run", "digits", "folder:my pets", "--set", "domains.digits.size=8")
    assert one_line(ran).endswith("try: onetrunk update 'my run' digits 'folder:my pets'")
    left = run.parent / "my run/adding/pets"
    left.mkdir(parents=True)
    (left / "recipe.toml").write_text("seed = 1\n")
    ran = onetrunk("add", "my run", "pets", "folder:pets", *PETS)
    assert one_line(ran).endswith("try: remove 'my run/adding/pets'")


def test_a_trained_pack_that_is_not_published_is_not_replaced(
    onetrunk: Onetrunk, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Failed("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(pack_store, "publish", full)
        assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 1
    photos(run.parent / "more", ("cat", "dog", "fish"))
    ran = onetrunk("add", "run", "pets", "folder:more", *PETS)
    assert "contains pets, trained on folder:pets" in one_line(ran)
    assert list(load(run).domains) == ["digits"]
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    assert load(run).domains["pets"].task("classify").classes == ("cat", "dog")


def test_the_scores_of_a_pack_from_another_run(onetrunk: Onetrunk, run: Path) -> None:
    shutil.copytree(run, run.parent / "other")
    assert onetrunk("add", "run", "pets", "folder:pets", *PETS).code == 0
    scores = json.loads(onetrunk("info", "run", "--json").out)["domains"]["pets"]["scores"]
    pack = "pack:run/model/packs/pets.pack"
    assert onetrunk("add", "other", "pets", pack).code == 0
    imported = json.loads(onetrunk("info", "other", "--json").out)["domains"]["pets"]["scores"]
    score = scores["classify"]
    assert imported["classify"]["value"] == score["value"]
    assert (score["recorded_in"], imported["classify"]["recorded_in"]) == ("run", "pack")
    assert "as recorded in its pack" in " ".join(onetrunk("info", "other").out.split())


@pytest.mark.usefixtures("run")
def test_a_run_without_domains(onetrunk: Onetrunk) -> None:
    assert onetrunk("remove", "run", "digits").code == 0
    ran = onetrunk("info", "run")
    assert "resnet20, norm domain, sharing deep; 1 network of 268 k" in ran.out
    assert ran.out.endswith("  onetrunk add run NAME SOURCE\n")
    assert onetrunk("add", "run", "digits", "pack:run/removed/digits/digits.pack").code == 0
    assert "  onetrunk eval run\n" in onetrunk("info", "run").out


def test_an_update_keeps_what_the_domain_has(onetrunk: Onetrunk, run: Path) -> None:
    sets = ("--set", "domains.pets.fit=crop", "--set", "domains.pets.margin=2")
    ran = onetrunk("add", "run", "pets", "folder:pets", *PETS, *sets, "--adapters", "none")
    assert ran.code == 0, ran.err
    before = load(run).domains["pets"].pixels
    ran = onetrunk("update", "run", "pets", "folder:pets")
    assert ran.code == 0, ran.err
    assert load(run).domains["pets"].pixels == before
    assert "pets: keeps size 8, fit crop, margin 2, its normalization" in ran.err


def test_the_choice_for_few_images_is_explained(onetrunk: Onetrunk, run: Path) -> None:
    for path in sorted((run.parent / "pets/dog").iterdir())[12:]:
        path.unlink()
    ran = onetrunk("add", "run", "pets", "folder:pets", "--set", "train.steps=2")
    assert ran.code == 0, ran.err
    assert re.search(
        r"pets: \S+ images a class, so the method is chosen on held-out folds", ran.err
    )
    assert "pets: size 8, fit squash" in ran.err and "as in the run" in ran.err
    assert "errors on held-out folds" in " ".join(ran.out.split()) and "class means" in ran.out
    assert "images held out in" in ran.out
    assert "val images" not in ran.err and "val has no" not in ran.err  # it is used for training
    assert "test images" in ran.err


@pytest.mark.usefixtures("run")
def test_a_terminal_shows_each_line_once(
    onetrunk: Onetrunk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as terminal:
        for stream in (sys.stdout, sys.stderr):
            terminal.setattr(stream, "isatty", lambda: True)
        repeat("a line of the result")
    assert capsys.readouterr().out == ""
    ran = onetrunk("add", "run", "pets", "folder:pets", *PETS)
    for text in (ran.out, ran.err):
        assert text.count("pets: unchanged to the bit: digits") == 1


@pytest.mark.usefixtures("run")
def test_every_tried_adapter_is_printed(onetrunk: Onetrunk) -> None:
    ran = onetrunk(
        "add", "run", "pets", "folder:pets", *PETS, "--adapters", "auto", "--budget", "2%"
    )
    assert ran.code == 0, ran.err
    assert "errors on validation" in ran.out
    assert "parallel: " in ran.err and "the budget" in ran.err
    assert "chosen: n" in ran.out  # none or norm


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("add", "run", "digits", "pocket:optdigits"), "already.*onetrunk update run digits"),
        (("add", "run", "Pets", "folder:pets"), "Pets"),
        (("add", "run", "pets", "folder:nowhere"), "nowhere"),
        (("add", "run", "pets", "pets"), "PREFIX:REST"),
        (("add", "run", "pets", "folder:pets", "--adapters", "paralel"), "try: parallel"),
        (("add", "run", "pets", "folder:pets", "--adapters", "none", "--rank", "3"), "rank"),
        (("add", "run", "pets", "folder:pets", "--budget", "much"), "--budget 5%"),
        (
            ("add", "run", "pets", "folder:pets", "--budget", "5%"),
            "try: --adapters auto",
        ),
        (("add", "run", "pets", "folder:pets", "--set", "lr=3"), "got: 'lr'"),
        (("add", "run", "pets", "folder:pets", "--set", "train.stepz=3"), "stepz"),
        (("add", "run", "pets", "folder:pets", "--set", "add.start=nowhere"), "nowhere"),
        (("add", "run", "pets", "pack:nowhere.pack"), "nowhere.pack"),
        (("add", "run", "pets", "pack:x.pack", "--rank", "3"), "pack:x.pack"),
        (("add", "nowhere", "pets", "folder:pets"), "nowhere"),
        (("remove", "run", "pets"), "got: 'pets'; available: digits"),
        (("update", "run", "pets", "folder:pets"), "try: onetrunk add run pets"),
        (("update", "run", "digits"), "SOURCE"),
        (
            ("update", "run", "digits", "--drop", "7", "--set", "train.steps=2"),
            "got: '--set train.steps=2'",
        ),
        (("update", "run", "digits", "--drop", "7", "--resume"), "got: '--resume'"),
        (("update", "run", "digits", "--rename", "7"), "OLD=NEW"),
        (("update", "run", "digits", "--undo", "--drop", "7"), "--undo"),
        (("update", "run", "digits", "--undo"), "digits.*onetrunk info run"),
        (("update", "run", "digits", "pocket:optdigits", "--drop", "7"), "got: '--drop 7'"),
    ],
)
def test_errors_are_one_line(
    onetrunk: Onetrunk, run: Path, words: tuple[str, ...], facts: str
) -> None:
    assert re.search(facts, error_line(onetrunk(*words)))
    assert list(load(run).domains) == ["digits"]
    assert not (run / "adding/pets").exists()  # a leftover folder would block the next `add`


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("150%", 1.5)])
def test_shares_are_parsed(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)
    for wrong in ("0", "-1%", "nan", "inf", "%"):
        with pytest.raises(BadInput):
            share(wrong)
