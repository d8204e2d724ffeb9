"""Collects the content of the report: reads run folders, measures networks, makes the verdict.

What cannot be measured (because a source is missing, or a run not finished) is left out, and the
reason is reported.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from onetrunk.data.cache import cpus
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.eval.external_predictions import evaluate_predictions
from onetrunk.eval.feature_map import feature_map
from onetrunk.eval.gradient_agreement import Loss, gradient_agreement
from onetrunk.eval.latency import Latency, latency
from onetrunk.eval.similarity import similarity
from onetrunk.eval.timm_checkpoint import evaluate_checkpoint
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.saving import models_of
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.report.class_errors import class_errors
from onetrunk.report.columns import Column, column_of, scores_of, validation_error
from onetrunk.report.curves import training_curves
from onetrunk.report.examples import task_examples
from onetrunk.report.findings import DomainSplits, Findings, Measurements
from onetrunk.report.floors import FloorChoice, floors_of
from onetrunk.report.run_files import (
    PathOrName,
    RunFiles,
    RunGroup,
    match_single_task_domains,
    read_groups,
    setting_folders,
)
from onetrunk.report.verdict import BASELINE, Candidate, Weakness, decide
from onetrunk.report.weaknesses import weaknesses_of
from onetrunk.runs.open import Run
from onetrunk.store.run_folder import RECIPE, shell
from onetrunk.train.losses import Losses
from onetrunk.train.threads import choose_threads, using_threads

Models = Mapping[str, Universal]
Value = TypeVar("Value")
LATENCY_SECONDS = 15.0  # about how long latency is measured
PROBE_IMAGES = 16  # of the batch that is timed to choose the number of threads
COLOURS = 6  # of columns

PUBLIC_SOURCES = ("pocket:", "torchvision:", "pypi:")  # they reveal nothing about the user
PATH_KEYS = "source|out|init|base|pretrained|teachers|folder|file|path"
PATH_LINE = re.compile(rf"^(?P<key>\s*(?:{PATH_KEYS})\s*=\s*)(?P<value>.*)$", re.MULTILINE)
SOURCE_KIND = re.compile(r"""^["']([\w.]+):""")
NO_PATH = re.compile(r"""^(true|false|["']\.?["'])\s*(#.*)?$""")


def gather(
    runs: Sequence[PathOrName],
    baseline: PathOrName | None = None,
    *,
    images: bool = True,
    floors: FloorChoice = "auto",
    domains: Sequence[Domain] = (),
    chosen: int | PathOrName | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Findings:
    """Read the runs, measure their networks, and make the verdict.

    Args:
        runs: Folders of runs, one column each.
        baseline: A run, a table of predictions, or `timm/NAME`.
        images: Whether images and file names may be shown.
        floors: Which floors are computed, see floors.py.
        domains: Domains whose images were given in Python.
        chosen: The run that was chosen, by its folder (which may be the baseline) or as an index
            of `runs`.
        notes: Sentences on that choice.
        seed: The seed of all samples.
    """
    groups, base = _groups(runs, baseline, domains)
    chosen_index = None if chosen is None else _chosen(runs, groups, base, chosen)
    every = [*groups, *([base] if base else [])]
    attempt = Attempt(files=images)
    models = {
        group.name: (attempt(f"model {group.name}", _models, group) or {})
        if group.first.recipe_text
        else {}
        for group in every
    }
    first = groups[0]
    images_of_first = (
        attempt("images", _domains, first, models[first.name], domains)
        if models[first.name]
        else None
    )
    floor_groups = floors_of(
        Run(first.first.path), models[first.name], images_of_first or [], floors, attempt, seed
    )
    curves = training_curves([*enumerate(groups), *([(-1, base)] if base else [])])
    base_column = column_of(base, "base", None, models[base.name], floor_groups) if base else None
    columns = [
        column_of(group, f"g{i % COLOURS}", base, models[group.name], floor_groups)
        for i, group in enumerate(groups)
    ]
    verdict = decide(
        [
            _candidate(
                group, column, base_column, base or first,
                weaknesses_of(group, i, curves, floor_groups) if base else (),
            )
            for i, (group, column) in enumerate(zip(groups, columns, strict=True))
        ],
        base.name if base and not base.separate else None,
        weaknesses_of(base, -1, curves, floor_groups) if base else (),
        chosen_index,
    )  # fmt: skip
    evaluated = groups[verdict.evaluated]
    networks = models[evaluated.name]
    measured = Measurements()
    if networks:
        known = images_of_first if evaluated is first else None
        if known is None:
            known = attempt("images", _domains, evaluated, networks, domains)
        separate = models[base.name] if base and base.separate else None
        measured = _measure(evaluated, networks, separate, known or [], attempt, seed)
    now = datetime.now()
    return Findings(
        created=f"{now.day} {now:%B %Y, %H:%M}",
        version=_version(),
        machine=machine(
            next(next(iter(networks.values())).parameters()).device if networks else None
        ),
        verdict=verdict,
        columns=tuple(columns),
        baseline=base_column,
        splits=_splits(evaluated),
        curves=curves,
        floors={name: scores_of(group) for name, group in floor_groups.items()},
        recipes=tuple(
            (g.name, g.first.recipe_text if images else without_paths(g.first.recipe_text))
            for g in every
            if g.first.recipe_text
        ),
        environments=tuple((g.name, g.first.environment) for g in every if g.first.environment),
        images=images,
        chosen=chosen_index,
        notes=tuple(notes),
        measured=measured,
        missing=attempt.missing,
    )


class Attempt:
    """Calls functions that may fail, and stores the reasons of failures.

    Args:
        files: Whether a reason may name files.
    """

    def __init__(self, files: bool) -> None:
        self.files = files
        self.missing: dict[str, str] = {}

    def __call__(self, part: str, work: Callable[..., Value], *args: object) -> Value | None:
        """Return what `work` returns, or None if it fails."""
        try:
            return work(*args)
        except (OnetrunkError, OSError, MemoryError) as error:
            say(f"left out of the report: {part}: {error}")
            hidden = "the reason was printed when this report was made"
            self.missing[part] = str(error) if self.files else hidden
            return None


def loss_of(domains: Sequence[Domain]) -> Loss:
    """Return the training loss of a domain: the mean over its tasks."""
    losses = Losses(domains)

    def loss(name: str, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(losses(name, outputs, [(1.0, targets)]).values())).mean()

    return loss


def _measure(
    group: RunGroup,
    networks: Models,
    separate: Models | None,
    domains: Sequence[Domain],
    attempt: Attempt,
    seed: int,
) -> Measurements:
    """Measure the networks of the evaluated group."""
    model = next(iter(networks.values()))
    several = len(domains) > 1
    together = [domain for domain in domains if domain.name in model.domains]  # others: their own
    found = Measurements()
    if attempt.files and domains:
        examples = attempt("examples", lambda: task_examples(networks, domains, seed=seed))
        found = replace(found, examples=examples or ())
    if domains:
        errors = attempt("classes", lambda: class_errors(networks, domains, images=attempt.files))
        found = replace(found, errors=errors or ())
    if several:
        cka = attempt("similarity", lambda: similarity(networks, domains, seed=seed))
        found = replace(found, similarity=cka)
    if group.separate:
        return found
    if len(together) > 1:
        points = attempt("feature map", lambda: feature_map(model, together, seed=seed))
        found = replace(found, feature_map=points)
    if len(together) > 1 and model.shared_parameters():
        loss = loss_of(together)
        cosines = attempt(
            "gradient agreement", lambda: gradient_agreement(model, together, loss, seed=seed)
        )
        found = replace(found, gradient_agreement=cosines)
    say(f"measuring latency, about {LATENCY_SECONDS:.0f} s")
    times = attempt("latency", lambda: measured_latency(model, separate, seed))
    return replace(found, latency=times)


def measured_latency(model: Universal, separate: Models | None, seed: int) -> Latency:
    """Measure latency with as many threads as are fast on a machine that may be busy."""
    name, card = next(iter(model.domains.items()))
    x = torch.zeros(PROBE_IMAGES, 3, *card.pixels.size).to(next(model.parameters()))

    def step() -> None:
        with eval_mode(model), torch.inference_mode():
            model(x, name)

    threads = choose_threads(None, x.device, step, work="measuring latency")
    with using_threads(threads.count):
        return latency(model, separate, seconds=LATENCY_SECONDS, seed=seed)


def _groups(
    runs: Sequence[PathOrName], baseline: PathOrName | None, domains: Sequence[Domain]
) -> tuple[list[RunGroup], RunGroup | None]:
    """Read the runs and the baseline."""
    if not runs:
        raise BadInput("expected at least one run", try_="onetrunk report RUN")
    paths = [Path(run).resolve() for run in runs]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise BadInput("expected each run once", got=twice[0].name)
    if baseline is None:
        return finished_groups(read_groups(runs)), None
    base = Path(baseline)
    if base.resolve() in paths:
        raise BadInput(
            "expected a baseline that is not one of the runs",
            got=base.name,
            try_="name it as --baseline only",
        )
    if base.is_file() or (str(baseline).startswith("timm/") and not base.exists()):
        groups = finished_groups(read_groups(runs))
        known = Run(groups[0].first.path, domains=domains).domains
        return groups, external_baseline(base, list(known.values()))
    settings = setting_folders(base)
    if len(settings) > 1:
        raise BadInput(
            f"expected one run as the baseline, but {base.name} holds several settings",
            got=base.name,
            available=[path.name for path in settings],
        )
    groups = finished_groups(read_groups([*runs, baseline]))
    return groups[:-1], match_single_task_domains(groups[-1], groups[:-1])


def _chosen(
    runs: Sequence[PathOrName],
    groups: Sequence[RunGroup],
    base: RunGroup | None,
    chosen: int | PathOrName,
) -> int:
    """Return the column of the chosen run; BASELINE is that of the baseline."""
    if isinstance(chosen, int):
        if not 0 <= chosen < len(runs):
            raise BadInput(
                "chosen: expected an index of the runs", got=chosen, available=range(len(runs))
            )
        chosen = runs[chosen]
    for column, group in [*enumerate(groups), *([(BASELINE, base)] if base else [])]:
        if group.is_at(Path(chosen)):
            return column
    raise BadInput(
        "chosen: expected one of the runs, or the baseline",
        got=str(chosen),
        available=[group.name for group in [*groups, *([base] if base else [])]],
    )


def finished_groups(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Return the groups with their finished seeds; a run without a finished one is refused."""
    errors, found = [], []
    for group in groups:
        left = [run for run in group.runs if run not in group.finished]
        if not group.finished:
            command = f"onetrunk train {shell(left[0].path / RECIPE)} --resume"
            got = f"{group.name}, which is unfinished"
            errors.append(BadInput("expected a finished run", got=got, try_=command))
        elif left:
            seeds = ", ".join(str(run.seed) for run in left)
            say(f"note: {group.name}: left out, because unfinished: seed {seeds}")
        found.append(replace(group, runs=tuple(group.finished)))
    if errors:
        raise BadInput.several(errors)
    return found


def external_baseline(path: Path, domains: Sequence[Domain]) -> RunGroup:
    """Evaluate a table of predictions or a timm checkpoint as a baseline."""
    if path.is_file():
        evaluated = evaluate_predictions(path, domains)
    else:
        evaluated = evaluate_checkpoint(path.as_posix(), domains)
    scores = {"test": evaluated.table().to_json()}
    return RunGroup(path.name, (RunFiles(path, "", {}, scores, {}, (), evaluated.outcomes()),))


def _models(group: RunGroup) -> Models:
    return models_of(group.first.path)


def _domains(group: RunGroup, models: Models, given: Sequence[Domain]) -> list[Domain]:
    """Return the run's domains that the models have, with their images."""
    run = Run(group.first.path, domains=given)
    domains = [domain for name, domain in run.domains.items() if name in models]
    if not domains and models:
        raise run.no_images()
    for domain in domains:
        domain.check()
    return domains


def _candidate(
    group: RunGroup,
    column: Column,
    baseline: Column | None,
    reference: RunGroup,
    weaknesses: Sequence[Weakness],
) -> Candidate:
    cost = column.cost
    separate = baseline.cost if baseline else column.separate_cost
    return Candidate(
        column.comparisons,
        size_ratio=cost.bytes / separate.bytes if cost and separate and separate.bytes else None,
        frozen=group.frozen,
        seeds=max(1, column.finished),
        val_error=validation_error(group, reference),
        domains=len({domain for domain, _ in column.scores}),
        separate=group.separate,
        weaknesses=weaknesses,
    )


def _splits(group: RunGroup) -> tuple[DomainSplits, ...]:
    """Read the sizes of the splits from scores.json."""
    splits, bad = group.first.scores.get("splits"), group.first.scores.get("bad")

    def integers(table: Mapping[str, object]) -> dict[str, int]:
        return {key: value for key, value in table.items() if isinstance(value, int)}

    return tuple(
        DomainSplits(
            str(name),
            str(part.get("how", "")),
            integers(part),
            integers(bad.get(name, {}) if isinstance(bad, Mapping) else {}),
        )
        for name, part in (splits.items() if isinstance(splits, Mapping) else ())
    )


def without_paths(recipe: str) -> str:
    """Return a recipe's text without paths; of a source, only its kind is shown."""

    def hide(line: re.Match[str]) -> str:
        value = line["value"]
        if NO_PATH.match(value) or value[1:].startswith(PUBLIC_SOURCES):
            return line[0]
        kind = SOURCE_KIND.match(value)
        shown = f"{kind[1]}:…" if kind and line["key"].strip().startswith("source") else "…"
        return f'{line["key"]}"{shown}"'

    return PATH_LINE.sub(hide, recipe)


def machine(device: torch.device | None = None) -> str:
    """Name the processor or graphics card, the cores and the system; no host, user or path."""
    words = [_processor(), f"{cpus()} cores", platform.system()]
    if device is not None and device.type == "cuda":
        words.insert(0, torch.cuda.get_device_name(device))
    return ", ".join(word for word in words if word)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    known = next((name for name in names if name and name != "unknown"), "")
    return known or platform.processor() or platform.machine()


def _version() -> str:
    try:
        return version("onetrunk")
    except PackageNotFoundError:
        return "not installed"
