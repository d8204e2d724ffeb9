"""The changes of old domains' scores in a run that starts from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.eval.table import Table
from onetrunk.runs.forgetting import describe, score_changes
from onetrunk.runs.train import train
from tests.helpers.added import FEW, finished
from tests.helpers.fakes import Fake
from tests.helpers.worlds import network, noise, worlds


def test_old_domains_are_compared_on_the_same_images(run: Path, tmp_path: Path) -> None:
    one, _, three = worlds("one", "two", "three")
    two = Domain("two", noise(60, "abc", 123), size=8)  # a domain of that name with other images
    assert isinstance(two.source, Fake)
    two.source.listed = two.source.listed[:50]
    domains = [one, two, three]
    done = train(network(domains, seed=3), domains, out=tmp_path / "moved", train=Train(**FEW))
    (change,) = score_changes(run, tmp_path / "moved")
    assert (change.domain, change.task, change.metric) == ("one", "classify", "error")
    assert change.ours == pytest.approx(done.table.value("one"))
    same = score_changes(run, finished(tmp_path / "same"))
    assert all(each.value == 0 and "the same" in describe(each) for each in same)
    assert isinstance(done.table, Table)


def test_lines_name_better_worse_and_noise(run: Path, tmp_path: Path) -> None:
    domains = worlds("one", "two")
    train(network(domains, seed=8), domains, out=tmp_path / "moved", train=Train(**FEW))
    for each in score_changes(run, tmp_path / "moved"):
        line = describe(each)
        assert f"{each.domain}/classify: error " in line
        assert ("worse" in line) == (each.value > 0)
        assert ("within the noise" in line) == (not each.clear and each.value != 0)
    assert score_changes(run, tmp_path / "nowhere") == []
