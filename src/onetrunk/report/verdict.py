"""One network or N? Answered by rules that are written down, from the figures alone.

Each (domain, task) has a difference d = error of the one network − error of the separate one, both
as numbers where lower is better, with its 95 % interval, and a margin m that a domain may lose:
max(1 point, a tenth of the separate network's error) of a score in percent, a tenth of it of any
other. It is *better* where the interval lies below 0, *kept* where it lies below m, *worse* where
it lies above m, and *open* where it reaches across m. A domain is what its worst task is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Reading = Literal["better", "kept", "open", "worse"]
Prediction = Literal["frozen", "one", "some", "keep", "open", "alone", "other"]
POINTS = 1.0  # of a score in percent, that a domain may lose
SHARE = 0.1  # of the separate network's error
ORDER: tuple[Reading, ...] = ("better", "kept", "open", "worse")
NAMED = 4  # domains that a sentence names

RULES = (
    "Each score counts as an error, lower is better (100 − score where higher is better). The "
    "difference is the one network's error minus the separate network's; its 95 % interval is from "
    "a paired bootstrap over test images, and over seeds where there are several.",
    f"A domain may lose a margin: {POINTS:g} point of a score in percent, or a tenth of the "
    "separate network's error where that is more; of any other score a tenth.",
    "Better: the whole interval lies below 0. As good: it ends below the margin. Worse: it begins "
    "above the margin. Not decided: it reaches across the margin. A domain is what its worst task "
    "is.",
    "Frozen heads are enough where a frozen trunk with heads alone is as good on every domain. One "
    "network is enough where it is as good on every domain and smaller than the separate networks. "
    "Worse on more than half of the domains, or no smaller: keep the separate networks. Worse on "
    "some: keep those. None worse, but some not decided: not decided.",
    "Of several runs the one with the lowest validation error is evaluated. Nothing is chosen on test "
    "images.",
)
UNKNOWN_TRAINING = (
    "One seed: the intervals know how far other test images would move the figures, not how far "
    "another training run would."
)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, where one is known, and what each seed gave."""

    value: float
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Compared:
    """One task of one domain, by the one network and by the separate one."""

    domain: str
    task: str
    one: Estimate  # the metric as it is
    alone: Estimate
    difference: Estimate  # as errors: above 0 the one network is worse
    margin: float
    reading: Reading
    paired: bool = True  # the interval is of the same images' outcomes


@dataclass(frozen=True)
class Candidate:
    """What the verdict knows of one network."""

    name: str
    compared: Sequence[Compared]
    size: float | None = None  # its bytes ÷ the separate networks'
    frozen: bool = False
    seeds: int = 1
    chosen_by: float | None = None  # its validation error
    domains: int = 0
    separate: bool = False  # it is no one network, but a network for each domain


@dataclass(frozen=True)
class Verdict:
    """The answer, in one sentence, and what else is to be said."""

    prediction: Prediction
    sentence: str
    notes: tuple[str, ...] = ()
    evaluated: int = 0  # which candidate
    readings: Mapping[str, Reading] = field(default_factory=dict)  # of its domains


def margin(unit: str, alone_error: float) -> float:
    """How much of this score a domain may lose."""
    return max(POINTS if unit == "%" else 0.0, SHARE * abs(alone_error))


def read(difference: Estimate, allowed: float) -> Reading:
    """What a difference says, by its interval; without one nothing is decided."""
    if difference.low is None or difference.high is None:
        return "open"
    if difference.high < 0:
        return "better"
    if difference.high <= allowed:
        return "kept"
    return "worse" if difference.low > allowed else "open"


def by_domain(compared: Sequence[Compared]) -> dict[str, Reading]:
    """Each domain's reading: that of its worst task."""
    found: dict[str, Reading] = {}
    for row in compared:
        found[row.domain] = max(found.get(row.domain, "better"), row.reading, key=ORDER.index)
    return found


def decide(candidates: Sequence[Candidate], other: str | None = None) -> Verdict:
    """The verdict, see RULES; `other`: a baseline's name that is no run of separate networks."""
    for place, candidate in enumerate(candidates):
        readings = by_domain(candidate.compared)
        if other is None and candidate.frozen and readings and _good(readings):
            sentence = (
                f"Frozen heads are enough: on {_every(len(readings))} a frozen trunk with heads "
                "alone is as good as a network of its own."
            )
            return Verdict("frozen", sentence, _notes(candidate), place, readings)
    place = choose(candidates)
    evaluated = candidates[place]
    readings = by_domain(evaluated.compared)
    if not readings:
        return Verdict("alone", _alone(evaluated), (), place)
    prediction, sentence = _against(other, readings) if other else _prediction(evaluated, readings)
    return Verdict(prediction, sentence, _notes(evaluated), place, readings)


def choose(candidates: Sequence[Candidate]) -> int:
    """The one that is evaluated: of those that learn more than heads, the best on validation."""
    places = [i for i, c in enumerate(candidates) if not (c.frozen or c.separate)]
    places = places or list(range(len(candidates)))
    errors = {i: error for i in places if (error := candidates[i].chosen_by) is not None}
    return min(errors, key=errors.__getitem__) if errors else places[0]


def _alone(evaluated: Candidate) -> str:
    what = f"{evaluated.domains} domains" if evaluated.domains != 1 else "one domain"
    if not evaluated.domains:
        return "Not decided: the run is not finished, so there are no scores yet."
    if evaluated.separate:
        return (
            f"Separate networks for {what}; there is no one network here to evaluate beside them."
        )
    size = f" at {evaluated.size:.2f} times the size of separate ones" if evaluated.size else ""
    return f"One network for {what}{size}; whether it is as good needs a baseline to tell."


def _prediction(evaluated: Candidate, readings: Mapping[str, Reading]) -> tuple[Prediction, str]:
    count = len(readings)
    worse = [name for name, reading in readings.items() if reading == "worse"]
    unsure = [name for name, reading in readings.items() if reading == "open"]
    networks = f"the {count} separate networks" if count > 1 else "the separate network"
    if evaluated.size is not None and evaluated.size >= 1:
        return "keep", (
            f"Keep {networks}: the one network is {evaluated.size:.2f} times their size, so it saves "
            "nothing."
        )
    if len(worse) > count / 2:
        return "keep", f"Keep {networks}: the one network is worse on {_some(worse, count)}."
    if worse:
        kept = count - len(worse) - len(unsure)
        rest = [f"one network is enough for {'the other ' if not unsure else ''}{kept}"] * (
            kept > 0
        )
        rest += [f"{len(unsure)} {'is' if len(unsure) == 1 else 'are'} not decided"] * bool(unsure)
        keep = f"Keep {len(worse)} of {networks} ({_names(worse)})"
        return "some", "; ".join([keep, *rest]) + "."
    if unsure:
        return "open", (
            f"Not decided: on {_some(unsure, count)} the one network may be as good or worse; more "
            "seeds or more test images would tell."
        )
    size = f", at {evaluated.size:.2f} times their size" if evaluated.size else ""
    return "one", f"One network is enough: on {_every(count)} it is as good as {networks}{size}."


def _against(other: str, readings: Mapping[str, Reading]) -> tuple[Prediction, str]:
    """Against a baseline that is one network too."""
    count = len(readings)
    worse = [name for name, reading in readings.items() if reading == "worse"]
    unsure = [name for name, reading in readings.items() if reading == "open"]
    better = [name for name, reading in readings.items() if reading == "better"]
    if worse:
        return "other", f"Worse than {other} on {_some(worse, count)}."
    if unsure:
        return "other", (
            f"Not decided: on {_some(unsure, count)} it may be as good as {other} or worse; more "
            "seeds or more test images would tell."
        )
    more = f", and better on {_some(better, count)}" if better else ""
    return "other", f"As good as {other} on {_every(count)}{more}."


def _good(readings: Mapping[str, Reading]) -> bool:
    return all(reading in ("better", "kept") for reading in readings.values())


def _notes(evaluated: Candidate) -> tuple[str, ...]:
    notes = [UNKNOWN_TRAINING] if evaluated.seeds == 1 else []
    unpaired = [f"{c.domain}/{c.task}" for c in evaluated.compared if not c.paired]
    if unpaired:
        notes.append(
            f"Not known image by image on both sides: {_names(unpaired)}; there the interval is "
            "that of two independent scores, which is wider."
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
    if len(names) > NAMED:
        return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
