"""The Visual Decathlon: from its official layout to the file for the evaluation server."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.data.sources import SourceOptions, open_source
from onetrunk.data.sources.decathlon import Decathlon
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.decathlon_server import OFFICIAL_NAMES, Results, decathlon_results
from onetrunk.nn.saving import models_of
from tests.helpers.errors import raises
from tests.helpers.verbs import Ran, one_line

Onetrunk = Callable[..., Ran]
DOMAINS = {"aircraft": 3, "dtd": 2, "vgg-flowers": 4}  # classes of each
COUNTS = {"train": 6, "val": 3, "test": 4}  # images of a class
RECIPE = """
name = "ten"
out = "runs/ten"
[trunk]
arch = "resnet20"
sharing = "deep"
[train]
steps = 4
batch = 4
eval_every = 2
"""


def layout(root: Path) -> dict[str, dict[int, str]]:
    """Write a small copy of the official layout; return the paths of test images by domain and id.

    As in the devkit, image ids are unique over all domains, category ids have an offset per domain,
    categories are not sorted, and the test split has images but no annotations.
    """
    rng = np.random.default_rng(0)
    tests: dict[str, dict[int, str]] = {}
    for index, (name, classes) in enumerate(DOMAINS.items()):
        offset = 10_000_000 * (index + 1)
        numbers = iter(range(offset + 1, offset + 1000))
        categories = [
            {"id": offset + c + 1, "name": f"kind {c}", "supercategory": ""} for c in range(classes)
        ]
        tests[name] = {}
        for split, each in COUNTS.items():
            images: list[dict[str, Any]] = []
            rows = []
            for i in range(each * classes):
                number, c = next(numbers), i % classes
                folder = "" if split == "test" else f"{c + 1:04d}/"
                # file names are in the reverse order of the ids
                file = f"data/{name}/{split}/{folder}{900 - i:06d}.jpg"
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 40, (12, 9 + i % 4, 3), np.uint8) + 60 * c
                Image.fromarray(pixels).save(root / file)
                images.append({"id": number, "file_name": file, "width": 9, "height": 12})
                rows.append(
                    {"id": number, "image_id": number, "category_id": offset + c + 1, "bbox": []}
                )
            document: dict[str, Any] = {"images": images, "categories": categories[::-1]}
            if split == "test":
                tests[name] = {image["id"]: image["file_name"] for image in images}
            else:
                document["annotations"] = rows
            stem = f"{name}_{split}" + ("_stripped" if split == "test" else "")
            (root / "annotations").mkdir(exist_ok=True)
            (root / "annotations" / f"{stem}.json").write_text(json.dumps(document))
    return tests


def recipe(names: dict[str, str]) -> str:
    parts = [
        f'[[domains]]\nname = "{name}"\nsource = "{source}"\nsize = 8\n'
        for name, source in names.items()
    ]
    return RECIPE + "".join(parts)


USUAL = {name: f"decathlon:decathlon/{name}" for name in DOMAINS}


@pytest.mark.parametrize("sharing", ["deep", "none"])
def test_results_equal_predictions_of_single_files(
    onetrunk: Onetrunk, tmp_path: Path, sharing: str
) -> None:
    tests = layout(tmp_path / "decathlon")
    (tmp_path / "ten.toml").write_text(recipe(USUAL))
    ran = onetrunk("train", "ten.toml", "--set", f"trunk.sharing={sharing}")
    assert ran.code == 0, ran.err
    ran = onetrunk("predict", "runs/ten", "--decathlon", "sent/results.json")
    assert ran.code == 0, ran.err
    assert "in this run: cifar100, daimlerpedcls, gtsrb, imagenet12, omniglot" in ran.err
    assert "36 images of aircraft, dtd, vgg-flowers; try: --decathlon sent/results.zip" in ran.err

    rows = json.loads((tmp_path / "sent/results.json").read_text())
    assert all(set(row) == {"image_id", "category_id"} for row in rows)
    assert [row["image_id"] for row in rows] == [i for ids in tests.values() for i in ids]
    submitted = {row["image_id"]: row["category_id"] for row in rows}
    assert len(submitted) == len(rows) == 36
    # some domains have several predicted classes, so that a wrong order would be noticed
    assert len(set(submitted.values())) > len(DOMAINS)

    models = models_of("runs/ten")
    for index, (name, ids) in enumerate(tests.items()):  # from the files of the images
        files = [tmp_path / "decathlon" / file for file in ids.values()]
        predictions = models[name].predict(files, domain=name)
        labels = [
            int(prediction["classify"]["label"].removeprefix("kind ")) for prediction in predictions
        ]
        offset = 10_000_000 * (index + 1)
        assert [submitted[i] for i in ids] == [offset + c + 1 for c in labels]

    again = onetrunk("predict", "runs/ten", "--decathlon", "sent/results.zip")
    assert "results.zip: 36 images" in again.err
    with zipfile.ZipFile(tmp_path / "sent/results.zip") as archive:
        assert archive.namelist() == ["results.json"]
        assert json.loads(archive.read("results.json")) == rows


def test_only_validation_has_scores(onetrunk: Onetrunk, tmp_path: Path) -> None:
    layout(tmp_path / "decathlon")
    (tmp_path / "ten.toml").write_text(recipe(USUAL))
    assert onetrunk("train", "ten.toml").code == 0
    scores = json.loads((tmp_path / "runs/ten/scores.json").read_text())
    assert {row["domain"] for row in scores["val"]["rows"]} == set(DOMAINS)
    assert scores["test"]["rows"] == []
    assert scores["splits"]["dtd"] == {
        "how": "from the source", "train": 12, "val": 6, "test": 8
    }  # fmt: skip
    for words in (("eval", "runs/ten"), ("info", "runs/ten"), ("report", "runs/ten")):
        ran = onetrunk(*words)
        assert ran.code == 0, (words, ran.err)
    assert "dtd" in onetrunk("eval", "runs/ten", "--split", "val").out


def test_errors_of_predict_decathlon(onetrunk: Onetrunk, tmp_path: Path) -> None:
    home = tmp_path / "decathlon"
    layout(home)
    (tmp_path / "ten.toml").write_text(recipe({**USUAL, "other": "pocket:optdigits"}))
    ran = onetrunk("train", "ten.toml")
    assert ran.code == 0, ran.err
    words = ("predict", "runs/ten")
    assert "available: *.json, *.zip" in one_line(onetrunk(*words, "--decathlon", "results.txt"))
    assert "--decathlon takes no images or output options; got: 'images'" in one_line(
        onetrunk(*words, "photos", "--decathlon", "results.json")
    )
    assert "got: 'other'" in one_line(
        onetrunk(*words, "--decathlon", "results.json", "--domain", "other")
    )
    assert "expected image files" in one_line(onetrunk(*words))
    ran = onetrunk(*words, "--decathlon", "results.json")
    assert (
        "36 images of aircraft, dtd, vgg-flowers" in ran.err
    )  # `other` is not part of the challenge
    ran = onetrunk(*words, "--decathlon", "one.json", "--domain", "dtd")
    assert "wrote one.json: 8 images of dtd; try:" in ran.err
    (home / "data/dtd/test/000900.jpg").write_bytes(b"cut")
    message = one_line(onetrunk(*words, "--decathlon", "results.json"))
    assert "dtd" in message and "1 cannot be read" in message and "000900.jpg" in message
    assert len(json.loads((tmp_path / "results.json").read_text())) == 36  # unchanged


def make_domains(home: Path, *names: str, **more: Any) -> list[Domain]:
    return [Domain(n, f"decathlon:{home}/{n}", size=8, cache=False, **more) for n in names]


def model_of(domains: list[Domain], tmp_path: Path) -> Any:
    text = recipe({d.name: "pocket:optdigits" for d in domains})
    return Recipe.parse(text, tmp_path).make_model(domains)[""]


def test_image_ids_in_two_domains_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "decathlon"
    layout(home)
    (one,) = make_domains(home, "dtd")
    two = Domain("again", f"decathlon:{home}/dtd", size=8, cache=False)
    with raises(BadInput, " in dtd and again", try_="--domain NAME") as error:
        decathlon_results(model_of([one, two], tmp_path), [one, two])
    assert str(error.value.got).startswith("200")


def test_a_domain_without_a_list_of_test_images_is_refused(tmp_path: Path) -> None:
    """Its test split is then a part of the training images, which the server does not expect."""
    home = tmp_path / "decathlon"
    layout(home)
    (home / "annotations/dtd_test_stripped.json").unlink()
    domains = make_domains(home, "dtd")
    with raises(BadInput, "dtd", try_="dtd_test_stripped"):
        decathlon_results(model_of(domains, tmp_path), domains)


def test_only_classification_domains_of_the_challenge_are_accepted(tmp_path: Path) -> None:
    home = tmp_path / "decathlon"
    layout(home)
    embed = make_domains(home, "dtd", tasks=["embed"])
    with raises(BadInput, "dtd", "classify", got="embed"):
        decathlon_results(model_of(embed, tmp_path), embed)
    other = [Domain("digits", "pocket:optdigits")]
    with raises(BadInput, "digits", got="pocket:optdigits", try_="decathlon:ROOT/NAME"):
        decathlon_results(model_of(other, tmp_path), other)


def test_reordered_classes_keep_their_ids(tmp_path: Path) -> None:
    home = tmp_path / "decathlon"
    layout(home)
    order = ("kind 1", "kind 0")
    (reordered,) = make_domains(
        home, "dtd", tasks={"which": {"kind": "classify", "classes": order}}
    )
    model = model_of([reordered], tmp_path).eval()
    head = model.heads_of("dtd").head("which")
    last = [p for p in head.parameters() if p.shape == (2,)][-1]
    last.data.copy_(
        last.data.new_tensor([100.0, -100.0])
    )  # the first class, kind 1, is always predicted
    found = decathlon_results(model, [reordered])
    assert set(found.categories["dtd"].values()) == {20_000_002}
    last.data.fill_(float("nan"))
    with raises(Failed, "dtd/which", "data/dtd/test/"):
        decathlon_results(model, [reordered])


def test_missing_domains_are_named_as_in_the_challenge() -> None:
    assert len(set(OFFICIAL_NAMES)) == 10
    full = Results({name: {i: 1} for i, name in enumerate(OFFICIAL_NAMES)})
    assert (len(full), full.missing) == (10, ())
    assert Results({"dtd": {}}).missing == tuple(n for n in OFFICIAL_NAMES if n != "dtd")


def test_ids_of_the_source(tmp_path: Path) -> None:
    tests = layout(tmp_path / "decathlon")
    source = open_source("decathlon:decathlon/dtd", SourceOptions(tmp_path))
    assert isinstance(source, Decathlon)
    assert source.domain == "dtd"
    assert source.test_ids() == {file: number for number, file in tests["dtd"].items()}
    assert source.category_ids() == {"kind 0": 20_000_001, "kind 1": 20_000_002}
