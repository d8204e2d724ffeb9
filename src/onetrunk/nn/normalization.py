"""The normalization that pretrained weights expect, and the refusal of domains with another one.

A domain whose `normalize` is "auto" takes these numbers over. They come from timm's configuration
of a model, from the table of packages in published_weights.py, from the config.json beside a file
of weights, or from the file of a trunk that onetrunk has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onetrunk.data.domain import IMAGENET, Domain
from onetrunk.data.domain_settings import Stats
from onetrunk.errors import BadInput

TOLERANCE = 1 / 255  # of means and stds: one grey level


@dataclass(frozen=True)
class Normalization:
    """The mean and std of pixel values from 0 to 1 that weights were trained with.

    Attributes:
        weights: Which weights, for messages.
        certain: Whether this is known of these weights. Of a file of unknown origin, timm's
            configuration of the model is only the most likely normalization.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str
    certain: bool = True

    @property
    def stats(self) -> Stats:
        """Mean and std, as a domain has them."""
        return self.mean, self.std

    @classmethod
    def of_config(
        cls, config: Mapping[str, Any], weights: str, certain: bool = True
    ) -> Normalization | None:
        """Return the normalization in a configuration of timm's; None without one of three channels."""  # noqa: E501
        try:
            mean, std = (tuple(float(v) for v in config[key]) for key in ("mean", "std"))
        except (KeyError, TypeError, ValueError):
            return None
        if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
            return None
        return cls(mean, std, weights, certain)

    def allows(self, domain: Domain) -> bool:
        """Return whether a domain has this normalization, or is allowed to have another."""
        given = domain.settings.normalize
        if given == "auto" or domain.settings.allow_normalize or not self.certain:
            return True
        if given == "dataset" and domain.source is not None:
            return False
        numbers = IMAGENET if isinstance(given, str) else given
        return bool(np.allclose(numbers, self.stats, rtol=0, atol=TOLERANCE))

    def to_json(self) -> dict[str, Any]:
        """Return a plain document, which `read_dataclass` reads."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in row) for row in self.stats)
        return f"mean {mean} and std {std}"


def stats_of(normalization: Normalization | None) -> Stats | None:
    """Return the numbers of a normalization, if there is one."""
    return None if normalization is None else normalization.stats


def normalization_place(domain: Domain) -> str:
    """Return the key of a domain's normalization, for errors."""
    return f"domains.{domain.name}.normalize"


def check_normalization(domain: Domain, expected: Normalization | None) -> None:
    """Raise BadInput if the user has set another normalization than the weights expect.

    Args:
        expected: What the weights of the trunk expect; None: nothing in particular.
    """
    if expected is None or expected.allows(domain):
        return
    given = domain.settings.normalize
    raise BadInput(
        f"{expected.weights} expect images normalized with {expected}",
        place=normalization_place(domain),
        got=given if isinstance(given, str) else [list(row) for row in given],
        try_='normalize = "auto"; or allow_normalize = true as well, to train with this one',
    )
