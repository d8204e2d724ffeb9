"""The settings of a training: the keys of the [train] table, and `ot.Train`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)

from onetrunk.config.optimizers import (
    DEFAULT_KEYS,
    DEFAULT_OPTIMIZER,
    OPTIMIZER_KEYS,
    OPTIMIZERS,
    OptimizerName,
    Start,
    in_words,
    train_defaults,
)
from onetrunk.data.sampling import SAMPLERS
from onetrunk.errors import BadInput
from onetrunk.registry import Registry
from onetrunk.settings import AUTO, LIST, WORD, Names, Settings

LENGTHS = ("steps", "epochs", "hours")  # exactly one of them is set
STEPS = 4000
# only the names: the package is in a higher layer and is not imported
LOGGERS = tuple(Registry[object]("onetrunk.train.loggers", "logger"))
BY_START: Any = None  # the default of a key that depends on the optimizer or on the trunk


def _table(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


class Train(Settings):
    """The settings of a training."""

    steps: int | None = Field(
        default=None,
        ge=1,
        description="Length in steps; 4000 if epochs and hours are not set either",
    )
    epochs: float | None = Field(
        default=None, gt=0, description="Length in passes over the largest domain, instead of steps"
    )
    hours: float | None = Field(
        default=None, gt=0, validate_default=True, description="Length in hours, instead of steps"
    )
    batch: int = Field(
        default=64, ge=1, description="Images of one domain in a batch (see domains.batch)"
    )
    optimizer: OptimizerName = Field(
        default=DEFAULT_OPTIMIZER, description="Optimizer; sgd has Nesterov momentum"
    )
    lr: Annotated[float, AUTO] = Field(
        default=BY_START, gt=0, description=f"Learning rate; auto: {in_words('lr')}"
    )
    momentum: Annotated[float | None, AUTO] = Field(
        default=BY_START, ge=0, lt=1, description=f"Momentum; auto: {in_words('momentum')}"
    )
    weight_decay: Annotated[float, AUTO] = Field(
        default=BY_START,
        ge=0,
        description="Weight decay of all but norms and biases; auto: " + in_words("weight_decay"),
    )
    head_lr_factor: Annotated[float, AUTO] = Field(
        default=BY_START,
        gt=0,
        description="The learning rate of the heads is lr times this factor; auto: "
        + in_words("head_lr_factor"),
    )
    schedule: Literal["cosine", "step", "constant"] = Field(
        default="cosine", description="Schedule of the learning rate"
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the training with a rising learning rate"
    )
    milestones: Annotated[tuple[float, ...], LIST] = Field(
        default=(0.5, 0.75),
        description="When the step schedule lowers the rate, as shares of the training",
    )
    gamma: float = Field(
        default=0.1, gt=0, le=1, description="Factor on the rate at each milestone"
    )
    sampling: str = Field(
        default="round-robin",
        description=f"How batches are drawn from domains: {' | '.join(SAMPLERS)}",
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="Temperature of the sampling; 1: by size; large values: all domains equally",
    )
    weighting: str = Field(
        default="equal",
        description="Loss weighting: equal | fixed | uncertainty | dwa | famo | pcgrad | …",
    )
    weighting_settings: Annotated[dict[str, Any], BeforeValidator(_table)] = Field(
        default={}, description="Settings of the weighting, for example { temperature = 2.0 }"
    )
    clip: float = Field(
        default=0.0, ge=0, description="Largest norm of the gradient; 0: no clipping"
    )
    accumulate: int = Field(
        default=1, ge=1, description="Number of steps whose gradients are accumulated"
    )
    ema: Annotated[float, AUTO] = Field(
        default=BY_START,
        ge=0,
        lt=1,
        description="Largest decay of the moving average of weights, over about a tenth of the "
        f"steps so far; 0: none; auto: {in_words('ema')}",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Precision of activations"
    )
    channels_last: bool = Field(
        default=True, description="Store images and weights in channels_last layout"
    )
    compile: bool = Field(
        default=False, description="Compile the network: a slow start, then faster steps"
    )
    label_smoothing: Annotated[float, AUTO] = Field(
        default=BY_START,
        ge=0,
        lt=1,
        description="Label smoothing of classify tasks; auto: "
        f"{in_words('label_smoothing')} without teachers",
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="Weights of classes in the loss"
    )
    mixup: float = Field(default=0.0, ge=0, description="Alpha of mixup; 0: no mixup")
    eval_every: int = Field(
        default=0, ge=0, description="Steps between validations; 0: ten validations in all"
    )
    evaluate_start: Annotated[bool | None, AUTO] = Field(
        default=None,
        description="Evaluate before the first step, too, so that a training that gains nothing "
        "keeps its initial weights; auto: if init is set",
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="Stop after this many validations without an improvement; 0: never",
    )
    checkpoint_every: int = Field(
        default=500, ge=1, description="Steps between checkpoints (at most 5 minutes)"
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="Number of latest checkpoints kept, beside the best"
    )
    log_every: int = Field(
        default=0, ge=0, description="Steps between log lines; 0: a hundred lines in all"
    )
    workers: int = Field(
        default=0, ge=0, description="Processes that load images; 0 is best for cached images"
    )
    threads: Annotated[int | None, AUTO] = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads on a CPU; auto: OMP_NUM_THREADS or those of torch, on a busy machine "
        "the number that is fastest",
    )
    loggers: Annotated[tuple[str, ...], LIST, WORD, Names(LOGGERS)] = Field(
        default=(), description=f"Additional loggers: {' | '.join(LOGGERS)} | package.module:thing"
    )
    fixed_statistics: bool = Field(
        default=False,
        description="Keep the running statistics of norms, as in evaluation; for few images",
    )
    frozen: bool = Field(
        default=False, description="Train only the heads, in closed form, on the frozen trunk"
    )
    deterministic: bool = Field(
        default=True, description="Use deterministic algorithms, so that runs can be reproduced"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _fill_in(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the length, and the defaults for random weights, if they are not given."""
        if not isinstance(given, Mapping):
            return validate(given)
        filled = dict(given)
        if all(filled.get(name) is None for name in LENGTHS):
            filled["steps"] = STEPS
        chosen = filled.get("optimizer", DEFAULT_OPTIMIZER)
        known = next((name for name in OPTIMIZERS["scratch"] if name == chosen), DEFAULT_OPTIMIZER)
        auto = {name for name in DEFAULT_KEYS if filled.get(name) in (None, "auto")}
        for name, value in train_defaults(known).items():
            if name in auto:
                filled[name] = value
        train = validate(filled)
        train.model_fields_set.intersection_update(given)
        train.model_fields_set.difference_update(auto)
        return train

    def starting(self, start: Start, taught: bool) -> Self:
        """Return these settings with the defaults for other weights at the start.

        Args:
            start: The weights of the trunk at the start.
            taught: Whether there are teachers or earlier predictions to learn from.
        """
        defaults = train_defaults(self.optimizer, start, taught)
        values = {key: value for key, value in defaults.items() if key not in self.model_fields_set}
        train = self.model_copy(update=values)
        train.model_fields_set.difference_update(values)
        return train

    def default_notes(self, start: Start, taught: bool) -> dict[str, str]:
        """Say of each key that has its default value what the default depends on.

        Args:
            start: The weights of the trunk at the start.
            taught: Whether there are teachers or earlier predictions to learn from.
        """
        of = "random weights" if start == "scratch" else "a pretrained trunk"
        same = train_defaults(self.optimizer)
        notes = {}
        for key, value in train_defaults(self.optimizer, start, taught).items():
            if value is None or getattr(self, key) != value:
                continue
            whose = f" of {self.optimizer}" if key in OPTIMIZER_KEYS else ""
            notes[key] = f"now the default{whose}" + ("" if value == same[key] else f" for {of}")
        return notes

    @model_validator(mode="after")
    def _has_momentum(self) -> Self:
        if self.momentum is not None and OPTIMIZERS["scratch"][self.optimizer].momentum is None:
            raise BadInput(
                f"{self.optimizer} has no momentum",
                got=f"momentum = {self.momentum}",
                try_="remove it, or optimizer = 'sgd'",
            )
        return self

    @field_validator("hours")
    @classmethod
    def _one_length(cls, hours: float | None, info: ValidationInfo) -> float | None:
        lengths = {**info.data, "hours": hours}
        given = [f"{name} = {lengths[name]}" for name in LENGTHS if lengths.get(name) is not None]
        if len(given) > 1:
            raise BadInput(
                "expected only one of steps, epochs and hours",
                got=", ".join(given),
                try_=f"remove {given[-1]}",
            )
        return hours

    @field_validator("sampling")
    @classmethod
    def _sampling(cls, name: str) -> str:
        if name not in SAMPLERS and ":" not in name:
            raise BadInput(
                "unknown sampling",
                got=name,
                available=SAMPLERS,
                try_="one of these, or package.module:thing",
            )
        return name

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
            if name not in LOGGERS and ":" not in name:
                raise BadInput(
                    "unknown logger", got=name, available=LOGGERS, try_="package.module:thing"
                )
        return names
