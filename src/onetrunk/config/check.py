"""Check a recipe before training, and raise one error that lists all problems."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from onetrunk.config.recipe import Recipe, seeded_weights
from onetrunk.config.resolve import resolve
from onetrunk.config.sets import apply_sets
from onetrunk.config.train import LOGGERS
from onetrunk.data.check_domains import asking_once
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.data.kept_splits import splits_of
from onetrunk.data.sampling import make_sampling
from onetrunk.errors import BadInput, Failed, Missing, OnetrunkError
from onetrunk.nn.bank import Bank
from onetrunk.nn.normalization import check_normalization, normalization_place, stats_of
from onetrunk.nn.norms import find_norm
from onetrunk.nn.published_weights import check_download
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.objects import load_object


@dataclass(frozen=True)
class Checked:
    """A resolved recipe, its domains with their images listed, and messages.

    Attributes:
        recipe: The recipe with the values that were chosen for this machine.
        choices: A line for each choice.
        warnings: Messages about the images and the sizes.
    """

    recipe: Recipe
    domains: list[Domain]
    choices: tuple[str, ...]
    warnings: list[str]


def check(
    recipe: Recipe,
    device: torch.device | None = None,
    *,
    sample: bool = False,
    weights: bool = True,
) -> Checked:
    """Read all domains and try the trunk on each; raise one BadInput with all problems.

    If pretrained weights cannot be downloaded, no image is decoded: the problems that are known
    without images are raised within seconds.

    Args:
        recipe: The recipe.
        device: The device of the training; None: a GPU if there is one.
        sample: Whether to decode only a few images of each domain, without writing anything.
        weights: Whether pretrained weights are needed; not if a checkpoint replaces them.
    """
    errors: list[OnetrunkError] = []
    choices: tuple[str, ...] = ()
    try:
        resolved = resolve(recipe, device)
        recipe, choices = resolved.recipe, resolved.notes
    except (BadInput, Failed) as error:
        errors.append(error if error.place else error.within("trunk.arch"))
    listed: list[Domain] = []
    for settings in recipe.domains:
        try:
            listed.append(_open(settings, recipe.root, recipe.init_folder))
        except (BadInput, Missing) as error:
            errors += _about(settings.name, error)
    errors += _contradictions(recipe, listed)
    errors += [error for name in recipe.train.loggers for error in _check_logger(name)]
    if recipe.trunk.is_auto:  # no trunk is available
        raise BadInput.several(errors)
    trunk, trunk_errors = _make_trunk(recipe if weights else recipe.without_weights())
    errors += trunk_errors
    conflicts = [] if trunk is None else _conflicts(trunk, listed)
    errors += conflicts
    if weights and (weights_errors := check_weights(recipe)):
        raise BadInput.several([*errors, *weights_errors])
    warnings: list[str] = []
    domains: list[Domain] = []
    opened: list[Domain] = []
    for domain in listed:
        try:
            opened.append(domain.sampled(recipe.seed) if sample else domain)
        except (BadInput, Missing) as error:
            errors += _about(domain.name, error)
    with asking_once(opened):
        for domain in opened:
            try:
                _ = domain.splits
            except (BadInput, Missing) as error:
                errors += _about(domain.name, error)
            else:
                domains.append(domain)
                warnings += domain.notes()
    if trunk is not None:
        places = {error.place for error in conflicts}
        fitting = [d for d in domains if normalization_place(d) not in places]
        trunk_errors, trunk_warnings = _try_trunk(trunk, recipe, fitting)
        errors += trunk_errors
        warnings += trunk_warnings
    if recipe.train.frozen and not recipe.trunk.pretrained and not recipe.init:
        warnings.append("train.frozen: the trunk has random weights, so its features are random")
    if errors:
        raise BadInput.several(errors)
    return Checked(recipe, domains, choices, warnings)


def _conflicts(model: Universal, domains: Sequence[Domain]) -> list[OnetrunkError]:
    """Set the normalization that the weights expect; return errors of domains with another one."""
    errors: list[OnetrunkError] = []
    expected = model.trunk.normalization
    for domain in domains:
        domain.expect(stats_of(expected))
        try:
            check_normalization(domain, expected)
        except BadInput as error:
            errors.append(error)
    return errors


def check_weights(recipe: Recipe) -> list[OnetrunkError]:
    """Return errors of pretrained weights that are not here and cannot be downloaded."""
    found: list[OnetrunkError] = []
    if recipe.trunk.pretrained is True:
        found += [each.within("trunk.pretrained") for each in _check_download(recipe.trunk.arch)]
    for name in sorted(_teacher_archs(recipe.distill.teachers if recipe.distill.on else "")):
        found += [each.within("distill.teachers") for each in _check_download(name)]
    return found


def _teacher_archs(teachers: object) -> set[str]:
    """Return the teachers that are timm's models with timm's weights."""
    if isinstance(teachers, str):
        return {teachers} if teachers.startswith("timm/") and ":" not in teachers else set()
    inner = teachers.values() if isinstance(teachers, Mapping) else teachers
    return {name for each in inner for name in _teacher_archs(each)}  # type: ignore[attr-defined]


def parse_and_check(
    text: str, folder: Path, sets: Sequence[str] = (), what: str = "the recipe"
) -> Recipe:
    """Return `Recipe.parse(…)`; if it fails, list the problems of the domains as well.

    No image is decoded for this, so that a typo in a key is reported quickly.
    """
    try:
        return Recipe.parse(text, folder, sets, what)
    except BadInput as error:
        errors: list[OnetrunkError] = [error]
        try:
            document = apply_sets(tomllib.loads(text), sets)
        except (tomllib.TOMLDecodeError, RecursionError, BadInput):
            raise error from None
    base, tables = document.get("base", "."), document.get("domains")
    for table in tables if isinstance(tables, list) and isinstance(base, str) else []:
        try:
            settings = DomainSettings.of(table if isinstance(table, dict) else {})
        except BadInput:
            continue  # its problems are listed already
        try:
            _open(settings, folder / base)
        except (BadInput, Missing) as error:
            errors += _about(settings.name, error)
    raise BadInput.several(errors)


def _open(settings: DomainSettings, root: Path, init: Path | None = None) -> Domain:
    """Return the domain with its images listed but not decoded.

    Args:
        init: The run to start from; images that it was trained on keep their split.
    """
    domain = Domain.of(settings, root)
    if init is not None:
        domain = domain.keeping(splits_of(init, domain.name))
    _ = domain.listing, domain.augmentation
    domain.check_classes()
    return domain


def _about(name: str, error: OnetrunkError) -> list[OnetrunkError]:
    """Return the errors of a domain with the domain as their place."""
    place = f"domains.{name}"
    return [
        each if each.place.startswith(place) else each.without_name(name).within(place)
        for each in error.errors
    ]


def _contradictions(recipe: Recipe, domains: Sequence[Domain]) -> list[OnetrunkError]:
    """Return the errors for settings that contradict each other."""
    errors: list[OnetrunkError] = []
    train, trunk = recipe.train, recipe.trunk
    sizes = {domain.name: domain.shape.size for domain in domains}
    try:
        joined = make_sampling(train.sampling).joined
    except BadInput as error:
        errors.append(error.within("train.sampling"))
        joined = False
    if joined and len(set(sizes.values())) > 1 and trunk.sharing != "none":
        errors.append(
            BadInput(
                "joined batches need the same image size for all domains",
                place="train.sampling",
                got=", ".join(f"{name} {h}×{w}" for name, (h, w) in sizes.items()),
                try_="the same size for each domain, or sampling = 'round-robin'",
            )
        )
    if train.frozen and trunk.sharing == "full":
        errors.append(
            BadInput(
                "the heads are solved for each domain, and sharing = 'full' shares them",
                place="train.frozen",
                try_="sharing = 'deep'",
            )
        )
    if train.frozen and recipe.distill.on:
        errors.append(
            BadInput(
                "train.frozen solves heads from labels and cannot use teachers",
                place="distill.teachers",
                try_="distill.enabled = false",
            )
        )
    min_images = find_norm(trunk.norm).min_images
    for settings in recipe.domains:
        batch = settings.batch or train.batch
        if batch < min_images:
            errors.append(
                BadInput(
                    f"the norm {trunk.norm!r} needs batches of at least {min_images} images",
                    place=f"domains.{settings.name}.batch",
                    got=batch,
                    try_=f"batch = {min_images} or more, or another norm",
                )
            )
    folder = recipe.init_folder
    if folder is not None and not (folder / "model").is_dir():
        errors.append(
            BadInput(
                "expected the folder of a finished run, which contains model/",
                place="init",
                got=recipe.init,
                try_="the path of a run that onetrunk train has finished",
            )
        )
    return errors


def _check_logger(name: str) -> list[OnetrunkError]:
    if name in LOGGERS:  # named after its package
        if importlib.util.find_spec(name) is None:
            return [Missing(name, name, f"the logger {name}").within("train.loggers")]
        return []
    try:
        load_object(name, "logger", LOGGERS)
    except BadInput as error:
        return [error.within("train.loggers")]
    return []


def _make_trunk(recipe: Recipe) -> tuple[Universal | None, list[OnetrunkError]]:
    """Return a model without domains, and errors; a file of weights is read here.

    Weights that are downloaded are loaded later, when the model is made.
    """
    try:
        with seeded_weights(recipe.seed):
            return Universal(recipe.make_trunk(download=False), pair=recipe.trunk.pair), []
    except OnetrunkError as error:
        inner = error.errors[0]
        return None, [error if inner.place.startswith("trunk") else error.within("trunk")]


def _try_trunk(
    model: Universal, recipe: Recipe, domains: Sequence[Domain]
) -> tuple[list[OnetrunkError], list[str]]:
    """Run each domain through the trunk once, at its size; return errors and warnings."""
    errors: list[OnetrunkError] = []
    warnings: list[str] = []
    trunk = model.trunk
    batches = {domain.name: domain.batch or recipe.train.batch for domain in recipe.domains}
    for domain in domains:
        place = f"domains.{domain.name}"
        one_pixel: dict[str, None] = {}
        hooks = _watch_norms(trunk, one_pixel)
        try:
            with seeded_weights(recipe.seed):
                model.add_domain(domain)
        except OnetrunkError as error:
            errors += _about(domain.name, error)
            continue
        finally:
            for hook in hooks:
                hook.remove()
        model.remove(domain.name)
        if one_pixel:
            height, width = domain.shape.size
            norm, batch = next(iter(one_pixel)), batches[domain.name]
            line = f"at {height}×{width} the input of the batch norm {norm} has 1×1 pixel"
            if batch == 1:
                errors.append(
                    BadInput(
                        f"{line}, and batches have 1 image",
                        place=place,
                        try_="a larger size or batch",
                    )
                )
            else:
                warnings.append(
                    f"{place}: {line}: its statistics are over {batch} values; a larger size, or a "
                    "trunk that reduces less, usually trains better"
                )
    return errors, warnings


def _check_download(arch: str) -> list[OnetrunkError]:
    """Return an error if pretrained weights cannot be downloaded, without downloading any."""
    name = arch.removeprefix("timm/")
    if arch.startswith("timm/"):
        import timm

        if not timm.is_model(name):
            return []  # an error of its own
        if timm.is_model_pretrained(name):
            try:
                check_download(name)
            except Failed as error:
                return [error]
            return []
    return [
        BadInput(
            f"there are no pretrained weights of {arch} to download",
            got=True,
            try_="pretrained = false, or the path of a file",
        )
    ]


def _watch_norms(trunk: Trunk, one_pixel: dict[str, None]) -> list[RemovableHandle]:
    """Record the names of batch norms whose input has one pixel in `one_pixel`."""

    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        def record(_: nn.Module, inputs: Any) -> None:
            shape = inputs[0].shape
            if len(shape) == 4 and shape[2] * shape[3] == 1:
                one_pixel[name] = None

        return record

    return [
        module.register_forward_pre_hook(hook(name))
        for name, module in trunk.net.named_modules()
        if isinstance(module, _BatchNorm)
        or (isinstance(module, Bank) and module.normalizes_batches)
    ]
