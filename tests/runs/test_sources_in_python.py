"""Runs whose images are Python objects: trained, resumed, noticed when changed, given again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import onetrunk as ot
from onetrunk.cli.eval import chosen_domains
from onetrunk.runs import train as trainer
from tests.helpers.added import FEW
from tests.helpers.errors import raises
from tests.helpers.fakes import picture
from tests.helpers.worlds import network

PAIRS: list[tuple[Any, Any]] = [(picture(i, 8, 8), "ab"[i % 2]) for i in range(60)]


def shop(pairs: list[tuple[Any, Any]] = PAIRS, name: str = "shop") -> ot.Domain:
    return ot.Domain(name, pairs, size=8)


def trained(folder: Path, domain: ot.Domain, resume: bool = False) -> ot.Run:
    settings = ot.Train(**FEW)
    return ot.train(
        network([domain]), [domain], out=folder, train=settings, resume=resume, device="cpu"
    )


class Killed(BaseException):
    pass


def test_a_run_is_resumed_with_the_same_images_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "finish", kill)
        with pytest.raises(Killed):
            trained(tmp_path / "run", shop())
    relabeled = [*PAIRS[:-1], (PAIRS[-1][0], "a")]
    for pairs in (PAIRS[1:], [*PAIRS, (picture(99, 8, 8), "a")], relabeled):
        with raises(ot.BadInput, "shop", try_="restore"):
            trained(tmp_path / "run", shop(pairs), resume=True)
    turned = [*reversed(PAIRS)]  # the order does not matter
    run = trained(tmp_path / "run", shop(turned), resume=True)
    assert run.state == "finished"
    assert list(run.domains) == ["shop"]


def test_a_new_process_gives_the_images_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = trained(folder, shop())
    read = ot.Run(folder)
    assert read.recipe is not None
    assert read.recipe.domains[0].source == "python:list"
    assert read.domains == {}
    assert list(ot.load(folder).domains) == ["shop"]
    for requested in (None, ["shop"]):
        with raises(ot.BadInput, "Python", got="shop", try_="domains=[ot.Domain("):
            chosen_domains(read, requested)
    again = ot.Run(folder, domains=[shop()])
    assert list(again.domains) == ["shop"]
    assert chosen_domains(again, None) == list(again.domains.values())
    table = ot.evaluate(ot.load(folder), list(again.domains.values()), device="cpu")
    assert [row.value for row in table.rows] == [row.value for row in run.table.rows]
    with raises(ot.BadInput, "Python", got="python:list"):
        ot.Domain("shop", "python:list", size=8).check()


def test_domains_are_added_beside_images_that_are_not_stored(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder, shop())
    settings = ot.Train(**FEW)
    with torch.random.fork_rng(devices=[]):
        for name, first in (("two", 100), ("three", 200)):
            pairs = [(picture(first + i, 8, 8), "ab"[i % 2]) for i in range(60)]
            result = ot.add(
                folder, shop(pairs, name), adapters="norm", few=False, train=settings, device="cpu"
            )
            assert result.unchanged
    assert list(ot.Run(folder).names) == ["shop", "two", "three"]
    assert ot.Run(folder).domains == {}
