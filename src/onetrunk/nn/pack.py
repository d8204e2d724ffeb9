"""Packs: everything that one domain owns, in one safetensors file.

The metadata has one key, `onetrunk`, with one JSON document: the format, the domain's card (name,
tasks, labels, pixels, provenance, scores), the trunk that the pack fits (its settings and SHA-256),
and the licence of that trunk's weights. Tensors are named `slots/LAYER/…` and `heads/…`. Files are
not trusted: everything is checked before a model changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onetrunk.display import Described, Summary, scaled
from onetrunk.errors import BadInput
from onetrunk.nn.batches import check_tensors
from onetrunk.nn.card import Card
from onetrunk.nn.trunk import Trunk
from onetrunk.objects import check_trusted, modules_of, trusting
from onetrunk.store.atomic import atomic
from onetrunk.store.tensors import KEY, file_bytes, read_header, read_tensors, write_tensors

FORMAT = 2


@dataclass(frozen=True, repr=False)
class Pack(Described):
    """Everything that one domain owns, outside of a model."""

    card: Card
    trunk: Mapping[str, Any]  # the settings of its trunk, as `Trunk.describe` returns them
    sha256: str  # of its trunk
    licence: str | None
    tensors: Mapping[str, Tensor]
    banks: tuple[str, ...] = ()  # kinds of the banks of its slots
    from_file: bool = False  # whether what it names was written by someone else

    def summary(self) -> Summary:
        """Return the trunk that it fits, adapters, bytes, and tasks with recorded scores."""
        trunk = (f"{key} {value}" for key, value in self.trunk.items() if isinstance(value, str))
        size = scaled(sum(tensor.nbytes for tensor in self.tensors.values()), "B")
        facts = [
            ("trunk", f"{', '.join(trunk)}, SHA-256 {self.sha256[:12]}…"),
            ("adapters", self.card.adapters),
            ("pixels", "×".join(map(str, self.card.pixels.size))),
            *([("licence of the trunk", self.licence)] if self.licence else []),
        ]
        rows = [(t.name, t.kind, t.labels, self._recorded(t.name)) for t in self.card.tasks]
        columns = ("task", "kind", "labels", "test")
        return Summary(f"Pack({self.card.name!r}, {size})", facts, columns, rows)

    def _recorded(self, task: str) -> str:
        """Return the scores of a task on test that the pack records."""
        start = f"test/{task}/"
        return ", ".join(
            f"{key.removeprefix(start)} {value:.4g}"
            for key, value in self.card.scores.items()
            if key.startswith(start) and isinstance(value, int | float)
        )

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the pack to a file."""
        with atomic(Path(path)) as file:
            write_tensors(file, self.tensors, self._metadata())
        return Path(path)

    @property
    def file_bytes(self) -> int:
        """The size of the file that `save` writes."""
        return file_bytes(self.tensors, self._metadata())

    def _metadata(self) -> dict[str, str]:
        document = {
            "format": FORMAT,
            **self.card.to_json(),
            "trunk": dict(self.trunk),
            "sha256": self.sha256,
            "licence": self.licence,
            "banks": list(self.banks),
        }
        return {KEY: json.dumps(document, allow_nan=False)}

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Pack:
        """Read and check a file."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                document = read_header(path, file).document(path, "pack", FORMAT)
                file.seek(0)
                tensors = read_tensors(path, file)
        except OSError as error:
            raise BadInput(
                "cannot read the pack",
                got=f"{path.name} ({error.strerror})",
                available=sorted(other.name for other in path.parent.glob("*.pack")),
                try_="the path of a file that another run wrote: RUN/model/packs/NAME.pack",
            ) from None
        try:
            card = Card.from_json(document)
        except BadInput as error:
            raise _not_intact(path, str(error)) from None
        trunk, sha256, licence = (document.get(key) for key in ("trunk", "sha256", "licence"))
        if not isinstance(trunk, dict) or not isinstance(sha256, str):
            raise _not_intact(path, "it does not name its trunk")
        banks = document.get("banks", [])
        if not isinstance(banks, list) or not all(isinstance(kind, str) for kind in banks):
            raise _not_intact(path, "its banks are no list of names")
        return cls(
            card,
            trunk,
            sha256,
            licence if isinstance(licence, str) else None,
            tensors,
            tuple(banks),
            from_file=True,
        )

    @property
    def objects(self) -> dict[str, str]:
        """Return the users' objects that its domain is built with, by their role."""
        heads = {f"head of {task}": head.object for task, head in self.card.heads.items()}
        return heads | ({"adapter": self.card.adapters} if ":" in self.card.adapters else {})

    def check_trunk(self, trunk: Trunk, sha256: str) -> None:
        """Raise BadInput if the pack does not fit a trunk.

        Args:
            sha256: The trunk's fingerprint.
        """
        where, settings = f"pack {self.card.name}", trunk.describe()
        for key, value in settings.items():
            if self.trunk.get(key) != value:
                raise BadInput(
                    f"{where} fits another trunk: expected {key} = {value!r}",
                    got=str(self.trunk.get(key)),
                )
        if self.sha256 != sha256:
            raise BadInput(
                f"{where} fits another trunk {trunk.arch}: expected weights {sha256[:12]}…",
                got=self.sha256[:12] + "…",
                try_="load the trunk that it was trained on",
            )

    def check_trusted(self, known: Iterable[str] = ()) -> None:
        """Raise BadInput if the file of this pack names code that the user has not allowed.

        Args:
            known: Names of objects that are in use already.
        """
        if self.from_file:
            with trusting(modules_of(known)):
                for what, name in self.objects.items():
                    check_trusted(name, what, f"pack {self.card.name}")

    def load_into(self, slots: Mapping[str, nn.Module], heads: nn.Module) -> None:
        """Load the tensors into new slots and heads of this domain, after checking all of them."""
        modules = {f"slots/{path}/": slot for path, slot in slots.items()} | {"heads/": heads}
        expected = {
            prefix + key: value
            for prefix, module in modules.items()
            for key, value in module.state_dict().items()
        }
        check_tensors(expected, self.tensors, f"pack {self.card.name}")
        for prefix, module in modules.items():
            module.load_state_dict(self.tensors_under(prefix))

    def tensors_under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with a prefix, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def _not_intact(path: Path, reason: str) -> BadInput:
    return BadInput(f"{path.name} is not an intact pack: {reason}", try_="copy or export it again")
