"""The settings of a domain: the keys of a [[domains]] table and the arguments of `Domain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator, field_validator

from onetrunk.data.augment import Augment
from onetrunk.data.pixels import Fit
from onetrunk.data.sources import SOURCES, user_source
from onetrunk.data.task import KINDS, Task, check_name, read_tasks
from onetrunk.errors import BadInput
from onetrunk.objects import Named
from onetrunk.settings import AUTO, EMPTY, Settings, fields_of, read_dataclass

Stats = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and std of RGB
Duplicates = Literal["keep", "group", "drop"]
Conflicts = Literal["keep", "drop"]
Normalize = Literal["auto", "dataset", "imagenet"]
NORMALIZATIONS: tuple[Normalize, ...] = get_args(Normalize)
MAX_SIDE = 16_384


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(value: Any) -> int | tuple[int, int] | None:
    if value is None:
        return None
    pair = isinstance(value, list | tuple)
    sides = list(value) if pair else [value]
    if len(sides) != 1 + pair or not all(
        isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE
        for side in sides
    ):
        raise BadInput(f"expected 1 to {MAX_SIDE} pixels, or [height, width]", got=value)
    return (sides[0], sides[1]) if pair else sides[0]


def _tasks(value: Any) -> tuple[Task, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping | list | tuple | str):
        raise BadInput("expected a list of kinds, or a table of tasks", got=value, available=KINDS)
    tasks = read_tasks(value)
    if not tasks:
        raise BadInput(
            "expected at least one task", got="none", try_='tasks = "auto" for all of the source'
        )
    return tasks


def _normalize(value: Any) -> Normalize | Stats:
    for name in NORMALIZATIONS:
        if isinstance(value, str) and value == name:
            return name
    rows = list(value) if isinstance(value, list | tuple) else []
    if len(rows) != 2 or not all(
        isinstance(row, list | tuple) and len(row) == 3 and all(map(_is_number, row))
        for row in rows
    ):
        raise BadInput(
            "expected a name, or [[three means], [three stds]] of values from 0 to 1",
            got=value,
            available=NORMALIZATIONS,
        )
    mean, std = ([float(number) for number in row] for row in rows)
    if min(std) <= 0:
        raise BadInput("expected stds above 0", got=std)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _augment(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Augment):
        return asdict(value)
    if not isinstance(value, Mapping):
        raise BadInput("expected a table", got=value, available=fields_of(Augment))
    read_dataclass(Augment, value)
    return {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}


def _heads(value: Any) -> dict[str, str | dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInput("expected a table of heads by task", got=value, try_='{ TASK = "a.b:Head" }')
    heads = {}
    for task, head in value.items():
        try:
            heads[check_name(task, "task")] = Named.of(head).plain()
        except BadInput as error:
            raise error.within(str(task)) from None
    return heads


class DomainSettings(Settings):
    """The source of a domain's images, and how they are processed."""

    name: str = Field(description="Name of the domain")
    source: str = Field(
        description="Source of the images as PREFIX:REST, for example folder:photos"
    )
    tasks: Annotated[tuple[Task, ...] | None, PlainValidator(_tasks), AUTO] = Field(
        default=None, description="Tasks to learn, by kind or by name; auto: all of the source"
    )
    size: Annotated[int | tuple[int, int] | None, PlainValidator(_size), AUTO] = Field(
        default=None,
        description="Pixels or [height, width]; auto: that of the source, otherwise 64; of "
        "photographs with a pretrained trunk 96, on a GPU 224",
    )
    fit: Fit = Field(default="squash", description="How an image is fitted to the size")
    margin: int = Field(
        default=0, ge=0, le=4096, description="Extra pixels that are stored for random crops"
    )
    fill: Annotated[int | None, AUTO] = Field(
        default=None,
        ge=0,
        le=255,
        description="Grey level around an image; auto: the color of its own border if it is padded",
    )
    flip: Annotated[bool | None, AUTO] = Field(
        default=None, description="Mirror half of the images; auto: as the source suggests"
    )
    augment: Annotated[dict[str, Any], PlainValidator(_augment)] = Field(
        default={}, description="Changes to the default augmentation, a key of Augment each"
    )
    normalize: Annotated[Normalize | Stats, PlainValidator(_normalize)] = Field(
        default="auto",
        description="Mean and std of pixels: auto (what pretrained weights expect, otherwise "
        "dataset) | dataset | imagenet | [[means], [stds]]",
    )
    allow_normalize: bool = Field(
        default=False, description="Train even if pretrained weights expect another normalization"
    )
    image: Annotated[str | None, EMPTY] = Field(
        default=None, description="Column that holds the image or its path"
    )
    group: Annotated[str | None, EMPTY] = Field(
        default=None,
        description="Column or pattern of the group; all images of a group are in one split",
    )
    split: Annotated[str | None, EMPTY] = Field(
        default=None, description="Column that holds the split"
    )
    duplicates: Duplicates = Field(
        default="keep",
        description="Identical and near images: as they are, in one split, or all but one left out",
    )
    conflicts: Conflicts = Field(
        default="keep", description="The same image under two labels: as it is, or left out"
    )
    heads: Annotated[dict[str, Any], PlainValidator(_heads)] = Field(
        default={},
        description='Your own heads by task, as "package.module:thing" or { object, arguments }',
    )
    weight: float = Field(default=1.0, gt=0, description="Weight of the domain's loss")
    batch: Annotated[int | None, AUTO] = Field(
        default=None, ge=1, description="Images in a batch of the domain; auto: train.batch"
    )
    allow_bad: bool = Field(default=False, description="Train even if many images cannot be read")

    @property
    def objects(self) -> dict[str, str]:
        """The users' objects that the settings name, by their role."""
        heads = {f"head of {task}": Named.of(head).object for task, head in self.heads.items()}
        source = user_source(self.source)
        return heads if source is None else {"source": source, **heads}

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name, "domain")

    @field_validator("source")
    @classmethod
    def _source(cls, source: str) -> str:
        if ":" not in source:
            raise BadInput(
                "expected a source as PREFIX:REST or package.module:thing",
                got=source,
                available=[f"{prefix}:" for prefix in SOURCES],
                try_=f"folder:{source or 'photos'}",
            )
        return source
