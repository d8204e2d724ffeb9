"""The rows of the tables in tables.py: one recipe per row, of which the first is the baseline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from onetrunk.config import Recipe
from onetrunk.config.to_toml import inline

FIVE = ("creatures", "digits", "emoji", "fashion", "optdigits")
THREE = ("digits", "fashion", "optdigits")  # ten classes each
NORMS = ("shared", "shared-batch", "domain-stats", "domain", "instance", "instance-domain")
LOSSES = ("l2", "cka", "cosine")
VIEWS = 4
WEIGHTINGS = ("uncertainty", "dwa", "famo", "db-mtl", "pcgrad", "cagrad")
TABLES = ("one-or-many", "norms", "sharing", "distill", "losses", "rooms")
MERGED = ("merged", "merged-recalibrated")  # merged specialists, without training
Row = tuple[str, Recipe | None]  # None: merged from the networks of the first row


def few(names: Iterable[str], *sets: str) -> Recipe:
    """Return the recipe `pocket` with some of its domains and a quarter of its steps."""
    recipe = Recipe.from_domains([f"{name}=pocket:{name}" for name in names], "few")
    train = ("train.optimizer=sgd", "train.lr=0.05", "train.batch=32", "train.steps=500")
    return recipe.with_sets(["trunk.arch=resnet20", *train, *sets])


def rows(table: str, out: Path, seed: int) -> list[Row]:
    """Return the rows of a table; teachers are the run of the first row with the same seed."""

    def taught_by(run: str) -> str:
        return f"distill.teachers={inline(str(place(out, run, seed)))}"

    pocket: list[Row] = [
        ("pocket-specialists", Recipe.named("pocket-specialists")),
        ("pocket", Recipe.named("pocket")),
    ]
    if table == "one-or-many":
        return pocket
    if table == "distill":
        sets = [taught_by("pocket-specialists")]
        distilled: list[Row] = [
            (
                f"pocket-distill-{loss}",
                Recipe.named("pocket-distill", [*sets, f"distill.features={loss}"]),
            )
            for loss in LOSSES
        ]
        adapted = Recipe.named("pocket-distill", [*sets, "trunk.adapters=parallel"])
        distilled.append(("pocket-distill-parallel", adapted))
        return [*pocket, *distilled, *((name, None) for name in MERGED)]
    if table == "rooms":
        sets = [taught_by("rooms-specialists")]
        joint = "distill.enabled=false"
        return [
            ("rooms-specialists", Recipe.named("rooms-specialists")),
            ("rooms-equal", Recipe.named("rooms-distill", [*sets, joint])),
            *(
                (
                    f"rooms-{name}",
                    Recipe.named("rooms-distill", [*sets, joint, f"train.weighting={name}"]),
                )
                for name in WEIGHTINGS
            ),
            ("rooms-distill", Recipe.named("rooms-distill", [*sets, "distill.logits=false"])),
            (
                "rooms-distill-answers",
                Recipe.named("rooms-distill", [*sets, "distill.logits=true"]),
            ),
            (
                "rooms-distill-uncertainty",
                Recipe.named(
                    "rooms-distill", [*sets, "distill.logits=false", "train.weighting=uncertainty"]
                ),
            ),
        ]
    alone = ("few-specialists", few(FIVE, "trunk.sharing=none"))
    joined = ("norm-domain", few(FIVE, "trunk.norm=domain"))
    if table == "losses":
        sets = [taught_by("few-specialists")]
        return [
            alone,
            joined,
            *((f"few-distill-{x}", few(FIVE, *sets, f"distill.features={x}")) for x in LOSSES),
            (
                "few-distill-views",
                few(FIVE, *sets, "distill.features=cka", f"distill.views={VIEWS}"),
            ),
        ]
    if table == "norms":
        return [alone, *((f"norm-{name}", few(FIVE, f"trunk.norm={name}")) for name in NORMS)]
    return [
        alone,
        joined,
        *(
            (
                f"partial-{stage}",
                few(FIVE, "trunk.sharing=partial", f'trunk.own_stages=["{stage}"]'),
            )
            for stage in ("1", "3")
        ),
        ("deep-three", few(THREE)),
        ("full-three", few(THREE, "trunk.sharing=full", "trunk.pair=index")),
    ]


def place(out: Path, name: str, seed: int) -> Path:
    """Return the folder of the run of a row."""
    return out / name / f"seed-{seed}"
