"""A short look at domains before their training: sizes, warnings, and what stops it."""

from __future__ import annotations

from collections.abc import Sequence

from onetrunk.data.check_domains import asking_once
from onetrunk.data.domain import Domain
from onetrunk.data.inspect import Inspection, inspect
from onetrunk.errors import BadInput, shorten

MIN_TEST, MIN_VAL = 20, 10  # images below which an error says nothing
SHOWN = 3  # files that a warning names


def look(domains: Sequence[Domain]) -> list[str]:
    """Return a line for each domain and each warning; BadInput if results would mean nothing."""
    errors: list[BadInput] = []
    lines: list[str] = []
    with asking_once(domains):
        for domain in domains:
            domain.check_classes()
            found = inspect(domain)
            lines.append(_line(domain, found))
            lines += [f"  note: {warning}" for warning in warnings_of(found)]
            errors += too_small(domain)
    if errors:
        raise BadInput.several(errors)
    return lines


def too_small(domain: Domain) -> list[BadInput]:
    """Return the errors for splits that are too small to choose by or to report on."""
    counts = {"val": (len(domain.val), MIN_VAL), "test": (len(domain.test), MIN_TEST)}
    return [
        BadInput(
            f"{domain.name}: expected at least {least} {split} images: errors on fewer mean little",
            got=f"{count} of {len(domain.index)} images",
            try_="more images; or add the domain to a finished run: onetrunk add RUN NAME SOURCE",
        )
        for split, (count, least) in counts.items()
        if count < least
    ]


def warnings_of(found: Inspection) -> list[str]:
    """Return what a reader of the results should know about the images."""
    lines = list(found.warnings)
    for pairs, what in (
        (found.exact, "images are in two splits"),
        (found.near, "images are nearly the same in two splits"),
        (found.conflicts, "images have two different labels"),
    ):
        if pairs:
            files = shorten([first for first, *_ in pairs], SHOWN)
            lines.append(f"{len(pairs):,} {what}: {files}; see duplicates and conflicts in docs")
    if found.unreadable:
        lines.append(
            f"{len(found.unreadable):,} images cannot be read: {shorten(found.unreadable, SHOWN)}"
        )
    return lines


def _line(domain: Domain, found: Inspection) -> str:
    """Describe a domain in one line."""
    counts = ", ".join(f"{split} {count:,}" for split, count in found.splits.items())
    tasks = ", ".join(
        f"{task.task} ({len(task.classes)} classes)" if task.classes else f"{task.task}"
        for task in found.tasks
    )
    size = "×".join(map(str, found.trained_at))
    return f"{domain.name}: {counts} images, {size} pixels; {tasks}"
