"""Everything that can be wrong with a recipe before training, found at once."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.config.domains import DomainPart
from onetrunk.config.make import drawn_from, make_trunk
from onetrunk.config.sets import apply_sets
from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.errors import BadInput, Missing, OnetrunkError, printable
from onetrunk.nn.bank import Bank
from onetrunk.nn.norms import find_norm
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal

if TYPE_CHECKING:
    from onetrunk.config.recipe import Recipe


@dataclass(frozen=True)
class Checked:
    """A recipe's domains, read, and what is worth knowing of them."""

    domains: list[Domain]
    warnings: list[str]


def check(recipe: Recipe) -> Checked:
    """The domains, all of their images looked at; all problems are one BadInput, a line each."""
    problems: list[str] = []
    warnings: list[str] = []
    domains: list[Domain] = []
    for part in recipe.domains:
        domain = _look(part, recipe.root, problems)
        if domain is not None:
            domains.append(domain)
            warnings += notes(domain)
    problems += _settings(recipe, domains)
    found, said = _trunk(recipe, domains)
    problems += found
    warnings += said
    if recipe.train.frozen and not recipe.trunk.pretrained and not recipe.init:
        warnings.append(
            "train.frozen: the trunk has fresh weights, so its heads learn from random features"
        )
    if problems:
        raise BadInput("\n".join(dict.fromkeys(problems)))
    return Checked(domains, warnings)


def read_all(text: str, folder: Path, sets: Sequence[str] = (), what: str = "the recipe") -> Recipe:
    """`Recipe.parse`, but where the text is wrong the domains that it names are listed, too.

    No image is decoded then: who mistyped a key does not wait for a million images.
    """
    from onetrunk.config.recipe import Recipe

    try:
        return Recipe.parse(text, folder, sets, what)
    except BadInput as error:
        problems = str(error).split("\n")
        try:
            document = apply_sets(tomllib.loads(text), sets)
        except (tomllib.TOMLDecodeError, RecursionError, BadInput):
            raise error from None
    base, listed = document.get("base", "."), document.get("domains")
    for table in listed if isinstance(listed, list) and isinstance(base, str) else []:
        try:
            part = DomainPart.of(table if isinstance(table, dict) else {})
        except BadInput:
            continue  # listed already
        _look(part, folder / base, problems, images=False)
    raise BadInput("\n".join(dict.fromkeys(problems)))


def _look(part: DomainPart, root: Path, problems: list[str], images: bool = True) -> Domain | None:
    """The domain, its list read and its images looked at; None where something is wrong."""
    try:
        domain = part.make(root)
        _ = domain.index, domain.augmentation, domain.splits if images else None
        return domain
    except (BadInput, Missing) as error:
        place = f"domains.{part.name}: "
        problems += [
            place + line.removeprefix(place).removeprefix(f"{part.name}: ")
            for line in str(error).split("\n")
        ]
        return None


def notes(domain: Domain) -> list[str]:
    """What is worth knowing of its images; what cannot be read is never left out silently."""
    lines = [printable(f"{domain.name}: {line}") for line in domain.index.warnings]
    for name in ("val", "test"):
        if not len(domain.splits[name]):
            lines.append(f"{domain.name}: {name} has no image")
    for name in SPLITS:
        if count := len(bad := domain.bad(name)):
            key = domain.index.keys[int(bad[0])]
            why = domain.decoded.reasons.get(int(bad[0]), "")
            lines.append(
                printable(
                    f"{domain.name}: {count} of {len(domain.index.rows(name)):,} {name} images "
                    f"cannot be read and are left out; first: {key}: {why}"
                )
            )
    return lines


def _settings(recipe: Recipe, domains: Sequence[Domain]) -> list[str]:
    """What contradicts itself between the tables."""
    problems = []
    train = recipe.train
    alone = recipe.trunk.sharing == "none"
    sizes = {domain.name: domain.shape.size for domain in domains}
    if train.sampling == "joined" and len(set(sizes.values())) > 1 and not alone:
        got = ", ".join(f"{name} {h}×{w}" for name, (h, w) in sizes.items())
        problems.append(
            f"train.sampling: joined batches need one size for all domains; got: {got}; "
            "try: give each domain the same size, or sampling = 'round-robin'"
        )
    if train.frozen and recipe.trunk.sharing == "full":
        problems.append(
            "train.frozen: each domain's heads are solved by themselves, and sharing = 'full' "
            "shares them; try: sharing = 'deep'"
        )
    if train.frozen and recipe.distill.on:
        problems.append(
            "distill.teachers: train.frozen solves heads from labels alone; try: "
            "distill.enabled = false"
        )
    fewest = find_norm(recipe.trunk.norm).min_images
    for part in recipe.domains:
        batch = part.batch or train.batch
        if batch < fewest:
            problems.append(
                f"domains.{part.name}.batch: the norm {recipe.trunk.norm!r} needs at least "
                f"{fewest} images; got: {batch}; try: batch = {fewest} or more, or another norm"
            )
    folder = recipe.init_folder
    if folder is not None and not (folder / "model").is_dir():
        problems.append(
            f"init: expected the folder of a finished run, with model/ in it; got: {recipe.init}; "
            "try: the path of a run that onetrunk train has finished"
        )
    for name in train.loggers:
        problems += _logger(name)
    return problems


def _logger(name: str) -> list[str]:
    if name == "tensorboard":
        if importlib.util.find_spec("tensorboard") is None:
            return [f"train.loggers: {Missing('tensorboard', 'tensorboard', 'this logger')}"]
        return []
    module, _, thing = name.partition(":")
    try:
        getattr(importlib.import_module(module), thing)
    except (ImportError, AttributeError, ValueError) as error:
        return [printable(f"train.loggers: cannot import; got: {name!r} ({error})")]
    return []


def _trunk(recipe: Recipe, domains: Sequence[Domain]) -> tuple[list[str], list[str]]:
    """Each domain through the trunk once, at its size: what it cannot take, and what is odd."""
    problems: list[str] = []
    try:
        with drawn_from(recipe.seed):
            # weights are fetched when the model is made; a file of them is tried here
            trunk = make_trunk(recipe, pretrained=recipe.trunk.pretrained is not True)
            problems += _fetched(recipe)
            model = Universal(trunk, pair=recipe.trunk.pair)
    except OnetrunkError as error:
        return [f"trunk: {error}"], []
    warnings: list[str] = []
    batches = {part.name: part.batch or recipe.train.batch for part in recipe.domains}
    for domain in domains:
        points: dict[str, None] = {}
        hooks = _watch(trunk, points)
        try:
            with drawn_from(recipe.seed):
                model.add_domain(domain)
        except OnetrunkError as error:
            place = f"domains.{domain.name}"
            problems.append(f"{place}: {str(error).removeprefix(f'domain {domain.name}: ')}")
            continue
        finally:
            for hook in hooks:
                hook.remove()
        model.remove(domain.name)
        if points:
            height, width = domain.shape.size
            line = (
                f"domains.{domain.name}: at {height}×{width} the batch norm "
                f"{next(iter(points))} meets a map of 1×1 pixel"
            )
            if batches[domain.name] == 1:
                problems.append(f"{line} and batches of 1 image; try: a larger size or batch")
            else:
                warnings.append(
                    f"{line}: its statistics are of {batches[domain.name]} numbers; a larger size, "
                    "or a trunk that reduces less, learns better"
                )
    return problems, warnings


def _fetched(recipe: Recipe) -> list[str]:
    """Whether there are weights to fetch at all, without fetching them."""
    arch = recipe.trunk.arch
    if recipe.trunk.pretrained is not True:
        return []
    if not arch.startswith("timm/"):
        return [
            f"trunk.pretrained: {arch} has no weights to fetch; got: true; try: pretrained = "
            "false, or the path of a file"
        ]
    import timm

    if timm.is_model_pretrained(arch.removeprefix("timm/")):
        return []
    return [
        f"trunk.pretrained: timm has no weights of {arch.removeprefix('timm/')}; got: true; "
        "try: pretrained = false, or the path of a file"
    ]


def _watch(trunk: Trunk, points: dict[str, None]) -> list[Any]:
    """Note the batch norms that meet maps of one pixel."""

    def hook(name: str) -> Any:
        def note(_: nn.Module, inputs: Any) -> None:
            shape = inputs[0].shape
            if len(shape) == 4 and shape[2] * shape[3] == 1:
                points[name] = None

        return note

    return [
        module.register_forward_pre_hook(hook(name))
        for name, module in trunk.net.named_modules()
        if isinstance(module, _BatchNorm)
        or (isinstance(module, Bank) and module.normalizes_batches)
    ]
