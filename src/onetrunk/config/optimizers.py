"""The optimizers that can be chosen, and the settings that each of them starts from.

A learning rate, a weight decay and a momentum are those of one optimizer: the values of another
would train badly. So each key that is not set has the value of the chosen optimizer, and a recipe
in which another optimizer is chosen takes that one's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

OptimizerName = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class OptimizerDefaults:
    """The default of each key of [train] that depends on the optimizer."""

    lr: float
    weight_decay: float
    momentum: float | None  # None: the optimizer has none


DEFAULT_OPTIMIZER: OptimizerName = "adamw"
OPTIMIZERS: Mapping[OptimizerName, OptimizerDefaults] = MappingProxyType(
    {
        "adamw": OptimizerDefaults(lr=1e-3, weight_decay=0.05, momentum=None),
        # the values of the measurements in docs/training.md, of trunks from random weights
        "sgd": OptimizerDefaults(lr=0.05, weight_decay=5e-4, momentum=0.9),
    }
)
OPTIMIZER_KEYS: tuple[str, ...] = tuple(field.name for field in fields(OptimizerDefaults))


def optimizer_defaults(name: object) -> dict[str, Any]:
    """Return the defaults of an optimizer by key; empty for an unknown one."""
    for known, values in OPTIMIZERS.items():
        if known == name:
            return {key: getattr(values, key) for key in OPTIMIZER_KEYS}
    return {}


def in_words(key: str) -> str:
    """Return the defaults of a key: "0.001 (adamw) or 0.05 (sgd)"."""
    values = {name: getattr(defaults, key) for name, defaults in OPTIMIZERS.items()}
    return " or ".join(f"{value:g} ({name})" for name, value in values.items() if value is not None)


def without_optimizer(train: Mapping[str, Any], chosen: object) -> dict[str, Any]:
    """Return [train] settings for another optimizer: without the values of the previous one."""
    same = chosen == train.get("optimizer", DEFAULT_OPTIMIZER)
    return {key: value for key, value in train.items() if same or key not in OPTIMIZER_KEYS}
