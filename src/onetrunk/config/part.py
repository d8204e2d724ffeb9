"""What the tables of a recipe have in common: frozen, no unknown key, sharp messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from onetrunk.config.faults import faults
from onetrunk.errors import BadInput


class Part(BaseModel):
    """A table of a recipe. Each field's description is the comment behind it in a written one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def of(cls, document: Mapping[str, Any], place: str = "") -> Self:
        """The table that a document holds; all that is wrong with it is one BadInput, a line each.

        `place`: what stands before a key in the messages, for example "train".
        """
        try:
            return cls.model_validate(dict(document))
        except ValidationError as error:
            raise BadInput("\n".join(faults(cls, error, document, place))) from None
