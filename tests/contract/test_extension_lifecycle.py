"""Each kind of extension in a user's module is trained, killed, resumed and read again elsewhere.

The module `mine` is written into the folder of the tests, as a user's would be. A training of
every kind is killed in its middle and resumed; it equals one that was not. Then one new process,
which has not imported `mine`, reads all runs: without consent, and with it to evaluate, add, fold
and export.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import onetrunk as ot
from onetrunk.nn.saving import save
from onetrunk.runs.train import train_recipe
from tests.helpers.typed import typed
from tests.helpers.worlds import same, weights

MINE = '''
    """A user's module: one object of every kind."""

    from pathlib import Path

    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch import nn

    from onetrunk.data.sources import Item
    from onetrunk.data.task import Task
    from onetrunk.nn.bank import Bank
    from onetrunk.nn.segnet import Stage
    from onetrunk.train.weighting import Weighting


    class Head(nn.Sequential):
        def __init__(self, task, inside, width=8):
            super().__init__(nn.Linear(inside, width), nn.ReLU(), nn.Linear(width, task.width))


    class Scale(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(channels))

        def forward(self, x):
            return x * self.scale.view(1, -1, 1, 1)


    class ScaleBank(Bank):
        def __init__(self, layer, path, switch):
            super().__init__(path, switch)
            self.origin = layer

        def make_slot(self):
            return Scale(self.origin.num_features)

        def run(self, x, slot):
            return slot(self.origin(x))

        def resolve(self, name):
            return nn.Sequential(self.origin, self.slots[name])


    def norm(layer, path, switch):
        return ScaleBank(layer, path, switch)


    class Shift(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(channels))

        def forward(self, x, y):
            return y + self.shift.view(-1, 1, 1)


    def adapter(layer):
        return Shift(layer.out_channels) if isinstance(layer, nn.Conv2d) else None


    class Net(nn.Module):
        stages = (Stage("stem", "stem", 4, 1), Stage("1", "body", 6, 2))

        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.body = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())

        def forward_pyramid(self, x):
            first = self.stem(x)
            return [first, self.body(first)]

        def pooled(self, pyramid):
            return pyramid[-1].mean((2, 3))


    def distance(student, teacher):
        return F.smooth_l1_loss(student, teacher)


    class Aligner(nn.Module):
        def __init__(self, student, teacher):
            super().__init__()
            self.weight = nn.Parameter(0.1 * torch.randn(teacher, student))

        def forward(self, x):
            return torch.einsum("tc,bc...->bt...", self.weight, x)


    class Inverse(Weighting):
        needs_losses = True

        def weights(self, losses, present):
            return len(present) * (1 / losses) / (1 / losses).sum()


    class Alternate:
        joined = False

        def domains(self, sizes, step, seed, temperature):
            return [list(sizes)[step % len(sizes)]]

        def steps_per_epoch(self, rounds):
            return sum(rounds)


    class Squares:
        def __init__(self, rest, options):
            self.tasks = (Task("classify", "classify", ("green", "red")),)

        def items(self):
            for number in range(40):
                color = ("green", "red")[number % 2]
                split = ("train", "train", "val", "test")[number // 2 % 4]
                key = f"{color}/{number}"
                yield Item(key, key, "1", split, labels={"classify": color})

        def image(self, where):
            color, number = where.split("/")
            return Image.new("RGB", (8, 8), (200, int(number), 0) if color == "red" else color)

        def target(self, where, task):
            return None


    class Killed(BaseException):
        """Ends the process at once, as far as the run can see."""


    class Log:
        def __init__(self, folder):
            self.folder = folder

        def begin(self, plan):
            pass

        def log_step(self, record):
            if record["step"] == 3 and Path("kill").exists():
                Path("kill").unlink()
                raise Killed

        def log_evaluation(self, record):
            (self.folder / "log.txt").write_text(str(record["step"]))

        def end(self):
            pass
'''

RECIPE = """
name = "{kind}"
out = "{out}"
seed = 3
[trunk]
arch = "resnet20"
[[domains]]
name = "one"
source = "folder:images"
size = 8
[[domains]]
name = "two"
source = "folder:images"
size = 8
[train]
steps = 4
batch = 4
log_every = 1
checkpoint_every = 2
eval_every = 4
loggers = ["mine:Log"]
"""

# by kind: keys of the recipe, and whether the network itself is built with the object
KINDS: dict[str, tuple[list[str], bool]] = {
    "head": (
        ['domains.one.heads={ classify = { object = "mine:Head", arguments = { width = 5 } } }'],
        True,
    ),
    "norm": (['trunk.norm="mine:norm"'], True),
    "adapter": (['trunk.adapters="mine:adapter"'], True),
    "trunk": (['trunk.arch="mine:Net"'], True),
    "feature loss": (['distill.teachers="teacher"', 'distill.features="mine:distance"'], False),
    "aligner": (['distill.teachers="teacher"', 'distill.aligner="mine:Aligner"'], False),
    "weighting": (['train.weighting="mine:Inverse"'], False),
    "sampler": (['train.sampling="mine:Alternate"'], False),
    "source": (['domains.one.source="mine:Squares"'], False),
    "logger": ([], False),
}

READ = """
import json, sys
from pathlib import Path
import torch
import onetrunk as ot

kinds, found = json.loads(Path("kinds.json").read_text()), {}
images = torch.load("images.pt")

def refused(call):
    try:
        call()
    except ot.BadInput as error:
        return str(error)
    return ""

for kind, in_network in kinds.items():
    run = f"runs/{kind}"
    assert "mine" not in sys.modules
    found[kind] = {
        "load": refused(lambda: ot.load(run)),
        "domains": refused(lambda: ot.Run(run).domains),
        "other": refused(lambda: ot.Run(run, trust=["min"]).model),
    }
    assert "mine" not in sys.modules, kind

for kind, in_network in kinds.items():
    run = f"runs/{kind}"
    opened = ot.Run(run, trust=["mine"])
    with torch.no_grad():
        outputs = {name: opened.model(images, domain=name)["classify"] for name in opened.names}
    torch.save(outputs, f"{kind}.pt")
    # the scores that the run has are those of the model that is read
    table = ot.evaluate(opened.model, list(opened.domains.values()), intervals=False)
    found[kind]["scores"] = [
        [row.value for row in opened.table.rows], [row.value for row in table.rows]
    ]
    if not in_network:
        continue
    with torch.no_grad():
        plain = opened.model.for_domain("one")(images)["classify"]
    found[kind]["folded"] = float((plain - outputs["one"]).abs().max() / outputs["one"].abs().max())
    found[kind]["bytes"] = ot.export(opened.model, f"{kind}.onnx", domain="one").stat().st_size
    with torch.no_grad():
        before = ot.load(run, trust="mine")(images, domain="one")["classify"]
    new = ot.Domain("three", "folder:images", size=8, heads={"classify": "mine:Head"})
    result = ot.add(run, new, train=ot.Train(steps=2, batch=4), few=False, adapters="none",
        trust=["mine"])
    found[kind]["added"] = list(ot.load(run, trust="mine").domains)
    with torch.no_grad():
        after = ot.load(run, trust="mine")(images, domain="one")["classify"]
    found[kind]["unchanged"] = torch.equal(after, before) and bool(result.unchanged)
    pack = f"{run}/model/packs/three.pack"
    other = ot.load(run, trust="mine")
    other.remove("three")
    other.load_pack(pack, trust=["mine"])
Path("found.json").write_text(json.dumps(found))
"""


@dataclass
class Runs:
    """The runs of all kinds in one folder, and what a new process found when it read them."""

    folder: Path
    outputs: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("extensions")
    (folder / "mine.py").write_text(dedent(MINE).lstrip(), "utf-8")
    chance = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (folder / "images" / kind).mkdir(parents=True)
        for i in range(16):
            picture = chance.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(picture).save(folder / f"images/{kind}/{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONETRUNK_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        domains = [ot.Domain(name, "folder:images", size=8) for name in ("one", "two")]
        save(ot.Universal(ot.Trunk("resnet20"), domains), folder / "teacher")
        yield Runs(folder)
        sys.modules.pop("mine", None)
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@pytest.fixture(autouse=True)
def here(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.folder)
    monkeypatch.setenv("ONETRUNK_CACHE", str(runs.folder / "cache"))


def recipe_of(kind: str, out: str) -> ot.Recipe:
    text = RECIPE.format(kind=kind.replace(" ", "-"), out=out)
    return ot.Recipe.parse(text, sets=KINDS[kind][0])


def resumed(kind: str, runs: Runs) -> ot.Run:
    """Train the run of a kind, kill it in the middle, and resume it; once for all tests."""
    folder = runs.folder / "runs" / kind
    if kind not in runs.outputs:
        (runs.folder / "kill").touch()
        with pytest.raises(BaseException) as killed:
            train_recipe(recipe_of(kind, f"runs/{kind}"), device="cpu")
        assert type(killed.value).__name__ == "Killed"
        assert not (folder / "scores.json").exists()
    run = train_recipe(ot.Recipe.read(folder), resume=True, device="cpu")
    if kind not in runs.outputs:
        images = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
        torch.save(images, runs.folder / "images.pt")
        with torch.no_grad():
            runs.outputs[kind] = {
                name: run.model.eval()(images, domain=name)["classify"] for name in ("one", "two")
            }
    return run


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "head" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_a_killed_training_is_resumed_to_the_same_weights(kind: str, runs: Runs) -> None:
    expected = train_recipe(recipe_of(kind, f"uninterrupted/{kind}"), device="cpu")
    run = resumed(kind, runs)
    assert same(weights(run.model), weights(expected.model))
    assert run.table.rows == expected.table.rows
    assert (runs.folder / "runs" / kind / "log.txt").read_text() == "4"


@pytest.mark.slow
def test_a_new_process_reads_every_run_and_imports_code_only_with_consent(runs: Runs) -> None:
    for kind in KINDS:
        resumed(kind, runs)
    kinds = {kind: in_network for kind, (_, in_network) in KINDS.items()}
    (runs.folder / "kinds.json").write_text(json.dumps(kinds))
    code, printed = typed(READ, runs.folder)
    assert code == 0, printed
    found: dict[str, dict[str, Any]] = json.loads((runs.folder / "found.json").read_text())
    for kind, in_network in kinds.items():
        check_consent(kind, in_network, found[kind])
        check_what_was_read(kind, in_network, found[kind], runs)


def check_consent(kind: str, in_network: bool, refused: dict[str, Any]) -> None:
    for what in ("load", "other") if in_network else ("domains",) if kind == "source" else ():
        assert "mine:" in refused[what], (kind, what)
        assert "--trust mine" in refused[what], (kind, what)
    if not in_network:
        assert refused["load"] == refused["other"] == "", kind
    if kind != "source":
        assert refused["domains"] == "", kind


def check_what_was_read(kind: str, in_network: bool, read: dict[str, Any], runs: Runs) -> None:
    outputs = torch.load(runs.folder / f"{kind}.pt")
    assert outputs.keys() == runs.outputs[kind].keys()
    for name, expected in runs.outputs[kind].items():
        torch.testing.assert_close(outputs[name], expected)  # in another memory format
    stored, again = read["scores"]
    assert again == pytest.approx(stored, rel=1e-4), kind
    if in_network:
        assert read["folded"] < 1e-4, kind
        assert read["bytes"] > 0, kind
        assert read["added"] == ["one", "two", "three"], kind
        assert read["unchanged"], kind
