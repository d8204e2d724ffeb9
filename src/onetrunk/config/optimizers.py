"""The default values of [train] that depend on the optimizer and on the weights at the start.

A learning rate, a weight decay and a momentum are those of one optimizer: the values of another
would train badly. So each key that is not set has the value of the chosen optimizer, and a recipe
in which another optimizer is chosen takes that one's values. A pretrained trunk needs a lower rate
than random weights, gains from averaged weights, and has new heads, which may learn faster. This
file is the only place with these values; docs/defaults.md says which of them were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

OptimizerName = Literal["adamw", "sgd"]
Start = Literal["scratch", "pretrained"]  # random or pretrained weights of the trunk


@dataclass(frozen=True)
class OptimizerDefaults:
    """The default of each key of [train] that depends on the optimizer."""

    lr: float
    weight_decay: float
    momentum: float | None  # None: the optimizer has none


@dataclass(frozen=True)
class StartDefaults:
    """The default of each key of [train] that depends on the weights at the start alone."""

    head_lr_factor: float
    ema: float  # the largest decay; while there are few steps it is lower (train/ema.py)
    label_smoothing: float  # without teachers: their predictions are soft labels already


DEFAULT_OPTIMIZER: OptimizerName = "adamw"
OPTIMIZERS: Mapping[Start, Mapping[OptimizerName, OptimizerDefaults]] = MappingProxyType(
    {
        "scratch": MappingProxyType(
            {
                "adamw": OptimizerDefaults(lr=1e-3, weight_decay=0.05, momentum=None),
                # the values of the measurements in docs/training.md
                "sgd": OptimizerDefaults(lr=0.05, weight_decay=5e-4, momentum=0.9),
            }
        ),
        "pretrained": MappingProxyType(
            {
                "adamw": OptimizerDefaults(lr=5e-4, weight_decay=0.05, momentum=None),
                # the rate at which Li, Liu & Bilen (2022) fine-tune
                "sgd": OptimizerDefaults(lr=0.01, weight_decay=5e-4, momentum=0.9),
            }
        ),
    }
)
STARTS: Mapping[Start, StartDefaults] = MappingProxyType(
    {
        "scratch": StartDefaults(head_lr_factor=1.0, ema=0.0, label_smoothing=0.0),
        "pretrained": StartDefaults(head_lr_factor=10.0, ema=0.999, label_smoothing=0.1),
    }
)
OPTIMIZER_KEYS: tuple[str, ...] = tuple(field.name for field in fields(OptimizerDefaults))
START_KEYS: tuple[str, ...] = tuple(field.name for field in fields(StartDefaults))
DEFAULT_KEYS = (*OPTIMIZER_KEYS, *START_KEYS)  # of [train], whose default is not one value


def train_defaults(
    optimizer: OptimizerName, start: Start = "scratch", taught: bool = False
) -> dict[str, Any]:
    """Return the default of each of `DEFAULT_KEYS`.

    Args:
        optimizer: The optimizer.
        start: The weights of the trunk at the start.
        taught: Whether there are teachers or earlier predictions to learn from, beside labels.
    """
    values = {**vars(OPTIMIZERS[start][optimizer]), **vars(STARTS[start])}
    return {**values, "label_smoothing": 0.0} if taught else values


def in_words(key: str) -> str:
    """Return the defaults of a key: "0.001 (adamw) or 0.05 (sgd); pretrained: 0.0005 or 0.01"."""
    if key in START_KEYS:
        scratch, pretrained = (getattr(STARTS[start], key) for start in STARTS)
        return f"{scratch:g}; of a pretrained trunk {pretrained:g}"
    texts = []
    for by_name in OPTIMIZERS.values():
        values = {name: getattr(defaults, key) for name, defaults in by_name.items()}
        listed = [f"{value:g} ({name})" for name, value in values.items() if value is not None]
        texts.append(" or ".join(listed))
    first, second = texts
    return first if first == second else f"{first}; of a pretrained trunk {second}"


def without_optimizer(train: Mapping[str, Any], chosen: object) -> dict[str, Any]:
    """Return [train] settings for another optimizer: without the values of the previous one."""
    same = chosen == train.get("optimizer", DEFAULT_OPTIMIZER)
    return {key: value for key, value in train.items() if same or key not in OPTIMIZER_KEYS}
