"""Train the pack of one domain for a model in use, in a separate folder; check and evaluate it."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from onetrunk.config.add_recipe import AddRecipe, Few, card_adapters
from onetrunk.config.to_toml import document_of
from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.eval.metrics import headline
from onetrunk.eval.table import Row, Table
from onetrunk.nn.card import Card
from onetrunk.nn.pack import Pack
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.runs import pack_history
from onetrunk.runs.environment import check_environment, environment, recorded_threads
from onetrunk.runs.open import OUTCOMES
from onetrunk.runs.train import check_labels, check_tasks, no_validation
from onetrunk.runs.unchanged import Fingerprint, check_unchanged, fingerprints
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.fewshot.choose_method import Method, choose_method
from onetrunk.train.fewshot.folds import has_few_images, images_per_class
from onetrunk.train.interrupt import Stopped
from onetrunk.train.learner import NotFinite
from onetrunk.train.loggers import check_loggers, make_logger
from onetrunk.train.new_domain.adapter_search import few_kind, search_adapters
from onetrunk.train.new_domain.initial_slots import check_start
from onetrunk.train.new_domain.previous_pack import owned_adapters
from onetrunk.train.new_domain.scratch_model import check_own_norms, make_scratch_model
from onetrunk.train.new_domain.trials import (
    HEADS_ONLY,
    AdapterKind,
    TrialRunner,
    trunk_bytes,
    with_record,
)
from onetrunk.train.threads import choose_threads, probe_step, using_threads


def train_domain(
    model: Universal,
    domain: Domain,
    recipe: AddRecipe,
    work: Path,
    event: str,
    others: Mapping[str, Domain],
    device: torch.device,
    *,
    command: str,
    resume: bool,
    old: Pack | None = None,
    start: Pack | None = None,
) -> tuple[dict[str, Any], Pack]:
    """Train the domain, check that all others stay unchanged, and evaluate it.

    The model itself is not changed.

    Args:
        model: The network in use.
        domain: The domain to train.
        recipe: All settings.
        work: The folder for metrics, checkpoints, the record and the pack.
        event: "added" or "updated", for the history.
        others: The other domains of the model whose images are known.
        device: Where to train.
        command: The command that continues an interrupted training, for messages.
        resume: Continue in `work`.
        old: For an update, the pack in use.
        start: For an update, the pack that training starts from.

    Returns:
        The record and the pack.
    """
    name = domain.name
    few_images = old is None and is_few(model, domain, recipe.add.few)
    _check(model, domain, recipe, few_images)
    began = time.monotonic()
    with (
        ExitStack() as context,
        RunFolder.open(work, recipe.to_toml(), resume=resume, command=command) as run,
    ):
        threads = choose_threads(
            recipe.train.threads,
            device,
            probe_step(model, [domain], recipe.train.batch, next(iter(model.domains), None)),
            recorded=recorded_threads(run),
        )
        context.enter_context(using_threads(threads.count))
        check_environment(run, environment([domain], recipe.seed, device, threads.reason), [domain])
        before = fingerprints(model, others, name)
        about = {"name": f"{event} {name}", "config": document_of(recipe)}
        logger = make_logger(recipe.train.loggers, work, about)
        runner = TrialRunner(model, domain, recipe, run, logger, device, old, start)
        try:
            kind, tried, chosen, val = _choose(runner, few_images)
        except Stopped as stop:
            raise Stopped(stop.expected, try_=command) from None
        except NotFinite as error:
            run.write("failed.json", error.record)
            raise
        say(f"{name}: {chosen}")
        trained = Pack.open(runner.pack_path(kind))
        record, pack = _evaluate(runner, kind, trained, before, others, val, event, chosen)
        record |= {"tried": tried, "seconds": round(time.monotonic() - began, 3)}
        with run.writing("the pack"):
            pack.save(work / f"{name}.pack")
        run.finish(record)
        runner.clean_up()
    return record, pack


def _check(model: Universal, domain: Domain, recipe: AddRecipe, few_images: bool) -> None:
    """Raise BadInput for settings that cannot be trained, before the folder is made."""
    check_tasks([domain], recipe.train)
    check_labels([domain], {})
    adapters = recipe.add.adapters
    if ":" in adapters and adapters != model.trunk.adapters:  # its pack would not be accepted
        raise BadInput(
            "a custom adapter has to be the one that the trunk was made with",
            got=adapters,
            available=[model.trunk.adapters],
            try_=f"a run with trunk.adapters = {adapters!r}",
        )
    if not few_images and not len(domain.val):
        raise no_validation(domain.name, len(domain.train))
    check_loggers(recipe.train.loggers)
    check_start(model, domain.name, recipe.add.start)
    if adapters != "auto":
        check_adapters(model, domain, adapters, recipe.add.rank, recipe.seed)


def check_adapters(
    model: Universal, domain: Domain, adapters: str, rank: int | None = None, seed: int = 0
) -> None:
    """Raise BadInput for adapters that the trunk cannot have for this domain."""
    card = Card.of(domain, card_adapters(adapters), rank)
    check_own_norms(make_scratch_model(model, card, seed), domain.name, adapters)


def _choose(
    runner: TrialRunner, few_images: bool
) -> tuple[AdapterKind, list[dict[str, Any]], str, tuple[Row, ...] | None]:
    """Choose what the domain owns: as requested, by a search, or on folds of few images.

    Returns:
        The adapters, all attempts, the reason, and the validation scores of the folds.
    """
    settings, trunk = runner.recipe.add, trunk_bytes(runner.model)
    auto = settings.adapters == "auto"
    given = AdapterKind(settings.adapters, settings.rank)
    if few_images:
        count = images_per_class(runner.domain)
        about = f"{given.label} is evaluated on held-out folds"
        if auto:
            about = "the method is chosen on held-out folds; --adapters KIND sets it"
        say(f"{runner.domain.name}: {count:.3g} images a class, so {about}")
        kind = few_kind(runner) if auto else given
        method, methods, reason = choose_method(runner, kind, required=not auto)
        return (
            method.kind,
            [each.to_json() for each in methods],
            reason,
            _fold_rows(runner.domain, method),
        )
    if auto:
        best, trials, reason = search_adapters(runner)
    else:
        best = runner.trial(given)
        old = runner.old
        same = old is not None and given == AdapterKind(owned_adapters(old), old.card.rank)
        what = "the head only" if given == HEADS_ONLY else best.kind.label
        trials, reason = [best], f"{what}, {'as before' if same else 'as requested'}"
    return best.kind, [trial.to_json(trunk) for trial in trials], reason, None


def _fold_rows(domain: Domain, method: Method) -> tuple[Row, ...]:
    """Return the scores on images held out in folds, as few images are all used for training."""
    if len(domain.tasks) > 1 or method.error is None:
        return ()
    (task,) = domain.tasks
    metric = headline(task.kind)
    return (
        Row(domain.name, task.name, metric.name, method.error, method.held_out, task.kind,
            metric.unit, metric.better, True),
    )  # fmt: skip


def _evaluate(
    runner: TrialRunner,
    kind: AdapterKind,
    trained: Pack,
    before: Mapping[str, Fingerprint],
    others: Mapping[str, Domain],
    val: tuple[Row, ...] | None,
    event: str,
    chosen: str,
) -> tuple[dict[str, Any], Pack]:
    """Evaluate the pack in the model, and remove it again.

    Returns:
        The record, and the pack with its history.
    """
    model, domain, recipe = runner.model, runner.domain, runner.recipe
    name, old = domain.name, runner.old
    if old is not None:
        model.remove(name)
    try:
        model.add_pack(trained)
        unchanged = check_unchanged(before, fingerprints(model, others, name), name)
        say(f"{name}: {unchanged}")
        evaluated = {
            split: evaluate_split(model, [domain], split, device=runner.device)
            for split in ("val", "test")
        }
        tables = {split: evaluation.table() for split, evaluation in evaluated.items()}
        if val is not None:
            tables["val"] = Table(val, "val")
        cost = domain_cost(model, name)
    finally:
        if name in model.domains:
            model.remove(name)
        if old is not None:
            model.add_pack(old)
    with runner.run.writing(OUTCOMES):
        evaluated["test"].outcomes().save(runner.run.path / OUTCOMES)
    scores = {**tables["val"].scores_of(name), **tables["test"].scores_of(name)}
    entry = pack_history.event(event, domain, recipe, chosen, scores)
    provenance = {
        "seed": recipe.seed,
        "batch": recipe.domain.batch or recipe.train.batch,
        "adapters": kind.name,
        "version": recipe.version,
        "history": pack_history.extended(old.card if old else None, entry),
    }
    pack = with_record(trained, provenance, scores)
    record = {
        "format": 1,
        "finished": entry["date"],
        "domain": name,
        "val": tables["val"].to_json(),
        "test": tables["test"].to_json(),
        "splits": {"how": domain.index.how, **{s: len(domain.splits[s]) for s in SPLITS}},
        "bad": {s: len(domain.bad(s)) for s in SPLITS},
        "added": {
            "event": event,
            "date": entry["date"],
            "seed": recipe.seed,
            "version": recipe.version,
            "chosen": chosen,
            **pack_sizes(model, pack),
        },
        "cost": cost,
        "unchanged": unchanged.to_json(),
    }
    return record, pack


def pack_sizes(model: Universal, pack: Pack) -> dict[str, Any]:
    """Return the adapters of a pack, the size of its file, and that as a share of the trunk's."""
    size = pack.file_bytes
    return {"adapters": pack.card.adapters, "bytes": size, "share": size / trunk_bytes(model)}


def domain_cost(model: Universal, name: str) -> dict[str, Any]:
    """Return one domain's part of the budget of a model."""
    view = copy.copy(model)
    view.domains = {name: model.domains[name]}
    (cost,) = budget(view).domains
    return asdict(cost)


def say_notes(domain: Domain, few: bool = False) -> None:
    """Print notes on the images of a domain: files that cannot be read, empty splits.

    Args:
        few: Whether few-shot methods are used, which train on the validation images, too.
    """
    for line in domain.notes(("test",) if few else ("val", "test")):
        say(f"note: {line}")


def is_few(model: Universal, domain: Domain, setting: Few) -> bool:
    """Return whether few-shot methods are used; shared and users' heads cannot be class means."""
    own = model.trunk.sharing == "full" or bool(domain.settings.heads)
    return not own and has_few_images(domain, setting)
