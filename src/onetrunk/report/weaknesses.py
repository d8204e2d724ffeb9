"""Signs that a network is not trained enough to be compared with.

Each is found for one domain of a run:

| kind | found if |
|---|---|
| constant, neighbour, features | the network is barely better than this floor (floors.py): the 95 % interval of the difference contains 0, or the difference is below 0.02·s, with s the scale of the score (verdict.py); a network whose own error is at most 0.02·s is not barely better |
| improving | its last validation is its best one, better than all before by more than the margin of the verdict and by more than one image |
| short | it was trained on fewer than 3 times as many images as the domain has for training |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onetrunk.eval.margins import MAX_MARGIN, Estimate, margin_of
from onetrunk.eval.metrics import SCORES
from onetrunk.eval.outcomes import Key
from onetrunk.eval.table import number, spaced
from onetrunk.report.columns import errors_between, scales_of, scores_of
from onetrunk.report.curves import TaskCurves
from onetrunk.report.floors import FEATURES, PHRASES, Floors
from onetrunk.report.formatting import metric_words
from onetrunk.report.run_files import RunFiles, RunGroup
from onetrunk.report.verdict import MIN_EPOCHS, Weakness

ROUNDING = 0.05  # of the images that the records give for a domain, in epochs


def weaknesses_of(
    group: RunGroup,
    column: int,
    curves: Sequence[TaskCurves],
    floors: Floors,
) -> tuple[Weakness, ...]:
    """Return the signs that a run is not trained enough, by domain.

    Args:
        group: The run; of solved heads and of predictions, only the scores are compared.
        column: Its number in the curves.
        curves: The training curves of all runs.
        floors: Scores of predictions without training, by name.
    """
    scales = scales_of(group, floors)
    found = [
        weakness
        for name, floor in floors.items()
        if not (group.frozen and name == FEATURES)  # which the run is itself
        for weakness in _barely_better(group, name, floor, scales)
    ]
    found += _improving(group, column, curves, scales)
    found += _short(group)
    return tuple(found)


def _barely_better(
    group: RunGroup, name: str, floor: RunGroup, scales: Mapping[Key, float | None]
) -> Iterator[Weakness]:
    scores, floor_scores = scores_of(group), scores_of(floor)
    for key, (gain, _) in errors_between(floor, group).items():
        score = scores[key]
        if is_barely_better(score.error, gain, scales[key]):
            words = "barely better" if gain.value > 0 else "not better"
            unit = score.row.unit
            own, its = (
                number(each.estimate.value, unit) + spaced(unit)
                for each in (score, floor_scores[key])
            )
            shown = f"{metric_words(score.row.metric, '')} {own} against {its}"
            reason = f"{words} than {PHRASES[name]} ({shown})"
            yield Weakness(key[0], name, reason, gain.value <= 0)


def is_barely_better(error: float, gain: Estimate, scale: float | None) -> bool:
    """Return whether a network with this error is barely better than a floor.

    Args:
        error: The error of the network.
        gain: The error of the floor minus that of the network.
        scale: The scale of the score, if it is known.
    """
    least = 0.0 if scale is None else MAX_MARGIN * scale
    if error <= least:
        return False
    low = gain.value if gain.low is None else gain.low
    return low <= 0 or gain.value < least


def _improving(
    group: RunGroup,
    column: int,
    curves: Sequence[TaskCurves],
    scales: Mapping[Key, float | None],
) -> Iterator[Weakness]:
    for task in curves:
        key = (task.domain, task.task)
        if key not in scales:
            continue
        runs = [run.val for run in task.runs if run.column == column and run.val]
        image = _image_of(group, key)
        still = [val for val in runs if still_improving([e for _, e in val], scales[key], image)]
        if 2 * len(still) > len(runs):
            yield Weakness(task.domain, "improving", "still improving at its last validation")


def still_improving(errors: Sequence[float], scale: float | None, image: float = 0.0) -> bool:
    """Return whether the last validation error is lower than all before, by more than the margin.

    Args:
        errors: The validation errors in order.
        scale: The scale of the score, if it is known.
        image: What one image contributes to an error.
    """
    if len(errors) < 2:
        return False
    before = min(errors[:-1])
    return before - errors[-1] > max(margin_of(before, scale), image)


def _image_of(group: RunGroup, key: Key) -> float:
    """Return what one validation image contributes to a share of images, else 0."""
    rows = () if group.first.val is None else group.first.val.headlines()
    counts = [
        row.count
        for row in rows
        if (row.domain, row.task) == key and SCORES[row.kind].share_of_images and row.count
    ]
    return 100 / counts[0] if counts else 0.0


def _short(group: RunGroup) -> Iterator[Weakness]:
    for domain, epochs in epochs_of(group.first).items():
        if epochs < MIN_EPOCHS - ROUNDING:
            yield Weakness(domain, "short", f"trained for only {epochs:.1f} epochs")


def epochs_of(run: RunFiles) -> dict[str, float]:
    """Return how often a run passed over the training images of each domain, from its records.

    Domains without such records (their heads were solved, or the run is not one of ours) are left
    out.
    """
    images: dict[str, float] = {}
    before: dict[str, float] = {}  # seconds at the last record of each part
    for record in run.records:
        rates, seconds = record.get("images_per_s"), record.get("seconds")
        if not isinstance(rates, Mapping) or not isinstance(seconds, int | float):
            continue
        part = str(record.get("part", ""))
        passed, before[part] = seconds - before.get(part, 0.0), seconds
        for domain, rate in rates.items():
            if isinstance(rate, int | float):
                images[domain] = images.get(domain, 0.0) + rate * passed
    splits = run.scores.get("splits")
    sizes = {
        domain: part.get("train")
        for domain, part in (splits.items() if isinstance(splits, Mapping) else ())
        if isinstance(part, Mapping)
    }
    return {
        domain: seen / size
        for domain, seen in images.items()
        if isinstance(size := sizes.get(domain), int) and size > 0
    }
