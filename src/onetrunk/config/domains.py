"""[[domains]]: where images come from, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, field_validator

from onetrunk.config.part import Part
from onetrunk.config.train import auto
from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain, Stats
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import KINDS, Task, check_name, read_tasks
from onetrunk.errors import BadInput


def _none(value: object) -> object:
    """The empty text that stands for None in a file."""
    return None if value == "" else value


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(value: Any) -> int | tuple[int, int] | None:
    if auto(value) is None:
        return None
    sides = [value] if not isinstance(value, list | tuple) else list(value)
    pair = isinstance(value, list | tuple)
    if len(sides) != 1 + pair or not all(_whole(s) and 1 <= s <= 16_384 for s in sides):
        raise BadInput("expected pixels, 1 to 16384, or [height, width]", got=value)
    return (sides[0], sides[1]) if pair else sides[0]


def _tasks(value: Any) -> tuple[Task, ...] | None:
    if auto(value) is None:
        return None
    if isinstance(value, Mapping):
        for name, spec in value.items():
            for key, of in (("kind", str), ("classes", list), ("outputs", int), ("column", str)):
                got = spec.get(key) if isinstance(spec, Mapping) else None
                if got is not None and (not isinstance(got, of) or isinstance(got, bool)):
                    words = {str: "text", list: "a list", int: "a whole number"}
                    raise BadInput(f"task {name}: {key} is {words[of]}", got=got)
    elif not isinstance(value, list | tuple | str):
        raise BadInput("expected a list of kinds, or a table of tasks", got=value, available=KINDS)
    tasks = read_tasks(value)
    if not tasks:
        raise BadInput("expected at least one task", got="none", try_="leave tasks out for all")
    return tasks


def _normalize(value: Any) -> Literal["dataset", "imagenet"] | Stats:
    if value in ("dataset", "imagenet"):
        return value  # type: ignore[no-any-return]
    lists = list(value) if isinstance(value, list | tuple) else []
    if len(lists) != 2 or not all(
        isinstance(part, list | tuple) and len(part) == 3 and all(map(_number, part))
        for part in lists
    ):
        raise BadInput(
            "expected a word, or [[three means], [three deviations]] of values in 0…1",
            got=value,
            available=("dataset", "imagenet"),
        )
    mean, std = (tuple(float(v) for v in part) for part in lists)
    if min(std) <= 0:
        raise BadInput("normalization divides by the deviations, which are above 0", got=list(std))
    return ((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _augment(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput("expected a table", got=value, available=[f.name for f in fields(Augment)])
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    usual = Augment()
    for key, got in given.items():
        like = getattr(usual, key, got)
        if isinstance(like, tuple):
            fits, said = _pair(got), "[least, greatest]"
        elif isinstance(like, bool):
            fits, said = isinstance(got, bool), "true or false"
        elif isinstance(like, float):
            fits, said = _number(got), "a number"
        else:
            fits, said = _whole(got), "a whole number"
        if not fits:
            raise BadInput(f"{key}: expected {said}", got=got)
    Augment.usual(Pixels((64, 64)), False, given)  # says what else is wrong
    return given


def _pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_number, value))


Text = Annotated[str | None, BeforeValidator(_none)]


class DomainPart(Part):
    """All arguments of `Domain` that a file can say."""

    name: str = Field(description="a name of its own")
    source: str = Field(description="PREFIX:REST, for example folder:photos or pocket:digits")
    tasks: Annotated[tuple[Task, ...] | None, PlainValidator(_tasks)] = Field(
        default=None, description="auto: all that the source has"
    )
    size: Annotated[int | tuple[int, int] | None, PlainValidator(_size)] = Field(
        default=None, description="pixels or [height, width]; auto: the source's own, else 64"
    )
    fit: Literal["squash", "pad", "crop"] = Field(
        default="squash", description="squash | pad | crop"
    )
    margin: int = Field(
        default=0, ge=0, le=4096, description="pixels stored around, for crops to move in"
    )
    fill: int = Field(default=0, ge=0, le=255, description="grey level around a padded image")
    flip: Annotated[bool | None, BeforeValidator(auto)] = Field(
        default=None, description="mirror half of the images; auto: as the source says"
    )
    augment: Annotated[dict[str, Any], PlainValidator(_augment)] = Field(
        default={}, description="area, aspect, scale, brightness, contrast, saturation, pad"
    )
    normalize: Annotated[Literal["dataset", "imagenet"] | Stats, PlainValidator(_normalize)] = Field(
        default="dataset", description="dataset | imagenet | [[means], [stds]]"
    )
    image: Text = Field(default=None, description="the column that names the image")
    group: Text = Field(default=None, description="column or pattern: never straddles splits")
    split: Text = Field(default=None, description="the column that names the split")
    weight: float = Field(default=1.0, gt=0, description="of its loss")
    batch: Annotated[int | None, BeforeValidator(auto)] = Field(
        default=None, ge=1, description="auto: as [train] says"
    )
    allow_bad: bool = Field(default=False, description="train although many images cannot be read")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name, "domain")

    @field_validator("source")
    @classmethod
    def _source(cls, source: str) -> str:
        if ":" not in source:
            raise BadInput("expected PREFIX:REST", got=source, try_=f"folder:{source or 'photos'}")
        return source

    def make(self, root: Path) -> Domain:
        """The domain; relative paths start at `root`."""
        try:
            return Domain(
                self.name,
                self.source,
                self.tasks,
                size=self.size,
                fit=self.fit,
                margin=self.margin,
                fill=self.fill,
                flip=self.flip,
                augment=self.augment,
                normalize=self.normalize,
                image=self.image,
                group=self.group,
                split=self.split,
                weight=self.weight,
                batch=self.batch,
                allow_bad=self.allow_bad,
                base=root,
            )
        except BadInput as error:
            raise BadInput(f"domains.{self.name}: {error}") from None
