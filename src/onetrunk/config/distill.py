"""[distill]: who teaches the network, and what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, field_validator

from onetrunk.config.part import Part
from onetrunk.errors import BadInput
from onetrunk.registry import Registry

# the names only: the package is above this one, and is not imported
FEATURES = (*Registry[object]("onetrunk.train.distill.feature_losses", "feature loss"), "none")
Named = str | list[str] | dict[str, str | list[str]]  # one teacher, several, or by task


def _teachers(value: Any) -> str | list[str] | dict[str, Named]:
    """Texts, or a table: by domain a text, a list of texts, or a table of those by task."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(t, str) and t for t in value):
        return list(value)
    if isinstance(value, Mapping):
        for name, named in value.items():
            inner = named.values() if isinstance(named, Mapping) else [named]
            for one in inner:
                texts = one if isinstance(one, list | tuple) else [one]
                if not texts or not all(isinstance(t, str) and t for t in texts):
                    raise BadInput(
                        f"{name}: expected a teacher, several in a list, or a table by task",
                        got=named,
                        try_='digits = "runs/specialists"',
                    )
        return {k: _plain(v) for k, v in value.items()}
    raise BadInput("expected a teacher, several in a list, or a table by domain", got=value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, list | tuple) else value


def _weight(value: Any) -> float | dict[str, float]:
    """A number, or numbers by domain or by "domain/task"; what is not named has 1."""
    several = value if isinstance(value, Mapping) else {"": value}
    for number in several.values():
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            raise BadInput('expected a number from 0 on, or a table by domain or "domain/task"')
    made = {str(key): float(number) for key, number in several.items()}
    return made if isinstance(value, Mapping) else made[""]


Weight = Annotated[float | dict[str, float], PlainValidator(_weight)]


class Distill(Part):
    """Distillation from frozen teachers; without teachers there is none."""

    enabled: bool = Field(default=True, description="false turns it off from the command line")
    teachers: Annotated[str | list[str] | dict[str, Named], PlainValidator(_teachers)] = Field(
        default="", description="a run, or by domain runs, timm/NAME, files of features"
    )
    features: str = Field(
        default="l2", description="l2 | cka | cosine | none | package.module:thing"
    )
    at: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="pooled, bottleneck, decoded, stages; []: what the tasks read"
    )
    feature_weight: Weight = Field(default=1.0, description='or by domain, by "domain/task"')
    aligner: Literal["linear", "hidden"] = Field(default="linear", description="linear | hidden")
    aligner_lr: float = Field(default=1e-2, gt=0, description="Adam, falling as a cosine")
    aligner_decay: float = Field(default=5e-4, ge=0, description="weight decay of the aligners")
    logits: bool = Field(default=True, description="the teachers' predictions are targets, too")
    logit_weight: Weight = Field(default=1.0, description='or by domain, by "domain/task"')
    temperature: float = Field(default=4.0, gt=0, description="that softens the predictions")
    label_weight: float = Field(default=1.0, ge=0, description="of the labels' own losses")
    annealing: Literal["none", "linear", "cosine"] = Field(
        default="none", description="how the teachers fade: none | linear | cosine"
    )
    views: int = Field(
        default=0, ge=0, description="looked at once, before training; 0: at each step anew"
    )
    keep: bool = Field(
        default=False, description="what was said of views stays in the run, in teachers/"
    )
    drop: float = Field(
        default=0.0, ge=0, lt=1, description="share of steps that one of several teachers misses"
    )
    lwf: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="with init: weight of the old domains' predictions on the new images; 0: none",
    )

    @field_validator("features")
    @classmethod
    def _features(cls, name: str) -> str:
        if name not in FEATURES and ":" not in name:
            raise BadInput(
                "unknown feature loss", got=name, available=FEATURES, try_="or package.module:thing"
            )
        return name

    @property
    def on(self) -> bool:
        """Whether there are teachers."""
        return self.enabled and bool(self.teachers)

    @property
    def uses_lwf(self) -> bool:
        """Whether the predictions of the run that this one starts from are held."""
        return self.enabled and self.lwf > 0
