"""`onetrunk compare`: every row is what the ordinary verbs would have made, and the run stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.backbone import build
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from onetrunk.runs.compare_table import error_of, old_mean, scores
from onetrunk.runs.train import train_recipe
from onetrunk.train.interrupt import Stopped
from tests.helpers.verbs import Ran, one_line, photos

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
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    train_recipe(Recipe.parse(TEXT, folder))
    photos(folder / "pets")
    return folder


@pytest.fixture
def at(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_rows_are_what_the_other_verbs_make(onetrunk: Onetrunk, at: Path) -> None:
    before = stamps(at / "run")
    ran = onetrunk("compare", "run", *PETS, "--methods", SOME, "--out", "rows", "--json")
    assert ran.code == 0, ran.err
    assert stamps(at / "run") == before
    found = json.loads(ran.out)
    assert list(found["rows"]) == ["feature-extractor", "fine-tune", "parallel-low-rank", "joint"]
    rows = {name: row["0"] for name, row in found["rows"].items()}
    run, pets = load(at / "run"), Domain("pets", "folder:pets", size=8, base=at)
    digits = Domain("digits", "pocket:optdigits", size=8)

    grown = add(run, pets, adapters="parallel", rank=8, steps=2, batch=4)
    low = rows["parallel-low-rank"]
    assert low["errors"] == {"pets": grown.table.errors()["pets"]}
    assert low["old"] == pytest.approx(evaluate(load(at / "run"), [digits], "test").errors())
    own = sum(p.numel() for p in grown.model.parameters_of("pets").values())
    alone = sum(p.numel() for p in load(at / "run").shared_parameters().values())
    first = sum(p.numel() for p in load(at / "run").parameters_of("digits").values())
    assert low["parameters"] == alone + first + own
    assert low["seconds"]["pets"] > 0

    tuned = load(at / "rows/fine-tune/seed-0/pets", "pets")
    moved = load(at / "run")
    moved.trunk.load_shared(tuned.trunk.shared())
    assert rows["fine-tune"]["old"] == error_of(evaluate(moved, [digits], "test"))
    assert not all(
        tensor.equal(tuned.trunk.shared()[key])
        for key, tensor in load(at / "run").trunk.shared().items()
    )
    assert rows["fine-tune"]["parameters"] > 1.9 * found["one"]

    joint = load(at / "rows/joint/seed-0")
    assert {**rows["joint"]["errors"], **rows["joint"]["old"]} == pytest.approx(
        evaluate(joint, [digits, pets], "test").errors()
    )
    assert rows["joint"]["bytes"].keys() == {"pets"}


def test_what_is_finished_is_not_learned_again(onetrunk: Onetrunk, at: Path) -> None:
    few = ("compare", "run", *PETS, "--out", "rows", "--methods")
    assert onetrunk(*few, "norm-only,scratch").code == 0
    before = stamps(at / "rows")
    again = onetrunk(*few, "norm-only,scratch")
    assert again.code == 0, again.err
    after = stamps(at / "rows")
    learned = [name for name in before if name != "compare.json"]
    assert [name for name in learned if before[name] != after[name]] == []
    assert before["compare.json"][1] == after["compare.json"][1]
    assert "norm-only" in again.out and "score: scratch has 250" in again.out
    more = onetrunk(*few, "feature-extractor", "--json")
    assert list(json.loads(more.out)["rows"]) == ["scratch", "feature-extractor", "norm-only"]
    other = onetrunk(*few, "lora,norm-only", "--set", "train.steps=3")
    assert "rows/norm-only/seed-0/pets holds another row" in one_line(other)
    assert "train.steps" in other.err
    assert not (at / "rows/lora").exists()  # found before any learns
    (at / "pets/dog/000.png").write_bytes((at / "pets/cat/000.png").read_bytes())
    changed = onetrunk(*few, "norm-only")
    assert changed.code == 2 and "the images of pets are not those" in changed.err


def test_a_handful_is_learned_by_the_method_that_the_row_names(
    onetrunk: Onetrunk, at: Path
) -> None:
    for split, each in (("train", 3), ("val", 2), ("test", 2)):
        photos(at / "few" / split, each=each)
    few = ("--domain", "few=folder:few", "--set", "domains.few.size=8")
    ran = onetrunk("compare", "run", *few, "--out", "rows", "--methods", "norm-only")
    assert ran.code == 0, ran.err
    lines = (at / "rows/norm-only/seed-0/few/metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in lines} == {"norm"}  # no folds, no class means


def test_one_network_of_all_begins_with_the_weights_that_the_run_began_with(
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


def test_hours_are_for_each_domain_of_one_network(onetrunk: Onetrunk, at: Path) -> None:
    words = ("--methods", "joint,scratch", "--set", "train.hours=0.0001")
    ran = onetrunk("compare", "run", *PETS, "--out", "rows", *words)
    assert ran.code == 0, ran.err
    assert Recipe.read(at / "rows/joint/seed-0/recipe.toml").train.hours == 0.0002
    assert Recipe.read(at / "rows/scratch/seed-0/pets/recipe.toml").train.hours == 0.0001


def test_rows_of_other_images_or_of_a_run_that_grew_are_not_in_the_table(
    onetrunk: Onetrunk, at: Path
) -> None:
    pets = ("compare", "run", *PETS, "--out", "rows", "--json", "--methods")
    assert onetrunk(*pets, "feature-extractor").code == 0
    photos(at / "more", ("cat", "dog", "fish"))
    more = [word.replace("folder:pets", "folder:more") for word in pets]
    assert list(json.loads(onetrunk(*more, "norm-only").out)["rows"]) == ["norm-only"]
    assert onetrunk(*pets, "feature-extractor").code == 0
    size = ("--set", "domains.birds.size=8", "--adapters", "none")
    assert onetrunk("add", "run", "birds", "folder:more", *size).code == 0
    assert list(json.loads(onetrunk(*pets, "lora").out)["rows"]) == ["lora"]


def test_a_score_where_the_baseline_has_no_error() -> None:
    row = {"0": {"errors": {"pets": 0.0}}}
    document = {"domains": {"pets": ["classify"]}, "images": {"pets": 50}}
    base, points = scores({**document, "rows": {"scratch": row, "lora": row}})
    assert (base, points) == ("scratch", {"scratch": 1000.0, "lora": 1000.0})


def test_half_a_wrong_image_is_of_domains_that_are_counted_in_images() -> None:
    row = {"0": {"errors": {"tags": 0.5}}}
    document = {"domains": {"tags": ["multilabel"]}, "images": {"tags": 50}}
    assert scores({**document, "rows": {"scratch": row}}) == ("scratch", {"scratch": 250.0})
    row["0"]["errors"]["tags"] = 0.0  # nothing to count a score from
    assert scores({**document, "rows": {"scratch": row}}) == ("scratch", {})


def test_metres_and_percent_of_old_domains_have_no_mean() -> None:
    own = {"digits": ["classify"], "rooms": ["depth"], "both": ["classify", "depth"]}
    rows = {"lora": {"0": {"old": {"digits": 10.0, "rooms": 7.0, "both": 9.0}}}}
    assert old_mean({"own": own, "rows": rows}, "lora") == 10.0
    rows["lora"]["0"]["old"] = {"rooms": 7.0}
    assert old_mean({"own": own, "rows": rows}, "lora") is None


def test_networks_of_scratch_teach_the_one_of_all(onetrunk: Onetrunk, at: Path) -> None:
    ran = onetrunk("compare", "run", *PETS, "--methods", "distilled-parallel", "--out", "rows")
    assert ran.code == 0, ran.err
    assert load(at / "rows/distilled-parallel/seed-0").trunk.adapters == "parallel"
    taught = json.loads((at / "rows/distilled-parallel/seed-0/scores.json").read_text())["teachers"]
    assert taught.keys() == {"digits", "pets"}
    assert load(at / "rows/scratch/seed-0/digits", "digits").trunk.sharing == "none"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--domain", "digits=folder:pets"), "has a domain of this name already"),
        ((*PETS, "--methods", "paralel"), "no such method; got: 'paralel'; available: parallel, "),
        ((*PETS, "--set", "trunk.norm=shared"), "--set: unknown key; got: 'trunk'"),
        (("--domain", "pets=folder:nowhere"), "nowhere"),
        ((*PETS, "--seeds", "0,0"), "each seed once"),
    ],
)
def test_what_is_wrong_is_one_line(
    onetrunk: Onetrunk, at: Path, words: tuple[str, ...], said: str
) -> None:
    ran = onetrunk("compare", "run", *words, "--out", "rows")
    assert ran.code == 2
    assert said in one_line(ran)
    assert not (at / "rows").exists()


def test_what_a_method_cannot_do_is_found_before_another_learns(
    onetrunk: Onetrunk, tmp_path: Path
) -> None:
    shared = TEXT.replace('"resnet20"', '"resnet20", norm = "shared"')
    train_recipe(Recipe.parse(shared, tmp_path))
    photos(tmp_path / "pets")
    ran = onetrunk("compare", "run", *PETS, "--out", "rows")
    assert "resnet20 shares its norms" in one_line(ran)
    photos(tmp_path / "few", each=1)
    few = ("--domain", "few=folder:few", "--set", "domains.few.size=8")
    ran = onetrunk("compare", "run", *few, "--out", "rows", "--methods", "scratch")
    assert "few has no test image" in one_line(ran)
    assert not (tmp_path / "rows").exists()


def test_teachers_of_the_runs_own_are_looked_at_before_any_learns(
    onetrunk: Onetrunk, at: Path
) -> None:
    photos(at / "one/train", ("cat",), each=3)
    photos(at / "one/test", ("cat",), each=3)
    words = ("--set", "domains.one.size=8", "--adapters", "none")
    assert onetrunk("add", "run", "one", "folder:one", *words).code == 0
    ran = onetrunk("compare", "run", *PETS, "--out", "rows")
    assert "distilled: one has no validation image" in one_line(ran)
    assert not (at / "rows").exists()


def test_what_cannot_be_lwfed_is_found_before_any_learns(onetrunk: Onetrunk, at: Path) -> None:
    sets = ("--set", "domains.one.size=8", "--set", 'domains.one.tasks=["embed"]')
    assert onetrunk("add", "run", "one", "folder:pets", *sets, "--adapters", "norm").code == 0
    ran = onetrunk("compare", "run", *PETS, "--out", "rows", "--methods", "norm-only,lwf")
    assert "an embedding alone has no answers to hold" in one_line(ran)
    assert not (at / "rows").exists()


def test_a_row_that_diverges_stays_out_and_the_others_are_learned(
    onetrunk: Onetrunk, at: Path
) -> None:
    sets = ("--set", "train.optimizer=sgd", "--set", "train.lr=1e30", "--set", "train.warmup=0")
    words = ("compare", "run", *PETS, "--out", "rows", *sets, "--methods")
    ran = onetrunk(*words, "scratch,feature-extractor")
    assert ran.code == 1
    assert "error: diverged, so without a row: scratch, seed 0; next:" in ran.err
    found = json.loads((at / "rows/compare.json").read_text())
    assert list(found["rows"]) == ["feature-extractor"]
    assert "pets/classify" in found["failed"]["scratch, seed 0"]
    assert onetrunk(*words, "norm-only").code == 1  # what failed before is still said


@pytest.mark.usefixtures("at")
def test_who_stops_it_is_told_the_command_of_all_rows(
    onetrunk: Onetrunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Stopped("stopped at step 1 of 2", try_="onetrunk train rows/scratch --resume")

    monkeypatch.setattr("onetrunk.runs.compare.train_models", stopped)
    ran = onetrunk("compare", "run", *PETS, "--out", "rows", "--methods", "scratch")
    assert ran.code == 1
    assert "step 1 of 2" in ran.err and "the same command" in ran.err
    assert "rows/scratch" not in ran.err  # that command would resume one row only


def test_rows_never_lie_among_images(onetrunk: Onetrunk, at: Path) -> None:
    before = stamps(at / "pets")
    ran = onetrunk("compare", "run", *PETS, "--out", "pets", "--methods", "norm-only")
    assert "pets is no folder of a comparison" in one_line(ran)
    assert stamps(at / "pets") == before


@pytest.mark.usefixtures("at")
def test_a_run_that_is_not_there(onetrunk: Onetrunk) -> None:
    ran = onetrunk("compare", "nowhere", *PETS)
    assert ran.code == 2 and "nowhere" in one_line(ran)


def test_a_run_that_is_still_training(onetrunk: Onetrunk, at: Path) -> None:
    shutil.rmtree(at / "run/model")
    (at / "run/scores.json").unlink()
    said = one_line(onetrunk("compare", "run", *PETS))
    assert "the run run is not finished" in said
    assert said.endswith("try: onetrunk train run/recipe.toml --resume")


def test_the_methods_are_listed(onetrunk: Onetrunk) -> None:
    listed = onetrunk("recipes").out
    for name in ("scratch", "lwf", "distilled-parallel"):
        assert name in listed
    assert onetrunk("recipes", "methods").out.startswith("# Ways to have more domains")
