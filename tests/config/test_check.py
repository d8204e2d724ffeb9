"""Checks before training: all problems are listed at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.config.check import Checked, check, parse_and_check
from onetrunk.data.cache import cache_home
from onetrunk.errors import BadInput, OnetrunkError
from tests.helpers.errors import raises

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


def checked(text: str, folder: Path = Path(), *sets: str) -> Checked:
    return check(Recipe.parse(HEAD + text, folder, sets))


def problems(text: str, folder: Path = Path(), *sets: str) -> list[OnetrunkError]:
    with pytest.raises(BadInput) as caught:
        checked(text, folder, *sets)
    return list(caught.value.errors)


def test_a_valid_recipe_passes_and_its_domains_are_read(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    text = DIGITS + '[[domains]]\nname = "shop"\nsource = "folder:photos"\nsize = 16\n'
    found = checked(text, tmp_path)
    assert [domain.name for domain in found.domains] == ["digits", "shop"]
    assert len(found.domains[1].train) > 0
    assert not any("digits" in line for line in found.warnings)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
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
    for place, fact in (
        ("domains.missing", "nowhere"),
        ("domains.hollow", "1 (dog)"),
        ("domains.broken", "train images"),
        ("domains.unknown", "digits"),
        ("domains.prefix", "folder:"),
        ("domains.digits", "1×1"),
        ("init", "runs/old"),
        ("train.loggers", "no.such:thing"),
    ):
        assert any(error.place == place and fact in str(error) for error in found), (place, found)
    assert all("Traceback" not in str(error) for error in found)


def test_an_unknown_trunk_is_listed_with_other_problems(tmp_path: Path) -> None:
    bad = '[[domains]]\nname = "missing"\nsource = "folder:nowhere"\n'
    found = problems(bad + DIGITS, tmp_path, "trunk.arch=resnet21")
    assert [error.place for error in found] == ["domains.missing", "trunk.arch"]
    assert "resnet20" in str(found[1])
    sets = ("trunk.sharing=partial", "trunk.own_stages=[9]")
    (error,) = problems(DIGITS, tmp_path, *sets)
    assert (error.place, error.got) == ("trunk", "9")


def test_weights_that_do_not_exist(tmp_path: Path) -> None:
    (error,) = problems(DIGITS, tmp_path, "trunk.pretrained=true")
    assert (error.place, error.got) == ("trunk.pretrained", True)
    assert "resnet20" in error.expected
    (error,) = problems(DIGITS, tmp_path, "trunk.pretrained=weights.pt")
    assert error.place == "trunk"
    assert "weights.pt" in str(error.got)
    (error,) = problems(DIGITS, tmp_path, "trunk.arch=timm/seresnet18", "trunk.pretrained=true")
    assert (error.place, error.got) == ("trunk.pretrained", True)
    assert "seresnet18" in error.expected
    assert "pretrained = false" in str(error.try_)


def test_a_class_that_the_test_split_lacks_is_a_warning(tmp_path: Path) -> None:
    photos(tmp_path / "a/train", ("cat", "dog"))
    photos(tmp_path / "a/val", ("cat", "dog"), 4)
    photos(tmp_path / "a/test", ("cat", "dog"), 4)
    shutil.rmtree(tmp_path / "a/test/dog")
    found = checked('[[domains]]\nname = "a"\nsource = "folder:a"\nsize = 8\n', tmp_path)
    assert any("test" in line and "1 of 2" in line and "dog" in line for line in found.warnings)
    assert all(line.startswith("a: ") for line in found.warnings)


def test_joined_batches_need_one_size() -> None:
    two = DIGITS + '[[domains]]\nname = "emoji"\nsource = "pocket:emoji"\n'
    (error,) = problems(two, Path(), "train.sampling=joined")
    assert (error.place, error.got) == ("train.sampling", "digits 8×8, emoji 32×32")
    for change in ("domains.emoji.size=8", "trunk.sharing=none"):
        checked(two, Path(), "train.sampling=joined", change)


def test_statistics_of_a_batch_need_eight_images() -> None:
    (error,) = problems(DIGITS, Path(), "trunk.norm=shared-batch", "domains.digits.batch=4")
    assert (error.place, error.got) == ("domains.digits.batch", 4)
    assert "8" in error.expected
    checked(DIGITS, Path(), "trunk.norm=shared-batch", "train.batch=8")


@pytest.mark.parametrize("norm", ["shared", "domain", "domain-stats"])
def test_a_batch_norm_over_one_pixel(norm: str) -> None:
    sets = [f"trunk.norm={norm}", "trunk.arch=resnet38"]
    (warning,) = checked(DIGITS, Path(), *sets).warnings  # 8 × 8 / 8
    assert warning.startswith("domains.digits: at 8×8")
    assert "64" in warning
    (error,) = problems(DIGITS, Path(), *sets, "train.batch=1")
    assert error.place == "domains.digits"
    assert "1 image" in error.expected
    assert "batch" in str(error.try_)
    assert checked(DIGITS, Path(), *sets, "domains.digits.size=16").warnings == []


def test_a_size_that_the_trunk_cannot_take(tmp_path: Path) -> None:
    sets = ["trunk.arch=timm/test_vit", "domains.digits.size=[8, 10000]", "trunk.norm=shared"]
    (error,) = problems(DIGITS, tmp_path, *sets)
    assert error.place == "domains.digits"
    assert "timm/test_vit" in error.expected
    assert "8×10000" in error.expected


def test_init_is_a_folder_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "runs/old/model").mkdir(parents=True)
    checked(DIGITS, tmp_path, "init=runs/old")
    (error,) = problems(DIGITS, tmp_path, "init=runs/new")
    assert (error.place, error.got) == ("init", "runs/new")


def test_missing_data_is_listed_with_wrong_keys(tmp_path: Path) -> None:
    bad = '[[domains]]\nname = "missing"\nsource = "folder:nowhere"\n'
    text = HEAD + bad + DIGITS + "size = 0\n[train]\nlr = 0\n"
    with pytest.raises(BadInput) as caught:
        parse_and_check(text, tmp_path)
    assert [error.place for error in caught.value.errors] == [
        *("domains.digits.size", "train.lr", "domains.missing"),
    ]
    assert not list(cache_home().rglob("images.bin"))  # no image was decoded for it
    assert parse_and_check(HEAD + DIGITS, tmp_path, ["seed=3"]).seed == 3
    with raises(BadInput, "TOML"):
        parse_and_check("a = ", tmp_path)
