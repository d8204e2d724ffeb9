"""`onetrunk train`: the recipe that is trained, and what is printed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onetrunk.cli import train
from onetrunk.config import Recipe
from onetrunk.eval.table import Row, Table
from onetrunk.runs.open import Run
from tests.helpers.verbs import Ran, one_line, photos

Onetrunk = Callable[..., Ran]
TEXT = """
name = "shop"
trunk = { arch = "resnet20" }
[[domains]]
name = "digits"
source = "pocket:optdigits"
"""
TABLE = Table(
    (Row("digits", "classify", "error", 4.2, 504, "classify", "%", headline=True),), "test"
)
SCORES = {"test": TABLE.to_json(), "best": {"": {"step": 30, "score": 4.0}}}


class Trained(Run):
    """A run whose scores are in memory."""

    @property
    def scores(self) -> dict[str, Any]:
        return SCORES


class Stub:
    """Record the arguments of `train_recipe` and `sweep` instead of training."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []
        self.options: dict[str, Any] = {}
        self.variations: list[tuple[str, list[str]]] = []
        self.seeds: list[int] = []

    def train(self, recipe: Recipe, *, resume: bool, device: str | None) -> Run:
        self.recipes.append(recipe)
        self.options = {"resume": resume, "device": device}
        return Trained(recipe.out_folder, {})

    def sweep(
        self, recipe: Recipe, variations: Any, seeds: list[int], *, resume: bool, device: Any
    ) -> dict[str, Any]:
        self.train(recipe, resume=resume, device=device)
        self.variations, self.seeds = variations, seeds
        unit = {"mean": 5.0, "std": 0.25 if len(seeds) > 1 else None, "by_seed": [5.0]}
        rows = [
            {
                "label": label,
                "sets": sets,
                "val": 7.0 - i,
                "test": {"digits/classify/error": unit},
                "runs": [f"{label}/seed-{seed}" for seed in seeds],
            }
            for i, (label, sets) in enumerate(variations)
        ]
        return {
            "recipe": recipe.name, "seeds": seeds, "chosen": variations[-1][0],
            "by": "the lowest mean validation score", "variations": rows,
        }  # fmt: skip


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(train, "train_recipe", stub.train)
    monkeypatch.setattr(train, "sweep", stub.sweep)
    return stub


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes/shop.toml"
    path.write_text(TEXT)
    return path


def test_a_recipe_file_with_set_options(onetrunk: Onetrunk, stub: Stub, shop: Path) -> None:
    ran = onetrunk(
        "train", str(shop), "--set", "train.lr=0.1", "--set", "seed=3", "--device", "cpu"
    )
    assert ran.code == 0
    (recipe,) = stub.recipes
    assert (recipe.train.lr, recipe.seed, recipe.out_folder) == (0.1, 3, shop.parent / "runs/shop")
    assert stub.options == {"resume": False, "device": "cpu"}
    assert "error 4.20 %" in ran.out
    assert f"wrote {shop.parent / 'runs/shop'}: model/" in ran.out
    assert "  onetrunk eval " in ran.out
    assert "best: step 30, chosen on validation" in ran.out


def test_a_named_recipe_runs_in_the_current_folder(
    onetrunk: Onetrunk, stub: Stub, tmp_path: Path
) -> None:
    (tmp_path / "pocket").mkdir()  # a folder of the same name is ./pocket
    assert onetrunk("train", "pocket", "--resume").code == 0
    assert stub.recipes[0].out_folder.resolve() == tmp_path / "runs/pocket"
    assert stub.options["resume"] is True


def test_the_folder_of_a_run_is_accepted_as_its_recipe(
    onetrunk: Onetrunk, stub: Stub, shop: Path
) -> None:
    run = shop.parent / "runs/shop"
    run.mkdir(parents=True)
    moved = Recipe.read(shop).moved_to(run)
    (run / "recipe.toml").write_text(moved.to_toml())
    assert onetrunk("train", str(run), "--resume").code == 0
    assert stub.recipes[0].out_folder.resolve() == run


@pytest.mark.usefixtures("stub")
def test_json_output_is_json_only(onetrunk: Onetrunk, shop: Path) -> None:
    found = json.loads(onetrunk("train", str(shop), "--json").out)
    assert found["scores"] == SCORES
    assert Path(found["run"]).name == "shop"


def test_out_is_relative_to_the_current_folder(
    onetrunk: Onetrunk, stub: Stub, shop: Path, tmp_path: Path
) -> None:
    assert onetrunk("train", str(shop), "--out", "else where/é").code == 0
    assert stub.recipes[0].out_folder.resolve() == tmp_path / "else where/é"
    assert stub.recipes[0].out == "../else where/é"


def test_domain_options_make_a_recipe_and_leave_no_file_behind(
    onetrunk: Onetrunk, stub: Stub, tmp_path: Path
) -> None:
    photos(tmp_path / "photos")
    words = (
        *("train", "--domain", "shop=folder:photos", "--domain", "digits=pocket:optdigits"),
        *("--set", "trunk.arch=resnet20", "--set", "domains.shop.size=16"),
    )
    assert onetrunk(*words).code == 0
    assert stub.recipes[0].domains[0].size == 16
    assert onetrunk(*words, "--set", "train.lr=0.1", "--out", "runs/other").code == 0
    assert stub.recipes[1].train.lr == 0.1
    assert stub.recipes[1].out_folder.resolve() == tmp_path / "runs/other"
    assert list(tmp_path.glob("*.toml")) == []


def test_domains_that_cannot_be_read_leave_nothing_behind(
    onetrunk: Onetrunk, tmp_path: Path
) -> None:
    resnet = ("--set", "trunk.arch=resnet20")
    ran = onetrunk("train", "--domain", "shop=folder:nowhere", *resnet)
    assert ran.code == 2
    assert "error: domains.shop: folder:nowhere: no such file or folder" in ran.err
    assert list(tmp_path.glob("*.toml")) == []
    assert not (tmp_path / "runs").exists()


def test_seeds_and_grids_are_a_sweep(onetrunk: Onetrunk, stub: Stub, shop: Path) -> None:
    ran = onetrunk(
        "train", str(shop), "--seeds", "0,1", "--set", "train.lr=0.1,0.03", "--set", "train.batch=8"
    )
    assert ran.code == 0
    assert stub.seeds == [0, 1]
    assert stub.variations == [
        ("train.lr=0.1", ["train.lr=0.1", "train.batch=8"]),
        ("train.lr=0.03", ["train.lr=0.03", "train.batch=8"]),
    ]
    assert stub.recipes[0].train.batch == 8
    assert "chosen: train.lr=0.03" in ran.out
    assert "5.00 ± 0.25" in ran.out
    assert "runs/shop/train.lr=0.03/seed-0" in ran.out.replace("\n", "")
    alone = onetrunk("train", str(shop), "--seeds", "4")
    assert stub.seeds == [4]
    assert "±" not in alone.out
    found = json.loads(onetrunk("train", str(shop), "--set", "seed=1,2", "--json").out)
    assert [v["label"] for v in found["variations"]] == ["seed=1", "seed=2"]
    assert stub.seeds == [0]


def test_a_dry_run_writes_nothing(onetrunk: Onetrunk, stub: Stub, tmp_path: Path) -> None:
    words = ["train", "--domain", "digits=pocket:optdigits", "--dry-run"]
    words += ["--set", "trunk.arch=resnet20", "--set", "train.batch=4"]
    ran = onetrunk(*words)
    assert ran.code == 0
    values = "adamw, lr 0.001, weight_decay 0.05, head_lr_factor 1, ema 0, label_smoothing 0; "
    facts = (
        "steps",
        "4,000",
        "images/s",
        "MB",
        "to decode",
        "1,796",
        "Nothing was written",
        values,
    )
    for fact in facts:
        assert fact in ran.out, fact
    found = json.loads(onetrunk(*words, "--json").out)
    assert found["parts"][""]["steps"] == 4000
    assert stub.recipes == []
    assert found["data"]["digits"]["images"] == 1796
    assert list(tmp_path.iterdir()) == []


BAD = {
    "nothing": ((), "--domain NAME=SOURCE"),
    "both": (("recipes/shop.toml", "--domain", "a=pocket:digits"), "got: 'both'"),
    "no such recipe": (("pocket-quik",), "try: pocket-quick"),
    "a name that is neither of a domain nor of a run": (
        ("--domain", "a b=pocket:digits"),
        "got: 'a b'; try: the name 'a-b'",
    ),
    "a key without its table": (("recipes/shop.toml", "--set", "lr=1"), "try: train.lr"),
    "an unknown option": (("recipes/shop.toml", "--devise", "cpu"), "try: --device"),
    "a set without a value": (
        ("recipes/shop.toml", "--set", "train.lr"),
        "--set KEY=VALUE; got: 'train.lr'",
    ),
    "a set of an unknown key": (("recipes/shop.toml", "--set", "train.lrr=1"), "try: train.lr"),
    "a domain without a source": (("--domain", "digits"), "--domain NAME=SOURCE; got: 'digits'"),
    "seeds that are not numbers": (("recipes/shop.toml", "--seeds", "a,b"), "--seeds"),
    "a seed twice": (("recipes/shop.toml", "--seeds", "1,1"), "'1,1'"),
    "a dry run of several": (
        ("recipes/shop.toml", "--dry-run", "--seeds", "0,1"),
        "--dry-run",
    ),
    "a grid with a bad value": (
        ("recipes/shop.toml", "--set", "train.lr=0.1,0"),
        "train.lr: expected a number",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    name: str, onetrunk: Onetrunk, stub: Stub, shop: Path
) -> None:
    assert shop.is_file()
    words, fact = BAD[name]
    assert fact in one_line(onetrunk("train", *words))
    assert stub.recipes == []


@pytest.mark.usefixtures("stub")
def test_all_errors_are_listed_at_once(onetrunk: Onetrunk, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        TEXT + '[[domains]]\nname = "lost"\nsource = "folder:lost"\n[train]\nlr = 0\nlrate = 1\n'
    )
    ran = onetrunk("train", "a.toml")
    assert ran.code == 2
    lines = ran.err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "train.lr",
        "train.lrate",
        "domains.lost",
    ]
    assert all(line.startswith("error: ") for line in lines)


def test_ctrl_c_prints_how_to_continue(
    onetrunk: Onetrunk, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(recipe: Recipe, **_: object) -> None:
        recipe.out_folder.mkdir(parents=True)
        (recipe.out_folder / "recipe.toml").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_recipe", stopped)
    ran = onetrunk("train", str(shop))
    assert "try: onetrunk train " in one_line(ran, 1)
    assert ran.err.endswith("runs/shop/recipe.toml --resume\n")


@pytest.mark.parametrize(
    ("words", "end"),
    [((), "no run was written"), (("--seeds", "0,1"), "try: the same command with --resume")],
)
def test_ctrl_c_before_a_run_begins(
    words: tuple[str, ...],
    end: str,
    onetrunk: Onetrunk,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_recipe", stopped)
    monkeypatch.setattr(train, "sweep", stopped)
    assert one_line(onetrunk("train", str(shop), *words), 1).endswith(end)


def test_a_place_that_cannot_be_written_to_is_named_as_typed(
    onetrunk: Onetrunk, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    ran = onetrunk("train", str(shop), "--out", "deep/../x")
    assert "error: cannot write deep/../x; got: " in one_line(ran)


def test_help_shows_examples(onetrunk: Onetrunk) -> None:
    out = onetrunk("train", "--help").out
    for option in ("--domain", "--set", "--resume", "--seeds", "--dry-run", "--device", "--json"):
        assert option in out
    assert "onetrunk train pocket-quick" in out


@pytest.mark.slow
def test_a_finished_recipe_is_not_trained_again(onetrunk: Onetrunk, shop: Path) -> None:
    words = ("train", str(shop), "--set", "train.steps=6", "--set", "train.batch=8")
    ran = onetrunk(*words)
    assert ran.code == 0, ran.err
    run = shop.parent / "runs/shop"
    assert Recipe.read(run).train.steps == 6
    assert (run / "scores.json").is_file()
    again = one_line(onetrunk(*words))
    assert "is finished" in again
    assert onetrunk("train", str(run)).code == 2
    other = onetrunk(*words, "--set", "train.lr=0.5")
    line = one_line(other)
    assert "holds a run" in line and "train.lr" in line
