"""A source with renamed classes: the same images, other labels."""

import pickle

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.renamed import RenamedClasses
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from tests.helpers.fakes import CLASSIFY, Fake, labelled, picture


def test_classes_are_renamed_and_removed_ones_have_no_label() -> None:
    source = Fake((Task("classify", "classify", ("a", "b", "c")),), labelled(6, "abc"))
    renamed = RenamedClasses(source, {"a": "z", "b": None})
    assert renamed.tasks[0].classes == ("z", "c")
    assert [item.labels["classify"] for item in renamed.items()] == ["z", None, "c"] * 2
    assert [item.key for item in renamed.items()] == [item.key for item in source.items()]
    assert np.array_equal(np.asarray(renamed.image("3")), picture(3))


def test_tags_and_numbers() -> None:
    item = Item("1", "1", "s", labels={"tags": ("a", "b"), "age": 3.0, "place": (1.0, 2.0)})
    tasks = (Task("tags", "multilabel"), Task("age", "regress"), Task("place", "regress"))
    (found,) = RenamedClasses(Fake(tasks, [item]), {"a": None, "b": "y"}).items()
    assert found.labels == {"tags": ("y",), "age": 3.0, "place": (1.0, 2.0)}


def test_optional_attributes_are_kept_in_a_data_worker() -> None:
    renamed = pickle.loads(
        pickle.dumps(RenamedClasses(Fake(CLASSIFY, [], notes=["odd"]), {"a": "b"}))
    )
    assert renamed.notes == ["odd"]
    with pytest.raises(AttributeError):
        _ = renamed.flip


def test_a_domain_with_renamed_classes_reads_its_list_again() -> None:
    domain = Domain("d", Fake(CLASSIFY, labelled(30, "abc")), size=8)
    assert domain.tasks[0].classes == ("a", "b", "c")
    renamed = domain.renamed({"a": "z"}, [Task("classify", "classify", ("b", "c", "z"))])
    assert renamed.tasks[0].classes == ("b", "c", "z")
    before, now = (d.index.labels["classify"] for d in (domain, renamed))
    assert ((before == 0) == (now == 2)).all()
    assert domain.tasks[0].classes == ("a", "b", "c")  # as it was
