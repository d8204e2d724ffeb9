"""What a run that starts from another lost of the old domains."""

from __future__ import annotations

from pathlib import Path

import pytest

from onetrunk.data.domain import Domain
from onetrunk.eval.table import Table
from onetrunk.runs.forgetting import forgotten, told
from onetrunk.runs.train import train
from tests.helpers.added import FEW, finished
from tests.helpers.worlds import network, noise, worlds


def test_old_domains_are_compared_on_the_same_images(run: Path, tmp_path: Path) -> None:
    one, _, three = worlds("one", "two", "three")
    two = Domain("two", noise(60, "abc", 123), size=8)  # a domain of that name with other keys
    two.source.listed = two.source.listed[:50]  # type: ignore[union-attr]
    domains = [one, two, three]
    done = train(network(domains, seed=3), domains, out=tmp_path / "moved", **FEW)
    (found,) = forgotten(run, tmp_path / "moved")
    assert (found.domain, found.task, found.metric) == ("one", "classify", "error")
    assert found.ours == pytest.approx(done.table.value("one"))
    old = finished(tmp_path / "same")
    assert all(each.value == 0 and "the same" in told(each) for each in forgotten(run, old))
    assert isinstance(done.table, Table)


def test_lines_say_better_and_worse_and_noise(run: Path, tmp_path: Path) -> None:
    domains = worlds("one", "two")
    train(network(domains, seed=8), domains, out=tmp_path / "moved", **FEW)
    for each in forgotten(run, tmp_path / "moved"):
        line = told(each)
        assert f"{each.domain}/classify: error " in line
        assert ("worse" in line) == (each.value > 0)
        assert ("within the noise" in line) == (not each.clear and each.value != 0)
    assert forgotten(run, tmp_path / "nowhere") == []
