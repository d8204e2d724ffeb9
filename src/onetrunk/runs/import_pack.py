"""A pack from elsewhere joins a run: a file that was copied, or what was removed before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.nn.model_files import listed
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.runs import history as story
from onetrunk.runs import pack_store as shelf
from onetrunk.runs import proof
from onetrunk.runs.add import Grown
from onetrunk.runs.growth import only
from onetrunk.runs.open import reachable
from onetrunk.runs.scores import cost_of, read_json
from onetrunk.store.atomic import make_folder, write_atomic
from onetrunk.store.run_folder import RECIPE, SCORES, RunFolder, shell
from onetrunk.store.strict_json import strict_json
from onetrunk.train.new_domain.trials import pack_bytes, trunk_bytes

PREFIX = "pack:"


def bring(run: Path, name: str, file: Path) -> Grown:
    """The pack in `file` becomes the run's domain `name`; its trunk is the run's, by hash.

    The file is taken as it is, byte for byte, unless it is to have another name.
    """
    top = shelf.check_run(run)
    again = f"onetrunk add {shell(run)} {name} {PREFIX}{shell(file)}"
    with RunFolder.hold(run, again) as held:
        pack = Pack.open(file)
        data: bytes | None = file.read_bytes()
        if name in listed(top):
            raise BadInput(
                f"{run} has a domain of this name already",
                got=name,
                available=listed(top),
                try_=f"another name, or onetrunk remove {shell(run)} {name}",
            )
        renamed = pack.card.name != name
        if renamed:
            pack, data = replace(pack, card=replace(pack.card, name=name)), None
        model, others = load(run), reachable(run)
        before = proof.take(model, others, name)
        model.add_pack(pack)
        shown = proof.compare(before, proof.take(model, others, name), name)
        say(f"{name}: {shown.said}")
        home = file.resolve().parent
        here = home.parent == (run / shelf.REMOVED).resolve()
        kept = home if here and not renamed else None  # its record and history have its old name
        record = read_json(home / SCORES) if kept is not None else {}
        record = _record(model, pack, record, shown, file)
        aside = run / shelf.GROWING / f"{name}.pack"  # what comes back, whole before it is in use
        shelf.gone(aside)

        def fill(part: Path) -> None:
            if kept is not None and (kept / RECIPE).is_file():
                for path in kept.iterdir():
                    if path.is_file() and path.suffix != ".pack" and path.name != ".lock":
                        (part / path.name).write_bytes(path.read_bytes())
            write_atomic(part / SCORES, strict_json(record, indent=2) + "\n")
            if data is None:
                pack.save(part / f"{name}.pack")
            else:
                write_atomic(part / f"{name}.pack", data)

        with held.writing(f"the pack of {name}"):
            shelf.whole(aside, fill)
        shelf.put_back(held, name, aside)
        with held.writing(f"the history of {name}"):
            shelf.gone(aside)
            if kept is not None and (kept / shelf.HISTORY).is_dir():
                make_folder(run / shelf.HISTORY)
                os.rename(kept / shelf.HISTORY, run / shelf.HISTORY / name)
    return Grown(name, model.eval(), record, run)


def _record(
    model: Universal, pack: Pack, known: Mapping[str, Any], shown: proof.Proof, file: Path
) -> dict[str, Any]:
    """What the run says of it: as before where it was here, else what the pack says of itself."""
    name, trunk = pack.card.name, trunk_bytes(model)
    grown = {
        "adapters": pack.card.adapters,
        "bytes": pack_bytes(pack),
        "share": pack_bytes(pack) / trunk,
        "version": pack.card.provenance.get("version", 1),
        **known.get("grown", {}),
        "what": "brought in",
        "date": story.now(),
        "from": file.name,
    }
    cost = known.get("cost") or cost_of(budget(only(model, name)), name)
    return {**known, "domain": name, "grown": grown, "cost": cost, "proof": shown.to_json()}
