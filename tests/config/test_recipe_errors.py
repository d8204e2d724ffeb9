"""Errors in the text of a recipe: all are reported at once, one for each key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onetrunk.config import Recipe
from onetrunk.errors import BadInput, OnetrunkError

SMALL = """
name = "shop"
[[domains]]
name = "digits"
source = "pocket:digits"
"""


def errors(text: str, *sets: str) -> list[OnetrunkError]:
    """Return the errors of a recipe."""
    with pytest.raises(BadInput) as caught:
        Recipe.parse(text, sets=sets)
    assert str(caught.value).count("\n") == len(caught.value.errors) - 1
    return list(caught.value.errors)


ANY = object()
# the text; the place, what was given, and a fact of `expected`, or names in `available`
WRONG: list[tuple[str, str, object, Any]] = [
    ("seeed = 1", "seeed", "seeed", ["seed"]),
    ("seed = -1", "seed", -1, "whole number at least 0"),
    ("seed = true", "seed", True, "whole number"),
    ("out = 3", "out", 3, "text"),
    ("[trunk]\nnorm = 'domian'", "trunk.norm", "domian", ["domain"]),
    ("[trunk]\nsharing = 'dep'", "trunk.sharing", "dep", ["deep"]),
    ("[trunk]\nadapters = 'serie'", "trunk.adapters", "serie", ["series"]),
    ("[trunk]\nsharing = 'partial'", "trunk.own_stages", ANY, "partial"),
    ("[trunk]\nown_stages = [1]", "trunk.own_stages", ANY, "partial"),
    ("[trunk]\nown_stages = [1.5]", "trunk.own_stages", [1.5], "stages"),
    ("[trunk]\npretrained = 1", "trunk.pretrained", 1, "path"),
    ("[trunk]\nadapter_layers = '[a]'", "trunk.adapter_layers", "[a]", "list"),
    ("[trunk]\nadapter_layers = [1]", "trunk.adapter_layers[0]", 1, "text"),
    ("[trunk]\npair = 'nam'", "trunk.pair", "nam", ["name", "index"]),
    ("[train]\nlrate = 1", "train.lrate", "lrate", []),
    ("[train]\nstep = 1", "train.step", "step", ["steps"]),
    ("[train]\nlr = 0", "train.lr", 0, "number above 0"),
    ("[train]\nlr = nan", "train.lr", ANY, "number above 0"),
    ("[train]\nlr = '1'", "train.lr", "1", "number above 0"),
    ("[train]\nsteps = 0", "train.steps", 0, "whole number at least 1"),
    ("[train]\nsteps = 1.5", "train.steps", 1.5, "whole number at least 1"),
    ("[train]\nsteps = 1\nhours = 2", "train.hours", "steps = 1, hours = 2.0", "epochs"),
    ("[train]\noptimizer = 'adam'", "train.optimizer", "adam", ["adamw"]),
    ("[train]\nwarmup = 1", "train.warmup", 1, "number at least 0 and below 1"),
    ("[train]\nmilestones = [0.5, 0.5]", "train.milestones", [0.5, 0.5], "rising"),
    ("[train]\nmilestones = [1]", "train.milestones", [1.0], "rising"),
    ("[train]\ngamma = 1.5", "train.gamma", 1.5, "number above 0 and at most 1"),
    ("[train]\ntemperature = 0", "train.temperature", 0, "number above 0"),
    ("[train]\nloggers = ['tensorbord']", "train.loggers", "tensorbord", ["tensorboard"]),
    ("[train]\nloggers = '[tensorbord]'", "train.loggers", "[tensorbord]", ["tensorboard"]),
    ("[train]\ncompile = 'yes'", "train.compile", "yes", "true or false"),
    ("[train]\nmomentum = 1", "train.momentum", 1, "number at least 0 and below 1"),
    ("[train]\nkeep_checkpoints = 0", "train.keep_checkpoints", 0, "whole number at least 1"),
    ("[distill]\nfeature = 'l2'", "distill.feature", "feature", ["features"]),
    ("[distill]\nfeatures = 'ckaa'", "distill.features", "ckaa", ["cka"]),
    ("[distill]\nfeature_weight = -1", "distill.feature_weight", -1, "at least 0"),
    ("[distill]\nteachers = { a = 1 }", "distill.teachers.a", 1, "teacher"),
    ("[distill]\nlwf = 1.0", "distill.lwf", "no init", "init"),
    ("[[domains]]\nname = 'A b'\nsource = 'a:b'", "domains[1].name", "A b", "domain"),
    ("[[domains]]\nname = 'a'", "domains.a.source", None, "PREFIX:REST"),
    ("[[domains]]\nname = 'a'\nsource = 'photos'", "domains.a.source", "photos", "PREFIX:REST"),
    ("[[domains]]\nname = 'digits'\nsource = 'a:b'", "domains", "digits", "name"),
]
OF_A_DOMAIN: list[tuple[str, str, object, Any]] = [
    ("size = 0", "size", 0, "16384"),
    ("size = [1, 2, 3]", "size", [1, 2, 3], "[height, width]"),
    ("size = [1]", "size", [1], "[height, width]"),
    ("size = 1.5", "size", 1.5, "16384"),
    ("fit = 'padd'", "fit", "padd", ["pad"]),
    ("margin = -1", "margin", -1, "whole number at least 0"),
    ("flip = 'no'", "flip", "no", "true or false"),
    ("augment = { are = [0, 1] }", "augment.are", "are", ["area"]),
    ("augment = { area = 0.5 }", "augment.area", 0.5, "list"),
    ("augment = { area = [0, 1] }", "augment", ANY, "area"),
    ("augment = { pad = 1.5 }", "augment.pad", 1.5, "whole number"),
    ("augment = { brightness = 'a' }", "augment.brightness", "a", "number"),
    ("augment = { flip = 1 }", "augment.flip", 1, "true or false"),
    ("augment = 3", "augment", 3, "table"),
    ("normalize = 'imagenett'", "normalize", "imagenett", ["imagenet"]),
    ("normalize = [[0, 0, 0], [0, 1, 1]]", "normalize", [0.0, 1.0, 1.0], "above 0"),
    ("weight = 0", "weight", 0, "number above 0"),
    ("batch = 0", "batch", 0, "whole number at least 1"),
    ("tasks = 'classify'", "tasks", "classify", "list"),
    ("tasks = ['clasify']", "tasks", "clasify", ["classify"]),
    ("tasks = []", "tasks", "none", "at least one"),
    ("tasks = 3", "tasks", 3, "list"),
    ("tasks = { a = { kind = 'regres' } }", "tasks.a.kind", "regres", ["regress"]),
    ("tasks = { a = { kind = 'classify', classes = 'b' } }", "tasks.a.classes", "b", "list"),
    ("tasks = { a = { kind = 'regress', outputs = true } }", "tasks.a.outputs", True, "number"),
    ("tasks = { a = { kind = 'regress', outputs = 0 } }", "tasks.a.outputs", 0, "at least 1"),
    ("tasks = { a = { column = 'b' } }", "tasks.a", None, "kind"),
    ("tasks = { a = { kind = 'classify', colum = 'b' } }", "tasks.a.colum", "colum", ["column"]),
    ("group = 3", "group", 3, "text"),
    ("allow_bad = 1", "allow_bad", 1, "true or false"),
    ("colour = 1", "colour", "colour", []),
]


def check(error: OnetrunkError, place: str, got: object, fact: str | list[str]) -> None:
    assert error.place == place
    if got is not ANY:
        assert error.got == got
        assert type(error.got) is type(got)
    if isinstance(fact, str):
        assert fact in error.expected
    else:  # the first one is similar, and suggested
        assert set(fact) <= set(error.available or ())
        assert not fact or fact[0] in (error.try_ or "")


@pytest.mark.parametrize(("text", "place", "got", "fact"), WRONG)
def test_an_error_has_the_place_and_what_is_expected(
    text: str, place: str, got: object, fact: Any
) -> None:
    (error,) = errors(SMALL + text if text[0] == "[" else text + SMALL)
    check(error, place, got, fact)


@pytest.mark.parametrize(("text", "place", "got", "fact"), OF_A_DOMAIN)
def test_an_error_in_a_domain_has_the_name_of_the_domain(
    text: str, place: str, got: object, fact: Any
) -> None:
    (error,) = errors(SMALL + text)
    check(error, f"domains.digits.{place}", got, fact)


def test_nan_is_shown_as_it_was_given() -> None:
    (error,) = errors(SMALL + "[train]\nlr = nan")
    assert isinstance(error.got, float)
    assert math.isnan(error.got)


def test_all_problems_are_listed_at_once() -> None:
    found = errors(
        SMALL.replace("shop", "The Shop")
        + "size = -1\nfits = 1\n[trunk]\nnorm = 'a'\n[train]\nlr = 0\nsteps = 1\nhours = 1\n"
    )
    assert sorted(error.place for error in found) == [
        *("domains.digits.fits", "domains.digits.size", "name", "train.hours", "train.lr"),
        "trunk.norm",
    ]


@pytest.mark.parametrize(
    ("text", "place", "got"),
    [
        ("", "name", None),
        ("name = 'x'", "domains", None),
        ("name = 'x'\ndomains = []", "domains", []),
        ("name = 'x'\ndomains = 3", "domains", 3),
        ("name = 'x'\ndomains = [3]", "domains[0]", 3),
        ("train = 3\n" + SMALL, "train", 3),
    ],
)
def test_missing_and_misplaced_tables(text: str, place: str, got: object) -> None:
    assert (place, got) in [(error.place, error.got) for error in errors(text)]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("text", ["name = x", "a = " + "[" * 5000])
def test_a_text_that_is_not_toml(text: str) -> None:
    (error,) = errors(text)
    assert "TOML" in error.expected
    assert error.place == ""


def test_control_characters_in_a_key_are_escaped() -> None:
    found = errors(
        'name = "x"\n"\\u001b[31mred" = 1\n[[domains]]\nname = "\\u001b"\nsource = "a:b"'
    )
    assert all("\x1b" not in str(error) for error in found)
    assert len(found) == 2
