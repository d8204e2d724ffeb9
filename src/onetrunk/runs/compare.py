"""Compare methods of adding domains to a run, or baselines of a recipe (`ot.compare`).

With new domains, each method of config/methods.toml is trained with the trunk and schedule of a
finished run. The runs of a method are in `OUT/METHOD/seed-S/NAME` if it has a pack or a network per
domain, and otherwise in `OUT/METHOD/seed-S`. Finished runs are not trained again, and unfinished
ones continue. All choices are made on validation images. Baselines are in baselines.py.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.add_recipe import AddRecipe, merged_train, train_like
from onetrunk.config.from_python import table_of
from onetrunk.config.methods import Method, choose_methods
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.display import Described, Summary
from onetrunk.errors import BadInput, Diverged
from onetrunk.eval.budget import budget, trunk_cost
from onetrunk.eval.table import Table
from onetrunk.nn.published_weights import is_file
from onetrunk.nn.saving import load
from onetrunk.objects import Trust, modules_of, trusting
from onetrunk.progress import say
from onetrunk.runs import pack_history
from onetrunk.runs.baselines import METHODS as BASELINES
from onetrunk.runs.baselines import beside, compare_baselines
from onetrunk.runs.change_domain import make_recipe
from onetrunk.runs.compare_figures import comparison_summary
from onetrunk.runs.environment import check_environment, data_fingerprint, environment
from onetrunk.runs.experiment import domain_errors, is_finished, seconds_of
from onetrunk.runs.forgetting import old_after
from onetrunk.runs.inherit import settings_like
from onetrunk.runs.open import Run, read_json
from onetrunk.runs.train import no_validation, train_models
from onetrunk.runs.train_domain import check_adapters, say_notes, train_domain
from onetrunk.store.atomic import write_atomic
from onetrunk.store.places import check_folder
from onetrunk.store.run_folder import SCORES, RunFolder
from onetrunk.train.device import choose_device
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.initialize import start_from

NAME = "compare.json"
DEFAULT_OUT = Path("runs/compare")


@dataclass(frozen=True, repr=False)
class Comparison(Described):
    """The result of `compare`.

    Attributes:
        file: The JSON file that was written.
        document: Its content.
    """

    file: Path
    document: Mapping[str, Any]

    def summary(self) -> Summary:
        """Return the scores of the methods."""
        return comparison_summary(self.file, self.document)


def compare(
    run: str | os.PathLike[str] | Recipe,
    domains: Sequence[Domain] = (),
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    out: str | os.PathLike[str] = DEFAULT_OUT,
    resume: bool = False,
    device: str | None = None,
    train: Train | None = None,
    trust: Trust = (),
) -> Comparison:
    """Train several methods and compare their scores and costs.

    Args:
        run: With new domains, the folder of a finished run. Without, a recipe, its file, or the
            folder of its run: the baselines frozen, finetune and joint are trained on its domains.
        domains: New domains, which the run does not have.
        methods: Names of methods; empty: all.
        seeds: The seeds of the runs with new domains; baselines have the seed of the recipe.
        out: The folder of the runs with new domains; baselines are beside the run of the recipe.
        resume: Continue unfinished baselines; runs with new domains are always continued.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        train: With new domains, settings of the training; those that are not set are the run's.
        trust: Modules whose code the run may name.
    """
    if domains:
        if isinstance(run, Recipe):
            raise BadInput("new domains need the folder of a run, not a recipe", got=run.name)
        given = {} if train is None else train.given()
        own = [name for domain in domains for name in domain.settings.objects.values()]
        with trusting(trust), trusting(modules_of(own)):
            document = compare_new_domains(
                Path(run), domains, Path(out), given, methods=methods, seeds=seeds, device=device
            )
        return Comparison(Path(out) / NAME, document)
    recipe = run if isinstance(run, Recipe) else Recipe.read(run)
    with trusting(trust):
        document = compare_baselines(recipe, methods or BASELINES, resume=resume, device=device)
    return Comparison(beside(recipe, "baselines.json"), document)


# -- new domains


@dataclass(frozen=True)
class MethodResult:
    """The result of one method with one seed."""

    errors: Mapping[str, float]  # of the new domains, on test
    old: Mapping[str, float]  # of the run's own domains, where the method predicts them
    parameters: int  # of networks and packs for all domains
    bytes: Mapping[str, int]  # that each new domain adds; of one network for all, its pack
    seconds: Mapping[str, float]  # of training; of one network for all under ""


@dataclass(frozen=True)
class _Training:
    """One run of a method: its folder, the text of its recipe, and the function that trains it."""

    folder: Path
    recipe_text: str
    train: Callable[[], object]


class NewDomains:
    """Trains the methods on new domains of a finished run, and reads their results."""

    def __init__(
        self,
        run: Path,
        domains: Sequence[Domain],
        out: Path,
        train: Mapping[str, Any],
        device: str | None = None,
    ) -> None:
        self.run, self.out, self.given, self.device = Run(run), out, train, device
        self.run.check_shared_trunk()
        self.model = self.run.model
        for domain in domains:
            if domain.name in self.model.domains:
                raise BadInput(
                    f"{run} already has a domain of this name",
                    got=domain.name,
                    available=self.model.domains,
                    try_="another name, or another domain",
                )
        self.known = self.run.readable_domains
        like = self.run.domain_settings
        self.new = [settings_like(domain, self.model, like) for domain in domains]
        self.train = merged_train(train, train_like(run, len(self.model.domains)))

    def own(self) -> list[Domain]:
        """Return the run's own domains; the images of all must be known."""
        unknown = [name for name in self.model.domains if name not in self.known]
        if unknown:
            raise BadInput(
                "one network for all domains needs the images of the run's domains, and those of "
                f"{', '.join(unknown)} are not known",
                available=self.known,
                try_="--methods without joint and distilled ones",
            )
        return [self.known[name] for name in self.model.domains]

    def check(self, methods: Mapping[str, Method], seeds: Sequence[int]) -> None:
        """Raise errors of methods, and of other runs in their folders, before any training."""
        for domain in self.new:
            if not len(domain.test):
                raise BadInput(
                    f"{domain.name}: expected test images to compare on",
                    got=f"{len(domain.train)} for training",
                    try_="more images, or a column or folder that names the split test",
                )
        for method in methods.values():
            # the run's own domains have teachers as well
            for domain in [*self.own(), *self.new] if method.teachers else self.new:
                if not len(domain.val):
                    raise no_validation(domain.name, len(domain.train))
                if method.distill.get("lwf"):
                    OldPredictions(load(self.run.folder), [domain], Distill.of(method.distill))
                if (adapters := method.add.get("adapters")) == "norm":
                    check_adapters(self.model, domain, adapters)
        for name, method in methods.items():
            for seed in seeds:
                for each in self._trainings(name, method, seed):
                    is_finished(each.folder, each.recipe_text, resume=True)

    def result(self, name: str, method: Method, seed: int) -> MethodResult:
        """Train the unfinished runs of a method, and return its result from their folders."""
        for each in self._trainings(name, method, seed):
            if not is_finished(each.folder, each.recipe_text, resume=True):
                each.train()
            elif method.kind == "add":
                self._check_images(each)
        top = self._folder(name, seed)
        if method.kind == "add":
            return self._result_of_packs(top)
        return (
            self._result_of_networks(top, method) if method.kind == "separate" else self._joint(top)
        )

    def _folder(self, name: str, seed: int) -> Path:
        return self.out / name / f"seed-{seed}"

    def _trainings(self, name: str, method: Method, seed: int) -> Iterator[_Training]:
        """Yield the runs of a method, its teachers first."""
        top = self._folder(name, seed)
        if method.kind == "add":
            for domain in self.new:
                recipe, folder = self._add_recipe(domain, method, seed, top), top / domain.name
                train = partial(self._train_pack, domain, recipe, folder)
                yield _Training(folder, recipe.to_toml(), train)
        elif method.kind == "separate":
            for domain in self.new:
                yield self._network(method, [domain], seed, top / domain.name)
        else:
            domains = [*self.own(), *self.new]
            if method.teachers:
                (taught,) = choose_methods([method.teachers]).values()
                for domain in domains:
                    folder = self._folder(method.teachers, seed) / domain.name
                    yield self._network(taught, [domain], seed, folder)
            yield self._network(method, domains, seed, top)

    # -- one pack per domain

    def _add_recipe(self, domain: Domain, method: Method, seed: int, top: Path) -> AddRecipe:
        # without few-shot methods: the row is about the method that it names
        return make_recipe(
            self.model,
            domain,
            seed,
            {"few": False, **method.add},
            self.given,
            work=top / domain.name,
            default_train=self._train_settings(method, 1),
        )

    def _train_pack(self, domain: Domain, recipe: AddRecipe, folder: Path) -> None:
        train_domain(
            self.model, domain, recipe, folder, pack_history.ADDED, self.known,
            choose_device(self.device), command="the same command", resume=True,
        )  # fmt: skip

    def _check_images(self, training: _Training) -> None:
        """Refuse a finished pack of other images."""
        (domain,) = (each for each in self.new if each.name == training.folder.name)
        with RunFolder.open(training.folder, training.recipe_text, resume=True) as run:
            check_environment(run, environment([domain], 0, choose_device(self.device)), [domain])

    def _result_of_packs(self, top: Path) -> MethodResult:
        records = {domain.name: read_json(top / domain.name / SCORES) for domain in self.new}
        own = sum(record["cost"]["own"]["parameters"] for record in records.values())
        return MethodResult(
            {name: _error(record, name) for name, record in records.items()},
            self._errors_before(),
            budget(self.model).universal.parameters + own,
            {name: record["added"]["bytes"] for name, record in records.items()},
            {name: seconds_of(top / name) or record["seconds"] for name, record in records.items()},
        )

    def _errors_before(self) -> dict[str, float]:
        """Return the errors of the run's own domains, which packs do not change."""
        scores = self.run.scores
        return domain_errors(Table.from_json(scores["test"])) if "test" in scores else {}

    # -- networks

    def _network(
        self, method: Method, domains: Sequence[Domain], seed: int, folder: Path
    ) -> _Training:
        recipe = self._recipe(method, domains, seed, folder)

        def train() -> None:
            own = [copy(domain) for domain in domains]  # each method has its own normalization
            models = recipe.make_model(own)
            if recipe.init_folder is not None:
                start_from(recipe.init_folder, models)
            train_models(models, own, recipe, resume=True, device=self.device)

        return _Training(folder, recipe.text_in(folder), train)

    def _recipe(self, method: Method, domains: Sequence[Domain], seed: int, folder: Path) -> Recipe:
        trunk = self.model.trunk
        bases = {str(domain.base) for domain in domains}
        document: dict[str, Any] = {
            "name": folder.name,
            "seed": seed,
            "out": str(folder.absolute()),
            "init": str(self.run.folder.absolute()) if method.init else "",
            "base": bases.pop() if len(bases) == 1 else ".",
            "trunk": {
                "arch": trunk.arch,
                "norm": trunk.norm,
                "adapter_layers": list(trunk.adapter_layers),
                **self._sharing(method),
                **method.trunk,
            },
            "domains": [table_of(domain) for domain in domains],
            "train": self._train_settings(method, len(domains)),
            "distill": dict(method.distill),
        }
        if method.teachers:
            top = self._folder(method.teachers, seed).absolute()
            document["distill"]["teachers"] = {d.name: str(top / d.name) for d in domains}
        return Recipe.of(document)

    def _train_settings(self, method: Method, domains: int) -> dict[str, Any]:
        """Return [train] for a network of `domains` domains; `hours` is multiplied by it."""
        train: dict[str, Any] = self.train | method.train | dict(self.given)
        if train.get("hours") is not None:
            train["hours"] *= domains
        return train

    def _sharing(self, method: Method) -> dict[str, Any]:
        """Return the keys of [trunk] on sharing and the initial weights, which are the run's."""
        if method.kind == "separate":
            return {"sharing": "none"}
        weights: bool | str = False
        if self.run.recipe is not None:
            weights = self.run.recipe.trunk.pretrained
            if is_file(weights):
                weights = str((self.run.recipe.root / weights).resolve())
        if self.model.trunk.sharing == "partial":
            own = list(self.model.trunk.own_stages)
            return {"pretrained": weights, "sharing": "partial", "own_stages": own}
        return {"pretrained": weights, "sharing": "deep"}

    def _result_of_networks(self, top: Path, method: Method) -> MethodResult:
        scores = {domain.name: read_json(top / domain.name / SCORES) for domain in self.new}
        costs = {name: each["budget"][name]["universal"] for name, each in scores.items()}
        olds = [self._errors_after(top / name, name) for name in scores] if method.init else []
        old = {
            name: statistics.fmean(each[name] for each in olds)
            for name in (olds[0] if olds else ())
        }
        own = sum(cost["parameters"] for cost in costs.values())
        return MethodResult(
            {name: _error(each, name) for name, each in scores.items()},
            old,
            budget(self.model).universal.parameters + own,
            {name: cost["bytes"] for name, cost in costs.items()},
            {name: seconds_of(top / name) for name in scores},
        )

    def _errors_after(self, folder: Path, name: str) -> dict[str, float]:
        """Return the errors of the run's own domains on a new trunk, with their slots and heads."""
        errors = read_json(folder / "old.json")
        if not errors:
            known = [self.known[name] for name in self.model.domains if name in self.known]
            trained = load(folder, name)
            table = old_after(self.run.folder, trained, known) if known else Table((), "test")
            errors = domain_errors(table)
            write_atomic(folder / "old.json", json.dumps(errors, indent=1) + "\n")
        return {name: float(error) for name, error in errors.items()}

    def _joint(self, top: Path) -> MethodResult:
        scores = read_json(top / SCORES)
        errors = domain_errors(Table.from_json(scores["test"]))
        cost = scores["budget"][""]
        new = [domain.name for domain in self.new]
        return MethodResult(
            {name: errors[name] for name in new},
            {name: error for name, error in errors.items() if name not in new},
            cost["universal"]["parameters"],
            {d["name"]: d["own"]["bytes"] for d in cost["domains"] if d["name"] in new},
            {"": seconds_of(top)},
        )


def compare_new_domains(
    run: Path,
    domains: Sequence[Domain],
    out: Path,
    train: Mapping[str, Any],
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    device: str | None = None,
) -> dict[str, Any]:
    """Train every method with every seed; see `compare`.

    A method that diverges has no row and is listed under `failed`.

    Returns:
        The content of compare.json. Its earlier rows are kept if they have the same trunk, images
        and settings.
    """
    selected = choose_methods(methods)
    check_out(out)
    comparison = NewDomains(run, domains, out, train, device)
    comparison.check(selected, seeds)
    domains = comparison.new
    for domain in domains:
        say_notes(domain)
    model = comparison.model
    about = {
        "run": run.name,
        "trunk": model.trunk.fingerprint(),
        "own": {name: _kinds(card.tasks) for name, card in model.domains.items()},
        "domains": {domain.name: _kinds(domain.tasks) for domain in domains},
        "data": {domain.name: data_fingerprint(domain) for domain in domains},
        "images": {domain.name: len(domain.test) for domain in domains},
        "train": comparison.train,
        "one": trunk_cost(model).parameters,
    }
    document: dict[str, Any] = {}
    for seed in seeds:
        for name, method in selected.items():
            label = f"{name}, seed {seed}"
            say(f"{label}: {method.description}")
            result: MethodResult | None = None
            failure = ""
            try:
                result = comparison.result(name, method, seed)
            except Diverged as error:
                failure = str(error)
                say(f"{label}: {failure}")
            old = read_json(out / NAME)  # read now: another process may have added rows
            same = {key: old.get(key) for key in about} == about
            rows, failed = (old["rows"], old["failed"]) if same else ({}, {})
            failed.pop(label, None)
            if result is None:
                failed[label] = failure
            else:
                rows.setdefault(name, {})[str(seed)] = asdict(result)
            ordered = {each: rows[each] for each in choose_methods(()) if each in rows}
            document = {**about, "rows": ordered, "failed": failed}
            write_atomic(out / NAME, json.dumps(document, indent=1) + "\n")
    return document


def check_out(out: Path) -> None:
    """Refuse a folder with other contents, such as images or a run."""
    own = (*choose_methods(()), NAME)
    check_folder(out, "that of a comparison", lambda path: path.name in own)


def _error(scores: Mapping[str, Any], name: str) -> float:
    """Return the mean error of a domain's headlines on test."""
    return domain_errors(Table.from_json(scores["test"]))[name]


def _kinds(tasks: Sequence[Task]) -> list[str]:
    """Return the kinds of a domain's tasks."""
    return [task.kind for task in tasks]
