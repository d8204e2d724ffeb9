"""A recipe: read, complete, equal to what it writes, and sharp where it is wrong."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onetrunk.config import DomainPart, Recipe, Train, TrunkPart, named_recipes
from onetrunk.errors import BadInput

SMALL = """
name = "shop"
[[domains]]
name = "digits"
source = "pocket:digits"
"""
LARGE = """
name = "shop"
seed = 3
out = "elsewhere/shop"
base = "data"
[trunk]
arch = "timm/resnet18"
pretrained = "weights.safetensors"
sharing = "partial"
own_stages = [1, "stem"]
adapters = "package.module:thing"
adapter_layers = ["layer1.*"]
[[domains]]
name = "catalogue"
source = 'table:C:\\catalogue "new".csv'
image = "path"
group = "item_id"
size = [96, 128]
fit = "crop"
flip = true
weight = 2
batch = 16
augment = { area = [0.5, 1], brightness = 0.2, pad = 3 }
normalize = [[0.5, 0.5, 0.5], [0.2, 0.2, 0.25]]
[domains.tasks]
category = { kind = "classify", column = "category", classes = ["a", "é"] }
"quoted-name" = { kind = "regress", outputs = 2, unit = "m" }
[[domains]]
name = "scenes"
source = "folder:scenes"
tasks = ["segment", "depth"]
[train]
epochs = 10
optimizer = "sgd"
lr = 0.1
schedule = "step"
milestones = [0.3, 0.6, 0.9]
loggers = ["tensorboard", "my.module:Logger"]
"""


def lines(text: str, *sets: str) -> list[str]:
    """What is wrong with a recipe."""
    with pytest.raises(BadInput) as caught:
        Recipe.parse(text, sets=sets)
    return str(caught.value).split("\n")


def test_all_but_name_and_domains_has_a_default() -> None:
    recipe = Recipe.parse(SMALL)
    assert (recipe.seed, recipe.out, recipe.init, recipe.base) == (0, "runs/shop", "", ".")
    assert recipe.trunk == TrunkPart()
    assert (recipe.trunk.arch, recipe.trunk.norm, recipe.trunk.sharing) == (
        *("resnet26", "domain", "deep"),
    )
    train = recipe.train
    assert (train.steps, train.epochs, train.hours) == (4000, None, None)
    assert (train.optimizer, train.lr, train.weight_decay) == ("adamw", 1e-3, 0.05)
    assert recipe.domains == (DomainPart(name="digits", source="pocket:digits"),)


@pytest.mark.parametrize("text", [SMALL, LARGE])
def test_what_it_writes_is_complete_and_parses_to_the_same(text: str) -> None:
    recipe = Recipe.parse(text)
    written = recipe.to_toml()
    assert Recipe.parse(written) == recipe
    assert Recipe.parse(written).to_toml() == written
    document = tomllib.loads(written)
    lengths = {"steps", "epochs", "hours"}
    assert list(document) == list(Recipe.model_fields)  # in the order of the declaration
    assert set(document["trunk"]) == set(TrunkPart.model_fields)
    assert set(document["train"]) - lengths == set(Train.model_fields) - lengths
    assert len(lengths & set(document["train"])) == 1
    for domain in document["domains"]:
        assert set(domain) == set(DomainPart.model_fields)


def test_the_written_values_are_those_of_the_file() -> None:
    document = tomllib.loads(Recipe.parse(LARGE).to_toml())
    first, second = document["domains"]
    assert first["source"] == 'table:C:\\catalogue "new".csv'
    assert first["tasks"] == {
        "category": {"kind": "classify", "column": "category", "classes": ["a", "é"]},
        "quoted-name": {"kind": "regress", "outputs": 2, "unit": "m"},
    }
    assert first["augment"] == {"area": [0.5, 1], "brightness": 0.2, "pad": 3}
    assert (first["size"], first["batch"], first["flip"]) == ([96, 128], 16, True)
    assert second["tasks"] == ["segment", "depth"]
    assert (second["size"], second["batch"], second["flip"]) == ("auto", "auto", "auto")
    assert (second["image"], second["group"], second["split"]) == ("", "", "")
    assert document["train"]["epochs"] == 10
    assert document["train"]["weight_decay"] == 5e-4  # that of sgd
    assert document["trunk"]["own_stages"] == [1, "stem"]


def test_a_written_recipe_explains_each_key_once() -> None:
    written = Recipe.parse(LARGE).to_toml()
    assert "optimizer = " in written and "# adamw | sgd (with Nesterov)" in written
    assert written.count("# squash | pad | crop") == 1
    order = ["name =", "[trunk]", "[[domains]]", "[domains.tasks]", "\n[train]"]
    places = [written.index(head) for head in order]
    assert places == sorted(places)


@given(
    st.text(max_size=20),
    st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300),
    st.integers(0, 2**63 - 1),
)
def test_any_text_and_number_survive_writing(text: str, lr: float, seed: int) -> None:
    recipe = Recipe(
        name="x",
        seed=seed,
        domains=(DomainPart(name="a", source=f"folder:{text}"),),
        train=Train(lr=lr),
    )
    assert Recipe.parse(recipe.to_toml()) == recipe


def test_it_is_frozen() -> None:
    recipe = Recipe.parse(SMALL)
    with pytest.raises(ValidationError):
        recipe.seed = 1
    with pytest.raises(ValidationError):
        recipe.train.lr = 1.0


# -- files


def test_reading_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(LARGE, "utf-8")
    recipe = Recipe.read(tmp_path / "a.toml")
    assert recipe == Recipe.parse(LARGE)
    assert recipe.root == tmp_path / "data"
    assert recipe.out_folder == tmp_path / "data/elsewhere/shop"
    assert recipe.init_folder is None
    assert {domain.base for domain in recipe.make_domains()} == {tmp_path / "data"}
    (tmp_path / "recipe.toml").write_text(SMALL)
    assert Recipe.read(tmp_path, ["seed=5"]).seed == 5
    assert Recipe.read(tmp_path, ["init=runs/old"]).init_folder == tmp_path / "runs/old"


def test_a_file_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(SMALL)
    with pytest.raises(BadInput, match=r"cannot read the recipe .*available: shop.toml, folders"):
        Recipe.read(tmp_path / "shp.toml")
    (tmp_path / "latin.toml").write_bytes("name = 'é'".encode("latin-1"))
    with pytest.raises(BadInput, match="not a text in UTF-8"):
        Recipe.read(tmp_path / "latin.toml")
    (tmp_path / "vast.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(BadInput, match="at most 1 MB"):
        Recipe.read(tmp_path / "vast.toml")


def test_paths_hold_after_a_move(tmp_path: Path) -> None:
    home = tmp_path / "project"
    (home / "data").mkdir(parents=True)
    (home / "a.toml").write_text(LARGE, "utf-8")
    recipe = Recipe.read(home / "a.toml")
    run = recipe.out_folder
    run.mkdir(parents=True)
    moved = recipe.moved_to(run)
    assert moved.base == "../.."
    assert moved.root.resolve() == recipe.root.resolve()
    (run / "recipe.toml").write_text(moved.to_toml(), "utf-8")
    again = Recipe.read(run)
    assert again.out_folder.resolve() == run.resolve()
    assert again.moved_to(run).to_toml() == moved.to_toml()
    assert moved.differences(recipe) == ["base: '../..' and 'data'"]


def test_paths_hold_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk/deep/runs").mkdir(parents=True)
    home = tmp_path / "project"
    home.mkdir()
    (home / "runs").symlink_to(tmp_path / "disk/deep/runs")
    (home / "a.toml").write_text(SMALL)
    recipe = Recipe.read(home / "a.toml")
    recipe.out_folder.mkdir()
    moved = recipe.moved_to(recipe.out_folder)
    assert moved.root.resolve() == home.resolve()


def test_an_absolute_base_stays(tmp_path: Path) -> None:
    recipe = Recipe.parse(SMALL, tmp_path, [f"base={tmp_path.as_posix()}/a"])
    assert recipe.moved_to(tmp_path / "elsewhere").base == f"{tmp_path.as_posix()}/a"
    assert recipe.root == tmp_path / "a"


# -- others like it


def test_sets_change_what_they_name_and_nothing_else() -> None:
    recipe = Recipe.parse(LARGE)
    other = recipe.with_sets(
        [
            *("train.lr=0.3", "domains.scenes.size=96", "trunk.arch=timm/resnet50"),
            *("train.hours=2", "domains.catalogue.tasks.category.column=kind", "name=new"),
        ]
    )
    assert other.train.lr == 0.3
    assert other.domains[1].size == 96
    assert recipe.differences(other) == [
        "name: 'shop' and 'new'",
        "trunk.arch: 'timm/resnet18' and 'timm/resnet50'",
        "domains.catalogue.tasks.category.column: 'category' and 'kind'",
        "domains.scenes.size: 'auto' and 96",
        "train.epochs: 10.0 and not there",
        "train.lr: 0.1 and 0.3",
        "train.hours: not there and 2.0",
    ]
    assert recipe == Recipe.parse(LARGE)
    assert recipe.differences(recipe) == []


def test_what_was_not_said_follows_a_set() -> None:
    recipe = Recipe.parse(SMALL)
    other = recipe.with_sets(["name=new", "train.optimizer=sgd"])
    assert other.out == "runs/new"
    assert other.train.weight_decay == 5e-4
    said = Recipe.parse(recipe.to_toml()).with_sets(["name=new", "train.optimizer=sgd"])
    assert (said.out, said.train.weight_decay) == ("runs/shop", 0.05)


def test_a_wrong_set_is_as_wrong_as_a_wrong_file() -> None:
    assert lines(SMALL, "train.lrr=1")[0].startswith(
        "train.lrr: unknown key; got: 'lrr'; available: lr"
    )
    assert lines(SMALL, "trian.lr=1")[0].startswith(
        "trian: unknown key; got: 'trian'; available: train"
    )
    (line,) = lines(SMALL, "domains.digit.size=3")
    assert line.startswith("--set domains.digit: no such domain; got: 'digit'; available: digits")
    assert "--set name.x" not in lines(SMALL, "name.x=3")[0]


def test_a_grid_is_checked_before_anything_runs() -> None:
    recipe = Recipe.parse(SMALL)
    chosen = recipe.grid(["train.lr=0.1,0.03", "trunk.norm=shared,domain", "seed=2"])
    expected = itertools.product(["0.1", "0.03"], ["shared", "domain"])
    assert [sets for _, sets in chosen] == [
        [f"train.lr={lr}", f"trunk.norm={norm}", "seed=2"] for lr, norm in expected
    ]
    with pytest.raises(BadInput, match=r"train\.lr: expected a number above 0"):
        recipe.grid(["train.lr=0.1,0"])


def test_from_domains() -> None:
    recipe = Recipe.from_domains(["shop=folder:photos/shop", "digits=pocket:digits"])
    assert recipe.name == "shop-digits"
    assert [part.source for part in recipe.domains] == ["folder:photos/shop", "pocket:digits"]
    assert recipe.train == Train()
    assert Recipe.from_domains(["a=pocket:digits"], name="mine").out == "runs/mine"
    with pytest.raises(BadInput, match="--domain is NAME=SOURCE"):
        Recipe.from_domains(["folder:photos"])
    with pytest.raises(BadInput, match="at least one domain"):
        Recipe.from_domains([])


NAMED = ["folders", "pocket", "pocket-quick", "pocket-specialists", "rooms-specialists"]
DENSE = [f"universal-2022-{d}{s}" for d in ("cityscapes", "nyuv2") for s in ("", "-specialists")]


def test_named_recipes() -> None:
    found = named_recipes()
    assert set(NAMED) <= set(found)
    assert {"universal-2017", *DENSE} <= set(found)
    assert list(found) == sorted(found)
    assert Recipe.named("pocket-quick").name == "pocket-quick"
    assert Recipe.named("pocket-quick", ["seed=3"]).seed == 3
    with pytest.raises(BadInput, match=r"got: 'pocket-quik'; available: pocket-quick, pocket"):
        Recipe.named("pocket-quik")


@pytest.mark.parametrize("name", named_recipes())
def test_every_named_recipe_is_one(name: str) -> None:
    recipe = Recipe.named(name)
    assert recipe.name == name
    assert Recipe.parse(recipe.to_toml()) == recipe
    head = named_recipes()[name].splitlines()[0]
    assert head.startswith("# ")
    assert len(head) > 20
    comments = "\n".join(x for x in named_recipes()[name].splitlines() if x.startswith("#"))
    assert f"onetrunk train {name}" in comments or "onetrunk train recipe.toml" in comments
    assert "Hardware:" in comments
    assert "Measured result:" in comments or "not run here" in comments


def test_the_baseline_differs_in_sharing_alone() -> None:
    one, each = Recipe.named("pocket"), Recipe.named("pocket-specialists")
    assert [line.split(":")[0] for line in one.differences(each)] == [
        "name",
        "out",
        "trunk.sharing",
    ]
    assert len(one.domains) == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMED if name != "folders"])
def test_recipes_over_embedded_domains_pass_their_check(name: str) -> None:
    checked = Recipe.named(name).check()
    assert checked.warnings == []
