"""Settings that a domain takes over: a new one from the run's domains, an updated one from itself.

What the user sets is never changed. A new domain takes over what the trunk expects: size, fit,
margin, fill, normalization and augmentation. An updated domain keeps all of its settings, and the
numbers of its normalization, because its pack was trained with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onetrunk.data.domain import IMAGENET, Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.data.sources import PYTHON
from onetrunk.errors import OnetrunkError
from onetrunk.nn.card import Card
from onetrunk.nn.normalization import Normalization, check_normalization, stats_of
from onetrunk.nn.universal import Universal
from onetrunk.progress import say

T = TypeVar("T")
SHAPE = ("size", "fit", "margin", "fill")  # keys of a domain and attributes of `Pixels`
SHOWN = (*SHAPE, "normalize", "augment")  # of a new domain
COLUMNS = ("image", "group", "split")  # which name parts of a source
NOT_KEPT = ("name", "source", "tasks")


def settings_like(domain: Domain, model: Universal, known: Mapping[str, DomainSettings]) -> Domain:
    """Return a new domain with what is not set taken over from the domains of a model.

    Size, fit, margin and fill are those of most domains. A source with a size of its own keeps it
    if the sizes of the model's domains differ. The normalization is that of all domains if they
    share it; otherwise it is what the weights of the trunk expect, or that of the new images.

    Args:
        domain: The new domain.
        model: The model.
        known: The settings of its domains, as far as they are known.
    """
    expected = model.trunk.normalization
    others = [
        _Inherited.of(card, known.get(name), expected)
        for name, card in model.domains.items()
        if name != domain.name
    ]
    result = _like(domain, others, bool(known), expected) if others else domain
    check_normalization(result, expected)
    result.expect(stats_of(expected))
    return result


def _like(
    domain: Domain,
    others: Sequence[_Inherited],
    known: bool,
    expected: Normalization | None,
) -> Domain:
    """Return the domain with the settings of the others, and say which were taken over."""
    size, fit, margin, fill = most_common([other.shape for other in others])
    defaults: dict[str, Any] = {"size": size, "fit": fit, "margin": margin, "fill": fill}
    if len({other.shape[0] for other in others}) > 1 and _has_own_size(domain):
        del defaults["size"]
    first = others[0].normalize
    # the numbers of one domain may be those of its own images
    same = all(other.normalize == first for other in others) and (
        len(others) > 1 or isinstance(first, str) or known
    )
    own = "dataset" if expected is None else "auto"
    defaults["normalize"] = first if same else own
    augments = [other.augment for other in others if other.augment is not None]
    if augments:
        defaults["augment"] = most_common(augments)
    result = _with_permission(domain.with_defaults(defaults), domain, expected)
    taken = [key for key in SHOWN if key in defaults and key not in domain.given]
    before = {key: _value(domain.settings, key) for key in taken}
    if before.get("normalize") == "auto" and expected is None:
        before["normalize"] = "dataset"  # the same
    if any(_value(result.settings, key) != value for key, value in before.items()):
        say(
            f"{domain.name}: {_described(result.settings, taken)} as in the run; "
            f"change with --set domains.{domain.name}.{taken[0]}=…"
        )
    return result


def _with_permission(domain: Domain, given: Domain, expected: Normalization | None) -> Domain:
    """Return the domain with the permission for another normalization that it takes over.

    Args:
        domain: The domain with what it takes over.
        given: The domain as the user gave it.
        expected: What the weights of the trunk expect.
    """
    if "normalize" in given.given or expected is None or expected.allows(domain):
        return domain
    return domain.with_defaults({"allow_normalize": True})


def settings_before(
    domain: Domain,
    card: Card,
    known: DomainSettings | None,
    expected: Normalization | None = None,
) -> Domain:
    """Return an updated domain with what is not set kept as it was.

    The columns of a source are kept if the source is of the same type, and the tasks without their
    classes, which are those of the present images.

    Args:
        domain: The domain with its present source.
        card: The domain in the model.
        known: Its settings as they were, if they are known.
        expected: What the weights of the trunk expect.
    """
    pixels = card.pixels
    defaults: dict[str, Any] = {}
    if known is not None:
        left_out = (*NOT_KEPT, *(() if _prefix(known) == _prefix(domain.settings) else COLUMNS))
        defaults = {key: value for key, value in known if key not in left_out}
    defaults |= {key: getattr(pixels, key) for key in SHAPE}
    defaults["normalize"] = (pixels.mean, pixels.std)
    defaults["tasks"] = tuple(task if task.dense else task.with_classes(()) for task in card.tasks)
    result = domain.with_defaults({k: v for k, v in defaults.items() if v is not None})
    result = _with_permission(result, domain, expected)
    check_normalization(result, expected)
    result.expect(stats_of(expected))
    taken = [key for key in SHOWN if key in defaults and key not in domain.given]
    if taken:
        say(
            f"{domain.name}: keeps {_described(result.settings, taken, keeps=True)}; "
            f"change with --set domains.{domain.name}.{taken[0]}=…"
        )
    return result


@dataclass(frozen=True)
class _Inherited:
    """What a new domain may take over from one domain of a model."""

    shape: tuple[tuple[int, int], str, int, int | None]  # in the order of SHAPE
    normalize: Any
    augment: Mapping[str, Any] | None  # None: not known

    @classmethod
    def of(
        cls, card: Card, known: DomainSettings | None, expected: Normalization | None
    ) -> _Inherited:
        pixels = card.pixels
        numbers = (pixels.mean, pixels.std)
        rule = None if known is None else known.normalize
        normalize: Any = "imagenet" if numbers == IMAGENET else numbers
        if expected is not None and numbers == expected.stats:
            normalize = "auto"
        elif rule == "auto" and expected is None:
            normalize = "dataset"
        elif rule not in (None, "auto", numbers):
            normalize = rule
        return cls(
            (pixels.size, pixels.fit, pixels.margin, pixels.fill),
            normalize,
            None if known is None else known.augment,
        )


def _value(settings: DomainSettings, key: str) -> Any:
    """Return a setting; the normalization "auto" is that of the images, as there are no weights."""
    value = getattr(settings, key)
    return "dataset" if key == "normalize" and value == "auto" else value


def most_common(values: Sequence[T]) -> T:
    """Return the most common value, the first of equals."""
    return max(values, key=values.count)


def _has_own_size(domain: Domain) -> bool:
    """Return whether the source has a size; False if it cannot be opened, which is found later."""
    try:
        return domain.source is not None and getattr(domain.opened, "size", None) is not None
    except OnetrunkError:
        return False


def _prefix(settings: DomainSettings) -> str:
    """Return the type of a source: its prefix, or "python:" and the type of an object."""
    prefix, _, _ = settings.source.partition(":")
    return settings.source if prefix == PYTHON else prefix


def _described(settings: DomainSettings, keys: Sequence[str], keeps: bool = False) -> str:
    """Return these settings in words; margin, fill and augmentation only if they are set."""
    parts = []
    for key in keys:
        value = getattr(settings, key)
        if key == "size":
            height, width = (value, value) if isinstance(value, int) else value
            parts.append(f"size {height}" if height == width else f"size {height}×{width}")
        elif key == "normalize":
            numbers = "its normalization" if keeps else "normalization by the same numbers"
            parts.append(f"normalization {value}" if isinstance(value, str) else numbers)
        elif key == "augment":
            parts += [f"augmentation {', '.join(map(str, value))}"] if value else []
        elif key == "fit" or value:
            parts.append(f"{key} {value}")
    return ", ".join(parts)
