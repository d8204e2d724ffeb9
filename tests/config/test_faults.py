"""What is wrong with a recipe: one line each, the place first, all of them at once."""

from __future__ import annotations

import pytest

from onetrunk.config import Recipe
from onetrunk.errors import BadInput

SMALL = """
name = "shop"
[[domains]]
name = "digits"
source = "pocket:digits"
"""


def lines(text: str, *sets: str) -> list[str]:
    """What is wrong with a recipe."""
    with pytest.raises(BadInput) as caught:
        Recipe.parse(text, sets=sets)
    return str(caught.value).split("\n")


WRONG = {
    "seeed = 1": "seeed: unknown key; got: 'seeed'; available: seed,",
    "seed = -1": "seed: expected a whole number at least 0",
    "seed = true": "seed: expected a whole number",
    "out = 3": "out: expected text; got: 3; try: in quotes, '3'",
    "[trunk]\nnorm = 'domian'": "trunk.norm: unknown norm; got: 'domian'; available: domain,",
    "[trunk]\nsharing = 'dep'": "trunk.sharing: unknown sharing; got: 'dep'; available: deep,",
    "[trunk]\nadapters = 'serie'": "trunk.adapters: unknown adapters; got: 'serie'; available: seri",
    "[trunk]\nsharing = 'partial'": "trunk.own_stages: it goes with sharing = 'partial'",
    "[trunk]\nown_stages = [1]": "trunk.own_stages: it goes with sharing = 'partial'",
    "[trunk]\nown_stages = [1.5]": "trunk.own_stages: expected a list of stages",
    "[trunk]\npretrained = 1": "trunk.pretrained: expected true, false, or the path of a file",
    "[trunk]\nadapt = 'a'": "trunk.adapter_layers: expected a list; got: 'a'",
    "[trunk]\nadapt = [1]": "trunk.adapter_layers[0]: expected text; got: 1",
    "[trunk]\npair = 'nam'": "trunk.pair: unknown pair; got: 'nam'; available: name, index",
    "[train]\nlrate = 1": "train.lrate: unknown key; got: 'lrate'; available:",
    "[train]\nlr = 0": "train.lr: expected a number above 0; got: 0",
    "[train]\nlr = nan": "train.lr: expected a number above 0; got: nan",
    "[train]\nlr = '1'": "train.lr: expected a number above 0; got: '1'",
    "[train]\nsteps = 0": "train.steps: expected a whole number at least 1; got: 0",
    "[train]\nsteps = 1.5": "train.steps: expected a whole number at least 1; got: 1.5",
    "[train]\nsteps = 1\nhours = 2": "train.hours: expected one of steps, epochs and hours; got:",
    "[train]\noptimizer = 'adam'": "train.optimizer: unknown optimizer; got: 'adam'; available: ada",
    "[train]\nwarmup = 1": "train.warmup: expected a number at least 0 and below 1; got: 1",
    "[train]\nmilestones = [0.5, 0.5]": "train.milestones: expected rising shares",
    "[train]\nmilestones = [1]": "train.milestones: expected rising shares",
    "[train]\ngamma = 1.5": "train.gamma: expected a number above 0 and at most 1; got: 1.5",
    "[train]\ntemperature = 0": "train.temperature: expected a number above 0; got: 0",
    "[train]\nloggers = ['tensorbord']": "train.loggers: unknown logger; got: 'tensorbord'",
    "[train]\ncompile = 'yes'": "train.compile: expected true or false; got: 'yes'",
    "[train]\nmomentum = 1": "train.momentum: expected a number at least 0 and below 1",
    "[train]\nkeep = 0": "train.keep: expected a whole number at least 1",
    "[[domains]]\nname = 'A b'\nsource = 'a:b'": "domains[1].name: the name of a domain has lower",
    "[[domains]]\nname = 'a'": "domains.a.source: it is missing: PREFIX:REST",
    "[[domains]]\nname = 'a'\nsource = 'photos'": "domains.a.source: expected PREFIX:REST; got:",
    "[[domains]]\nname = 'digits'\nsource = 'a:b'": "domains: each domain has a name of its own",
}
OF_A_DOMAIN = {
    "size = 0": "size: expected pixels, 1 to 16384",
    "size = [1, 2, 3]": "size: expected pixels, 1 to 16384",
    "size = [1]": "size: expected pixels, 1 to 16384",
    "fit = 'padd'": "fit: unknown fit; got: 'padd'; available: pad,",
    "margin = -1": "margin: expected a whole number at least 0",
    "flip = 'no'": "flip: expected true or false; got: 'no'",
    "augment = { are = [0, 1] }": "augment: augment: unknown key; got: 'are'; available: area,",
    "augment = { area = 0.5 }": "augment: area: expected [least, greatest]; got: 0.5",
    "augment = { area = [0, 1] }": "augment: augment: area is a range above 0",
    "augment = { pad = 1.5 }": "augment: pad: expected a whole number",
    "augment = { brightness = 'a' }": "augment: brightness: expected a number; got: 'a'",
    "augment = { flip = 1 }": "augment: flip: expected true or false; got: 1",
    "augment = 3": "augment: expected a table; got: 3",
    "normalize = 'imagenett'": "normalize: expected a word, or [[three means], [three deviations]]",
    "normalize = [[0, 0, 0], [0, 1, 1]]": "normalize: normalization divides by the deviations",
    "weight = 0": "weight: expected a number above 0",
    "batch = 0": "batch: expected a whole number at least 1",
    "tasks = 'classify'": "tasks: tasks are a list or a table; got: 'classify'; try: tasks = [",
    "tasks = ['clasify']": "tasks: unknown kind of task; got: 'clasify'; available: classify,",
    "tasks = []": "tasks: expected at least one task",
    "tasks = 3": "tasks: expected a list of kinds, or a table of tasks; got: 3",
    "tasks = { a = { kind = 'classify', classes = 'b' } }": "tasks: task a: classes is a list",
    "tasks = { a = { kind = 'regress', outputs = true } }": "tasks: task a: outputs is a whole",
    "tasks = { a = { column = 'b' } }": "tasks: task a: its kind is missing",
    "tasks = { a = { kind = 'classify', colum = 'b' } }": "tasks: task a: unknown key; got: 'co",
    "group = 3": "group: expected text; got: 3",
    "allow_bad = 1": "allow_bad: expected true or false; got: 1",
    "colour = 1": "colour: unknown key; got: 'colour'; available:",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_in_one_line(text: str) -> None:
    (line,) = lines(SMALL + text if text[0] == "[" else text + SMALL)
    assert line.startswith(WRONG[text]), line


@pytest.mark.parametrize("text", OF_A_DOMAIN)
def test_what_is_wrong_with_a_domain_is_said_with_its_name(text: str) -> None:
    (line,) = lines(SMALL + text)
    assert line.startswith("domains.digits." + OF_A_DOMAIN[text]), line


def test_all_problems_are_listed_at_once() -> None:
    found = lines(
        SMALL.replace("shop", "The Shop")
        + "size = -1\nfits = 1\n[trunk]\nnorm = 'a'\n[train]\nlr = 0\nsteps = 1\nhours = 1\n"
    )
    places = [line.split(":")[0] for line in found]
    assert sorted(places) == [
        *("domains.digits.fits", "domains.digits.size", "name", "train.hours", "train.lr"),
        "trunk.norm",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name: it is missing"),
        ("name = 'x'", "domains: it is missing"),
        ("name = 'x'\ndomains = []", "domains: expected at least one"),
        ("name = 'x'\ndomains = 3", "domains: expected a list; got: 3"),
        ("name = 'x'\ndomains = [3]", "domains[0]: expected a table; got: 3"),
        ("train = 3\n" + SMALL, "train: expected a table; got: 3"),
        ("name = x", "the recipe is not TOML; got: 'Invalid value (at line 1"),
        ("a = " + "[" * 5000, "the recipe is not TOML"),
    ],
)
def test_texts_that_are_no_recipe(text: str, said: str) -> None:
    assert any(line.startswith(said) for line in lines(text)), lines(text)


def test_a_name_in_a_message_is_shown_and_not_obeyed() -> None:
    found = lines('name = "x"\n"\\u001b[31mred" = 1\n[[domains]]\nname = "\\u001b"\nsource = "a:b"')
    assert all("\x1b" not in line for line in found)
    assert len(found) == 2
