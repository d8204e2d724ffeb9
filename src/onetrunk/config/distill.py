"""The settings of distillation: the keys of the [distill] table, and `ot.Distill`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from onetrunk.errors import BadInput
from onetrunk.registry import Registry
from onetrunk.settings import LIST, WORD, Settings

# only the names: the packages are in a higher layer and are not imported
FEATURES = (*Registry[object]("onetrunk.train.distill.feature_losses", "feature loss"), "none")
ALIGNERS = tuple(Registry[object]("onetrunk.train.distill.aligners", "aligner"))
Named = str | list[str] | dict[str, str | list[str]]  # one teacher, several, or by task


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_named(value: object) -> bool:
    """Return whether the value is the name of a teacher, or a list of names."""
    return _is_text(value) or (
        isinstance(value, list | tuple) and bool(value) and all(map(_is_text, value))
    )


def _teachers(value: Any) -> str | list[str] | dict[str, Named]:
    """Validate teachers: a name, a list, or a table by domain of names, lists or tables by task."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(map(_is_text, value)):
        return list(value)
    if not isinstance(value, Mapping):
        raise BadInput("expected a teacher, a list of teachers, or a table by domain", got=value)
    for name, named in value.items():
        for one in named.values() if isinstance(named, Mapping) else [named]:
            if not _is_named(one):
                raise BadInput(
                    "expected a teacher, a list of teachers, or a table by task",
                    place=str(name),
                    got=named,
                    try_='digits = "runs/specialists"',
                )
    return {name: _plain(named) for name, named in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list | tuple) else value


def _weight(value: Any) -> float | dict[str, float]:
    """Validate a weight, or weights by domain or by "domain/task"; the default weight is 1."""
    by_name = value if isinstance(value, Mapping) else {"": value}
    for number in by_name.values():
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            raise BadInput(
                'expected a number of at least 0, or a table by domain or "domain/task"', got=number
            )
    weights = {str(name): float(number) for name, number in by_name.items()}
    return weights if isinstance(value, Mapping) else weights[""]


Weight = Annotated[float | dict[str, float], PlainValidator(_weight)]


class Distill(Settings):
    """The settings of distillation from frozen teachers; without teachers, it is off."""

    enabled: bool = Field(default=True, description="false turns distillation off")
    teachers: Annotated[str | list[str] | dict[str, Named], PlainValidator(_teachers)] = Field(
        default="",
        description="Teachers: a run, timm/NAME or features:FILE; or a table of them by domain",
    )
    features: str = Field(
        default="l2",
        description=f"Feature loss: {' | '.join(FEATURES)} | package.module:thing",
    )
    feature_layers: Annotated[tuple[str, ...], LIST, WORD] = Field(
        default=(),
        description="Where features are compared: pooled, bottleneck, decoded or stages; empty: "
        "where the tasks read them",
    )
    feature_weight: Weight = Field(
        default=1.0, description='Weight of the feature loss; or by domain or "domain/task"'
    )
    aligner: str = Field(
        default="linear",
        description="Map from student to teacher features: linear | hidden (with a hidden layer) | "
        "package.module:thing",
    )
    aligner_lr: float = Field(
        default=1e-2, gt=0, description="Learning rate of the aligners (Adam, cosine schedule)"
    )
    aligner_weight_decay: float = Field(
        default=5e-4, ge=0, description="Weight decay of the aligners"
    )
    logits: bool = Field(
        default=True, description="Learn from the predictions of the teachers as well"
    )
    logit_weight: Weight = Field(
        default=1.0, description='Weight of the logit loss; or by domain or "domain/task"'
    )
    temperature: float = Field(
        default=4.0, gt=0, description="Temperature of the softened predictions"
    )
    label_weight: float = Field(default=1.0, ge=0, description="Weight of the losses on labels")
    annealing: Literal["none", "linear", "cosine"] = Field(
        default="none", description="How the weights of the teachers' losses decay to 0"
    )
    views: int = Field(
        default=0,
        ge=0,
        description="Precomputed views of each image; 0: run the teachers in every step",
    )
    keep_views: bool = Field(
        default=False, description="Keep the precomputed views in the folder of the run"
    )
    teacher_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that a step leaves out one of several teachers",
    )
    lwf: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Learning without forgetting: weight of the loss on predictions of the network "
        "in init for the new images; 0: off",
    )

    @field_validator("features", "aligner")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        loss = info.field_name == "features"
        names = FEATURES if loss else ALIGNERS
        if name not in names and ":" not in name:
            raise BadInput(
                "unknown feature loss" if loss else "unknown aligner",
                got=name,
                available=names,
                try_="one of these, or package.module:thing",
            )
        return name

    @property
    def on(self) -> bool:
        """Whether there are teachers."""
        return self.enabled and bool(self.teachers)

    @property
    def uses_lwf(self) -> bool:
        """Whether the predictions of the network in `init` are preserved."""
        return self.enabled and self.lwf > 0
