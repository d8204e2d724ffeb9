"""The default training settings for few images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onetrunk.config.optimizers import DEFAULT_KEYS
from onetrunk.config.train import LENGTHS

BATCH = 32  # images in a batch, at most
MIN_STEPS, MAX_STEPS, EPOCHS = 60, 200, 15
OPTIMIZER: Mapping[str, Any] = {"optimizer": "adamw", "lr": 3e-3}  # a few steps need a high rate


def few_steps(images: int, batch: int) -> int:
    """Return the default number of training steps for few images."""
    return int(min(MAX_STEPS, max(MIN_STEPS, round(EPOCHS * images / batch))))


def few_train(given: Mapping[str, Any], like: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return the [train] settings for few images.

    Args:
        given: The keys that the user set; they are not changed.
        like: The keys of the run, with those that are given.
        images: The number of images.
    """
    train = dict(like)
    if not given.keys() & {*OPTIMIZER, "momentum"}:  # otherwise the user's or the run's optimizer
        kept = {key: train[key] for key in train if key in given or key not in DEFAULT_KEYS}
        train = {**kept, **OPTIMIZER}
    train["batch"] = max(1, min(train.get("batch", BATCH), BATCH, images // 2))
    if not given.keys() & {*LENGTHS}:
        train = {key: value for key, value in train.items() if key not in LENGTHS}
        train["steps"] = few_steps(images, train["batch"])
    if isinstance(steps := train.get("steps"), int):
        train["eval_every"] = steps  # there is nothing to choose by
    train["workers"] = 0
    if "fixed_statistics" not in given:
        train["fixed_statistics"] = True
    return train
