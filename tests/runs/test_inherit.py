"""A new domain takes settings over from the run; an updated one keeps its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import onetrunk as ot
from onetrunk.config import Train
from onetrunk.config.add_recipe import read_add_recipe
from onetrunk.data.domain import IMAGENET, Domain
from onetrunk.nn.pack import Pack
from onetrunk.runs.add import add
from onetrunk.runs.compare import NewDomains
from onetrunk.runs.inherit import most_common, settings_like
from onetrunk.runs.update import update
from tests.helpers.added import FEW, more
from tests.helpers.worlds import network, noise

STATS = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.2))


def model_of(*domains: Domain) -> ot.Universal:
    return network(list(domains))


def other(name: str, **given: object) -> Domain:
    return Domain(name, noise(24, "ab", 0), **{"size": 8, **given})  # type: ignore[arg-type]


def like(domain: Domain, *others: Domain) -> Domain:
    return settings_like(domain, model_of(*others), {each.name: each.settings for each in others})


def test_a_new_domain_takes_over_what_the_trunk_expects(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"size": (8, 12), "fit": "crop", "margin": 2, "normalize": "imagenet"}
    new = like(Domain("new", noise(12, "ab", 0)), other("one", augment={"pad": 1}, **kept))
    settings = new.settings
    assert (settings.size, settings.fit, settings.margin) == ((8, 12), "crop", 2)
    assert settings.normalize == "imagenet" and (new.pixels.mean, new.pixels.std) == IMAGENET
    assert new.augmentation.pad == 1
    (line,) = capsys.readouterr().err.splitlines() or [""]
    for word in ("size 8×12", "fit crop", "margin 2", "imagenet", "domains.new.size=…"):
        assert word in line


def test_nothing_is_said_if_all_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    new = like(Domain("new", noise(12, "ab", 0), size=8), other("one"))
    assert new.settings.normalize == "dataset"
    assert capsys.readouterr().err == ""


def test_what_is_set_stays_even_if_it_is_the_default() -> None:
    given = Domain("new", noise(12, "ab", 0), fit="squash", margin=0, normalize="dataset")
    new = like(given, other("one", fit="crop", margin=2, normalize="imagenet"))
    settings = new.settings
    assert (settings.fit, settings.margin, settings.normalize) == ("squash", 0, "dataset")
    assert new.shape.size == (8, 8)
    everything = Domain(
        "new", noise(12, "ab", 0), size=4, fit="pad", margin=1, fill=9, normalize=STATS, augment={}
    )
    assert like(everything, other("one")) is everything


def test_domains_that_differ() -> None:
    two = (other("one", normalize=STATS), other("two", size=6, normalize="imagenet"))
    new = like(Domain("new", noise(12, "ab", 0)), *two, other("three", size=6, fit="pad"),
               other("four", size=6, fit="pad"))  # fmt: skip
    assert (new.settings.size, new.settings.fit) == ((6, 6), "pad")
    assert new.settings.normalize == "dataset"
    same = like(Domain("new", noise(12, "ab", 0)), two[0], other("two", size=6, normalize=STATS))
    assert same.settings.normalize == STATS
    assert most_common([1, 2, 2, 1]) == 1


def test_the_source_keeps_its_own_size_only_where_the_sizes_differ() -> None:
    source = noise(12, "ab", 0)
    source.size = (5, 7)  # type: ignore[attr-defined]
    assert like(Domain("new", source), other("one"), other("two", size=6)).shape.size == (5, 7)
    assert like(Domain("new", source), other("one"), other("two")).shape.size == (8, 8)


def test_add_to_a_run_and_to_a_model(run: Path) -> None:
    plain = Domain("new", noise(60, "abc", 9000))
    result = add(run, plain, adapters="none", few=False, train=Train(**FEW))
    assert result.model.domains["new"].pixels.size == (8, 8)  # as in the run, not 64
    assert read_add_recipe(run / "added/new").domain.size == (8, 8)
    model = model_of(other("one", fit="pad"))
    add(model, plain, adapters="none", few=False, train=Train(**FEW))
    assert model.domains["new"].pixels.fit == "pad"


def test_an_update_keeps_the_settings_and_the_numbers(run: Path) -> None:
    first = Domain(
        "new", noise(60, "abc", 9000), size=(6, 8), fit="crop", margin=2, fill=7, weight=2.0,
        augment={"brightness": 0.25}, batch=5,
    )  # fmt: skip
    add(run, first, adapters="none", few=False, train=Train(**FEW))
    before = Pack.open(run / "model/packs/new.pack").card.pixels
    assert before.mean != STATS[0]
    again = Domain("new", noise(60, "abcd", 7000))  # other images
    result = update(run, again, train=Train(**FEW))
    assert result.model.domains["new"].pixels == before
    kept = read_add_recipe(run / "added/new").domain
    assert (kept.weight, kept.batch, kept.augment) == (2.0, 5, {"brightness": 0.25})
    assert result.model.domains["new"].tasks[0].classes == ("a", "b", "c", "d")
    other_fit = Domain("new", noise(60, "abc", 7000), fit="pad", normalize="dataset")
    now = update(run, other_fit, train=Train(**FEW)).model.domains["new"].pixels
    assert (now.size, now.margin, now.fit) == ((6, 8), 2, "pad")
    assert now.mean != before.mean


def test_an_update_of_a_domain_of_the_training(run: Path) -> None:
    before = Pack.open(run / "model/packs/one.pack").card.pixels
    result = update(run, Domain("one", noise(60, "ab", 500)), train=Train(**FEW))
    assert result.model.domains["one"].pixels == before


def test_compared_methods_take_the_settings_over_as_well(run: Path, tmp_path: Path) -> None:
    plain = Domain("new", noise(60, "abc", 9000), fit="pad")
    (new,) = NewDomains(run, [plain], tmp_path / "out", {}).new
    assert (new.shape.size, new.shape.fit) == ((8, 8), "pad")


def test_more_is_a_domain_that_sets_its_size() -> None:
    assert "size" in more().given and "fit" not in more().given
