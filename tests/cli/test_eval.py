"""`onetrunk eval`, `predict` and `info` with the run of an untrained model."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.data.files.targets import read_target
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.table import Table, number
from onetrunk.nn import networks as nets
from onetrunk.nn.model_files import save_models
from onetrunk.nn.saving import models_of
from onetrunk.runs.open import Run
from tests.helpers.errors import raises
from tests.helpers.verbs import Ran, one_line

Onetrunk = Callable[..., Ran]
RECIPE = """
name = "two"
trunk = { arch = "resnet20", sharing = "deep" }
[[domains]]
name = "shop"
source = "folder:photos"
size = [12, 20]
fit = "crop"
margin = 4
[[domains]]
name = "rooms"
source = "folder:scenes"
size = [16, 24]
"""


def odd_photos(root: Path) -> None:
    """Write photos of many kinds: rotated by EXIF, grey, transparent, with 16 bits, wide."""
    rng = np.random.default_rng(0)
    for index, kind in enumerate(("cat", "dog", "fish")):
        (root / kind).mkdir(parents=True)
        for i in range(24):
            pixels = rng.integers(0, 256, (20 + i, 40 - i, 3), np.uint8) // 2 + 40 * index
            picture = Image.fromarray(pixels)
            path = root / kind / f"{i:02}.png"
            if i % 4 == 0:
                exif = Image.Exif()
                exif[0x0112] = 6
                picture.save(path.with_suffix(".jpg"), exif=exif, quality=95)
            elif i % 4 == 1:
                picture.convert("L").save(path)
            elif i % 4 == 2:
                picture.putalpha(128)
                picture.save(path)
            else:
                grey = pixels[:, :, 0].astype(np.uint16) * 257
                Image.fromarray(grey).save(path)


def scenes(root: Path, count: int = 30) -> None:
    """Write photos with a class, a depth and a normal for every pixel."""
    rng = np.random.default_rng(1)
    for part in ("images", "segment", "depth", "normals"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/{i:02}.png")
        Image.fromarray(rng.integers(0, 3, (16, 24), np.uint8)).save(root / f"segment/{i:02}.png")
        np.save(root / f"depth/{i:02}.npy", rng.uniform(1, 9, (16, 24)).astype("f4"))
        normals = rng.normal(size=(16, 24, 3))
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        np.save(root / f"normals/{i:02}.npy", normals.astype("f4"))


def make_run(folder: Path, text: str = RECIPE, sets: tuple[str, ...] = ()) -> Path:
    """Write the folder of a finished run and return it."""
    recipe = Recipe.parse(text, folder, sets)
    run = recipe.out_folder
    run.mkdir(parents=True)
    domains = recipe.make_domains()
    models = recipe.make_model(domains)
    save_models(models, run)
    (run / "recipe.toml").write_text(recipe.moved_to(run).to_toml())
    of = {name: model for model in models.values() for name in model.domains}
    scores = {
        "test": evaluate(of, domains, progress=False).to_json(),
        "seed": 0,
        "finished": "2026-01-01T00:00:00+00:00",
        "splits": {
            d.name: {s: len(d.splits[s]) for s in ("train", "val", "test")} for d in domains
        },
    }
    (run / "scores.json").write_text(json.dumps(scores))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    odd_photos(tmp_path / "photos")
    scenes(tmp_path / "scenes")
    return make_run(tmp_path)


def table_of(ran: Ran) -> Table:
    """Return the table in the output of `onetrunk eval --json`."""
    document = json.loads(ran.out)
    del document["run"], document["confusions"], document["details"]
    return Table.from_json(document)


# -- eval


def test_eval_prints_the_table_of_evaluate(onetrunk: Onetrunk, run: Path) -> None:
    expected = evaluate(models_of(run), Recipe.read(run).make_domains(), progress=False)
    ran = onetrunk("eval", "runs/two", "--json")
    assert table_of(ran) == expected
    found = json.loads(ran.out)
    assert found["run"] == "runs/two"
    pairs = found["confusions"]["shop"]["classify"]
    assert set(pairs[0]) == {"true", "predicted", "count", "share"}
    rows = list(csv.DictReader(io.StringIO(onetrunk("eval", str(run), "--csv").out)))
    assert [float(row["value"]) for row in rows] == [row.value for row in expected.rows]
    assert onetrunk("eval", str(run), "--latex").out == expected.to_latex()


def test_eval_prints_tables_and_confusions(onetrunk: Onetrunk, run: Path) -> None:
    ran = onetrunk("eval", str(run), "--domain", "shop", "--split", "val")
    assert ran.code == 0
    for fact in ("scores on val", "shop", "most confused classes", "ece", "  onetrunk predict"):
        assert fact in ran.out, fact
    assert "rooms" not in ran.out
    rooms = onetrunk("eval", str(run), "--domain", "rooms")
    assert "miou" in rooms.out
    assert "confused" not in rooms.out
    views = onetrunk("eval", str(run), "--domain", "rooms", "--scales", "0.75,1", "--mirror")
    assert "maps averaged over scales 0.75, 1, each also mirrored" in " ".join(views.out.split())
    assert "maps averaged" not in rooms.out


def test_errors_of_eval(onetrunk: Onetrunk, run: Path, tmp_path: Path) -> None:
    assert "available: shop, rooms" in one_line(onetrunk("eval", str(run), "--domain", "shp"))
    assert "available: test, val, train" in one_line(onetrunk("eval", str(run), "--split", "dev"))
    assert "--per-class" in one_line(onetrunk("eval", str(run), "--per-class", "--csv"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/photo.jpg").write_bytes(b"")
    assert "photo.jpg" in one_line(onetrunk("eval", str(run), "--out", "out"))
    assert "one of --json" in one_line(onetrunk("eval", str(run), "--json", "--csv"))
    assert "got: 'half'" in one_line(onetrunk("eval", str(run), "--scales", "half"))
    assert "0.25 to 4" in one_line(onetrunk("eval", str(run), "--scales", "0.1,1"))
    assert "no model in" in one_line(onetrunk("eval", str(tmp_path)))
    (run / "recipe.toml").unlink()
    assert "recipe.toml" in one_line(onetrunk("eval", str(run)))


def test_eval_writes_classes_confusions_reliability_and_worst_images(
    onetrunk: Onetrunk, run: Path, tmp_path: Path
) -> None:
    expected = evaluate(models_of(run), Recipe.read(run).make_domains(), progress=False)
    ran = onetrunk("eval", str(run), "--per-class", "--out", "evaluation")
    assert ran.code == 0, ran.err
    folder = tmp_path / "evaluation"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".onetrunk",
        "rooms.depth-worst.csv",
        "rooms.normals-worst.csv",
        "rooms.segment-classes.csv",
        "rooms.segment-worst.csv",
        *(f"shop-{name}" for name in ("classes.csv", "confusion.csv", "confusion.png")),
        *(f"shop-{name}" for name in ("reliability.csv", "reliability.png", "worst.csv")),
    ]
    assert "wrote 10 files into evaluation" in ran.out and "macro mean" in ran.out
    rows = list(csv.reader((folder / "shop-confusion.csv").open()))
    counts = np.array([row[1:] for row in rows[1:]], int)
    np.testing.assert_array_equal(counts, expected.confusion("shop").counts)
    classes = list(csv.DictReader((folder / "shop-classes.csv").open()))
    assert [row["class"] for row in classes] == ["cat", "dog", "fish"]
    assert [float(row["recall"]) for row in classes] == [
        one.recall for one in expected.per_class("shop")
    ]
    worst = list(csv.DictReader((folder / "shop-worst.csv").open()))
    assert len(worst) == counts.sum() - counts.trace()
    for row in worst:
        assert (tmp_path / "photos" / row["file"]).is_file()
        assert row["file"].split("/")[0] == row["given"] != row["predicted"]
    errors = [float(row["error"]) for row in worst]
    assert errors == sorted(errors, reverse=True)
    for name in ("confusion", "reliability"):
        with Image.open(folder / f"shop-{name}.png") as picture:
            assert min(picture.size) > 200
    assert onetrunk("eval", str(run), "--out", "evaluation").code == 0  # its own files


def test_train_images_are_evaluated_as_stored_and_with_a_note(
    onetrunk: Onetrunk, run: Path
) -> None:
    ran = onetrunk("eval", str(run), "--domain", "shop", "--split", "train", "--json")
    document = json.loads(ran.out)
    domain = Recipe.read(run).make_domains()[0]
    expected = evaluate(models_of(run), [domain], "train", progress=False)
    assert table_of(ran) == expected
    assert document["rows"][0]["count"] == len(domain.train)
    assert "not a measure of generalization" in ran.err
    details = document["details"]["shop"]["classify"]
    assert set(details) == {"classes", "means", "confusion", "reliability", "worst"}
    cells = details["confusion"]["cells"]
    assert sum(count for _, _, count in cells) == len(domain.train)


# -- predict


def test_predict_has_the_same_error_as_eval(onetrunk: Onetrunk, run: Path, tmp_path: Path) -> None:
    table = table_of(onetrunk("eval", str(run), "--domain", "shop", "--json"))
    domain = Recipe.read(run).make_domains()[0]
    keys = [domain.test.key(i) for i in range(len(domain.test))]
    for key in keys:
        (tmp_path / "test" / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "photos" / key, tmp_path / "test" / key)
    ran = onetrunk("predict", str(run), "test", "--domain", "shop")
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert sorted(row["file"] for row in rows) == sorted(f"test/{key}" for key in keys)
    assert {row["domain"] for row in rows} == {"shop"}
    wrong = [row["file"].split("/")[1] != row["classify"] for row in rows]
    assert 100 * sum(wrong) / len(wrong) == pytest.approx(table.value("shop"))
    model = models_of(run)["shop"]
    predictions = model.predict([tmp_path / row["file"] for row in rows], domain="shop")
    scores = [f"{prediction['classify']['score']:.4g}" for prediction in predictions]
    assert [f"{float(row['classify_score']):.4g}" for row in rows] == scores


def test_json_lines_hold_every_score(onetrunk: Onetrunk, run: Path) -> None:
    words = ("predict", str(run), "photos/cat/01.png", "photos/dog", "--domain", "shop")
    ran = onetrunk(*words, "--format", "jsonl")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert len(rows) == 25
    assert rows[0]["file"] == "photos/cat/01.png"
    assert set(rows[0]["classify"]["scores"]) == {"cat", "dog", "fish"}
    assert sum(rows[0]["classify"]["scores"].values()) == pytest.approx(1)
    assert "25 images" in ran.err


def test_a_broken_image_is_named_skipped_and_counted(onetrunk: Onetrunk, run: Path) -> None:
    folder = run.parents[1] / "photos/cat"
    (folder / "bro\x1b[31mken.png").write_bytes(b"a text")
    (folder / "cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("none")
    ran = onetrunk("predict", str(run), "photos/cat", "--domain", "shop")
    assert ran.code == 1
    assert len(ran.out.splitlines()) == 1 + 24
    assert r"skipped photos/cat/bro\x1b[31mken.png: not an image" in ran.err
    assert "skipped photos/cat/cut.jpg: " in ran.err
    assert "skipped 1 files" in ran.err
    assert "2 of 26 images could not be read" in ran.err
    alone = onetrunk("predict", str(run), "photos/cat/cut.jpg", "--domain", "shop")
    assert (alone.code, alone.out) == (1, "")


def test_maps_are_written_with_pictures_of_them(
    onetrunk: Onetrunk, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "new/sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "sub/a.png", "a.bmp")):
        Image.open(tmp_path / f"scenes/images/{i:02}.png").save(tmp_path / "new" / name)
    words = ("predict", str(run), "new", "--domain", "rooms")
    ran = onetrunk(*words, "--out", "maps", "--format", "jsonl")
    assert ran.code == 0, ran.err
    rows = {row["file"]: row for row in map(json.loads, ran.out.splitlines())}
    assert len({row["segment"]["map"] for row in rows.values()}) == 3  # also for a.png and a.bmp
    model = models_of(run)["rooms"]
    tasks = {task.name: task for task in model.domains["rooms"].tasks}
    for file, row in rows.items():
        prediction = model.predict(tmp_path / file, domain="rooms")
        for name, task in tasks.items():
            path = tmp_path / row[name]["map"]
            values = prediction[name]["map"]
            again = np.load(path) if path.suffix == ".npy" else read_target(task, path)
            np.testing.assert_allclose(again, values, atol=1e-5)
            stem = path.name.removesuffix(path.suffix)
            with Image.open(path.with_name(f"{stem}.overlay.png")) as overlay:
                assert (overlay.size, overlay.mode) == ((24, 16), "RGB")
    assert (tmp_path / "maps/sub/a.segment.png").is_file()
    metres = np.load(tmp_path / "maps/a.depth.npy")
    with Image.open(tmp_path / "maps/a.depth.png") as picture:
        millimetres = np.asarray(picture).astype(int)
    np.testing.assert_allclose(millimetres, (1000 * metres).clip(0, 65_535), atol=0.5)
    named = (tmp_path / "maps/segment.classes.txt").read_text().split()
    assert tuple(named) == tasks["segment"].classes
    assert "segment.legend.png" in ran.err
    assert "wrote 9 maps into maps" in ran.err
    assert "try: --out maps/" in one_line(onetrunk(*words))


def test_errors_of_predict(onetrunk: Onetrunk, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = str(run)
    for words, fact in (
        ((path, "photos"), "available: shop, rooms"),
        ((path, "photos", "--domain", "shp"), "got: 'shp'; available: shop"),
        ((path, "fotos", "--domain", "shop"), "no such image or folder; got: 'fotos'"),
        ((path, "empty", "--domain", "shop"), "the folder empty"),
        ((path, "photos", "--domain", "shop", "--out", "maps"), "a folder is for maps"),
        ((path, "photos", "--domain", "shop", "--format", "xml"), "available: csv, jsonl"),
        ((path, "photos", "--domain", "shop", "--out", "a.xlsx"), "available: .csv, .jsonl, .parq"),
        ((path, "photos", "--domain", "shop", "--out", "photos/cat/01.png"), "got: 'photos/cat"),
        ((path, "photos", "--domain", "shop", "--out", "a.csv", "--out", "b.csv"), "at most one"),
        (
            (path, "photos", "--domain", "shop", "--out", "a.csv", "--format", "csv"),
            "--format is for standard output",
        ),
        ((path, "photos", "--domain", "rooms", "--out", "a.csv"), "--out maps/"),
        ((str(tmp_path), "photos"), "no model in"),
    ):
        assert fact in one_line(onetrunk("predict", *words)), words
    assert onetrunk("predict", path).code == 2


def test_a_single_domain_is_the_default_and_shared_batch_norms_need_several_images(
    onetrunk: Onetrunk, tmp_path: Path
) -> None:
    odd_photos(tmp_path / "photos")
    text = RECIPE[: RECIPE.rindex("[[domains]]")]
    run = make_run(tmp_path, text, ("trunk.norm=shared-batch",))
    few = one_line(onetrunk("predict", str(run), "photos/cat/01.png"))
    assert "at least 8 images" in few
    assert len(onetrunk("predict", str(run), "photos").out.splitlines()) == 1 + 72


# -- info


def test_info_shows_domains_scores_and_sources(
    onetrunk: Onetrunk, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = onetrunk("info", str(run))
    assert ran.code == 0
    for fact in (
        "two in",
        "resnet20, norm domain, sharing deep; 1 network of",
        "3 classes: cat, dog, fish",
    ):
        assert fact in ran.out, fact
    for fact in (
        "shop",
        "12×20",
        "folder:photos",
        "error ",
        "depth",
        "miou ",
        "  onetrunk eval",
    ):
        assert fact in ran.out, fact
    described = ran.out[ran.out.index("\nfinished") :].split("Next, run:")[0].splitlines()
    assert max(map(len, described)) <= 80
    found = json.loads(onetrunk("info", str(run), "--json").out)
    score = found["domains"]["shop"]["scores"]["classify"]
    assert 0 <= score["low"] <= score["value"] <= score["high"] <= 100
    assert score["unit"] == "%" and score["images"] == found["domains"]["shop"]["images"]["test"]
    assert found["domains"]["shop"]["tasks"][0]["classes"] == ["cat", "dog", "fish"]
    assert found["domains"]["shop"]["size"] == [12, 20]
    assert found["domains"]["rooms"]["images"]["test"] > 0
    assert found["trunk"]["arch"] == "resnet20"


def test_info_of_specialists_and_of_a_model_without_recipe(
    onetrunk: Onetrunk, tmp_path: Path
) -> None:
    odd_photos(tmp_path / "photos")
    scenes(tmp_path / "scenes")
    run = make_run(tmp_path, RECIPE, ("trunk.sharing=none", "trunk.norm=shared"))
    found = json.loads(onetrunk("info", str(run), "--json").out)
    assert found["networks"] == 2
    plain = sum(p.numel() for p in nets.build("resnet20").parameters())
    heads = [m.heads_of(n).parameters() for n, m in models_of(run).items()]
    assert found["parameters"] == 2 * plain + sum(p.numel() for of in heads for p in of)
    assert found["bytes"] > 4 * found["parameters"]
    for name in ("recipe.toml", "scores.json"):
        (run / name).unlink()
    ran = onetrunk("info", str(run))
    assert ran.code == 0
    assert "2 networks" in ran.out
    assert "onetrunk eval" not in ran.out
    assert "no model in" in one_line(onetrunk("info", str(tmp_path)))


def test_info_never_cuts_a_source_or_an_interval(
    onetrunk: Onetrunk, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "48")
    wide = " ".join(onetrunk("info", str(run)).out.split())
    for row in json.loads(onetrunk("eval", str(run), "--json").out)["rows"]:
        if row["headline"] and row["kind"] == "classify":
            assert f"({number(row['low'], '%')}–{number(row['high'], '%')})" in wide
    assert "from folder:photos" in wide
    assert "…" not in wide  # three classes fit


def test_info_of_an_unfinished_run(onetrunk: Onetrunk, run: Path) -> None:
    shutil.rmtree(run / "model")
    (run / "checkpoints/step-40").mkdir(parents=True)
    ran = onetrunk("info", str(run))
    assert ran.code == 0
    assert "step 40" in ran.out
    assert f"  onetrunk train {run}/recipe.toml --resume" in ran.out
    assert json.loads(onetrunk("info", str(run), "--json").out)["step"] == 40


def test_an_unfinished_run_and_a_missing_one_are_no_models(onetrunk: Onetrunk, run: Path) -> None:
    shutil.rmtree(run / "model")
    (run / "scores.json").unlink()
    (run / "checkpoints").mkdir()
    resume = f"try: onetrunk train {run}/recipe.toml --resume"
    for words in (("eval",), ("predict", "photos", "--domain", "shop"), ("export", "x.onnx")):
        assert one_line(onetrunk(words[0], str(run), *words[1:])).endswith(resume), words
        missing = one_line(onetrunk(words[0], f"{run}x", *words[1:]))
        assert f"{run}x does not exist" in missing, words
        assert missing.endswith(f"try: {run}"), words
    with raises(BadInput, "unfinished", try_="--resume"):
        _ = Run(run).table
    with raises(BadInput, "does not exist", available=[str(run)]):
        Run(f"{run}x")


def test_help_shows_examples(onetrunk: Onetrunk) -> None:
    for verb, option in (("eval", "--latex"), ("predict", "--format"), ("info", "--json")):
        out = onetrunk(verb, "--help").out
        assert option in out
        assert f"onetrunk {verb} runs/" in out


def test_a_missing_image_is_named_once_with_the_images_beside_it(
    onetrunk: Onetrunk, run: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mixed"
    place.mkdir()
    for name in (".hidden.png", "run.log", "s.png", "t.jpg"):
        (place / name).touch()
    (place / "more").mkdir()
    error = one_line(onetrunk("predict", str(run), "mixed/nope.png", "--domain", "shop"))
    assert error.count("nope.png") == 1
    assert error.endswith("available: s.png, t.jpg, more")
