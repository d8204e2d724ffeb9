"""The verdict on whether one network is enough, made from the scores by fixed rules.

Each task of each domain has a difference d = error of the one network − error of the separate
network, both as numbers where lower is better, with a 95 % interval, and a margin that the one
network may lose (margins.py). The result of the task is *better* if the interval lies below 0,
*equal* if it lies below the margin, *worse* if it lies above, and *undecided* if it contains the
margin. The result of a domain is that of its worst task.

A comparison with networks that are not trained enough (weaknesses.py) is not meaningful, and the
verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from onetrunk.eval.margins import MAX_MARGIN, MIN_MARGIN, PERCENT, SHARE, Estimate
from onetrunk.report.floors import FEATURES, PHRASES

Result = Literal["better", "equal", "undecided", "worse"]
Decision = Literal[
    "frozen heads",
    "one network",
    "keep some",
    "keep all",
    "undecided",
    "not meaningful",
    "no baseline",
    "other",
]
RESULTS: tuple[Result, ...] = ("better", "equal", "undecided", "worse")  # from best to worst
BASELINE = -1  # instead of a candidate's index
MIN_EPOCHS = 3.0  # of a network that others are compared with
LENGTH_KINDS = ("improving", "short")  # of weaknesses
MAX_NAMES = 4  # domains listed in a sentence
RESULT_WORDS: dict[Result, str] = {
    "better": "better",
    "equal": "as good",
    "undecided": "undecided",
    "worse": "worse",
}

RULES = (
    "Every score counts as an error, where lower is better (100 − score where higher is better). "
    "The difference is the error of the one network minus the error of the separate network. Its "
    "95 % interval comes from a paired bootstrap over test images, and over seeds if there are "
    "several. For errors it reaches at least as far as the interval of Agresti and Min, so that a "
    "few images on which both agree do not count as proof.",
    f"Each task has a margin that the one network may lose: {100 * SHARE:g} % of the separate "
    f"network's error, but at least {PERCENT * MIN_MARGIN:g} and at most {PERCENT * MAX_MARGIN:g} "
    "points (percentage points). For scores that are not in percent, a point is a hundredth of the "
    "error of a constant prediction.",
    "Better: the whole interval is below 0. As good: it ends below the margin. Worse: it starts "
    "above the margin. Undecided: it contains the margin. The result of a domain is the result of "
    "its worst task.",
    "Frozen heads are enough if a frozen trunk with trained heads is as good on every domain. One "
    "network is enough if it is as good on every domain and smaller than the separate networks. "
    "Keep all separate networks if the one network is worse on more than half of the domains or "
    "not smaller. Keep some of them if it is worse on some domains. The verdict is undecided if it "
    "is worse on none and undecided on some.",
    "The comparison is not meaningful yet if, on some domain, the separate network is barely "
    "better than one of the floors, which are scores without training (the interval of the "
    "difference contains 0, or the difference "
    f"is less than {PERCENT * MAX_MARGIN:g} points, unless its own error is smaller than that), "
    "still improving at its last validation (by more than the margin), or trained for fewer than "
    f"{MIN_EPOCHS:g} epochs, which are passes over the domain's training images; or if the one "
    f"network is worse and is still improving or was trained for fewer than {MIN_EPOCHS:g} epochs.",
    "If there are several runs, the verdict is about the one that was chosen when the report was "
    "made, or else about the one with the lowest validation error. Test images are never used to "
    "choose anything.",
)
ONE_SEED_NOTE = (
    "There is only one seed: the intervals cover the choice of test images, but not the variation "
    "from one training run to the next."
)


@dataclass(frozen=True)
class TaskComparison:
    """One task of one domain, predicted by the one network and by the baseline.

    Args:
        difference: Our error minus the baseline's; above 0 the one network is worse.
        margin: How much the one network may lose.
        paired: Whether the interval comes from the outcomes of the same images.
    """

    domain: str
    task: str
    ours: Estimate
    baseline: Estimate
    difference: Estimate
    margin: float
    result: Result
    paired: bool = True


@dataclass(frozen=True)
class Weakness:
    """A sign that the network of one domain is not trained enough.

    Args:
        kind: The name of a floor, or one of LENGTH_KINDS.
        reason: A part of a sentence of which the network is the subject.
        not_better: Whether the score of the floor is as good or better.
    """

    domain: str
    kind: str
    reason: str
    not_better: bool = False

    @property
    def about_length(self) -> bool:
        """Whether the training was too short."""
        return self.kind in LENGTH_KINDS


@dataclass(frozen=True)
class Candidate:
    """The facts about one column that the verdict depends on.

    Args:
        size_ratio: Its size divided by the size of the separate networks.
        frozen: Whether only heads were trained.
        separate: Whether it is one network per domain.
        weaknesses: Reasons why it may not be trained enough.
    """

    comparisons: Sequence[TaskComparison]
    size_ratio: float | None = None
    frozen: bool = False
    seeds: int = 1
    val_error: float | None = None
    domains: int = 0
    separate: bool = False
    weaknesses: Sequence[Weakness] = ()


@dataclass(frozen=True)
class Verdict:
    """The decision, in one sentence, with notes and the results by domain."""

    decision: Decision
    sentence: str
    notes: tuple[str, ...] = ()
    evaluated: int = 0  # index of the candidate that the verdict is about
    results: Mapping[str, Result] = field(default_factory=dict)
    weak: tuple[str, ...] = ()  # domains of which the comparison is not meaningful yet


def result_of(difference: Estimate, margin: float) -> Result:
    """Return the result of a difference; without an interval it is undecided."""
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.high < 0:
        return "better"
    if difference.high <= margin:
        return "equal"
    return "worse" if difference.low > margin else "undecided"


def results_by_domain(comparisons: Sequence[TaskComparison]) -> dict[str, Result]:
    """Return the result of each domain, which is the result of its worst task."""
    results: dict[str, Result] = {}
    for row in comparisons:
        results[row.domain] = max(results.get(row.domain, "better"), row.result, key=RESULTS.index)
    return results


def decide(
    candidates: Sequence[Candidate],
    other_baseline: str | None = None,
    baseline_weaknesses: Sequence[Weakness] = (),
    chosen: int | None = None,
) -> Verdict:
    """Return the verdict by RULES.

    Args:
        candidates: The columns of the report.
        other_baseline: The name of the baseline, if it is not a run of separate networks.
        baseline_weaknesses: Reasons why the baseline may not be trained enough.
        chosen: The candidate that was chosen, or BASELINE; by default the one that `choose` finds.
    """
    verdict = _of_trained(candidates, other_baseline, baseline_weaknesses, chosen)
    evaluated = candidates[verdict.evaluated]
    lost = _neither(evaluated.weaknesses, baseline_weaknesses, verdict.results, other_baseline)
    return replace(verdict, notes=(*lost, *verdict.notes))


def _neither(
    ours: Sequence[Weakness],
    theirs: Sequence[Weakness],
    results: Mapping[str, Result],
    other_baseline: str | None,
) -> list[str]:
    """Return a sentence for each floor that is as good as the networks on both sides."""
    baseline = other_baseline or "the separate network"
    lost = {(w.domain, w.kind) for w in theirs if w.not_better}
    domains: dict[str, dict[str, None]] = {}
    for each in ours:
        if each.not_better and each.domain in results and (each.domain, each.kind) in lost:
            domains.setdefault(each.kind, {})[each.domain] = None
    return [
        f"On {_some([*names], len(results))}, neither the one network nor {baseline} is better "
        f"than {PHRASES[kind]}."
        for kind, names in domains.items()
    ]


def _of_trained(
    candidates: Sequence[Candidate],
    other_baseline: str | None,
    baseline_weaknesses: Sequence[Weakness],
    chosen: int | None,
) -> Verdict:
    """Return the verdict with the weaknesses of the networks that it is about."""
    verdict = _decide(candidates, other_baseline, chosen)
    results, evaluated = verdict.results, candidates[verdict.evaluated]
    baseline = other_baseline or "the separate networks"
    weak = [w for w in baseline_weaknesses if w.domain in results]
    if verdict.decision == "frozen heads":  # which may be as good as a well trained network
        weak = [w for w in weak if w.kind != FEATURES]
    lost = _with(results, "worse")
    short = [w for w in evaluated.weaknesses if w.domain in lost and w.about_length]
    saves = evaluated.size_ratio is None or evaluated.size_ratio < 1 or other_baseline is not None
    if verdict.decision != "keep all" and weak:
        return _not_meaningful(verdict, weak, baseline)
    if saves and short:
        return _not_meaningful(verdict, short, "the one network")
    return replace(verdict, notes=(*_weakness_notes(weak, baseline), *verdict.notes))


def _not_meaningful(verdict: Verdict, weak: Sequence[Weakness], networks: str) -> Verdict:
    """Return the verdict that a comparison with weak networks means nothing yet."""
    domains = tuple(dict.fromkeys(w.domain for w in weak))
    where = _some(domains, len(verdict.results))
    verb = "are" if networks.endswith("networks") else "is"
    if any(w.about_length for w in weak):
        problem, remedy = "not trained enough", "Train longer"
    else:
        problem, remedy = (
            "barely better than predictions without training",
            "Train longer or from pretrained weights",
        )
    counts = ", ".join(
        f"{len(names)} {RESULT_WORDS[result]}"
        for result in RESULTS
        if (names := _with(verdict.results, result))
    )
    return replace(
        verdict,
        decision="not meaningful",
        weak=domains,
        sentence=f"Not meaningful yet: on {where}, {networks} {verb} {problem}. {remedy}, then "
        "compare again.",
        notes=(
            *_weakness_notes(weak, networks),
            f"Results by the scores alone, which longer training may change: {counts}.",
            *verdict.notes,
        ),
    )


def _weakness_notes(weak: Sequence[Weakness], networks: str) -> list[str]:
    """Return a sentence for each reason, with the domains that it is about."""
    if not weak:
        return []
    by_domain: dict[str, list[str]] = {}
    for each in weak:
        by_domain.setdefault(each.domain, []).append(each.reason)
    network = "the separate network" if networks == "the separate networks" else networks
    notes = [
        f"{domain}: {network} is {'; '.join(dict.fromkeys(reasons))}."
        for domain, reasons in by_domain.items()
    ]
    if len(notes) > MAX_NAMES:
        notes[MAX_NAMES:] = [f"The same is found for {_names([*by_domain][MAX_NAMES:])}."]
    return notes


def _decide(
    candidates: Sequence[Candidate], other_baseline: str | None, chosen: int | None
) -> Verdict:
    """Return the verdict, as if all networks were trained enough."""
    for index, candidate in enumerate(candidates):
        if chosen not in (None, index):
            continue
        results = results_by_domain(candidate.comparisons)
        enough = results and all(result in ("better", "equal") for result in results.values())
        if other_baseline is None and candidate.frozen and enough:
            sentence = (
                f"Frozen heads are enough: on {_every(len(results))}, a frozen trunk with trained "
                "heads is as good as a separate network."
            )
            return Verdict("frozen heads", sentence, _notes(candidate), index, results)
    index = choose(candidates) if chosen is None or chosen == BASELINE else chosen
    evaluated = candidates[index]
    results = results_by_domain(evaluated.comparisons)
    if not results:
        return Verdict("no baseline", _without_baseline(evaluated), (), index)
    decision: Decision
    if chosen == BASELINE:
        kept = other_baseline or _separate(len(results))
        sentence = f"Keep {kept}, chosen over one network by scores on validation images."
        return Verdict("keep all", sentence, _notes(evaluated), index, results)
    if other_baseline:
        decision, sentence = _against_other(other_baseline, results)
    else:
        decision, sentence = _against_separate(evaluated, results)
    return Verdict(decision, sentence, _notes(evaluated), index, results)


def choose(candidates: Sequence[Candidate]) -> int:
    """Return the index of the candidate with the lowest validation error.

    Frozen trunks and separate networks are only considered if there is nothing else.
    """
    indices = [i for i, c in enumerate(candidates) if not (c.frozen or c.separate)]
    indices = indices or list(range(len(candidates)))
    errors = {i: error for i in indices if (error := candidates[i].val_error) is not None}
    return min(errors, key=errors.__getitem__) if errors else indices[0]


def _without_baseline(evaluated: Candidate) -> str:
    domains = f"{evaluated.domains} domains" if evaluated.domains != 1 else "one domain"
    if evaluated.separate:
        return f"Separate networks for {domains}; add a run with one network to compare them."
    ratio = evaluated.size_ratio
    size = f", {ratio:.2f} times the size of separate networks" if ratio else ""
    return f"One network for {domains}{size}; add a baseline to see whether it is as good."


def _against_separate(evaluated: Candidate, results: Mapping[str, Result]) -> tuple[Decision, str]:
    count, ratio = len(results), evaluated.size_ratio
    worse, undecided = _with(results, "worse"), _with(results, "undecided")
    networks = _separate(count)
    if ratio is not None and ratio >= 1:
        return "keep all", (
            f"Keep {networks}: the one network is {ratio:.2f} times their size, so it saves "
            "nothing."
        )
    if len(worse) > count / 2:
        return "keep all", f"Keep {networks}: the one network is worse on {_some(worse, count)}."
    if worse:
        parts = [f"Keep {len(worse)} of {networks} ({_names(worse)})"]
        if equal := count - len(worse) - len(undecided):
            domains = f"{equal} domain{'s' if equal > 1 else ''}"
            parts.append(f"one network is enough for {'' if undecided else 'the other '}{domains}")
        if undecided:
            parts.append(f"{len(undecided)} {'is' if len(undecided) == 1 else 'are'} undecided")
        return "keep some", "; ".join(parts) + "."
    if undecided:
        return "undecided", (
            f"Undecided: on {_some(undecided, count)}, the one network may be as good or worse. "
            "More seeds or more test images would show which."
        )
    size = f", at {ratio:.2f} times their size" if ratio else ""
    return (
        "one network",
        f"One network is enough: on {_every(count)}, it is as good as {networks}{size}.",
    )


def _separate(count: int) -> str:
    return f"the {count} separate networks" if count > 1 else "the separate network"


def _against_other(name: str, results: Mapping[str, Result]) -> tuple[Decision, str]:
    """Compare with a baseline that is not a run of separate networks."""
    count = len(results)
    if worse := _with(results, "worse"):
        return "other", f"Worse than {name} on {_some(worse, count)}."
    if undecided := _with(results, "undecided"):
        return "other", (
            f"Undecided: on {_some(undecided, count)}, it may be as good as {name} or worse. More "
            "seeds or more test images would show which."
        )
    better = _with(results, "better")
    more = f", and better on {_some(better, count)}" if better else ""
    return "other", f"As good as {name} on {_every(count)}{more}."


def _with(results: Mapping[str, Result], result: Result) -> list[str]:
    return [name for name, each in results.items() if each == result]


def _notes(evaluated: Candidate) -> tuple[str, ...]:
    notes = [ONE_SEED_NOTE] if evaluated.seeds == 1 else []
    unpaired = [f"{c.domain}/{c.task}" for c in evaluated.comparisons if not c.paired]
    if unpaired:
        notes.append(
            f"{_names(unpaired)}: the outcomes of single images are not known on both sides, so "
            "the interval is that of two independent scores, which is wider."
        )
    return tuple(notes)


def _every(count: int) -> str:
    if count == 1:
        return "its one domain"
    return "both domains" if count == 2 else f"all {count} domains"


def _some(names: Sequence[str], count: int) -> str:
    if len(names) == count:
        return _every(count)
    return f"{len(names)} of {count} domains ({_names(names)})"


def _names(names: Sequence[str]) -> str:
    if len(names) > MAX_NAMES:
        return f"{', '.join(names[: MAX_NAMES - 1])} and {len(names) - MAX_NAMES + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
