"""Images that a run was trained on keep their split when images are added to their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from onetrunk.config import Recipe, Train
from onetrunk.config.check import check
from onetrunk.data.domain import Domain
from onetrunk.data.kept_splits import FILE
from onetrunk.data.splitting import SPLITS
from onetrunk.nn.saving import load
from onetrunk.runs.add import add, import_pack
from onetrunk.runs.open import Run
from onetrunk.runs.pack_store import remove
from onetrunk.runs.train import train
from onetrunk.runs.update import relabel, undo, update
from tests.helpers.added import FEW
from tests.helpers.verbs import photos
from tests.helpers.worlds import network


def shop(root: Path) -> Domain:
    return Domain("shop", f"folder:{root}", size=8)


def splits_of(domain: Domain) -> dict[str, str]:
    return {k: SPLITS[c] for k, c in zip(domain.index.keys, domain.index.split, strict=True)}


def grow(root: Path, each: int, name: str) -> None:
    """Add images to each class, whose names and so whose hashes are others."""
    more = photos(root.with_name(name), each=each)
    for folder in more.iterdir():
        for file in folder.iterdir():
            file.rename(root / folder.name / f"{name}-{file.name}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", each=30)


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    domain = shop(root)
    train(network([domain]), [domain], out=tmp_path / "run", train=Train(**FEW))
    return tmp_path / "run"


def test_an_update_moves_no_image(run: Path, root: Path) -> None:
    before = splits_of(shop(root))
    assert splits_of(Run(run).domains["shop"]) == before
    grow(root, 40, "more")
    fresh = splits_of(shop(root))
    assert any(fresh[key] != split for key, split in before.items())  # or this test shows nothing
    grown = splits_of(Run(run).domains["shop"])  # what `eval` reads
    assert before.items() <= grown.items()
    result = update(run, shop(root), train=Train(**FEW))
    assert splits_of(Run(run).domains["shop"]) == grown
    counts = [result.record["splits"][split] for split in SPLITS]
    assert counts == pytest.approx([98, 21, 21], abs=1)  # 49, 10.5 and 10.5 of each class

    (root / "cat/000.png").rename(root.parent / "kept.png")  # gone, and back in the next version
    grow(root, 5, "again")
    update(run, shop(root), train=Train(**FEW))
    (root.parent / "kept.png").rename(root / "cat/000.png")
    latest = splits_of(Run(run).domains["shop"])
    assert grown.items() <= latest.items()
    relabel(run, "shop", rename={"cat": "kitten"})
    assert splits_of(Run(run).domains["shop"]) == latest
    undo(run, "shop")
    undo(run, "shop")
    assert grown.items() <= splits_of(Run(run).domains["shop"]).items()
    undo(run, "shop")
    assert before.items() <= splits_of(Run(run).domains["shop"]).items()


def test_an_added_domain_keeps_its_splits(run: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", each=30)
    new = Domain("new", f"folder:{other}", size=8)
    add(run, new, few=False, train=Train(**FEW))
    before = splits_of(new)
    assert (run / "added/new" / FILE).is_file()
    grow(other, 30, "more")
    assert before.items() <= splits_of(Run(run).domains["new"]).items()
    pack = remove(run, "new")
    again = Domain("new", f"folder:{other}", size=8)
    assert not before.items() <= splits_of(again).items()
    import_pack(run, "new", pack)
    assert before.items() <= splits_of(Run(run).domains["new"]).items()


def test_a_training_that_starts_from_the_run_moves_no_image(run: Path, root: Path) -> None:
    before = splits_of(shop(root))
    grow(root, 40, "more")
    text = f"""
name = "next"
init = "{run.as_posix()}"
[trunk]
arch = "resnet20"
[[domains]]
name = "shop"
source = "folder:{root.as_posix()}"
size = 8
"""
    (domain,) = check(Recipe.parse(text, run.parent)).domains
    assert before.items() <= splits_of(domain).items()
    (fresh,) = check(Recipe.parse(text.replace("init", "# init"), run.parent)).domains
    assert not before.items() <= splits_of(fresh).items()


def test_splits_of_the_source_need_no_file(tmp_path: Path) -> None:
    root = tmp_path / "named"
    for split in SPLITS:
        photos(root / split, each=4)
    domain = shop(root)
    run = train(network([domain]), [domain], out=tmp_path / "run", train=Train(**FEW))
    assert not (run.folder / FILE).exists()
    assert load(run.folder).domains["shop"].name == "shop"


def test_the_images_of_a_renamed_class_keep_their_splits(run: Path, root: Path) -> None:
    before = splits_of(Run(run).domains["shop"])
    (root / "cat").rename(root / "kitten")
    moved = {key.replace("cat/", "kitten/"): split for key, split in before.items()}
    assert splits_of(shop(root)) != moved  # or this test shows nothing
    update(run, shop(root), rename={"cat": "kitten"}, train=Train(**FEW))
    assert splits_of(Run(run).domains["shop"]) == moved
