"""A pack: all that one domain owns, in one safetensors file.

The header's metadata has one key, `onetrunk`, with one JSON document: format, the domain's card
(name, tasks, labels, size, normalization, provenance, scores), the trunk that it fits (by name and by
SHA-256) and the licence of that trunk's weights. Tensors are named `slots/LAYER/…` and `heads/…`. A
file is untrusted: everything is checked, and the domain built aside, before the model changes.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn import shared_heads as together
from onetrunk.nn.batches import check_tensors
from onetrunk.nn.card import Card

if TYPE_CHECKING:
    from onetrunk.nn.universal import Universal

FORMAT = 1
HEADER = 1_000_000  # bytes at most
KEY = "onetrunk"


@dataclass(frozen=True)
class Pack:
    """One domain outside of a model."""

    card: Card
    trunk: Mapping[str, Any]  # what the trunk says of itself
    sha256: str  # of that trunk
    licence: str | None
    tensors: Mapping[str, Tensor]
    banks: tuple[str, ...] = ()  # kinds of the banks that the slots come from

    @classmethod
    def of(cls, model: Universal, name: str, sha256: str | None = None) -> Pack:
        """The domain as it is now; later training does not change the pack. `sha256`: as `join`."""
        tensors = {k: v for k, v in model.own(name).items() if not k.startswith("trunk/")}
        heads = together.separate(model.heads_of(name))
        tensors |= {f"heads/{key}": value for key, value in heads.state_dict().items()}
        kinds = {type(bank).__name__ for bank in model.trunk.banks().values() if name in bank.slots}
        return cls(
            model.domains[name],
            model.trunk.describe(),
            sha256 or model.trunk.fingerprint(),
            model.trunk.licence,
            {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()},
            tuple(sorted(kinds)),
        )

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it beside its place, then move it there."""
        to = Path(path)
        document = {
            "format": FORMAT,
            **self.card.to_json(),
            "trunk": dict(self.trunk),
            "sha256": self.sha256,
            "licence": self.licence,
            "banks": list(self.banks),
        }
        data = write_tensors(dict(self.tensors), {KEY: json.dumps(document, allow_nan=False)})
        if struct.unpack("<Q", data[:8])[0] > HEADER:
            raise BadInput(
                f"the pack of {self.card.name} describes itself in at most 1 MB",
                try_="a shorter provenance, or fewer classes",
            )
        beside = to.with_name(f".{to.name}.{os.getpid()}.part")
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, to)
        finally:
            beside.unlink(missing_ok=True)
        return to

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Pack:
        """Read a file, without trusting it."""
        where = Path(path)
        try:
            with open(where, "rb") as file:
                head = file.read(8)
                if len(head) < 8 or struct.unpack("<Q", head)[0] > HEADER:
                    raise _bad(where, "it does not start with a header of at most 1 MB")
                data = head + file.read()
        except OSError as error:
            there = sorted(path.name for path in where.parent.glob("*.pack"))
            raise BadInput(
                "cannot read the pack",
                got=f"{where.name} ({error.strerror})",
                available=there,
                try_="the path of a file that another run wrote: RUN/model/packs/NAME.pack",
            ) from None
        header = data[8 : 8 + struct.unpack("<Q", head)[0]]
        try:
            document = json.loads(json.loads(header)["__metadata__"][KEY], parse_constant=_no)
            if not isinstance(document, dict) or not isinstance(document["format"], int):
                raise TypeError("no format")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _bad(where, "its header has no onetrunk document") from None
        if not 1 <= document["format"] <= FORMAT:
            raise BadInput(
                f"{where.name}: this version reads packs up to format {FORMAT}",
                got=f"format {document['format']}",
                try_="pip install --upgrade onetrunk",
            )
        try:
            tensors = read_tensors(data)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise _bad(where, str(error).split("\n")[0][:100]) from None
        try:
            card = Card.from_json(document)
        except BadInput as error:
            raise _bad(where, str(error)) from None
        trunk, sha256, licence = (document.get(key) for key in ("trunk", "sha256", "licence"))
        if not isinstance(trunk, dict) or not isinstance(sha256, str):
            raise _bad(where, "it does not name its trunk")
        return cls(
            card,
            trunk,
            sha256,
            licence if isinstance(licence, str) else None,
            tensors,
            tuple(str(kind) for kind in document.get("banks") or ()),
        )

    def join(self, model: Universal, sha256: str | None = None) -> str:
        """The domain becomes one of the model's; its name. Refused whole or taken whole.

        `sha256`: the trunk's, where it is known already.
        """
        name, where = self.card.name, f"pack {self.card.name}"
        ours = model.trunk.describe()
        for key in ours:
            if self.trunk.get(key) != ours[key]:
                raise BadInput(
                    f"{where} fits another trunk: {key} is to be {ours[key]!r}",
                    got=str(self.trunk.get(key)),
                )
        if self.sha256 != (mine := sha256 or model.trunk.fingerprint()):
            raise BadInput(
                f"{where} fits a trunk {ours['arch']} with other weights: this one is {mine[:12]}…",
                got=self.sha256[:12] + "…",
                try_="load the trunk that it was trained on",
            )
        if ":" in self.card.adapters and self.card.adapters != model.trunk.adapters:
            # A file never gets to name code that runs.
            raise BadInput(
                f"{where} has adapters of somebody's own",
                got=self.card.adapters,
                try_="if you trust them: Trunk(…, adapters=…) with that name",
            )
        slots, heads = model.make(self.card)
        expected: dict[str, Tensor] = {}
        for path, slot in slots.items():
            expected |= {f"slots/{path}/{key}": v for key, v in slot.state_dict().items()}
        expected |= {f"heads/{key}": v for key, v in heads.state_dict().items()}
        check_tensors(expected, self.tensors, where)
        for path, slot in slots.items():
            _load(slot, self.tensors, f"slots/{path}/")
        _load(heads, self.tensors, "heads/")
        model.place(self.card, slots, heads)
        if model.trunk.sharing == "full":
            prefix = "heads/"
            given = {k.removeprefix(prefix): v for k, v in self.tensors.items() if prefix in k}
            try:
                together.agree(heads, given, where)
            except BadInput:
                model.remove(name)
                raise
        return name


def _load(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict(state)


def _no(constant: str) -> None:
    raise ValueError(constant)  # NaN and the infinities are no JSON, and could not be written again


def _bad(path: Path, reason: str) -> BadInput:
    return BadInput(f"{path.name} is not a whole pack: {reason}", try_="copy or export it again")
