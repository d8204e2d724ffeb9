"""A model in a folder: `model/trunk.safetensors`, and `model/packs/NAME.pack` for each domain.

Networks of one domain each (sharing = "none") are saved side by side, each under `model/NAME/`.

The header of the trunk's file holds its settings and the order of its domains. If domains are added
or removed later, `model/domains.json` has their names instead: the trunk's file, which is large and
often shared, is never written again, and a pack that is not listed does not count as a domain.
Files are not trusted: names, shapes and finiteness are checked as for packs. The folder is replaced
atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from onetrunk.data.task import check_name
from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.nn.normalization import Normalization
from onetrunk.nn.pack import Pack
from onetrunk.nn.published_weights import AUTO
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.weights import normalization_from
from onetrunk.objects import check_trusted
from onetrunk.store.atomic import atomic_folder, write_atomic
from onetrunk.store.places import check_folder
from onetrunk.store.results import no_model
from onetrunk.store.tensors import KEY, read_header, read_tensors, write_tensors

FORMAT = 2  # of the trunk's file
LIST_FORMAT = 1  # of domains.json
TRUNK = "trunk.safetensors"
PACKS = "packs"
LISTED = "domains.json"
# The arguments of the trunk, and all keys that its file must have.
ARGUMENTS = ("arch", "norm", "sharing", "own_stages", "adapters", "adapter_layers")
NAMES = ("arch", "norm", "adapters")  # of these, those that may be names of users' objects
KEYS = (*ARGUMENTS, "pair", "licence", "normalization", "sha256", "domains")


class Model(Protocol):
    """The interface of a model that can be saved and loaded: `onetrunk.Universal`."""

    trunk: Trunk
    domains: dict[str, Card]
    pair: str

    def __init__(self, trunk: Trunk, *, pair: str) -> None: ...

    def check_importable(self, *names: str) -> None: ...

    def pack(self, name: str, sha256: str | None = None) -> Pack: ...

    def add_pack(self, pack: Pack, sha256: str | None = None) -> Any: ...

    def eval(self) -> Self: ...


M = TypeVar("M", bound=Model)


def save_models(models: Mapping[str, Model], folder: str | PathLike[str]) -> Path:
    """Write the model named "" into `folder`/model, and those of single domains into model/NAME."""
    place = Path(folder) / "model"
    check_folder(place, "a model", _is_of_model)
    for model in models.values():
        model.check_importable()
    with atomic_folder(place) as part:
        for name, model in models.items():
            _write(model, part / name)
    return place


def _is_of_model(path: Path) -> bool:
    """Return whether a name in the folder of a model is its own, or that of one of several."""
    return path.name in (TRUNK, PACKS, LISTED) or (path / TRUNK).is_file()


def _write(model: Model, folder: Path) -> None:
    """Write the file of the trunk and a pack for each domain."""
    (folder / PACKS).mkdir(parents=True)
    trunk, sha256 = model.trunk, model.trunk.fingerprint()
    document = {
        "format": FORMAT,
        **trunk.describe(),
        "adapters": trunk.adapters,
        "adapter_layers": list(trunk.adapter_layers),
        "pair": model.pair,
        "licence": trunk.licence,
        "normalization": None if trunk.normalization is None else trunk.normalization.to_json(),
        "sha256": sha256,
        "domains": list(model.domains),
    }
    with (folder / TRUNK).open("xb") as file:
        write_tensors(file, trunk.shared(), {KEY: json.dumps(document)})
    for name in model.domains:
        model.pack(name, sha256).save(folder / PACKS / f"{name}.pack")


def load_model(folder: str | PathLike[str], domain: str | None, kind: type[M]) -> M:
    """Load the model of a folder, in evaluation mode.

    Args:
        folder: The folder of a run, or one that `save` wrote.
        domain: The domain, if the folder has one network per domain.
    """
    place = _model_folder(folder)
    names = network_names(place)
    if (place / TRUNK).is_file():
        return _read(place / domain if domain in names else place, kind)
    if not names:
        raise BadInput(
            f"no trunk in {place}: expected {TRUNK}", available=sorted(os.listdir(place))
        )
    if domain not in names:
        raise BadInput(
            f"{Path(folder).name} has one network per domain; name one of them",
            got=domain,
            available=names,
            try_=f"--domain {names[0]}, or onetrunk.load(folder, domain={names[0]!r})",
        )
    return _read(place / domain, kind)


def load_models(folder: str | PathLike[str], kind: type[M]) -> dict[str, M]:
    """Load the model of each domain: one model for all, one network each, or some of both."""
    place = _model_folder(folder)
    own = {name: _read(place / name, kind) for name in network_names(place)}
    if (place / TRUNK).is_file():
        model = _read(place, kind)
        return {**dict.fromkeys(model.domains, model), **own}
    return own


def saved_normalization(folder: str | PathLike[str]) -> Normalization | None:
    """Return what the trunk in a folder expects of images; None if it is not known.

    The networks of one domain each start from the same weights, so the first one counts.
    """
    place = Path(folder) / "model"
    paths = [place / TRUNK, *(place / name / TRUNK for name in network_names(place))]
    found = [path for path in paths if path.is_file()]
    return normalization_from(_document(found[0])) if found else None


def _model_folder(folder: str | PathLike[str]) -> Path:
    place = Path(folder) / "model"
    if not place.is_dir():
        raise no_model(Path(folder))
    return place


def network_names(place: Path) -> list[str]:
    """Return the domains that have a network of their own in a folder `model`."""
    return sorted(path.parent.name for path in place.glob(f"*/{TRUNK}"))


def _read(place: Path, kind: type[M]) -> M:
    """Load one model from the file of its trunk and its packs."""
    path = place / TRUNK
    document = _document(path)
    for key in NAMES:
        check_trusted(str(document[key]), key, f"the model in {place.parent.name or place}")
    if document["arch"] == AUTO:
        raise BadInput(f"{path.name}: expected the name of a trunk", got=AUTO)
    trunk = Trunk(**{key: document[key] for key in ARGUMENTS}, pretrained=False)
    trunk.licence = document["licence"]
    trunk.normalization = normalization_from(document)
    trunk.load_shared(read_tensors(path))
    if trunk.fingerprint() != document["sha256"]:
        raise BadInput(f"{path.name} is damaged: its SHA-256 is not the recorded one")
    model = kind(trunk, pair=document["pair"])
    names = listed(place, document["domains"])
    for name in names:
        try:
            model.add_pack(_open_pack(place, name), document["sha256"])
        except BadInput:
            if listed(place, document["domains"]) == names:
                raise
            return _read(place, kind)  # another process has removed the domain meanwhile
    return model.eval()


def _open_pack(place: Path, name: str) -> Pack:
    pack = Pack.open(place / PACKS / f"{name}.pack")
    if pack.card.name != name:
        raise BadInput(f"{name}.pack holds another domain", got=pack.card.name)
    return pack


def listed(place: Path, default: Sequence[str] | None = None) -> list[str]:
    """Return the domains of the model in a folder `model`, in order.

    Args:
        default: The list in the header of the trunk's file, if it is known.
    """
    try:
        text = (place / LISTED).read_bytes()
    except FileNotFoundError:
        return list(_document(place / TRUNK)["domains"] if default is None else default)
    except OSError as error:
        raise BadInput(f"cannot read {LISTED}", got=error.strerror) from None
    try:
        document = json.loads(text)
        names = [check_name(name, "domain") for name in document["domains"]]
        if document["format"] != LIST_FORMAT or len(set(names)) < len(names):
            raise ValueError("another format, or a name twice")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{LISTED} is not a list of domains", got=str(error)[:100]) from None
    return names


def relist(place: Path, names: Sequence[str]) -> None:
    """Write the list of domains of the model in a folder `model`; their packs must exist."""
    write_atomic(place / LISTED, json.dumps({"format": LIST_FORMAT, "domains": list(names)}) + "\n")


def _document(path: Path) -> dict[str, Any]:
    """Read and check the description in the header of the trunk's file."""
    try:
        document = read_header(path).document(path, "trunk", FORMAT)
    except OSError as error:
        raise BadInput(f"cannot read {path.name}", got=error.strerror) from None
    if missing := [key for key in KEYS if key not in document]:
        raise BadInput(f"{path.name} does not describe its trunk", got=f"no {', '.join(missing)}")
    domains, licence = document["domains"], document["licence"]
    if not isinstance(domains, list) or not (licence is None or isinstance(licence, str)):
        raise BadInput(
            f"{path.name} does not describe its trunk",
            got=f"domains {str(domains)[:50]}, licence {str(licence)[:50]}",
        )
    for name in domains:
        check_name(name, "domain")
    return document
