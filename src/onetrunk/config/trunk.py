"""[trunk]: the shared network, and what of it each domain owns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from onetrunk.config.part import Part
from onetrunk.config.train import Words
from onetrunk.errors import BadInput
from onetrunk.nn.adapters import adapter_names
from onetrunk.nn.norms import NORMS
from onetrunk.nn.trunk import SHARING


def _pretrained(value: Any) -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise BadInput("expected true, false, or the path of a file", got=value)


def _stages(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(stage, int | str) and not isinstance(stage, bool) for stage in value
    ):
        raise BadInput("expected a list of stages, by name or number", got=value)
    return tuple(value)


class TrunkPart(Part):
    """The arguments of `Trunk`, and how full sharing pairs classes."""

    arch: str = Field(default="resnet26", description="timm/NAME, resnet20, resnet26, resnet38, …")
    pretrained: Annotated[bool | str, PlainValidator(_pretrained)] = Field(
        default=False, description="true: timm's weights; or a file of weights"
    )
    norm: str = Field(default="domain", description=" | ".join(NORMS))
    sharing: str = Field(default="deep", description=" | ".join(SHARING))
    own_stages: Annotated[tuple[int | str, ...], PlainValidator(_stages)] = Field(
        default=(), validate_default=True, description="with partial: what each domain owns"
    )
    adapters: str = Field(default="none", description=" | ".join(adapter_names()))
    adapter_layers: Words = Field(
        default=(), description="patterns of layers; none: every layer that can"
    )
    pair: Literal["name", "index"] = Field(
        default="name", description="with full: classes by name | index"
    )

    @field_validator("norm", "sharing", "adapters")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        names = {"norm": NORMS.names, "sharing": SHARING, "adapters": adapter_names()}[
            str(info.field_name)
        ]
        own = ":" in value and info.field_name != "sharing"
        if value not in names and not own:
            raise BadInput(
                f"unknown {info.field_name}",
                got=value,
                available=names,
                try_=None if info.field_name == "sharing" else "or package.module:thing",
            )
        return value

    @field_validator("own_stages")
    @classmethod
    def _partial(cls, stages: tuple[int | str, ...], info: ValidationInfo) -> tuple[int | str, ...]:
        sharing = info.data.get("sharing")
        if sharing is not None and bool(stages) != (sharing == "partial"):
            raise BadInput(
                "it goes with sharing = 'partial'",
                got=f"sharing = {sharing!r}, own_stages = {list(stages)}",
                try_="own_stages = [1], for example" if sharing == "partial" else "own_stages = []",
            )
        return stages
