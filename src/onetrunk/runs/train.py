"""From domains and settings to a finished run: `ot.train`, and what `onetrunk train` does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.check import check
from onetrunk.config.from_python import distill_settings, recipe_of
from onetrunk.data.domain import Domain, check_domains
from onetrunk.errors import BadInput
from onetrunk.eval.table import Table
from onetrunk.nn.heads import Numbers
from onetrunk.nn.saving import load
from onetrunk.nn.shared_heads import SharedHead
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.runs.environment import check_data, environment
from onetrunk.runs.finish import finish
from onetrunk.store.run_folder import SCORES, RunFolder
from onetrunk.train.device import Precision, choose_device, deterministic
from onetrunk.train.distill.find_teachers import TeacherSource, find_teachers
from onetrunk.train.distill.lwf import find_old_predictions
from onetrunk.train.distill.plan import Record, plan
from onetrunk.train.distill.precompute import FOLDER as VIEWS
from onetrunk.train.distill.precompute import precompute_for_run
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.frozen_heads import fit_heads
from onetrunk.train.initialize import copy_weights, start_from
from onetrunk.train.interrupt import stoppable
from onetrunk.train.learner import NotFinite
from onetrunk.train.loggers import load_logger, make_logger
from onetrunk.train.loop import fit
from onetrunk.train.losses import target_stats
from onetrunk.train.mixup import MIXABLE
from onetrunk.train.weighting import make_weighting

Models = Mapping[str, Universal]  # one under the name "", or by domain a network each


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    models: Models
    scores: Mapping[str, Any]  # what scores.json holds

    @property
    def model(self) -> Universal:
        """The one network; of specialists there are several, in `models`."""
        if len(self.models) > 1:
            raise BadInput("this run holds a network for each domain", available=self.models)
        return next(iter(self.models.values()))

    @property
    def table(self) -> Table:
        """Scores on the test split."""
        return Table.from_json(self.scores["test"])


def train(
    model: Universal,
    domains: Sequence[Domain],
    *,
    out: str | Path,
    train: Train | None = None,
    distill: Distill | None = None,
    teachers: TeacherSource = "",
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
) -> Run:
    """Train a model on all of its domains, in place, and evaluate it.

    Args:
        model: The model.
        domains: The domains of the model.
        out: The folder of the run.
        train: The settings of the training, `Train(steps=…, lr=…)`; None: the defaults.
        distill: The settings of distillation, `Distill(features=…)`; needs teachers.
        teachers: A run of specialists, "timm/NAME", "features:FILE", a model or a Foreign; a list
            of these; or any of these by domain. They replace `distill.teachers`.
        seed: The seed of all random numbers.
        resume: Continue a run that was stopped.
        device: Where to train; None chooses.
    """
    names = [domain.name for domain in domains]
    if sorted(names) != sorted(model.domains):
        raise BadInput("expected all domains of the model", got=names, available=model.domains)
    check_domains(domains)
    settings = distill_settings(distill, teachers)
    recipe = recipe_of(model, domains, train or Train(), seed, Path(out), settings)
    part = names[0] if model.trunk.sharing == "none" else ""
    return train_models(
        {part: model}, domains, recipe, resume=resume, device=device, teachers=teachers
    )


def train_recipe(recipe: Recipe, *, resume: bool = False, device: str | None = None) -> Run:
    """Everything that the recipe says, from its domains to its scores."""
    checked = check(recipe)
    for warning in checked.warnings:
        say(f"note: {warning}")
    models = recipe.make_model(checked.domains)
    if recipe.init_folder is not None:
        start_from(recipe.init_folder, models)
    return train_models(models, checked.domains, recipe, resume=resume, device=device)


def train_models(
    models: Models,
    domains: Sequence[Domain],
    recipe: Recipe,
    *,
    resume: bool,
    device: str | torch.device | None,
    teachers: TeacherSource = "",
) -> Run:
    """Each model on its domains, one after the other, then their scores.

    `teachers`: those of the recipe, where a file cannot say them.
    """
    train, place = recipe.train, choose_device(device)
    check_tasks(domains, train)
    for model in models.values():
        check_weighting(model, domains, train)
    folder = recipe.out_folder
    done = resume and (folder / SCORES).exists()  # its teachers may be gone by now
    found, taught = ({}, {}) if done else find_taught(models, domains, recipe, teachers)
    old_predictions = None if done else find_old_predictions(recipe, domains)
    if not done:
        check_labels(domains, taught)
    if not train.frozen:
        check_val(models, domains)
    for name in train.loggers:
        load_logger(name)  # a wrong one leaves no run behind
    with RunFolder.open(folder, recipe.text_in(folder), resume=resume) as run:
        for model in models.values():
            record(model, recipe)
            scale_numbers(model, domains)
        if run.finished:
            say(f"{run.path} is finished already")
            forget_views(run, recipe)
            for part, model in models.items():
                copy_weights(model, load(run.path, part or None))
            return Run(run.path, models, json.loads((run.path / SCORES).read_text("utf-8")))
        check_data(run, environment(domains, recipe.seed, place))
        last = [saved for part in models if (saved := run.last(part)) is not None]
        run.rewind(last[-1] if last else None)
        if recipe.distill.views and found:
            with stoppable() as stop, deterministic(train.deterministic, place):
                precision = Precision.of(train.precision, place)
                found = precompute_for_run(
                    models, domains, found, recipe.distill, run, recipe.seed, precision, stop
                )
        learn = (
            fit_heads
            if train.frozen
            else partial(
                fit, teachers=found, distill=recipe.distill, old_predictions=old_predictions
            )
        )
        logger = make_logger(train.loggers, run.path)
        chosen = {}
        for part, model in models.items():
            mine = [domain for domain in domains if domain.name in model.domains]
            try:
                chosen[part] = learn(
                    model, mine, train, run, logger, part=part, device=place, seed=recipe.seed
                )
            except NotFinite as error:
                run.write("failed.json", error.record)
                raise
            if len(models) > 1:
                model.cpu()  # the device holds one specialist at a time
        scores = finish(run, models, domains, chosen, recipe.seed, place, train.frozen, taught)
        forget_views(run, recipe)
    return Run(run.path, models, scores)


def forget_views(run: RunFolder, recipe: Recipe) -> None:
    """Nothing needs them once the run is finished."""
    if not recipe.distill.keep_views:
        shutil.rmtree(run.path / VIEWS, ignore_errors=True)


def find_taught(
    models: Models, domains: Sequence[Domain], recipe: Recipe, teachers: TeacherSource
) -> tuple[dict[str, list[Teacher]], Record]:
    """The teachers by domain, and what they teach."""
    distill = recipe.distill
    if not distill.on:
        return {}, {}
    if recipe.train.frozen:
        raise BadInput(
            "train.frozen solves heads from labels and cannot use teachers",
            place="distill.teachers",
            try_="distill.enabled = false",
        )
    given = teachers or distill.teachers
    found = find_teachers(given, domains, recipe.root, distill.logits)
    return found, plan(models, domains, found, distill, recipe.train)


def check_tasks(domains: Sequence[Domain], train: Train) -> None:
    """Settings that some kinds of tasks cannot have."""
    for domain in domains:
        for task in domain.tasks:
            if train.mixup and task.kind not in MIXABLE:
                raise BadInput(
                    f"train.mixup: a mixed image has no {task.kind} label ({domain.name})",
                    got=train.mixup,
                    available=MIXABLE,
                    try_="train.mixup = 0",
                )


def check_labels(domains: Sequence[Domain], taught: Record) -> None:
    """A task without labels is taught by somebody, or it is refused."""
    problems = []
    for domain in (domain for domain in domains if domain.unlabelled):
        lessons = taught.get(domain.name, ())
        for task in domain.tasks:
            predicted = any(task.name in lesson["predictions"] for lesson in lessons)
            embedded = task.kind == "embed" and any("features" in lesson for lesson in lessons)
            if task.kind == "regress":
                why = "a teacher's numbers have a scale that labels alone say"
            elif not (predicted or embedded):
                why = "no teacher answers it"
            else:
                continue
            problems.append(
                BadInput(
                    f"{domain.name}/{task.name}: its images have no labels, and {why}",
                    try_=f"[distill] teachers.{domain.name} = one that does; "
                    'or tasks = ["embed"], which features alone teach',
                )
            )
    if problems:
        raise BadInput.several(problems)


def check_weighting(model: Universal, domains: Sequence[Domain], train: Train) -> None:
    """A weighting that does not exist, or that these units cannot have."""
    units = [
        f"{domain.name}/{task.name}"
        for domain in domains
        for task in (() if domain.unlabelled else domain.tasks)
        if domain.name in model.domains
    ]
    if units:  # without labels there is nothing to weighting
        make_weighting(train.weighting, units, settings=train.weighting_settings)


def check_val(models: Models, domains: Sequence[Domain]) -> None:
    """Each model's weights are chosen on validation: found here, not after hours."""
    for model in models.values():
        mine = [d for d in domains if d.name in model.domains and not d.unlabelled]
        if mine and not any(len(domain.val) for domain in mine):
            raise BadInput(
                f"no validation image to choose weights by: {', '.join(d.name for d in mine)}",
                got=f"{sum(len(d.train) for d in mine)} for training",
                try_="more images, or a column or folder that names the split val",
            )


def record(model: Universal, recipe: Recipe) -> None:
    """What a domain's pack says of its training; `shared-batch` is evaluated by its batch."""
    train = recipe.train
    for name, card in model.domains.items():
        batch = next((d.batch for d in recipe.domains if d.name == name and d.batch), train.batch)
        provenance = {"run": recipe.name, "seed": recipe.seed, "batch": batch}
        model.domains[name] = card.with_record(provenance, card.scores)


def scale_numbers(model: Universal, domains: Sequence[Domain]) -> None:
    """Heads that predict numbers start from the training labels' mean and standard deviation."""
    scaled: set[int] = set()
    for domain in domains:
        for task in domain.tasks if domain.name in model.domains else ():
            head = model.heads_of(domain.name).head(task.name)
            head = head.held[0] if isinstance(head, SharedHead) else head
            if isinstance(head, Numbers) and id(head) not in scaled:
                scaled.add(id(head))  # shared by domains, it has the first one's scale
                mean, std = target_stats(domain, task)
                with torch.no_grad():
                    head.mean.copy_(mean)
                    head.std.copy_(std)
