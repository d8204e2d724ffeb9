"""Adding, removing, importing, updating and undoing domains on the command line.

Five domains are trained together, and five more are added one after another. One of them is removed
and imported again, and one is updated and restored. All other predictions stay equal to the bit.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onetrunk.data.domain import Domain
from onetrunk.nn.saving import load
from tests.helpers.verbs import Ran

Onetrunk = Callable[..., Ran]
FIVE = ("creatures", "emoji", "fashion", "glyphs", "optdigits")
MORE = ("digits", "encounter", "flags", "icons", "words")
SHORT = ("--set", "train.batch=8", "--set", "train.steps=3")


def small(name: str) -> tuple[str, str]:
    """Return the options that make a domain's images small."""
    return "--set", f"domains.{name}.size=12"


def prediction_hashes(run: Path) -> dict[str, str]:
    """Return a hash of each domain's predictions for some of its validation images."""
    hashes, model = {}, load(run)
    with torch.no_grad():
        for name in model.domains:
            images, _ = Domain(name, f"pocket:{name}", size=12).val.batch(np.arange(32))
            logits = model(images, name)["classify"]
            hashes[name] = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
    return hashes


def folders(domain: Domain, root: Path) -> Path:
    """Write images of a domain in folders by class, and a further class, `blank`."""
    (task,) = domain.tasks
    for split in (domain.train, domain.val, domain.test):
        labels = split.label(task.name)
        for i in range(0, len(split), 10):
            folder = root / split.name / task.classes[int(labels[i])]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.stored(np.array([i]))[0][0]).save(folder / f"{i}.png")
            new = root / split.name / "blank"
            new.mkdir(exist_ok=True)
            if i < 300:
                Image.new("RGB", (28, 28), (i % 256, 255, 255)).save(new / f"{i}.png")
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)  # seconds, for about fifteen commands
def test_five_and_five_more(onetrunk: Onetrunk, tmp_path: Path) -> None:
    domains = [word for n in FIVE for word in ("--domain", f"{n}=pocket:{n}")]
    domains = [*domains, *(word for n in FIVE for word in small(n))]
    ran = onetrunk("train", *domains, *SHORT, "--set", "trunk.arch=resnet20", "--out", "run")
    assert ran.code == 0, ran.err
    run, known = tmp_path / "run", prediction_hashes(tmp_path / "run")
    assert set(known) == set(FIVE)
    for name, kind in zip(MORE, ("parallel", "series", "lora", "norm", "none"), strict=True):
        ran = onetrunk(
            "add", "run", name, f"pocket:{name}", *small(name), *SHORT, "--adapters", kind
        )
        assert ran.code == 0, ran.err
        (line,) = [line for line in ran.out.splitlines() if line.startswith(f"{name}: unchanged")]
        assert all(other in line for other in known)
        now = prediction_hashes(run)
        assert {other: now[other] for other in known} == known
        known = now

    assert onetrunk("remove", "run", "flags").code == 0
    assert prediction_hashes(run) == {
        name: value for name, value in known.items() if name != "flags"
    }
    shutil.move(run / "removed/flags/flags.pack", tmp_path / "flags.pack")
    ran = onetrunk("add", "run", "flags", "pack:flags.pack")
    assert ran.code == 0, ran.err
    assert prediction_hashes(run) == known

    folders(Domain("digits", "pocket:digits", size=28), tmp_path / "digits-now")
    ran = onetrunk("update", "run", "digits", "folder:digits-now", *small("digits"), *SHORT)
    assert ran.code == 0, ran.err
    assert "new: blank" in ran.err
    assert len(load(run).domains["digits"].task("classify").classes) == 11
    now = prediction_hashes(run)
    assert now.pop("digits") != known["digits"]
    assert now == {name: value for name, value in known.items() if name != "digits"}
    assert onetrunk("update", "run", "digits", "--undo").code == 0
    assert prediction_hashes(run) == known
