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
    "seeed = 1": "seeed: unknown key; came: 'seeed'; exists: seed,",
    "seed = -1": "seed: expected a whole number at least 0",
    "seed = true": "seed: expected a whole number",
    "out = 3": "out: expected text; came: 3; next: in quotes, '3'",
    "[trunk]\nnorm = 'domian'": "trunk.norm: unknown norm; came: 'domian'; exists: domain,",
    "[trunk]\nsharing = 'dep'": "trunk.sharing: unknown sharing; came: 'dep'; exists: deep,",
    "[trunk]\nadapters = 'serie'": "trunk.adapters: unknown adapters; came: 'serie'; exists: seri",
    "[trunk]\nsharing = 'partial'": "trunk.own_stages: it goes with sharing = 'partial'",
    "[trunk]\nown_stages = [1]": "trunk.own_stages: it goes with sharing = 'partial'",
    "[trunk]\nown_stages = [1.5]": "trunk.own_stages: expected a list of stages",
    "[trunk]\npretrained = 1": "trunk.pretrained: expected true, false, or the path of a file",
    "[trunk]\nadapt = 'a'": "trunk.adapt: expected a list; came: 'a'",
    "[trunk]\nadapt = [1]": "trunk.adapt[0]: expected text; came: 1",
    "[trunk]\npair = 'nam'": "trunk.pair: unknown pair; came: 'nam'; exists: name, index",
    "[train]\nlrate = 1": "train.lrate: unknown key; came: 'lrate'; exists:",
    "[train]\nlr = 0": "train.lr: expected a number above 0; came: 0",
    "[train]\nlr = nan": "train.lr: expected a number above 0; came: nan",
    "[train]\nlr = '1'": "train.lr: expected a number above 0; came: '1'",
    "[train]\nsteps = 0": "train.steps: expected a whole number at least 1; came: 0",
    "[train]\nsteps = 1.5": "train.steps: expected a whole number at least 1; came: 1.5",
    "[train]\nsteps = 1\nhours = 2": "train.hours: expected one of steps, epochs and hours; came:",
    "[train]\noptimizer = 'adam'": "train.optimizer: unknown optimizer; came: 'adam'; exists: ada",
    "[train]\nwarmup = 1": "train.warmup: expected a number at least 0 and below 1; came: 1",
    "[train]\nmilestones = [0.5, 0.5]": "train.milestones: expected rising shares",
    "[train]\nmilestones = [1]": "train.milestones: expected rising shares",
    "[train]\ngamma = 1.5": "train.gamma: expected a number above 0 and at most 1; came: 1.5",
    "[train]\ntemperature = 0": "train.temperature: expected a number above 0; came: 0",
    "[train]\nloggers = ['tensorbord']": "train.loggers: unknown logger; came: 'tensorbord'",
    "[train]\ncompile = 'yes'": "train.compile: expected true or false; came: 'yes'",
    "[train]\nmomentum = 1": "train.momentum: expected a number at least 0 and below 1",
    "[train]\nkeep = 0": "train.keep: expected a whole number at least 1",
    "[[domains]]\nname = 'A b'\nsource = 'a:b'": "domains[1].name: the name of a domain has lower",
    "[[domains]]\nname = 'a'": "domains.a.source: it is missing: PREFIX:REST",
    "[[domains]]\nname = 'a'\nsource = 'photos'": "domains.a.source: expected PREFIX:REST; came:",
    "[[domains]]\nname = 'digits'\nsource = 'a:b'": "domains: each domain has a name of its own",
}
OF_A_DOMAIN = {
    "size = 0": "size: expected pixels, 1 to 16384",
    "size = [1, 2, 3]": "size: expected pixels, 1 to 16384",
    "size = [1]": "size: expected pixels, 1 to 16384",
    "fit = 'padd'": "fit: unknown fit; came: 'padd'; exists: pad,",
    "margin = -1": "margin: expected a whole number at least 0",
    "flip = 'no'": "flip: expected true or false; came: 'no'",
    "augment = { are = [0, 1] }": "augment: augment: unknown key; came: 'are'; exists: area,",
    "augment = { area = 0.5 }": "augment: area: expected [least, greatest]; came: 0.5",
    "augment = { area = [0, 1] }": "augment: augment: area is a range above 0",
    "augment = { pad = 1.5 }": "augment: pad: expected a whole number",
    "augment = { brightness = 'a' }": "augment: brightness: expected a number; came: 'a'",
    "augment = { flip = 1 }": "augment: flip: expected true or false; came: 1",
    "augment = 3": "augment: expected a table; came: 3",
    "whiten = 'imagenett'": "whiten: expected a word, or [[three means], [three deviations]]",
    "whiten = [[0, 0, 0], [0, 1, 1]]": "whiten: whitening divides by the deviations",
    "weight = 0": "weight: expected a number above 0",
    "batch = 0": "batch: expected a whole number at least 1",
    "tasks = 'classify'": "tasks: tasks are a list or a table; came: 'classify'; next: tasks = [",
    "tasks = ['clasify']": "tasks: unknown kind of task; came: 'clasify'; exists: classify,",
    "tasks = []": "tasks: expected at least one task",
    "tasks = 3": "tasks: expected a list of kinds, or a table of tasks; came: 3",
    "tasks = { a = { kind = 'classify', classes = 'b' } }": "tasks: task a: classes is a list",
    "tasks = { a = { kind = 'regress', outputs = true } }": "tasks: task a: outputs is a whole",
    "tasks = { a = { column = 'b' } }": "tasks: task a: its kind is missing",
    "tasks = { a = { kind = 'classify', colum = 'b' } }": "tasks: task a: unknown key; came: 'co",
    "group = 3": "group: expected text; came: 3",
    "allow_bad = 1": "allow_bad: expected true or false; came: 1",
    "colour = 1": "colour: unknown key; came: 'colour'; exists:",
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
        ("name = 'x'\ndomains = 3", "domains: expected a list; came: 3"),
        ("name = 'x'\ndomains = [3]", "domains[0]: expected a table; came: 3"),
        ("train = 3\n" + SMALL, "train: expected a table; came: 3"),
        ("name = x", "the recipe is not TOML; came: 'Invalid value (at line 1"),
        ("a = " + "[" * 5000, "the recipe is not TOML"),
    ],
)
def test_texts_that_are_no_recipe(text: str, said: str) -> None:
    assert any(line.startswith(said) for line in lines(text)), lines(text)


def test_a_name_in_a_message_is_shown_and_not_obeyed() -> None:
    found = lines('name = "x"\n"\\u001b[31mred" = 1\n[[domains]]\nname = "\\u001b"\nsource = "a:b"')
    assert all("\x1b" not in line for line in found)
    assert len(found) == 2
