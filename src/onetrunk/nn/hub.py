"""Share models on the Hugging Face Hub, and load them from it.

A repository holds what `onetrunk.save` writes (`model/trunk.safetensors` and a pack per domain) and
a model card. `huggingface_hub` is an optional dependency: `pip install 'onetrunk[hf]'`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Self, cast

from onetrunk.errors import BadInput, Failed, Missing
from onetrunk.nn.card import Card
from onetrunk.nn.model_files import Model, load_model, save_models
from onetrunk.nn.trunk import Trunk
from onetrunk.objects import Trust, modules_of, trusting

PREFIX = "hf-hub:"
PIPELINES: Mapping[str, str] = {  # the Hub's name for a model whose tasks are all of one kind
    "classify": "image-classification",
    "multilabel": "image-classification",
    "segment": "image-segmentation",
    "depth": "depth-estimation",
    "embed": "image-feature-extraction",
}
LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0")


class HubMixin:
    """The methods of `onetrunk.Universal` that share it on the Hub."""

    trunk: Trunk
    domains: dict[str, Card]
    pair: str

    @property
    def objects(self) -> tuple[str, ...]:
        """The users' objects that the model is built with."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a onetrunk model",
        revision: str | None = None,
    ) -> str:
        """Upload the model with its packs and a model card; return the address of the commit.

        Args:
            repo_id: `owner/name`. The repository is created if it does not exist.
            private: Whether a new repository is private; by default the owner's setting.
            token: An access token; by default the one that `hf auth login` stored.
            revision: The branch to commit to; by default the main one.
        """
        hub = _hub("push_to_hub")
        if not self.domains:
            raise BadInput("expected a model with at least one domain", got="none")
        with tempfile.TemporaryDirectory() as folder:
            save_models({"": cast("Model", self)}, folder)
            Path(folder, "README.md").write_text(model_card(self, repo_id), "utf-8")
            api = hub.HfApi(token=token)
            try:
                name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                commit = api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=revision,
                    delete_patterns=["model/packs/*"],  # packs of domains that were removed
                )
            except _failures() as error:
                raise _refused(error, f"cannot upload to {repo_id}") from None
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
        trust: Trust = (),
    ) -> Self:
        """Load a model from the Hub or from a folder, in evaluation mode.

        Args:
            source: `"hf-hub:owner/name"`, or a folder that `onetrunk.save` or a run wrote.
            revision: A branch, tag or commit of the repository.
            token: An access token; by default the one that `hf auth login` stored.
            cache_dir: Where downloads are kept; by default the Hub's cache.
            local_files_only: Use the cache and do not download.
            trust: Modules whose code the model may name; they have to be installed here.
        """
        name = str(source)
        if not name.startswith(PREFIX):
            if revision is not None:
                raise BadInput(
                    "revision is for models on the Hub", got=name, try_=f"{PREFIX}OWNER/NAME"
                )
            with trusting(trust):
                return cast("Self", load_model(source, None, cast("type[Model]", cls)))
        hub = _hub("from_pretrained")
        try:
            folder = hub.snapshot_download(
                name.removeprefix(PREFIX),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=["model/**"],
            )
        except _failures() as error:
            raise _refused(error, f"cannot download {name}") from None
        with trusting(trust):
            return cast("Self", load_model(folder, None, cast("type[Model]", cls)))


def model_card(model: HubMixin, repo_id: str) -> str:
    """Return the text of a README.md: metadata, domains, scores, licences and how to use it."""
    hub = _hub("model_card")
    cards = list(model.domains.values())
    kinds = {task.kind for card in cards for task in card.tasks}
    pipelines = {PIPELINES.get(kind) for kind in kinds}
    pipeline = pipelines.pop() if len(pipelines) == 1 else None
    licence = model.trunk.licence
    data = hub.ModelCardData(
        library_name="onetrunk",
        pipeline_tag=pipeline,
        tags=["onetrunk", "pytorch", "multi-domain-learning", *sorted(kinds)],
        license=licence if licence in LICENCES else None,
        model_name=repo_id,
        eval_results=[result for card in cards for result in _headlines(hub, card)] or None,
    )
    one = cards[0].name
    modules = list(modules_of(model.objects))
    trust = f", trust={modules!r}" if modules else ""  # they are not part of the repository
    sections = [
        f"# {repo_id.split('/')[-1]}",
        f"One {_code(model.trunk.arch)} trunk for {len(cards)} image domains, made with "
        "[onetrunk](https://github.com/onetrunk/onetrunk). Each domain has a pack with its own "
        "normalization layers, adapters and heads; the trunk is shared.",
        "## Domains\n\n"
        + _table(
            ("domain", "task", "kind", "classes", "image size", "adapters"),
            [
                (
                    card.name if place == 0 else "",
                    task.name,
                    task.kind,
                    str(len(task.classes)) if task.classes else "",
                    "×".join(map(str, card.pixels.size)),
                    card.adapters,
                )
                for card in cards
                for place, task in enumerate(card.tasks)
            ],
        ),
        _scores(cards),
        "## How to use\n\n```console\n$ pip install 'onetrunk[hf]'\n```\n\n```python\n"
        "import onetrunk as ot\n\n"
        f'model = ot.Universal.from_pretrained("{PREFIX}{repo_id}"{trust})\n'
        f'print(model.predict("image.jpg", domain="{one}"))\n```',
        "## Licence\n\n"
        + (
            f"The trunk started from weights under the licence {_plain(licence)}. "
            if licence
            else "No licence of pretrained weights is recorded for the trunk. "
        )
        + "The images that the domains were trained on may have other licences.",
    ]
    text = "\n\n".join(section for section in sections if section)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def _test_scores(card: Card) -> list[tuple[str, str, str]]:
    """Return the task, the metric and the key of each test score; a task's headline is first."""
    keys = [(*key.split("/"), key) for key in card.scores if key.count("/") == 2]
    return [(task, metric, key) for split, task, metric, key in keys if split == "test"]


def _scores(cards: list[Card]) -> str:
    rows = [
        (card.name, task, metric, _number(card, key))
        for card in cards
        for task, metric, key in _test_scores(card)
    ]
    if not rows:
        return ""
    return (
        "## Scores on the test images\n\n"
        "In brackets: 95 % intervals. Errors and shares are in percent.\n\n"
        + _table(("domain", "task", "metric", "score"), rows)
    )


def _number(card: Card, key: str) -> str:
    """Return a score with its interval, if the pack has one."""
    low, high = (card.scores.get(f"{key}/{end}") for end in ("low", "high"))
    text = f"{card.scores[key]:.4g}"
    return text if low is None or high is None else f"{text} ({low:.4g} to {high:.4g})"


def _headlines(hub: ModuleType, card: Card) -> list[Any]:
    """Return the first test score of each task as the Hub's EvalResult."""
    results = {}
    for task, metric, key in _test_scores(card):
        kind = card.task(task).kind
        if task not in results:
            results[task] = hub.EvalResult(
                task_type=PIPELINES.get(kind, kind),
                dataset_type=card.name,
                dataset_name=card.name,
                dataset_split="test",
                metric_type=metric,
                metric_value=card.scores[key],
            )
    return list(results.values())


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *(tuple(map(_plain, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: object) -> str:
    """Escape a text for Markdown: names may have any characters."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|~" else c for c in str(text) if c.isprintable())


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _hub(need: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise Missing("huggingface_hub", "hf", need) from None
    return huggingface_hub


def _failures() -> tuple[type[Exception], ...]:
    """Return the errors that the Hub's client raises for names, access, network and disk."""
    from huggingface_hub import errors

    # its bases are OSError and the error of the HTTP library, which differs between versions
    return errors.HFValidationError, *errors.HfHubHTTPError.__bases__


def _refused(error: Exception, what: str) -> BadInput | Failed:
    """Return the Hub's error in one line, as BadInput if the name or the access is wrong."""
    from huggingface_hub import errors

    line = str(error).strip().split("\n")[0][:200] or type(error).__name__
    if isinstance(error, errors.HFValidationError):
        return BadInput(what, got=line, try_="a repository as OWNER/NAME")
    if isinstance(error, errors.GatedRepoError | errors.RepositoryNotFoundError):
        return BadInput(what, got=line, try_="check the name, and log in with: hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        return BadInput(what, got=line, try_="a branch, tag or commit of the repository")
    return Failed(what, got=line, try_="check the network and try again")
