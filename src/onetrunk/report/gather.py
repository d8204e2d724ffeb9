"""From run folders to findings: everything is measured here, nothing is drawn.

What cannot be measured (a source that is gone, a run that is not finished) is left out with its
reason, and the rest is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.eval.external_predictions import evaluate_predictions
from onetrunk.eval.feature_map import embedding
from onetrunk.eval.gradient_agreement import Loss, conflict
from onetrunk.eval.latency import latency
from onetrunk.eval.similarity import similarity
from onetrunk.eval.timm_checkpoint import evaluate_checkpoint
from onetrunk.nn.saving import models_of
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.report.by_task import by_task
from onetrunk.report.column import column_of, validation
from onetrunk.report.findings import Column, Findings, Splits
from onetrunk.report.machine import machine
from onetrunk.report.pictures import pictures
from onetrunk.report.private import without_files
from onetrunk.report.runs import Group, PathOrRun, Run, read_groups, variations
from onetrunk.report.training import courses
from onetrunk.report.verdict import Candidate, decide

Models = Mapping[str, Universal]
OpenDomains = Callable[[Path], Sequence[Domain]]  # a run's folder to the domains of its recipe
MakeLoss = Callable[[Sequence[Domain]], Loss]
Found = TypeVar("Found")
TIMED = 15.0  # seconds


def gather(
    runs: Sequence[PathOrRun],
    baseline: PathOrRun | None = None,
    *,
    open_domains: OpenDomains,
    make_loss: MakeLoss | None = None,
    images: bool = True,
    seconds: float = TIMED,
    seed: int = 0,
) -> Findings:
    """Read the runs, measure what their models allow, and decide.

    `seconds`: for how long latency is measured, about.
    Where a recipe's domains and a task's loss come from is the caller's to say: both lie above.
    """
    groups, base = _groups(runs, baseline, open_domains)
    every = [*groups, *([base] if base else [])]
    tried = Tried(images)
    models = {
        group.name: (tried(f"model {group.name}", _models, group) if group.first.text else {}) or {}
        for group in every
    }
    base_column = column_of(base, "base", None, models[base.name]) if base else None
    columns = [
        column_of(group, f"g{place % 6}", base, models[group.name])
        for place, group in enumerate(groups)
    ]
    verdict = decide(
        [
            _candidate(group, column, base_column, base or groups[0])
            for group, column in zip(groups, columns, strict=True)
        ],
        base.name if base and not base.separate else None,
    )
    evaluated = groups[verdict.evaluated]
    mine = models[evaluated.name]
    inside: dict[str, Any] = {}
    if mine:
        domains = tried("images", _domains, evaluated, mine, open_domains) or []
        alone = models[base.name] if base and base.separate else None
        inside = _inside(evaluated, mine, alone, domains, make_loss, tried, seconds, seed)
    places = [*enumerate(groups), *([(-1, base)] if base else [])]
    now = datetime.now()
    return Findings(
        made=f"{now.day} {now:%B %Y, %H:%M}",
        version=_version(),
        machine=machine(next(next(iter(mine.values())).parameters()).device if mine else None),
        verdict=verdict,
        columns=tuple(columns),
        baseline=base_column,
        splits=_splits(evaluated),
        courses=courses(places),
        recipes=tuple(
            (g.name, g.first.text if images else without_files(g.first.text))
            for g in every
            if g.first.text
        ),
        environments=tuple((g.name, g.first.environment) for g in every if g.first.environment),
        images=images,
        missing=tried.missing,
        **inside,
    )


class Tried:
    """Runs one part after another; of a part that fails the reason is kept."""

    def __init__(self, files: bool) -> None:
        self.files = files  # whether a reason may name files
        self.missing: dict[str, str] = {}

    def __call__(self, part: str, work: Callable[..., Found], *given: object) -> Found | None:
        """What the work gives, or None."""
        try:
            return work(*given)
        except (OnetrunkError, OSError, MemoryError) as error:
            say(f"left out of the report: {part}: {error}")
            private = "the reason is on the terminal that made this report"
            self.missing[part] = str(error) if self.files else private
            return None


def _inside(
    evaluated: Group,
    mine: Models,
    alone: Models | None,
    domains: Sequence[Domain],
    make_loss: MakeLoss | None,
    tried: Tried,
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """What the models themselves tell, by the name of the finding."""
    model = next(iter(mine.values()))
    several = len(domains) > 1
    found: dict[str, Any] = {}
    if tried.files and domains:
        found["shown"] = tried("pictures", lambda: pictures(mine, domains, seed=seed)) or ()
    if several:
        found["similarity"] = tried("similarity", lambda: similarity(mine, domains, seed=seed))
    if not evaluated.separate:
        if several:
            found["embedding"] = tried("embedding", lambda: embedding(model, domains, seed=seed))
        if several and make_loss is not None and model.shared_parameters():
            loss = make_loss(domains)
            found["conflict"] = tried("conflict", lambda: conflict(model, domains, loss, seed=seed))
        say(f"timing the networks, about {seconds:.0f} s")
        found["latency"] = tried(
            "latency", lambda: latency(model, alone, seconds=seconds, seed=seed)
        )
    return found


def _groups(
    runs: Sequence[PathOrRun], baseline: PathOrRun | None, open_domains: OpenDomains
) -> tuple[list[Group], Group | None]:
    if not runs:
        raise BadInput("expected at least one run", try_="onetrunk report RUN")
    given = [Path(run).resolve() for run in runs]
    twice = [path for path in given if given.count(path) > 1]
    if twice:
        raise BadInput("each run once", got=twice[0].name)
    if baseline is not None and Path(baseline).resolve() in given:
        raise BadInput(
            "a run is not compared with itself",
            got=Path(baseline).name,
            try_="name it as --baseline alone",
        )
    if baseline is None:
        return read_groups(runs), None
    checkpoint = str(baseline).startswith("timm/") and not Path(baseline).exists()
    if checkpoint or Path(baseline).is_file():
        groups = read_groups(runs)
        return groups, outside(Path(baseline), open_domains(groups[0].first.path))
    if len(variations(Path(baseline))) > 1:
        raise BadInput(
            "a baseline is one run, or the seeds of one",
            got=f"{Path(baseline).name}, which holds several settings",
            available=[path.name for path in variations(Path(baseline))],
        )
    groups = read_groups([*runs, baseline])
    return groups[:-1], by_task(groups[-1], groups[:-1])


def outside(path: Path, domains: Sequence[Domain]) -> Group:
    """Someone else's predictions, or a timm checkpoint's, as a baseline: scores and outcomes."""
    if path.is_file():
        found = evaluate_predictions(path, domains)
    else:
        found = evaluate_checkpoint(path.as_posix(), domains)
    for note in found.notes:
        say(note)
    scores = {"test": found.table().to_json()}
    return Group(path.name, (Run(path, "", {}, scores, {}, (), found.outcomes()),))


def _models(group: Group) -> Models:
    if not group.first.scores:
        raise BadInput(f"{group.name} is not finished", try_="onetrunk train RECIPE --resume")
    return models_of(group.first.path)


def _domains(group: Group, models: Models, open_domains: OpenDomains) -> list[Domain]:
    """The recipe's domains that the models know, with their images."""
    domains = [d for d in open_domains(group.first.path) if d.name in models]
    for domain in domains:
        domain.check()
    return domains


def _candidate(group: Group, column: Column, base: Column | None, reference: Group) -> Candidate:
    mine = column.cost
    other = base.cost if base else column.separate_cost
    ratio = mine.bytes / other.bytes if mine and other and other.bytes else None
    return Candidate(
        column.name,
        column.compared,
        ratio,
        group.frozen,
        max(1, column.finished),
        validation(group, reference),
        len({domain for domain, _ in column.scores}),
        group.separate,
    )


def _splits(group: Group) -> tuple[Splits, ...]:
    """As scores.json has them."""
    found = []
    splits, bad = group.first.scores.get("splits"), group.first.scores.get("bad")
    for name, part in splits.items() if isinstance(splits, Mapping) else ():
        counts = {k: int(v) for k, v in part.items() if isinstance(v, int)}
        unread = bad.get(name, {}) if isinstance(bad, Mapping) else {}
        found.append(
            Splits(
                str(name),
                str(part.get("how", "")),
                counts,
                {k: int(v) for k, v in unread.items() if isinstance(v, int)},
            )
        )
    return tuple(found)


def _version() -> str:
    try:
        return version("onetrunk")
    except PackageNotFoundError:  # run from a checkout
        return "from a checkout"
