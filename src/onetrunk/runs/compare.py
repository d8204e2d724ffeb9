"""The methods of the Decathlon over any list of domains, on one trunk and schedule.

Every row of the table is ordinary runs in folders of their own: `METHOD/seed-S/NAME` of a method
that has a pack or a network for each domain, `METHOD/seed-S` of one network for all. A finished one
is not run again, a stopped one goes on. Whatever is chosen, is chosen on validation.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onetrunk.config import Distill, Recipe
from onetrunk.config.add_recipe import AddRecipe, card_adapters, merged_train, train_like
from onetrunk.config.from_python import table_of
from onetrunk.config.methods import Method, choose_methods
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Diverged
from onetrunk.eval.budget import budget, trunk_cost
from onetrunk.eval.table import Table
from onetrunk.nn.card import Card
from onetrunk.nn.saving import load
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.runs.add import complete
from onetrunk.runs.compare_folder import check_place, check_row
from onetrunk.runs.compare_table import Found, error_of, kinds_of, seconds_of
from onetrunk.runs.environment import check_data, environment, mark_of
from onetrunk.runs.forgetting import old_after
from onetrunk.runs.growth import raise_domain, tell
from onetrunk.runs.open import reachable
from onetrunk.runs.pack_store import check_run
from onetrunk.runs.scores import read_json
from onetrunk.runs.train import train_models
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run_folder import RECIPE, SCORES, RunFolder
from onetrunk.train.device import choose_device
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.initialize import start_from
from onetrunk.train.new_domain.scratch_model import check_own_norms, make_scratch_model

NAME = "compare.json"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Comparison:
    """A finished run, the domains that are new to it, and where their rows are learned."""

    def __init__(
        self,
        run: Path,
        domains: Sequence[Domain],
        out: Path,
        train: Mapping[str, Any],
        device: str | None = None,
    ) -> None:
        """`train`: what is said of [train]; the rest is as the run's own."""
        check_run(run)
        self.run, self.new, self.out, self.said, self.device = run, domains, out, train, device
        self.model = load(run)
        for domain in domains:
            if domain.name in self.model.domains:
                raise BadInput(
                    f"{run} has a domain of this name already, and new ones are compared",
                    got=domain.name,
                    available=self.model.domains,
                    try_="another name, or another domain",
                )
        self.known = reachable(run)
        self.train = merged_train(train, train_like(run, len(self.model.domains)))
        self.one = trunk_cost(self.model).parameters

    def check(self, methods: Mapping[str, Method], seeds: Sequence[int]) -> None:
        """What a method cannot do is found before any of them has begun."""
        for domain in self.new:
            if not len(domain.test):
                raise BadInput(
                    f"{domain.name} has no test image to be compared on",
                    got=f"{len(domain.train)} for training",
                    try_="more images, or a column or folder that names the split test",
                )
        for name, method in methods.items():
            # the run's own domains get teachers, too
            for domain in [*self.own(), *self.new] if method.teachers else self.new:
                if not len(domain.val):
                    raise BadInput(
                        f"{name}: {domain.name} has no validation image to choose weights by",
                        got=f"{len(domain.train)} for training",
                        try_="more images, or a column or folder that names the split val",
                    )
                if method.distill.get("lwf"):
                    OldPredictions(load(self.run), [domain], Distill.of(method.distill))
                if (kind := method.add.get("adapters")) == "norm":
                    worker = make_scratch_model(self.model, Card.of(domain, card_adapters(kind)), 0)
                    check_own_norms(worker, domain.name, kind)
        for name, method in methods.items():
            for seed in seeds:
                for folder, text in self._texts(name, method, seed):
                    check_row(folder, text)

    def _texts(self, name: str, method: Method, seed: int) -> Iterator[tuple[Path, str]]:
        """The folders of a method's rows, with the recipe of each."""
        top = self.out / name / f"seed-{seed}"
        if method.kind == "joint":
            yield top, self._recipe(method, [*self.own(), *self.new], seed, top).text_in(top)
            return
        for domain in self.new:
            folder = top / domain.name
            if method.kind == "add":
                yield folder, self._growth(domain, method, seed, folder).to_toml()
            else:
                yield folder, self._recipe(method, [domain], seed, folder).text_in(folder)

    def find(self, name: str, method: Method, seed: int) -> Found:
        """This method with this seed: learned, or as it was when it was."""
        top = self.out / name / f"seed-{seed}"
        if method.kind == "add":
            return self._added(method, seed, top)
        if method.kind == "separate":
            return self._alone(method, seed, top)
        return self._all(method, seed, top)

    # -- a pack for each domain

    def _added(self, method: Method, seed: int, top: Path) -> Found:
        errors, sizes, seconds, own = {}, {}, {}, 0
        for domain in self.new:
            work = top / domain.name
            record = self._grown(domain, method, seed, work)
            errors[domain.name] = error_of(Table.from_json(record["test"]))[domain.name]
            sizes[domain.name] = record["grown"]["bytes"]
            seconds[domain.name] = seconds_of(work) or record["seconds"]
            own += record["cost"]["own"]["parameters"]
        old = error_of(self._before())
        total = budget(self.model).universal.parameters + own
        return Found(errors, old, total, sizes, seconds)

    def _growth(self, domain: Domain, method: Method, seed: int, work: Path) -> AddRecipe:
        # a handful, too, is learned by this method, not by what suits a handful
        train = self._train(method, 1)
        document = {"seed": seed, "add": {"few": False, **method.add}, "train": train}
        return complete(document, self.said, domain, self.model, work)

    def _grown(self, domain: Domain, method: Method, seed: int, work: Path) -> dict[str, Any]:
        growth, place = self._growth(domain, method, seed, work), choose_device(self.device)
        if (work / SCORES).exists():
            with RunFolder.open(work, growth.to_toml(), resume=True) as row:
                check_data(row, environment([domain], seed, place))
                return read_json(work / SCORES)
        record, _ = raise_domain(
            self.model, domain, growth, work, "added", self.known, place,
            again="the same command", resume=True,
        )  # fmt: skip
        return record

    # -- networks

    def _alone(self, method: Method, seed: int, top: Path) -> Found:
        errors, olds, sizes, seconds, own = {}, [], {}, {}, 0
        for domain in self.new:
            folder = top / domain.name
            scores, model = self._learned(method, [domain], seed, folder)
            errors[domain.name] = error_of(Table.from_json(scores["test"]))[domain.name]
            cost = budget(model).universal
            sizes[domain.name], own = cost.bytes, own + cost.parameters
            seconds[domain.name] = seconds_of(folder)
            if method.init:
                olds.append(self._after(folder, model))
        old = {
            name: statistics.fmean(each[name] for each in olds)
            for name in (olds[0] if olds else ())
        }
        total = budget(self.model).universal.parameters + own
        return Found(errors, old, total, sizes, seconds)

    def _all(self, method: Method, seed: int, top: Path) -> Found:
        domains = [*self.own(), *self.new]
        scores, model = self._learned(method, domains, seed, top)
        errors = error_of(Table.from_json(scores["test"]))
        cost = budget(model)
        new = [domain.name for domain in self.new]
        return Found(
            {name: errors[name] for name in new},
            {name: error for name, error in errors.items() if name not in new},
            cost.universal.parameters,
            {each.name: each.own.bytes for each in cost.domains if each.name in new},
            {"": seconds_of(top)},
        )

    def own(self) -> list[Domain]:
        """The run's domains, all of them with their images."""
        lost = [name for name in self.model.domains if name not in self.known]
        if lost:
            raise BadInput(
                "one network of all domains learns the run's own, too, and nobody named the images "
                f"of {', '.join(lost)}",
                available=self.known,
                try_="--methods without those that learn all",
            )
        return [self.known[name] for name in self.model.domains]

    def _learned(
        self, method: Method, domains: Sequence[Domain], seed: int, folder: Path
    ) -> tuple[Mapping[str, Any], Universal]:
        """An ordinary run in this folder: its scores and its network."""
        if method.teachers:
            for domain in domains:  # the run's own domains have no specialists yet
                teacher = self._place(method.teachers, seed, domain)
                self._learned(
                    choose_methods([method.teachers])[method.teachers], [domain], seed, teacher
                )
        recipe = self._recipe(method, domains, seed, folder)
        models = recipe.make_model(domains)
        if recipe.init_folder is not None and not (folder / SCORES).exists():
            start_from(recipe.init_folder, models)
        done = train_models(models, domains, recipe, resume=True, device=self.device)
        return done.scores, done.model.cpu()

    def _place(self, method: str, seed: int, domain: Domain) -> Path:
        return self.out / method / f"seed-{seed}" / domain.name

    def _recipe(self, method: Method, domains: Sequence[Domain], seed: int, folder: Path) -> Recipe:
        trunk = self.model.trunk
        bases = {str(domain.base) for domain in domains}
        document: dict[str, Any] = {
            "name": folder.name,
            "seed": seed,
            "out": str(folder.absolute()),
            "init": str(self.run.absolute()) if method.init else "",
            "base": bases.pop() if len(bases) == 1 else ".",
            "trunk": {
                "arch": trunk.arch,
                "norm": trunk.norm,
                "adapter_layers": list(trunk.adapter_layers),
                **self._sharing(method),
                **method.trunk,
            },
            "domains": [table_of(domain) for domain in domains],
            "train": self._train(method, len(domains)),
            "distill": dict(method.distill),
        }
        if method.teachers:
            teachers = {
                d.name: str(self._place(method.teachers, seed, d).absolute()) for d in domains
            }
            document["distill"]["teachers"] = teachers
        return Recipe.of(document)

    def _train(self, method: Method, domains: int) -> dict[str, Any]:
        """The settings of so many domains in one network: hours are for all of them."""
        train: dict[str, Any] = self.train | method.train | dict(self.said)
        if train.get("hours") is not None:
            train["hours"] *= domains
        return train

    def _sharing(self, method: Method) -> dict[str, Any]:
        if method.kind == "separate":
            return {"sharing": "none"}
        begun = {"pretrained": self._pretrained()}  # as the run itself began
        if self.model.trunk.sharing == "partial":
            own = list(self.model.trunk.own_stages)
            return {**begun, "sharing": "partial", "own_stages": own}
        return {**begun, "sharing": "deep"}

    def _pretrained(self) -> bool | str:
        if not (self.run / RECIPE).is_file():
            return False
        recipe = Recipe.read(self.run)
        weights = recipe.trunk.pretrained
        return str((recipe.root / weights).resolve()) if isinstance(weights, str) else weights

    # -- the run's own domains

    def _before(self) -> Table:
        """Their scores in the run, which no pack changes."""
        kept = read_json(self.run / SCORES)
        if "test" not in kept:
            return Table((), "test")
        rows = Table.from_json(kept["test"]).rows
        return Table(tuple(row for row in rows if row.domain in self.model.domains), "test")

    def _after(self, folder: Path, learned: Universal) -> dict[str, float]:
        """Their errors were this network's trunk to take over, with their own slots and heads."""
        kept = read_json(folder / "old.json")
        if not kept:
            known = [self.known[name] for name in self.model.domains if name in self.known]
            kept = error_of(old_after(self.run, learned, known)) if known else {}
            write_atomic(folder / "old.json", json.dumps(kept, indent=1) + "\n")
        return {name: float(error) for name, error in kept.items()}


def compare(
    run: Path,
    domains: Sequence[Domain],
    out: Path,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    train: Mapping[str, Any] = NOTHING,
    device: str | None = None,
) -> dict[str, Any]:
    """Every method with every seed; returns, and writes as compare.json, what they came to.

    Rows that are there already of the same trunk, images and settings stay in the document. One
    that diverges stays out, and is named.
    """
    asked = choose_methods(methods)
    check_place(out, NAME)
    ground = Comparison(run, domains, out, train, device)
    ground.check(asked, seeds)
    for domain in domains:
        tell(domain)
    about = {
        "run": run.name,
        "trunk": ground.model.trunk.fingerprint(),
        "own": {name: kinds_of(card.tasks) for name, card in ground.model.domains.items()},
        "domains": {domain.name: kinds_of(domain.tasks) for domain in domains},
        "data": {domain.name: mark_of(domain) for domain in domains},
        "images": {domain.name: len(domain.test) for domain in domains},
        "train": ground.train,
        "one": ground.one,
    }
    document: dict[str, Any] = {}
    for seed in seeds:
        for name, method in asked.items():
            say(f"{name}, seed {seed}: {method.description}")
            found: Found | str
            try:
                found = ground.find(name, method, seed)
            except Diverged as error:
                found = str(error)
                say(f"{name}, seed {seed}: {found}")
            old = read_json(out / NAME)  # now: another process may have added rows meanwhile
            same = {key: old.get(key) for key in about} == about
            rows, lost = (old["rows"], old["failed"]) if same else ({}, {})
            lost.pop(f"{name}, seed {seed}", None)
            if isinstance(found, str):
                lost[f"{name}, seed {seed}"] = found
            else:
                rows.setdefault(name, {})[str(seed)] = asdict(found)
            order = [each for each in choose_methods(()) if each in rows]
            document = {**about, "rows": {each: rows[each] for each in order}, "failed": lost}
            write_atomic(out / NAME, json.dumps(document, indent=1) + "\n")
    return document
