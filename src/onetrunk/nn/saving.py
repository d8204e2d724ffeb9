"""A model in a folder: `model/trunk.safetensors`, and `model/packs/NAME.pack` for each domain.

Networks of one domain each (sharing = "none") lie side by side, each so under `model/NAME/`.

The trunk's header says which architecture it is, how domains may differ in it, and their order.
Where domains came or went afterwards, `model/domains.json` has the names instead: the trunk's file,
large and often shared, is never written again, and a pack that is not listed is no domain yet.
Nothing is trusted on the way back: names, shapes and finiteness are checked as a pack's are. The
folder is written beside its place and moved there, so a model is whole or as it was.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from onetrunk.data.task import check_name
from onetrunk.errors import BadInput
from onetrunk.nn.pack import HEADER, KEY, Pack
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.store.atomic import atomic_folder, write_atomic
from onetrunk.store.tensors import write_tensors

FORMAT = 1
TRUNK = "trunk.safetensors"
PACKS = "packs"
LISTED = "domains.json"
KEYS = (
    *(
        "arch",
        "norm",
        "sharing",
        "own_stages",
        "adapters",
        "adapter_layers",
        "pair",
        "licence",
        "sha256",
    ),
    "domains",
)


def save(model: Universal, folder: str | PathLike[str]) -> Path:
    """Write the model into `folder`/model, in place of the one that is there."""
    return save_models({"": model}, folder)


def save_models(models: Mapping[str, Universal], folder: str | PathLike[str]) -> Path:
    """Write one model (named "") into `folder`/model, or several into `folder`/model/NAME."""
    place = Path(folder) / "model"
    with atomic_folder(place) as part:
        for name, model in models.items():
            _write(model, part / name)
    return place


def _write(model: Universal, folder: Path) -> None:
    """The trunk's file and a pack for each domain."""
    (folder / PACKS).mkdir(parents=True)
    trunk, sha256 = model.trunk, model.trunk.fingerprint()
    document = {
        "format": FORMAT,
        **trunk.describe(),
        "adapters": trunk.adapters,
        "adapter_layers": list(trunk.adapter_layers),
        "pair": model.pair,
        "licence": trunk.licence,
        "sha256": sha256,
        "domains": list(model.domains),
    }
    with (folder / TRUNK).open("xb") as file:
        write_tensors(file, trunk.shared(), {KEY: json.dumps(document)})
    for name in model.domains:
        Pack.of(model, name, sha256).save(folder / PACKS / f"{name}.pack")


def load(folder: str | PathLike[str], domain: str | None = None) -> Universal:
    """The model of a folder, in evaluation mode; of several networks that of one `domain`."""
    place = _place(folder)
    if (place / TRUNK).is_file():
        return _read(place)
    alone = _alone(place)
    if not alone:
        raise BadInput(
            f"no trunk in {place}: expected {TRUNK}", available=sorted(os.listdir(place))
        )
    if domain not in alone:
        raise BadInput(
            f"{Path(folder).name} holds one network for each domain: name one of them",
            got=domain,
            available=alone,
            try_=f"onetrunk.load({str(folder)!r}, domain={alone[0]!r})",
        )
    return _read(place / domain)


def models_of(folder: str | PathLike[str]) -> dict[str, Universal]:
    """By domain the model that answers for it: one for all of them, or a network each."""
    place = _place(folder)
    if (place / TRUNK).is_file():
        model = _read(place)
        return dict.fromkeys(model.domains, model)
    return {name: load(folder, name) for name in _alone(place)}


def _place(folder: str | PathLike[str]) -> Path:
    """Where the model of a folder lies."""
    place = Path(folder) / "model"
    if not place.is_dir():
        near = Path(folder) if Path(folder).is_dir() else Path(folder).parent
        there = sorted(p.name for p in near.iterdir()) if near.is_dir() else []
        raise BadInput(
            f"no model in {folder}: expected {Path(folder).name}/model",
            got=str(folder),
            available=there,
            try_="onetrunk train RECIPE, or onetrunk.save(model, folder), writes one",
        )
    return place


def _alone(place: Path) -> list[str]:
    """The networks that lie side by side, by name."""
    return sorted(path.parent.name for path in place.glob(f"*/{TRUNK}"))


def _read(place: Path) -> Universal:
    """One model from its trunk's file and its packs."""
    path = place / TRUNK
    document = _document(path)
    trunk = Trunk(
        document["arch"],
        norm=document["norm"],
        sharing=document["sharing"],
        own_stages=document["own_stages"],
        adapters=document["adapters"],
        adapter_layers=document["adapter_layers"],
    )
    trunk.licence = document["licence"]
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(f"{path.name} is damaged", got=str(error)[:100]) from None
    trunk.load_shared(tensors)
    if trunk.fingerprint() != document["sha256"]:
        raise BadInput(f"{path.name} is damaged: its tensors are not those that it names")
    model = Universal(trunk, pair=document["pair"])
    names = listed(place, document["domains"])
    for name in names:  # one after the other, so that each is read where the last one was
        try:
            _pack(place, name).join(model, document["sha256"])
        except BadInput:
            if listed(place, document["domains"]) == names:
                raise
            return _read(place)  # one that goes meanwhile is not missed
    return model.eval()


def _pack(place: Path, name: str) -> Pack:
    pack = Pack.open(place / PACKS / f"{name}.pack")
    if pack.card.name != name:
        raise BadInput(f"{name}.pack holds another domain", got=pack.card.name)
    return pack


def listed(place: Path, at_first: Sequence[str] | None = None) -> list[str]:
    """The domains of the model in a folder `model`, in order; `at_first`: the trunk's own list."""
    try:
        text = (place / LISTED).read_bytes()
    except FileNotFoundError:
        return list(_document(place / TRUNK)["domains"] if at_first is None else at_first)
    except OSError as error:
        raise BadInput(f"cannot read {LISTED}", got=error.strerror) from None
    try:
        document = json.loads(text)
        names = [check_name(name, "domain") for name in document["domains"]]
        if document["format"] != FORMAT or len(set(names)) < len(names):
            raise ValueError("another format, or a name twice")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{LISTED} is no list of domains", got=str(error)[:100]) from None
    return names


def relist(place: Path, names: Sequence[str]) -> None:
    """From now on the model in this folder `model` has these domains; their packs lie there."""
    write_atomic(place / LISTED, json.dumps({"format": FORMAT, "domains": list(names)}) + "\n")


def _document(path: Path) -> dict[str, Any]:
    """What the trunk's file says of itself, checked."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > HEADER:
                raise ValueError("a header over 1 MB")
            document = json.loads(json.loads(file.read(size))["__metadata__"][KEY])
        if not isinstance(document, dict) or not isinstance(document["format"], int):
            raise TypeError("no format")
    except OSError as error:
        raise BadInput(f"cannot read {path.name}", got=error.strerror) from None
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise BadInput(f"{path.name} is not a trunk of onetrunk", got=str(error)[:100]) from None
    if not 1 <= document["format"] <= FORMAT:
        raise BadInput(
            f"{path.name}: this version reads trunks up to format {FORMAT}",
            got=f"format {document['format']}",
            try_="pip install --upgrade onetrunk",
        )
    lacking = [key for key in KEYS if key not in document]
    if lacking:
        raise BadInput(f"{path.name} is not a trunk of onetrunk: it lacks {', '.join(lacking)}")
    return document
