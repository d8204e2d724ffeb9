"""A concept is declared once: signatures, files and the list of keys agree with the settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.add_recipe import AddSettings
from onetrunk.config.keys import recipe_keys
from onetrunk.config.optimizers import DEFAULT_KEYS
from onetrunk.config.to_toml import document_of
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.trunk_settings import TrunkSettings
from onetrunk.settings import Settings, fields_of
from tests.helpers.errors import raises

REQUIRED = inspect.Parameter.empty
TABLES: Mapping[str, type[Any]] = {
    "[trunk]": TrunkSettings,
    "[[domains]]": DomainSettings,
    "[train]": Train,
    "[distill]": Distill,
    "[add]": AddSettings,
}


def defaults(kind: type[Any]) -> dict[str, Any]:
    return {
        name: REQUIRED if field.is_required() else field.get_default()
        for name, field in fields_of(kind).items()
    }


def arguments(kind: type[Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters
    return {name: p.default for name, p in parameters.items() if name not in without}


def test_the_arguments_of_a_domain_are_its_settings() -> None:
    # None is "not set": what a domain does not set, it may take over from a run
    expected = {k: v if k == "name" else None for k, v in defaults(DomainSettings).items()}
    assert arguments(Domain, ("base", "cache")) == expected
    assert list(arguments(Domain, ("base", "cache"))) == list(expected)
    given, settings = get_type_hints(Domain.__init__), get_type_hints(DomainSettings)
    wider = {"name", "source", "tasks", "augment", "heads"}  # stored in a plain form
    assert {name: given[name] for name in settings.keys() - wider if name[0] != "_"} == {
        name: hint | None for name, hint in settings.items() if name in given and name not in wider
    }


def test_the_arguments_of_a_trunk_are_its_settings() -> None:
    expected = defaults(TrunkSettings)
    del expected["pair"]  # of Universal
    assert arguments(Trunk) == expected
    assert list(arguments(Trunk)) == list(expected)


@pytest.mark.parametrize("kind", [Train, Distill, AddSettings, TrunkSettings, DomainSettings])
def test_settings_have_explicit_arguments(kind: type[Settings]) -> None:
    parameters = inspect.signature(kind).parameters.values()
    assert [p.name for p in parameters] == list(kind.model_fields)
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
    with raises(BadInput, place="nothing", got="nothing", available=kind.model_fields):
        kind(nothing=1)


def test_every_key_is_listed_with_a_description() -> None:
    keys = recipe_keys()
    for table, kind in TABLES.items():
        assert [key.key for key in keys if key.table == table] == list(kind.model_fields)
    top = [key.key for key in keys if not key.table]
    assert top == [name for name in Recipe.model_fields if f"[{name}]" not in TABLES][:-1]
    for key in keys:
        assert key.type != "another value", key
        assert key.description, key
        assert not key.description.endswith("."), key
        assert key.description[0].isupper() or key.description.startswith("false"), key
    assert [key.key for key in keys if key.required] == ["name", "name", "source", "kind"]


def test_listed_defaults_are_those_of_a_written_recipe() -> None:
    document = document_of(Recipe.parse('name = "x"\n[[domains]]\nname = "a"\nsource = "b:c"'))
    tables = {"": document, "[[domains]]": document["domains"][0]}
    tables |= {f"[{name}]": document[name] for name in ("trunk", "train", "distill")}
    depends = {"out", "steps", *DEFAULT_KEYS}  # on other keys
    for key in recipe_keys():
        if key.table in tables and not key.required and key.key not in depends:
            assert tables[key.table].get(key.key) == key.default, key


def test_given_settings_are_those_that_were_set() -> None:
    assert Train().given() == {}
    assert Train(lr=0.1, optimizer="sgd").given() == {"lr": 0.1, "optimizer": "sgd"}
    assert Train().steps == 4000
    assert Train.of({"epochs": 2.0}).given() == {"epochs": 2.0}


def test_a_domain_has_the_settings_that_it_was_made_of() -> None:
    settings = DomainSettings(name="a", source="folder:b", size=(8, 9), weight=2.0)
    domain = Domain.of(settings, "elsewhere")
    assert domain.settings == settings
    assert domain.base == Path("elsewhere")
    given = [Task("a", "classify")]
    assert list(Domain("d", tasks=given).settings.tasks or ()) == given


def test_a_trunk_has_the_settings_that_it_was_made_of() -> None:
    settings = TrunkSettings(arch="resnet20", norm="shared", adapters="parallel")
    assert Trunk.of(settings).settings == settings
