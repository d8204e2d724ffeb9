"""Train a run: domains and settings in, a folder with a model and its scores out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path

import torch

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.check import check
from onetrunk.config.from_python import check_settings, distill_settings, recipe_of
from onetrunk.data.check_domains import check_domains
from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import list_domains
from onetrunk.data.splitting import SPLITS
from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.nn.arguments import check_model
from onetrunk.nn.heads import Numbers
from onetrunk.nn.model_files import save_models
from onetrunk.nn.published_weights import is_file, weights_licence
from onetrunk.nn.saving import load
from onetrunk.nn.shared_heads import SharedHead
from onetrunk.nn.universal import Universal
from onetrunk.objects import Trust, modules_of, trusting
from onetrunk.progress import say
from onetrunk.runs.environment import check_environment, environment, recorded_threads
from onetrunk.runs.open import OUTCOMES, Models, Run
from onetrunk.store.checkpoint import last
from onetrunk.store.run_folder import CHECKPOINTS, RECIPE, SCORES, RunFolder, check_place
from onetrunk.train.callbacks import Callback, check_callbacks
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
from onetrunk.train.loggers import Logger, check_loggers, make_logger
from onetrunk.train.loop import fit
from onetrunk.train.losses import target_stats
from onetrunk.train.mixup import MIXABLE
from onetrunk.train.selection import Selection
from onetrunk.train.threads import choose_threads, probe_step, using_threads
from onetrunk.train.weighting import make_weighting

FORMAT = 1  # of scores.json


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
    loggers: Sequence[str | Logger] = (),
    callbacks: Sequence[Callback] = (),
    trust: Trust = (),
) -> Run:
    """Train a model on all of its domains, in place, and evaluate it.

    The training starts from the weights that the model has. Those of a new model are drawn from
    torch's random numbers when it is made: call `torch.manual_seed` before `ot.Trunk` for the same
    ones each time.

    Args:
        model: The model.
        domains: The domains of the model.
        out: The folder of the run.
        train: The settings of the training, such as `Train(steps=800)`; None: the defaults.
        distill: The settings of distillation; they need teachers.
        teachers: A run of specialists, "timm/NAME", "features:FILE", a model or a `Foreign`; a list
            of these; or any of these by domain. They replace `distill.teachers`.
        seed: The seed of all random numbers of the training.
        resume: Continue an interrupted run.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        loggers: Loggers beside those of `train.loggers`: names such as "wandb", or objects.
        callbacks: Your own code at the start, after each step and validation, and at the end.
        trust: Modules whose code the folders of teachers may name.
    """
    check_place(Path(out))
    check_model(model)
    domains = list_domains(domains)
    for settings, kind in ((train, Train), (distill, Distill)):
        check_settings(settings, kind)
    names = [domain.name for domain in domains]
    if sorted(names) != sorted(model.domains):
        raise _other_domains(names, list(model.domains))
    for domain in domains:  # which may be other objects than the model was made with
        pixels = model.domains[domain.name].pixels
        domain.expect((pixels.mean, pixels.std))
    check_domains(domains)
    distilled = distill_settings(distill, teachers)
    recipe = recipe_of(model, domains, train or Train(), seed, Path(out), distilled)
    part = names[0] if model.trunk.sharing == "none" else ""
    with trusting(trust):
        try:
            return train_models(
                {part: model},
                domains,
                recipe,
                resume=resume,
                device=device,
                teachers=teachers,
                loggers=loggers,
                callbacks=callbacks,
            )
        except KeyboardInterrupt:
            _say_interrupted(Path(out))
            raise


def _say_interrupted(folder: Path) -> None:
    """Print where an interrupted training is saved, and how to continue it in Python."""
    if not (folder / RECIPE).is_file():
        say("interrupted before the training began; no run was written")
        return
    step = Run(folder).last_step
    saved = f"the checkpoint of step {step:,} is in {folder}" if step else f"{folder} has no steps"
    say(f"interrupted; {saved}; continue with train(…, out={str(folder)!r}, resume=True)")


def _other_domains(given: Sequence[str], known: Sequence[str]) -> BadInput:
    """Return the error for domains that are not those of the model."""
    missing = [name for name in known if name not in given]
    unknown = [name for name in given if name not in known]
    parts = [f"without {', '.join(missing)}"] if missing else []
    parts += [f"with {', '.join(unknown)}, which the model does not have"] if unknown else []
    return BadInput(
        "expected all domains of the model",
        got=f"a list {' and '.join(parts)}",
        available=known,
        try_="model.add_domain(domain)" if unknown else "the complete list",
    )


def train_recipe(recipe: Recipe, *, resume: bool = False, device: str | None = None) -> Run:
    """Train what a recipe describes.

    Args:
        recipe: The recipe; its `out` is the folder of the run.
        resume: Continue an interrupted run; a finished one is returned without training.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
    """
    check_place(recipe.out_folder)
    place = choose_device(device)  # raises before any image is read
    with trusting(modules_of(recipe.objects)):  # the user runs the recipe that names them
        weights = not (resume and is_saved(recipe))
        checked = check(recipe, place, weights=weights)
        recipe = checked.recipe
        for line in (*checked.choices, *(f"note: {warning}" for warning in checked.warnings)):
            say(line)
        models = make_models(recipe, checked.domains, weights)
        if recipe.init_folder is not None:
            start_from(recipe.init_folder, models)
        return train_models(models, checked.domains, recipe, resume=resume, device=place)


def is_saved(recipe: Recipe) -> bool:
    """Return whether checkpoints replace the pretrained weights that all networks start from.

    So a run can be continued where the weights are not installed and cannot be downloaded. Those of
    a file are still read, as only the file tells their licence.
    """
    folder = recipe.out_folder
    if is_file(recipe.trunk.pretrained) or not (folder / RECIPE).is_file():
        return False
    if (folder / SCORES).exists():
        return True
    names = [domain.name for domain in recipe.domains]
    parts = names if recipe.trunk.sharing == "none" else [""]
    return not recipe.train.frozen and all(
        last(folder / CHECKPOINTS / part) is not None for part in parts
    )


def make_models(recipe: Recipe, domains: Sequence[Domain], weights: bool) -> dict[str, Universal]:
    """Return the networks of a recipe; without `weights`, random ones in place of pretrained ones.

    The licence is that of the pretrained weights in any case.
    """
    models = (recipe if weights else recipe.without_weights()).make_model(domains)
    if not weights:
        for model in models.values():
            model.trunk.licence = weights_licence(recipe.trunk.arch, recipe.trunk.pretrained)
    return models


def train_models(
    models: Models,
    domains: Sequence[Domain],
    recipe: Recipe,
    *,
    resume: bool,
    device: str | torch.device | None,
    teachers: TeacherSource = "",
    loggers: Sequence[str | Logger] = (),
    callbacks: Sequence[Callback] = (),
    pause_at: int | None = None,
) -> Run:
    """Train the networks one after the other, each on its domains, and evaluate them.

    Args:
        models: One network under "", or one per domain under its name; trained in place.
        domains: All domains.
        recipe: The settings, and the folder of the run.
        resume: Continue an interrupted run.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        teachers: Teachers that a recipe cannot name, in place of the recipe's.
        loggers: Loggers beside those of the recipe.
        callbacks: Called during the training of each network.
        pause_at: A step at which `Paused` is raised; the run can be continued from there.
    """
    train, place = recipe.train, choose_device(device)
    if train.evaluate_start is None:
        train = train.model_copy(update={"evaluate_start": bool(recipe.init)})
    check_tasks(domains, train)
    check_loggers([*train.loggers, *loggers])
    check_callbacks(callbacks)
    if train.frozen and callbacks:
        raise BadInput(
            "frozen heads are solved without steps, and callbacks are called at steps",
            got="train.frozen = true",
            try_="train without callbacks",
        )
    for model in models.values():
        model.check_importable()
        check_weighting(model, domains, train)
    folder = recipe.out_folder
    finished = resume and (folder / SCORES).exists()  # its teachers may have been deleted
    by_domain: dict[str, list[Teacher]] = {}
    taught: Record = {}
    old_predictions = None
    if not finished:
        by_domain, taught = make_teachers(models, domains, recipe, teachers)
        old_predictions = find_old_predictions(recipe, domains)
        check_labels(domains, taught)
    if not train.frozen:
        check_val(models, domains)
    with (
        ExitStack() as context,
        RunFolder.open(folder, recipe.text_in(folder), resume=resume) as run,
    ):
        for model in models.values():
            record_training(model, recipe)
            scale_numbers(model, domains)
        if run.finished:
            say(f"{run.path} is already finished")
            _remove_views(run, recipe)
            trust = modules_of(recipe.objects)  # the user trains the model that names them
            for part, model in models.items():
                copy_weights(model, load(run.path, part or None, trust=trust))
            return Run(run.path, models, domains=domains, trust=trust)
        threads = choose_threads(
            train.threads,
            place,
            probe_step(next(iter(models.values())), _own(models, domains), train.batch),
            recorded=recorded_threads(run),
        )
        context.enter_context(using_threads(threads.count))
        now = environment(domains, recipe.seed, place, threads.reason, by_domain)
        check_environment(run, now, domains)
        last = [saved for part in models if (saved := run.last(part)) is not None]
        run.rewind(last[-1] if last else None)
        if recipe.distill.views and by_domain:
            with stoppable() as stop, deterministic(train.deterministic, place):
                precision = Precision.of(train.precision, place)
                by_domain = precompute_for_run(
                    models, domains, by_domain, recipe.distill, run, recipe.seed, precision, stop
                )
        learn = (
            fit_heads
            if train.frozen
            else partial(
                fit,
                teachers=by_domain,
                distill=recipe.distill,
                old_predictions=old_predictions,
                callbacks=callbacks,
                pause_at=pause_at,
            )
        )
        about = {"name": recipe.name, "config": recipe.document()}
        logger = make_logger([*train.loggers, *loggers], run.path, about)
        chosen = {}
        for part, model in models.items():
            own = [domain for domain in domains if domain.name in model.domains]
            try:
                chosen[part] = learn(
                    model, own, train, run, logger, part=part, device=place, seed=recipe.seed
                )
            except NotFinite as error:
                run.write("failed.json", error.record)
                raise
            if len(models) > 1:
                model.cpu()  # the device holds one specialist at a time
        finish(run, models, domains, chosen, recipe, place, taught)
        _remove_views(run, recipe)
    return Run(run.path, models, domains=domains, trust=modules_of(recipe.objects))


def finish(
    run: RunFolder,
    models: Models,
    domains: Sequence[Domain],
    chosen: Mapping[str, Selection],
    recipe: Recipe,
    device: torch.device,
    taught: Record,
) -> None:
    """Evaluate, and write the model, the outcomes and, last, scores.json, which ends the run."""
    by_domain = {name: model for model in models.values() for name in model.domains}
    evaluated = {
        split: evaluate_split(by_domain, domains, split, device=device) for split in ("val", "test")
    }
    tables = {split: evaluation.table() for split, evaluation in evaluated.items()}
    for model in models.values():
        for name, card in model.domains.items():
            scores = {**tables["val"].scores_of(name), **tables["test"].scores_of(name)}
            model.domains[name] = card.with_record(card.provenance, scores)
    with run.writing("the model"):
        save_models(models, run.path)
        evaluated["test"].outcomes().save(run.path / OUTCOMES)
    run.finish(
        {
            "format": FORMAT,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": recipe.seed,
            "frozen": recipe.train.frozen,
            **({"teachers": taught} if taught else {}),
            **{split: table.to_json() for split, table in tables.items()},
            "best": {
                part: {"step": s.step, "score": s.score if isfinite(s.score) else None}
                for part, s in chosen.items()
            },
            "own_best": {name: best for s in chosen.values() for name, best in s.own_best.items()},
            "bad": {d.name: {s: len(d.bad(s)) for s in SPLITS} for d in domains},
            "splits": {
                d.name: {"how": d.index.how, **{s: len(d.splits[s]) for s in SPLITS}}
                for d in domains
            },
            "budget": {part: budget(model).to_json() for part, model in models.items()},
        }
    )


def _own(models: Models, domains: Sequence[Domain]) -> list[Domain]:
    """Return the domains of the first network."""
    first = next(iter(models.values()))
    return [domain for domain in domains if domain.name in first.domains]


def _remove_views(run: RunFolder, recipe: Recipe) -> None:
    """Remove the precomputed views, unless the recipe keeps them."""
    if not recipe.distill.keep_views:
        shutil.rmtree(run.path / VIEWS, ignore_errors=True)


def make_teachers(
    models: Models, domains: Sequence[Domain], recipe: Recipe, teachers: TeacherSource = ""
) -> tuple[dict[str, list[Teacher]], Record]:
    """Return the teachers of each domain, and the losses that use each of them.

    Args:
        models: The students.
        domains: All domains.
        recipe: The recipe, whose [distill] table names the teachers.
        teachers: Teachers in place of the recipe's, if any.
    """
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
    by_domain = find_teachers(given, domains, recipe.root, distill.logits)
    return by_domain, plan(models, domains, by_domain, distill, recipe.train)


def check_tasks(domains: Sequence[Domain], train: Train) -> None:
    """Refuse settings that a domain's kinds of tasks do not support, and tasks of one class."""
    for domain in domains:
        domain.check_classes()
        for task in domain.tasks:
            if train.mixup and task.kind not in MIXABLE:
                raise BadInput(
                    f"train.mixup: a mixed image has no {task.kind} label ({domain.name})",
                    got=train.mixup,
                    available=MIXABLE,
                    try_="train.mixup = 0",
                )


def check_labels(domains: Sequence[Domain], taught: Record) -> None:
    """Refuse tasks that have neither labels nor a teacher."""
    errors = []
    for domain in (domain for domain in domains if domain.unlabelled):
        lessons = taught.get(domain.name, ())
        for task in domain.tasks:
            predicted = any(task.name in lesson["predictions"] for lesson in lessons)
            embedded = task.kind == "embed" and any("features" in lesson for lesson in lessons)
            if task.kind == "regress":
                reason = "the scale of a teacher's numbers is only known from labels"
            elif not (predicted or embedded):
                reason = "no teacher predicts the task"
            else:
                continue
            errors.append(
                BadInput(
                    f"{domain.name}/{task.name}: the images have no labels, and {reason}",
                    try_=f"[distill] teachers.{domain.name} = a teacher that does; "
                    'or tasks = ["embed"], for which features are enough',
                )
            )
    if errors:
        raise BadInput.several(errors)


def check_weighting(model: Universal, domains: Sequence[Domain], train: Train) -> None:
    """Refuse an unknown loss weighting, and one that cannot weight the model's tasks."""
    units = [
        f"{domain.name}/{task.name}"
        for domain in domains
        for task in (() if domain.unlabelled else domain.tasks)
        if domain.name in model.domains
    ]
    if units:  # unlabelled domains have no loss to weight
        make_weighting(train.weighting, units, settings=train.weighting_settings)


def check_val(models: Models, domains: Sequence[Domain]) -> None:
    """Refuse a network without validation images: its checkpoint is selected on them."""
    for model in models.values():
        own = [d for d in domains if d.name in model.domains and not d.unlabelled]
        if own and not any(len(domain.val) for domain in own):
            raise no_validation(", ".join(d.name for d in own), sum(len(d.train) for d in own))


def no_validation(name: str, train_images: int) -> BadInput:
    """Return the error for a domain without validation images."""
    return BadInput(
        f"{name}: expected validation images, which select the checkpoint",
        got=f"{train_images} for training",
        try_="more images, or a column or folder that names the split val",
    )


def record_training(model: Universal, recipe: Recipe) -> None:
    """Write the run, seed and batch into the cards of the model's domains."""
    train = recipe.train
    for name, card in model.domains.items():
        batch = next((d.batch for d in recipe.domains if d.name == name and d.batch), train.batch)
        provenance = {"run": recipe.name, "seed": recipe.seed, "batch": batch}
        model.domains[name] = card.with_record(provenance, card.scores)


def scale_numbers(model: Universal, domains: Sequence[Domain]) -> None:
    """Set the scale of heads that predict numbers to the training labels' mean and std."""
    scaled: set[int] = set()
    for domain in domains:
        for task in domain.tasks if domain.name in model.domains else ():
            head = model.heads_of(domain.name).head(task.name)
            head = head.held[0] if isinstance(head, SharedHead) else head
            if isinstance(head, Numbers) and id(head) not in scaled:
                scaled.add(id(head))  # a shared head has the scale of the first domain
                mean, std = target_stats(domain, task)
                with torch.no_grad():
                    head.mean.copy_(mean)
                    head.std.copy_(std)
