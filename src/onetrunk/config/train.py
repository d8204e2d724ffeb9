"""[train]: how it is learned. What `ot.train(model, domains, …)` takes, too."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from onetrunk.config.part import Part
from onetrunk.errors import BadInput

LENGTHS = ("steps", "epochs", "hours")  # how long; exactly one is said
STEPS = 4000
DECAY: Mapping[str, float] = {"adamw": 0.05, "sgd": 5e-4}
Words = Annotated[tuple[str, ...], Field(strict=False)]
Shares = Annotated[tuple[float, ...], Field(strict=False)]


def auto(value: object) -> object:
    """The word that stands for None in a file."""
    return None if value == "auto" else value


def plain(value: object) -> object:
    """A table of a file's own values."""
    return dict(value) if isinstance(value, Mapping) else value


class Train(Part):
    """Settings of one training; the defaults are sound for someone who sets none."""

    steps: int | None = Field(default=None, ge=1, description="or epochs, or hours")
    epochs: float | None = Field(default=None, gt=0, description="passes over the largest domain")
    hours: float | None = Field(
        default=None, gt=0, validate_default=True, description="until the clock says so"
    )
    batch: int = Field(
        default=64, ge=1, description="images of a domain in a step; a domain may differ"
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        default="adamw", description="adamw | sgd (with Nesterov)"
    )
    lr: float = Field(default=1e-3, gt=0, description="learning rate; sgd wants about 0.1")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    weight_decay: Annotated[float | None, BeforeValidator(auto)] = Field(
        default=None, ge=0, description="none on norms and biases"
    )
    head_lr: float = Field(default=1.0, gt=0, description="the heads' rate is lr times this")
    schedule: Literal["cosine", "step", "constant"] = Field(
        default="cosine", description="cosine | step | constant"
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the training; 0 is none")
    milestones: Shares = Field(default=(0.5, 0.75), description="of step: shares of the training")
    gamma: float = Field(default=0.1, gt=0, le=1, description="of step: factor at each milestone")
    sampling: Literal["round-robin", "temperature", "joined"] = Field(
        default="round-robin", description="round-robin | temperature | joined"
    )
    temperature: float = Field(
        default=2.0, gt=0, description="1 follows the sizes, large treats all alike"
    )
    weighting: str = Field(
        default="equal", description="equal | fixed | uncertainty | dwa | famo | pcgrad | …"
    )
    weighting_settings: Annotated[dict[str, Any], BeforeValidator(plain)] = Field(
        default={}, description="of the weighting, for example { temperature = 2.0 }"
    )
    clip: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0 is off")
    accumulate: int = Field(default=1, ge=1, description="steps whose gradients are added")
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the averaged weights; 0 is off"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto | float32 | bfloat16 | float16"
    )
    channels_last: bool = Field(default=True, description="layout of images and weights in memory")
    compile: bool = Field(default=False, description="torch.compile: minutes at first, then faster")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="none | balanced"
    )
    mixup: float = Field(default=0.0, ge=0, description="alpha; 0 is off")
    evaluate: int = Field(
        default=0, ge=0, description="steps between validations; 0: ten in the run"
    )
    patience: int = Field(default=0, ge=0, description="validations without a better one; 0 is off")
    checkpoint: int = Field(
        default=500, ge=1, description="steps between checkpoints, 5 minutes at most"
    )
    keep: int = Field(default=2, ge=1, description="checkpoints kept beside the best")
    log: int = Field(default=0, ge=0, description="steps between lines; 0: a hundred in the run")
    workers: int = Field(
        default=0, ge=0, description="processes that read images; 0 for cached ones"
    )
    loggers: Words = Field(default=(), description='"tensorboard", "package.module:thing"')
    frozen: bool = Field(
        default=False, description="only heads learn: solved, their L2 chosen on validation"
    )
    deterministic: bool = Field(default=True, description="the same numbers every time")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """One length, and the optimizer's own weight decay, where none is said."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        if all(filled.get(name) is None for name in LENGTHS):
            filled["steps"] = STEPS
        if auto(filled.get("weight_decay")) is None:
            filled["weight_decay"] = DECAY.get(str(filled.get("optimizer", "adamw")), 0.0)
        return filled

    @field_validator("hours")
    @classmethod
    def _one_length(cls, hours: float | None, info: ValidationInfo) -> float | None:
        said = {**info.data, "hours": hours}
        several = [f"{name} = {said[name]}" for name in LENGTHS if said.get(name) is not None]
        if len(several) > 1:
            raise BadInput(
                "expected one of steps, epochs and hours",
                got=", ".join(several),
                try_="leave one",
            )
        return hours

    @field_validator("milestones")
    @classmethod
    def _rising(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share < 1 for share in shares) or any(
            a >= b for a, b in itertools.pairwise(shares)
        ):
            raise BadInput(
                "expected rising shares of the training, between 0 and 1", got=list(shares)
            )
        return shares

    @field_validator("loggers")
    @classmethod
    def _loggers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name != "tensorboard" and ":" not in name:
                raise BadInput(
                    "unknown logger",
                    got=name,
                    available=["tensorboard"],
                    try_="package.module:thing",
                )
        return names
