"""Everything that can be wrong before training is found at once, and listed together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.config.check import read_all
from onetrunk.data.cache import cache_home
from onetrunk.errors import BadInput

HEAD = 'name = "x"\ntrunk = { arch = "resnet20" }\n'
DIGITS = '[[domains]]\nname = "digits"\nsource = "pocket:optdigits"\n'


def photos(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                root / name / f"{i}.png"
            )
    return root


def problems(text: str, folder: Path = Path(), *sets: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        Recipe.parse(HEAD + text, folder, sets).check()
    return str(caught.value).split("\n")


def test_a_sound_recipe_passes_and_its_domains_are_read(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    text = HEAD + DIGITS + '[[domains]]\nname = "shop"\nsource = "folder:photos"\nsize = 16\n'
    checked = Recipe.parse(text, tmp_path).check()
    assert [domain.name for domain in checked.domains] == ["digits", "shop"]
    assert len(checked.domains[1].train) > 0
    assert not any("digits" in line for line in checked.warnings)


def test_all_is_listed_at_once(tmp_path: Path) -> None:
    photos(tmp_path / "hollow", ("cat",))
    (tmp_path / "hollow/dog").mkdir()
    photos(tmp_path / "broken")
    for i in range(30):
        (tmp_path / f"broken/cat/bad{i}.png").write_bytes(b"a text")
    tables = "".join(
        f'[[domains]]\nname = "{name}"\nsource = "{source}"\nsize = 8\n'
        for name, source in (
            ("missing", "folder:nowhere"),
            ("hollow", "folder:hollow"),
            ("broken", "folder:broken"),
            ("unknown", "pocket:digit"),
            ("prefix", "foldr:photos"),
        )
    )
    found = problems(
        tables + DIGITS + "size = 1\n",
        tmp_path,
        *("init=runs/old", "train.loggers=['no.such:thing']", "trunk.norm=instance"),
    )
    for said in (
        "domains.missing: folder:nowhere: no such file or folder",
        "domains.hollow: folder:hollow: classes without images: 1 (dog)",
        "domains.broken: 2",
        "domains.unknown: no such embedded domain; got: 'digit'; available: digits",
        "domains.prefix: expected a source as PREFIX:REST",
        "domains.digits: ",
        "init: expected the folder of a finished run",
        "train.loggers: cannot import; got: 'no.such:thing'",
    ):
        assert any(line.startswith(said) for line in found), (said, found)
    assert any("train images cannot be read, more than max(1 %, 3)" in line for line in found)
    assert "needs maps larger than 1×1" in "\n".join(found)
    assert all("Traceback" not in line for line in found)


def test_a_trunk_that_is_not_there_is_found_beside_the_rest(tmp_path: Path) -> None:
    bad = '[[domains]]\nname = "missing"\nsource = "folder:nowhere"\n'
    found = problems(bad + DIGITS, tmp_path, "trunk.arch=resnet21")
    assert len(found) == 2
    assert any(line.startswith("trunk: ") and "resnet20" in line for line in found), found
    assert "own_stages: unknown stage" in str(
        problems(DIGITS, tmp_path, "trunk.sharing=partial", "trunk.own_stages=[9]")
    )


def test_weights_that_cannot_be(tmp_path: Path) -> None:
    (line,) = problems(DIGITS, tmp_path, "trunk.pretrained=true")
    assert line.startswith("trunk.pretrained: resnet20 has no weights to fetch")
    (line,) = problems(DIGITS, tmp_path, "trunk.pretrained=weights.pt")
    assert line.startswith("trunk: pretrained: no such file; got: 'weights.pt'")
    (line,) = problems(DIGITS, tmp_path, "trunk.arch=timm/seresnet18", "trunk.pretrained=true")
    said = "trunk.pretrained: timm has no weights of seresnet18; got: true; try: pretrained = "
    assert line == said + "false, or the path of a file"


def test_a_class_that_the_test_split_lacks_is_a_warning(tmp_path: Path) -> None:
    photos(tmp_path / "a/train", ("cat", "dog"))
    photos(tmp_path / "a/val", ("cat", "dog"), 4)
    photos(tmp_path / "a/test", ("cat", "dog"), 4)
    shutil.rmtree(tmp_path / "a/test/dog")
    text = HEAD + '[[domains]]\nname = "a"\nsource = "folder:a"\nsize = 8\n'
    checked = Recipe.parse(text, tmp_path).check()
    assert any("test lacks 1 of 2 classes: dog" in line for line in checked.warnings)
    assert all(line.startswith("a: ") for line in checked.warnings)


def test_joined_batches_need_one_size() -> None:
    two = DIGITS + '[[domains]]\nname = "emoji"\nsource = "pocket:emoji"\n'
    (line,) = problems(two, Path(), "train.sampling=joined")
    assert line.startswith("train.sampling: joined batches need one size for all domains")
    assert "digits 8×8, emoji 32×32" in line
    for sets in (["domains.emoji.size=8"], ["trunk.sharing=none"]):
        Recipe.parse(HEAD + two, sets=["train.sampling=joined", *sets]).check()


def test_statistics_of_a_batch_need_eight_images() -> None:
    (line,) = problems(DIGITS, Path(), "trunk.norm=shared-batch", "domains.digits.batch=4")
    assert line.startswith("domains.digits.batch: the norm 'shared-batch' needs at least 8")
    Recipe.parse(HEAD + DIGITS, sets=["trunk.norm=shared-batch", "train.batch=8"]).check()


@pytest.mark.parametrize("norm", ["shared", "domain", "domain-stats"])
def test_a_batch_norm_over_one_pixel(norm: str) -> None:
    sets = [f"trunk.norm={norm}", "trunk.arch=resnet38"]
    checked = Recipe.parse(HEAD + DIGITS, sets=sets).check()  # 8 × 8 / 8
    assert [line.split(" the ")[0] for line in checked.warnings] == ["domains.digits: at 8×8"]
    assert "its statistics are of 64 numbers" in checked.warnings[0]
    (line,) = problems(DIGITS, Path(), *sets, "train.batch=1")
    assert "batches of 1 image; try: a larger size or batch" in line
    assert (
        Recipe.parse(HEAD + DIGITS, sets=[*sets, "domains.digits.size=16"]).check().warnings == []
    )


def test_a_size_that_the_trunk_cannot_take(tmp_path: Path) -> None:
    sets = ["trunk.arch=timm/test_vit", "domains.digits.size=[8, 10000]", "trunk.norm=shared"]
    found = problems(DIGITS, tmp_path, *sets)
    assert found[0].startswith("domains.digits: timm/test_vit cannot take images of 8×10000"), found


def test_init_is_a_folder_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "runs/old/model").mkdir(parents=True)
    Recipe.parse(HEAD + DIGITS, tmp_path, ["init=runs/old"]).check()
    (line,) = problems(DIGITS, tmp_path, "init=runs/new")
    assert line.startswith("init: expected the folder of a finished run")


def test_data_is_looked_at_even_where_the_text_is_wrong(tmp_path: Path) -> None:
    bad = '[[domains]]\nname = "missing"\nsource = "folder:nowhere"\n'
    text = HEAD + bad + DIGITS + "size = 0\n[train]\nlr = 0\n"
    with pytest.raises(BadInput) as caught:
        read_all(text, tmp_path)
    found = str(caught.value).split("\n")
    assert [line.split(":")[0] for line in found] == [
        *("domains.digits.size", "train.lr", "domains.missing"),
    ]
    assert not list(cache_home().rglob("images.bin"))  # no image was decoded for it
    assert read_all(HEAD + DIGITS, tmp_path, ["seed=3"]).seed == 3
    with pytest.raises(BadInput, match="not TOML"):
        read_all("a = ", tmp_path)
