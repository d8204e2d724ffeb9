"""Forgetting: what domains lose when a run that starts from another moves the trunk (`init = RUN`).

The test headlines of the new run minus those of the old one, over the same images, with paired
bootstrap intervals; domains whose images are not the same in both are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onetrunk.data.domain import Domain
from onetrunk.learn.finish import OUTCOMES
from onetrunk.measure.evaluate import evaluate
from onetrunk.measure.intervals import Difference, differences
from onetrunk.measure.outcomes import Outcomes
from onetrunk.measure.table import Table, number, spaced
from onetrunk.model.saved import load
from onetrunk.model.universal import Universal


def forgotten(before: Path, after: Path) -> list[Difference]:
    """Task by task of the domains that both runs have; none where either has no outcomes."""
    if not all((run / OUTCOMES).is_file() for run in (before, after)):
        return []
    old, new = (Outcomes.open(run / OUTCOMES) for run in (before, after))
    both = {name for name in old.names if new.names.get(name) == old.names[name]}
    left, right = _only(new, both), _only(old, both)
    if not left.parts.keys() & right.parts.keys():
        return []
    return differences(left, right)


def old_after(run: Path, learned: Universal, domains: Sequence[Domain]) -> Table:
    """How the run's own domains do on test were its trunk that of a network that `learned` from it:
    their slots and heads stay as they are. The run's files are not touched."""
    moved = load(run)
    moved.trunk.load_shared(learned.trunk.shared())
    return evaluate(moved, domains, "test")


def told(found: Difference) -> str:
    """One line for people."""
    sign = "+" if found.value >= 0 else "−"
    change = f"{sign}{number(abs(found.value), found.unit)}"
    words = "better" if found.gain > 0 else "worse" if found.gain < 0 else "the same"
    sure = "" if found.clear or not found.gain else ", within the noise"
    return (
        f"{found.domain}/{found.task}: {found.metric} {number(found.theirs, found.unit)} → "
        f"{number(found.ours, found.unit)}{spaced(found.unit)} ({change}: {words}{sure})"
    )


def _only(outcomes: Outcomes, names: set[str]) -> Outcomes:
    parts = {key: part for key, part in outcomes.parts.items() if key[0] in names}
    return Outcomes(outcomes.split, parts, {name: outcomes.names[name] for name in names})
