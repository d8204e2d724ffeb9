"""The keys of a recipe that depend on the machine or on the images, chosen once for a run.

| key | "auto" becomes |
|---|---|
| `trunk.arch`, `trunk.pretrained` | those of `nn/auto_trunk.py`; with `init`, those of its run |
| `domains.NAME.size` | with a pretrained trunk, `SIZES`, if the source has no size of its own |
| `domains.NAME.normalize` | the numbers that the pretrained weights expect |

With `init`, size and normalization are those of its run, if they are the same for its domains.

The recipe in the folder of a run has the chosen values. They are read from there when the run is
resumed, so that another machine, or other packages, do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from onetrunk.config.recipe import FILE, Recipe
from onetrunk.config.to_toml import inline, spelled
from onetrunk.data.domain import SIZE, Domain
from onetrunk.data.natural_size import median_side
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.auto_trunk import DeviceKind, choose_trunk, device_kind
from onetrunk.nn.published_weights import is_file, weights_stats
from onetrunk.nn.saving import models_of
from onetrunk.objects import modules_of, trusting

# of photographs, with a pretrained trunk; small images are not enlarged beyond `SIZE`
SIZES: Mapping[DeviceKind, int] = MappingProxyType({"cpu": 96, "gpu": 224})
STEP = 32  # pixels; sizes between are multiples, as the stride of most trunks


@dataclass(frozen=True)
class Resolved:
    """A recipe without values that are still to be chosen, and a line for each choice."""

    recipe: Recipe
    notes: tuple[str, ...] = ()


def resolve(
    recipe: Recipe, device: torch.device | None = None, like: Recipe | None = None
) -> Resolved:
    """Return the recipe with the values for this machine; raise Failed if no trunk is available.

    Args:
        recipe: The recipe. If there is a run in its folder, the values are those of the run.
        device: The device of the training; None: a GPU if there is one.
        like: A recipe whose values are taken over, if there is no run yet.
    """
    known = run_recipe(recipe) or like
    with trusting(modules_of(recipe.objects)):  # the user runs the recipe that names them
        sets, notes = _trunk(recipe, device, known)
        if sets:
            recipe = recipe.with_sets(sets)
        sets, more = _domains(recipe, device_kind(device), known)
    return Resolved(recipe.with_sets(sets) if sets else recipe, (*notes, *more))


def run_recipe(recipe: Recipe) -> Recipe | None:
    """Return the recipe of the run in a recipe's folder, if there is one."""
    if not (recipe.out_folder / FILE).is_file():
        return None
    try:
        found = Recipe.read(recipe.out_folder)
    except BadInput:
        return None  # reported when the folder is opened
    return None if found.trunk.is_auto else found


def _trunk(
    recipe: Recipe, device: torch.device | None, known: Recipe | None
) -> tuple[list[str], list[str]]:
    """Return the sets for architecture and weights, and notes."""
    if not recipe.trunk.is_auto:
        return [], []
    weights: bool | str
    notes = []
    if known is not None and not is_file(known.trunk.pretrained):
        arch, weights = known.trunk.arch, known.trunk.pretrained
    elif recipe.init_folder is not None:
        models = models_of(recipe.init_folder)
        if not models:
            raise BadInput(
                "expected the folder of a finished run, which contains model/",
                place="init",
                got=recipe.init,
                try_="the path of a run that onetrunk train has finished",
            )
        arch, weights = next(iter(models.values())).trunk.arch, False
    else:
        chosen = choose_trunk(device)
        arch, weights, notes = chosen.arch, chosen.pretrained, [str(chosen)]
    return [f"trunk.arch={inline(arch)}", f"trunk.pretrained={inline(weights)}"], notes


def _domains(recipe: Recipe, kind: DeviceKind, known: Recipe | None) -> tuple[list[str], list[str]]:
    """Return the sets for sizes and normalizations of domains, and notes."""
    trunk = recipe.trunk
    if trunk.pretrained is False:
        return _as_in_init(recipe)
    before = {} if known is None else {domain.name: domain for domain in known.domains}
    stats = weights_stats(trunk.arch, trunk.pretrained)
    sets, sizes, small = [], [], []
    for settings in recipe.domains:
        place, earlier = f"domains.{settings.name}", before.get(settings.name)
        normalize = stats if earlier is None or earlier.normalize == "auto" else earlier.normalize
        if settings.normalize == "auto" and normalize is not None:
            sets.append(f"{place}.normalize={inline(spelled(normalize))}")
        if settings.size is not None:
            continue
        if earlier is not None and earlier.size is not None:
            sets.append(f"{place}.size={inline(spelled(earlier.size))}")
        elif earlier is None and (found := default_size(Domain.of(settings, recipe.root), kind)):
            size, side = found
            sets.append(f"{place}.size={size}")
            if size == SIZES[kind]:
                sizes.append(settings.name)
            else:
                small.append(f"{settings.name} {size} (its images have {side})")
    shown = [f"{SIZES[kind]} pixels for {', '.join(sizes)}"] if sizes else []
    if shown or small:
        chosen = ", ".join([*shown, *small])
        return sets, [f"size: {chosen}: {size_reason(kind)}; domains.NAME.size sets it"]
    return sets, []


def _as_in_init(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Return the sets for sizes and normalizations that the trunk of `init` was trained with.

    They are those of the domain of the same name, or the ones that all domains of that run share.
    """
    folder = recipe.init_folder
    if folder is None or not (folder / FILE).is_file():
        return [], []
    first = Recipe.read(folder).domains
    by_name = {domain.name: [domain] for domain in first}
    sets, names = [], []
    for settings in recipe.domains:
        like = by_name.get(settings.name, list(first))
        sizes, stats = {each.size for each in like}, {each.normalize for each in like}
        found = []
        if settings.size is None and len(sizes) == 1 and None not in sizes:
            found.append(f"size={inline(spelled(*sizes))}")
        if settings.normalize == "auto" and len(stats) == 1 and "auto" not in stats:
            found.append(f"normalize={inline(spelled(*stats))}")
        if found:
            names.append(settings.name)
        sets += [f"domains.{settings.name}.{each}" for each in found]
    line = f"size and normalization of {', '.join(names)}, where not set: as in {recipe.init}"
    return sets, [line] if names else []


def size_reason(kind: DeviceKind) -> str:
    """Return why `default_size` has its value."""
    return f"the default for a pretrained trunk on a {kind.upper()}"


def default_size(domain: Domain, kind: DeviceKind) -> tuple[int, int | None] | None:
    """Return the default size of a domain with a pretrained trunk, and the median side of images.

    None: the source has a size of its own. The size is that of the device, or for smaller images
    the next multiple of 32 pixels, at least 64. The sides of a few images are read for this.
    """
    try:
        source = domain.opened
        if getattr(source, "size", None) is not None:
            return None
        side = median_side(source)
    except (OnetrunkError, OSError):
        side = None  # reported when the domain is read
    if side is None:
        return SIZES[kind], None
    return min(SIZES[kind], max(SIZE, -(-side // STEP) * STEP)), side
