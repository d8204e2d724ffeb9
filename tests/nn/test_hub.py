"""Uploads and downloads, with a folder in the place of the Hugging Face Hub."""

from __future__ import annotations

import builtins
import importlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

import onetrunk as ot
from onetrunk.errors import BadInput, Failed, Missing
from onetrunk.nn.hub import model_card
from tests.helpers.errors import raises


@pytest.fixture
def model() -> ot.Universal:
    """Return a model of two domains with scores; one has Markdown and HTML in its names."""
    domains = [
        ot.Domain(
            "digits", tasks={"classify": {"kind": "classify", "classes": ["0", "1"]}}, size=32
        ),
        ot.Domain(
            "signs", tasks={"sign": {"kind": "classify", "classes": ["<b>|", "b", "c"]}}, size=32
        ),
    ]
    model = ot.Universal(ot.Trunk("resnet20", norm="domain"), domains).eval()
    scores = {
        "val/classify/error": 3.0,
        "test/classify/error": 4.25,
        "test/classify/error/low": 3.5,
        "test/classify/error/high": 5.0,
        "test/classify/ece": 1.5,
    }
    model.domains["digits"] = model.domains["digits"].with_record({}, scores)
    return model


class FakeHub:
    """A Hub that stores uploads in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def api(self, token: str | None = None) -> FakeHub:
        self.calls.append(("api", {"token": token}))
        return self

    def create_repo(self, repo_id: str, **settings: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, **settings}))
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, repo_id: str, folder_path: str, **settings: Any) -> Any:
        self.calls.append(("upload_folder", {"repo_id": repo_id, **settings}))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://example.invalid/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str, **settings: Any) -> str:
        self.calls.append(("snapshot_download", {"repo_id": repo_id, **settings}))
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_a_model_is_uploaded_and_loaded_again(model: ot.Universal, hub: FakeHub) -> None:
    address = model.push_to_hub("me/shop", private=True, token="secret")
    assert address == "https://example.invalid/me/shop/commit/1"
    uploaded = sorted(p.relative_to(hub.root / "me/shop").as_posix() for p in hub.root.rglob("*.*"))
    assert uploaded == [
        "README.md",
        "model/packs/digits.pack",
        "model/packs/signs.pack",
        "model/trunk.safetensors",
    ]
    calls = dict(hub.calls)
    assert calls["api"] == {"token": "secret"}
    assert calls["create_repo"] == {"repo_id": "me/shop", "private": True, "exist_ok": True}
    loaded = ot.Universal.from_pretrained("hf-hub:me/shop", revision="v1")
    assert dict(hub.calls)["snapshot_download"]["revision"] == "v1"
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for name, task in (("digits", "classify"), ("signs", "sign")):
            assert torch.equal(loaded(images, name)[task], model(images, name)[task])


def test_a_folder_is_loaded_without_the_hub(model: ot.Universal, tmp_path: Path) -> None:
    ot.save(model, tmp_path / "mine")
    assert list(ot.Universal.from_pretrained(tmp_path / "mine").domains) == ["digits", "signs"]
    with raises(BadInput, "revision", try_="hf-hub:"):
        ot.Universal.from_pretrained(tmp_path / "mine", revision="v1")


def test_the_card_has_metadata_scores_with_intervals_and_usage(model: ot.Universal) -> None:
    text = model_card(model, "me/shop")
    card = huggingface_hub.ModelCard(text)
    assert isinstance(card.data, huggingface_hub.ModelCardData)
    assert card.data.library_name == "onetrunk"
    assert card.data.pipeline_tag == "image-classification"
    results = card.data.eval_results
    assert results is not None
    (result,) = results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "digits",
        "error",
        4.25,
    )
    assert "| digits | classify | error | 4.25 (3.5 to 5) |" in text
    assert "| digits | classify | ece | 1.5 |" in text
    assert 'from_pretrained("hf-hub:me/shop")' in text
    assert "| error | 3 |" not in text  # the score on validation


def test_names_in_the_card_are_escaped(model: ot.Universal) -> None:
    model.trunk.licence = "<script>|`x`"
    text = model_card(model, "me/shop")
    assert "<script>" not in text.replace("\\<", "")
    assert "\\<script\\>\\|\\`x\\`" in text


def test_a_model_without_domains_is_refused(hub: FakeHub) -> None:
    with raises(BadInput, got="none"):
        ot.Universal(ot.Trunk("resnet20")).push_to_hub("me/empty")
    assert hub.calls == []


HTTP = importlib.import_module(
    errors.HfHubHTTPError.__bases__[0].__module__.split(".")[0]
)  # httpx or httpx2


def response(status: int) -> Any:
    return HTTP.Response(status, request=HTTP.Request("GET", "https://example.invalid"))


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (errors.HFValidationError("bad name"), BadInput, "OWNER/NAME"),
        (errors.RepositoryNotFoundError("gone", response=response(404)), BadInput, "hf auth login"),
        (errors.RevisionNotFoundError("no tag", response=response(404)), BadInput, "branch"),
        (errors.HfHubHTTPError("busy", response=response(503)), Failed, "network"),
        (HTTP.ConnectError("no route"), Failed, "network"),
        (OSError("disk full"), Failed, "network"),
    ],
)
def test_errors_of_the_hub_are_one_line(
    error: Exception,
    kind: type[ot.OnetrunkError],
    hint: str,
    model: ot.Universal,
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(hub, "upload_folder", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with raises(kind, "me/shop", try_=hint):
        model.push_to_hub("me/shop")
    with raises(kind, "me/shop", try_=hint):
        ot.Universal.from_pretrained("hf-hub:me/shop")


def test_without_the_package_the_extra_is_named(
    model: ot.Universal, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with raises(Missing, "huggingface_hub", try_="onetrunk[hf]"):
        model.push_to_hub("me/shop")
