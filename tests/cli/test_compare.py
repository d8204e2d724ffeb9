"""`onetrunk compare`: its rows equal the results of the other verbs; the run is unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onetrunk.cli.compare import baselines_table
from onetrunk.config import Recipe, Train
from onetrunk.data.domain import Domain
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.backbone import build
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from onetrunk.runs.compare_figures import method_scores, old_mean
from onetrunk.runs.experiment import domain_errors
from onetrunk.runs.train import train_recipe
from onetrunk.train.interrupt import Stopped
from tests.helpers.verbs import Ran, error_line, one_line, photos

Onetrunk = Callable[..., Ran]
TEXT = """
name = "shop"
out = "run"
trunk = { arch = "resnet20" }
domains = [{ name = "digits", source = "pocket:optdigits", size = 8 }]
train = { steps = 2, batch = 4 }
"""
PETS = ("--domain", "pets=folder:pets", "--set", "domains.pets.size=8")
SOME = "fine-tune,feature-extractor,parallel-low-rank,joint"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_recipe(Recipe.parse(TEXT, folder))
    photos(folder / "pets")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_rows_equal_the_results_of_the_other_verbs(onetrunk: Onetrunk, folder: Path) -> None:
    before = stamps(folder / "run")
    trained = (*PETS, "--set", "train.evaluate_start=false")  # two steps improve nothing
    ran = onetrunk("compare", "run", *trained, "--methods", SOME, "--out", "rows", "--json")
    assert ran.code == 0, ran.err
    assert stamps(folder / "run") == before
    found = json.loads(ran.out)
    assert list(found["rows"]) == ["feature-extractor", "fine-tune", "parallel-low-rank", "joint"]
    rows = {name: row["0"] for name, row in found["rows"].items()}
    run, pets = load(folder / "run"), Domain("pets", "folder:pets", size=8, base=folder)
    digits = Domain("digits", "pocket:optdigits", size=8)

    result = add(run, pets, adapters="parallel", rank=8, few=False, train=Train(steps=2, batch=4))
    low = rows["parallel-low-rank"]
    assert low["errors"] == {"pets": result.table.errors()["pets"]}
    assert low["old"] == pytest.approx(evaluate(load(folder / "run"), [digits], "test").errors())
    own = sum(p.numel() for p in result.model.parameters_of("pets").values())
    alone = sum(p.numel() for p in load(folder / "run").shared_parameters().values())
    first = sum(p.numel() for p in load(folder / "run").parameters_of("digits").values())
    assert low["parameters"] == alone + first + own
    assert low["seconds"]["pets"] > 0

    tuned = load(folder / "rows/fine-tune/seed-0/pets", "pets")
    moved = load(folder / "run")
    moved.trunk.load_shared(tuned.trunk.shared())
    assert rows["fine-tune"]["old"] == domain_errors(evaluate(moved, [digits], "test"))
    assert not all(
        tensor.equal(tuned.trunk.shared()[key])
        for key, tensor in load(folder / "run").trunk.shared().items()
    )
    assert rows["fine-tune"]["parameters"] > 1.9 * found["one"]

    joint = load(folder / "rows/joint/seed-0")
    assert {**rows["joint"]["errors"], **rows["joint"]["old"]} == pytest.approx(
        evaluate(joint, [digits, pets], "test").errors()
    )
    assert rows["joint"]["bytes"].keys() == {"pets"}


def test_finished_runs_are_not_trained_again(onetrunk: Onetrunk, folder: Path) -> None:
    few = ("compare", "run", *PETS, "--out", "rows", "--methods")
    assert onetrunk(*few, "norm-only,scratch").code == 0
    before = stamps(folder / "rows")
    again = onetrunk(*few, "norm-only,scratch")
    assert again.code == 0, again.err
    after = stamps(folder / "rows")
    files = [name for name in before if name != "compare.json"]
    assert [name for name in files if before[name] != after[name]] == []
    assert before["compare.json"][1] == after["compare.json"][1]
    assert "norm-only" in again.out and "scratch, which has 250" in again.out
    more = onetrunk(*few, "feature-extractor", "--json")
    assert list(json.loads(more.out)["rows"]) == ["scratch", "feature-extractor", "norm-only"]
    other = onetrunk(*few, "lora,norm-only", "--set", "train.steps=3")
    assert "rows/norm-only/seed-0/pets" in one_line(other)
    assert "train.steps" in other.err
    assert not (folder / "rows/lora").exists()  # refused before any training
    (folder / "pets/dog/000.png").write_bytes((folder / "pets/cat/000.png").read_bytes())
    changed = onetrunk(*few, "norm-only")
    assert changed.code == 2 and "images of pets" in changed.err


def test_few_images_are_trained_by_the_method_of_the_row(onetrunk: Onetrunk, folder: Path) -> None:
    for split, each in (("train", 3), ("val", 2), ("test", 2)):
        photos(folder / "few" / split, each=each)
    few = ("--domain", "few=folder:few", "--set", "domains.few.size=8")
    ran = onetrunk("compare", "run", *few, "--out", "rows", "--methods", "norm-only")
    assert ran.code == 0, ran.err
    lines = (folder / "rows/norm-only/seed-0/few/metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in lines} == {
        "norm"
    }  # neither cross-validation nor class means


def test_joint_starts_from_the_initial_weights_of_the_run(
    onetrunk: Onetrunk, tmp_path: Path
) -> None:
    torch.save(build("resnet20", False)[0].state_dict(), tmp_path / "w.pt")
    text = TEXT.replace('"resnet20"', '"resnet20", pretrained = "w.pt"')
    train_recipe(Recipe.parse(text, tmp_path))
    photos(tmp_path / "pets")
    words = ("--out", "rows", "--methods", "joint,scratch")
    assert onetrunk("compare", "run", *PETS, *words).code == 0
    joint = Recipe.read(tmp_path / "rows/joint/seed-0").trunk.pretrained
    assert joint == str((tmp_path / "w.pt").resolve())
    assert not Recipe.read(tmp_path / "rows/scratch/seed-0/pets").trunk.pretrained


def test_hours_are_multiplied_by_the_domains_of_a_network(onetrunk: Onetrunk, folder: Path) -> None:
    words = ("--methods", "joint,scratch", "--set", "train.hours=0.0001")
    ran = onetrunk("compare", "run", *PETS, "--out", "rows", *words)
    assert ran.code == 0, ran.err
    assert Recipe.read(folder / "rows/joint/seed-0/recipe.toml").train.hours == 0.0002
    assert Recipe.read(folder / "rows/scratch/seed-0/pets/recipe.toml").train.hours == 0.0001


def test_rows_for_other_images_or_another_model_are_left_out(
    onetrunk: Onetrunk, folder: Path
) -> None:
    pets = ("compare", "run", *PETS, "--out", "rows", "--json", "--methods")
    assert onetrunk(*pets, "feature-extractor").code == 0
    photos(folder / "more", ("cat", "dog", "fish"))
    more = [word.replace("folder:pets", "folder:more") for word in pets]
    assert list(json.loads(onetrunk(*more, "norm-only").out)["rows"]) == ["norm-only"]
    assert onetrunk(*pets, "feature-extractor").code == 0
    size = ("--set", "domains.birds.size=8", "--adapters", "none")
    assert onetrunk("add", "run", "birds", "folder:more", *size).code == 0
    assert list(json.loads(onetrunk(*pets, "lora").out)["rows"]) == ["lora"]


def test_scores_with_a_baseline_without_errors() -> None:
    row = {"0": {"errors": {"pets": 0.0}}}
    document = {"domains": {"pets": ["classify"]}, "images": {"pets": 50}}
    base, points = method_scores({**document, "rows": {"scratch": row, "lora": row}})
    assert (base, points) == ("scratch", {"scratch": 1000.0, "lora": 1000.0})


def test_a_baseline_error_of_zero_counts_as_half_a_wrong_image() -> None:
    row = {"0": {"errors": {"tags": 0.5}}}
    document = {"domains": {"tags": ["multilabel"]}, "images": {"tags": 50}}
    assert method_scores({**document, "rows": {"scratch": row}}) == ("scratch", {"scratch": 250.0})
    row["0"]["errors"]["tags"] = 0.0  # no score is possible
    assert method_scores({**document, "rows": {"scratch": row}}) == ("scratch", {})


def test_errors_in_metres_and_percent_have_no_mean() -> None:
    own = {"digits": ["classify"], "rooms": ["depth"], "both": ["classify", "depth"]}
    rows = {"lora": {"0": {"old": {"digits": 10.0, "rooms": 7.0, "both": 9.0}}}}
    assert old_mean({"own": own, "rows": rows}, "lora") == 10.0
    rows["lora"]["0"]["old"] = {"rooms": 7.0}
    assert old_mean({"own": own, "rows": rows}, "lora") is None


def test_scratch_models_are_the_teachers(onetrunk: Onetrunk, folder: Path) -> None:
    ran = onetrunk("compare", "run", *PETS, "--methods", "distilled-parallel", "--out", "rows")
    assert ran.code == 0, ran.err
    student = folder / "rows/distilled-parallel/seed-0"
    assert load(student).trunk.adapters == "parallel"
    teachers = json.loads((student / "scores.json").read_text())["teachers"]
    assert teachers.keys() == {"digits", "pets"}
    assert load(folder / "rows/scratch/seed-0/digits", "digits").trunk.sharing == "none"


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("--domain", "digits=folder:pets"), "got: 'digits'; available: digits"),
        ((*PETS, "--methods", "paralel"), "try: parallel"),
        ((*PETS, "--set", "trunk.norm=shared"), "got: 'trunk'"),
        (("--domain", "pets=folder:nowhere"), "nowhere"),
        ((*PETS, "--seeds", "0,0"), "got: '0,0'"),
        (("--methods", "joint"), "--out"),
    ],
)
def test_errors_are_one_line(
    onetrunk: Onetrunk, folder: Path, words: tuple[str, ...], facts: str
) -> None:
    ran = onetrunk("compare", "run", *words, "--out", "rows")
    assert facts in error_line(ran)
    assert not (folder / "rows").exists()


def test_unsupported_methods_are_refused_before_any_training(
    onetrunk: Onetrunk, tmp_path: Path
) -> None:
    shared = TEXT.replace('"resnet20"', '"resnet20", norm = "shared"')
    train_recipe(Recipe.parse(shared, tmp_path))
    photos(tmp_path / "pets")
    ran = onetrunk("compare", "run", *PETS, "--out", "rows")
    assert "norm = 'shared'" in one_line(ran)
    photos(tmp_path / "few", each=1)
    few = ("--domain", "few=folder:few", "--set", "domains.few.size=8")
    ran = onetrunk("compare", "run", *few, "--out", "rows", "--methods", "scratch")
    assert "few: " in one_line(ran) and "split test" in ran.err
    assert not (tmp_path / "rows").exists()


def test_domains_that_need_teachers_are_checked_before_any_training(
    onetrunk: Onetrunk, folder: Path
) -> None:
    photos(folder / "one/train", each=1)  # none is left for val
    photos(folder / "one/test", each=3)
    words = ("--set", "domains.one.size=8", "--adapters", "none")
    assert onetrunk("add", "run", "one", "folder:one", *words).code == 0
    ran = onetrunk("compare", "run", *PETS, "--out", "rows")
    assert "one: " in one_line(ran) and "split val" in ran.err
    assert not (folder / "rows").exists()


def test_domains_that_lwf_cannot_train_are_refused_before_any_training(
    onetrunk: Onetrunk, folder: Path
) -> None:
    sets = ("--set", "domains.one.size=8", "--set", 'domains.one.tasks=["embed"]')
    assert onetrunk("add", "run", "one", "folder:pets", *sets, "--adapters", "norm").code == 0
    ran = onetrunk("compare", "run", *PETS, "--out", "rows", "--methods", "norm-only,lwf")
    error = one_line(ran)
    assert "distill.lwf" in error and "got: 'one'" in error
    assert not (folder / "rows").exists()


def test_a_method_that_diverges_has_no_row(onetrunk: Onetrunk, folder: Path) -> None:
    sets = ("--set", "train.optimizer=sgd", "--set", "train.lr=1e30", "--set", "train.warmup=0")
    words = ("compare", "run", *PETS, "--out", "rows", *sets, "--methods")
    ran = onetrunk(*words, "scratch,feature-extractor")
    assert ran.code == 1
    assert "error: " in ran.err and "scratch, seed 0; try: " in ran.err
    found = json.loads((folder / "rows/compare.json").read_text())
    assert list(found["rows"]) == ["feature-extractor"]
    assert "pets/classify" in found["failed"]["scratch, seed 0"]
    assert onetrunk(*words, "norm-only").code == 1  # the failure is still reported


@pytest.mark.usefixtures("folder")
def test_after_a_stop_the_same_command_is_suggested(
    onetrunk: Onetrunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Stopped("stopped at step 1 of 2", try_="onetrunk train rows/scratch --resume")

    monkeypatch.setattr("onetrunk.runs.compare.train_models", stopped)
    ran = onetrunk("compare", "run", *PETS, "--out", "rows", "--methods", "scratch")
    assert ran.code == 1
    assert ran.err.endswith("stopped at step 1 of 2; try: run the same command again\n")


def test_runs_are_not_written_among_images(onetrunk: Onetrunk, folder: Path) -> None:
    before = stamps(folder / "pets")
    ran = onetrunk("compare", "run", *PETS, "--out", "pets", "--methods", "norm-only")
    assert "pets with cat, dog" in one_line(ran)
    assert stamps(folder / "pets") == before


@pytest.mark.usefixtures("folder")
def test_a_missing_run(onetrunk: Onetrunk) -> None:
    ran = onetrunk("compare", "nowhere", *PETS)
    assert ran.code == 2 and "nowhere" in one_line(ran)


def test_an_unfinished_run(onetrunk: Onetrunk, folder: Path) -> None:
    shutil.rmtree(folder / "run/model")
    (folder / "run/scores.json").unlink()
    error = one_line(onetrunk("compare", "run", *PETS))
    assert "the run run is not finished" in error
    assert error.endswith("try: onetrunk train run/recipe.toml --resume")


def test_the_methods_are_listed(onetrunk: Onetrunk) -> None:
    listed = onetrunk("recipes").out
    for name in ("scratch", "lwf", "distilled-parallel"):
        assert name in listed
    assert onetrunk("recipes", "methods").out.startswith("# Methods of learning new domains")


# -- baselines of a recipe

SHORT = (
    "--methods",
    "joint",
    "--device",
    "cpu",
    "--set",
    "train.steps=1",
    "--set",
    "train.batch=4",
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    photos(tmp_path / "photos")
    path = tmp_path / "shop.toml"
    path.write_text(
        'name = "shop"\n[trunk]\narch = "resnet20"\n'
        '[[domains]]\nname = "pets"\nsource = "folder:photos"\nsize = 8\n'
    )
    return path


@pytest.mark.usefixtures("shop")
def test_baselines_as_a_table_and_as_json(onetrunk: Onetrunk) -> None:
    ran = onetrunk("compare", "shop.toml", *SHORT)
    assert ran.code == 0, ran.err
    for word in ("joint", "pets", "error %", "1.00×", "wrote runs/shop-baselines.json"):
        assert word in ran.out
    train, report = [line for line in ran.out.splitlines() if line.startswith("  onetrunk ")]
    assert train == "  onetrunk train shop.toml --set train.steps=1 --set train.batch=4"
    assert report == "  onetrunk report runs/shop --baseline runs/shop-joint"
    again = onetrunk("compare", "shop.toml", *SHORT, "--json")
    assert json.loads(again.out)["runs"]["joint"]["out"] == "runs/shop-joint"
    assert "runs/shop-joint is already finished" in again.err


@pytest.mark.usefixtures("shop")
def test_an_unknown_baseline_is_refused(onetrunk: Onetrunk) -> None:
    error = one_line(onetrunk("compare", "shop.toml", "--methods", "frozen,jiont"))
    assert "got: 'jiont'" in error and "try: joint" in error


def test_the_table_marks_random_features() -> None:
    run = {"weights": "fresh", "networks": 1.0, "seconds": 5.0, "mean_error": 12.3}
    row = {"domain": "one", "task": "classify", "metric": "error", "unit": "%"}
    document = {
        "recipe": "two",
        "runs": {"frozen": run, "joint": {**run, "mean_error": 4.56}},
        "rows": [{**row, "values": {"frozen": 12.3}}],
    }
    table = baselines_table(document)
    heads = [str(column.header) for column in table.columns]
    assert heads == ["domain", "task", "score", "frozen (random features)", "joint"]
    cells = [list(column.cells) for column in table.columns]
    assert cells[3] == ["12.30", "12.30", "1.00×", "5"]
    assert cells[4] == ["", "4.56", "1.00×", "5"]
