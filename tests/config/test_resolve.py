"""Values that depend on the machine are chosen once, and an existing run decides for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import onetrunk as ot
from onetrunk.config import Recipe
from onetrunk.config import resolve as module
from onetrunk.config.check import check
from onetrunk.config.resolve import default_size, resolve
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.auto_trunk import Chosen
from tests.helpers.errors import raises

CPU = torch.device("cpu")
HALF = ((0.5,) * 3,) * 2  # the normalization of timm's test_resnet
FIRST = Chosen("timm/test_resnet", True, "apache-2.0", "a first machine")
SECOND = Chosen("timm/test_vit", True, "apache-2.0", "a second machine")


def images(root: Path, sides: tuple[int, ...], each: int = 5) -> str:
    """Write a class of images for each length of the shorter side; return the source."""
    for side in sides:
        (root / str(side)).mkdir(parents=True)
        for i in range(each):
            picture = Image.fromarray(np.full((side, side + i, 3), 40 * i, np.uint8))
            picture.save(root / str(side) / f"{i}.png")
    return f"folder:{root.as_posix()}"


def recipe(*sources: str, sets: tuple[str, ...] = (), folder: Path = Path()) -> Recipe:
    tables = "".join(
        f"[[domains]]\nname = 'd{i}'\nsource = '{source}'\n" for i, source in enumerate(sources)
    )
    return Recipe.parse(f"name = 'a'\n{tables}", folder, sets)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Chosen]:
    """What the machine chooses: the last of a list; FIRST at the beginning."""
    chosen = [FIRST]
    monkeypatch.setattr(module, "choose_trunk", lambda _: chosen[-1])
    return chosen


def test_architecture_weights_and_normalization_become_concrete() -> None:
    found = resolve(recipe("pocket:optdigits", "pocket:emoji"), CPU)
    assert (found.recipe.trunk.arch, found.recipe.trunk.pretrained) == ("timm/test_resnet", True)
    assert [domain.normalize for domain in found.recipe.domains] == [HALF, HALF]
    assert [domain.size for domain in found.recipe.domains] == [None, None]  # of the source
    assert found.notes == (str(FIRST),)
    assert found.recipe.train == recipe("pocket:optdigits").train
    assert resolve(found.recipe, CPU).recipe == found.recipe  # nothing is left to choose
    assert not resolve(found.recipe, CPU).notes


def test_what_is_set_is_never_changed() -> None:
    sets = ("domains.*.size=48", 'domains.*.normalize="dataset"')
    found = resolve(recipe("pocket:optdigits", sets=sets), CPU).recipe
    assert (found.domains[0].size, found.domains[0].normalize) == (48, "dataset")
    plain = recipe("pocket:optdigits", "folder:x", sets=("trunk.arch=resnet20",))
    assert resolve(plain, CPU).recipe is plain  # no source is opened for random weights


@pytest.mark.parametrize(
    ("sides", "on_cpu", "on_gpu"),
    [((8,), 64, 64), ((28,), 64, 64), ((70,), 96, 96), ((100,), 96, 128), ((300,), 96, 224)],
)
def test_the_default_size_is_that_of_the_device_and_small_images_stay_small(
    tmp_path: Path, sides: tuple[int, ...], on_cpu: int, on_gpu: int
) -> None:
    domain = Domain("d", images(tmp_path, sides))
    assert default_size(domain, "cpu") == (on_cpu, sides[0])
    assert default_size(domain, "gpu") == (on_gpu, sides[0])
    assert "listing" not in vars(domain) and "decoded" not in vars(domain)


def test_sizes_are_said_in_one_line(tmp_path: Path) -> None:
    sources = [images(tmp_path / str(side), (side,)) for side in (300, 28)]
    found = resolve(recipe(*sources, "pocket:emoji"), CPU)
    assert [domain.size for domain in found.recipe.domains] == [96, 64, None]
    _, line = found.notes
    assert all(word in line for word in ("96", "d0", "d1 64", "28", "CPU", "domains.NAME.size"))
    assert "d2" not in line


def test_unreadable_images_and_missing_sources_are_reported_by_the_check(
    tmp_path: Path, machine: list[Chosen]
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/0.png").write_bytes(b"text")
    bad = Domain("d", f"folder:{(tmp_path / 'a').as_posix()}")
    assert default_size(bad, "cpu") == (96, None)
    machine.append(Chosen("resnet20", False, "mit", "without weights to download"))
    with raises(BadInput, place="domains.d0"):
        check(recipe("folder:nothing-here", folder=tmp_path))


def test_a_run_is_never_changed_by_another_machine(tmp_path: Path, machine: list[Chosen]) -> None:
    one = recipe(images(tmp_path / "i", (300,)), folder=tmp_path)
    first = resolve(one, CPU).recipe
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/recipe.toml").write_text(first.text_in(tmp_path / "runs/a"))
    machine.append(SECOND)
    again = resolve(one.with_sets(["seed=0"]), CPU)
    assert again.recipe.to_toml() == first.to_toml()
    assert again.notes == ()
    other = one.with_sets(["out=runs/b"])
    assert resolve(other, CPU).recipe.trunk.arch == "timm/test_vit"
    assert resolve(other, CPU, like=first).recipe.trunk.arch == "timm/test_resnet"


def test_a_run_in_init_decides_the_architecture(tmp_path: Path) -> None:
    model = ot.Universal(ot.Trunk("resnet20"), [ot.Domain("d0", "pocket:optdigits")])
    ot.save(model, tmp_path / "first")
    found = resolve(recipe("pocket:optdigits", sets=("init=first",), folder=tmp_path), CPU)
    assert (found.recipe.trunk.arch, found.recipe.trunk.pretrained) == ("resnet20", False)
    assert found.recipe.train.lr == 1e-3
    with raises(BadInput):
        resolve(recipe("pocket:optdigits", sets=("init=nothing",), folder=tmp_path), CPU)


def test_what_the_trunk_of_a_run_was_trained_with_is_taken_over(tmp_path: Path) -> None:
    def trained(*numbers: str) -> Recipe:
        first = recipe("pocket:optdigits", "pocket:emoji", sets=numbers, folder=tmp_path)
        (tmp_path / "first").mkdir(exist_ok=True)
        (tmp_path / "first/recipe.toml").write_text(first.to_toml())
        sets = ("trunk.arch=resnet20", "init=first", "domains.d1.size=32")
        return recipe("folder:a", "folder:b", "folder:c", sets=sets, folder=tmp_path)

    same = ("domains.*.size=48", f"domains.*.normalize={[list(row) for row in HALF]}")
    found = resolve(trained("trunk.arch=resnet20", *same), CPU)
    assert [domain.size for domain in found.recipe.domains] == [48, 32, 48]
    assert [domain.normalize for domain in found.recipe.domains] == [HALF] * 3
    assert "first" in found.notes[0]
    other = trained("trunk.arch=resnet20", "domains.d0.size=48")
    sizes = [domain.size for domain in resolve(other, CPU).recipe.domains]
    assert sizes == [48, 32, None]  # a new domain where those of the run differ
    plain = trained("trunk.arch=resnet20")
    assert resolve(plain, CPU).recipe is plain


def test_a_missing_trunk_is_listed_with_the_other_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: torch.device | None) -> Chosen:
        raise Failed("no pretrained trunk", try_="pip install 'onetrunk[lite]'")

    monkeypatch.setattr(module, "choose_trunk", none)
    wrong = recipe("folder:nothing-here", sets=('train.loggers=["wnadb:X"]',), folder=tmp_path)
    with raises(BadInput, place="trunk.arch", try_="onetrunk[lite]") as info:
        check(wrong)
    places = {error.place for error in info.value.errors}
    assert {"trunk.arch", "train.loggers"} < places
    assert any(place.startswith("domains.d0") for place in places)
