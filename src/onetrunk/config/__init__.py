"""What to do, from TOML: recipes, validated before anything starts."""

from onetrunk.config.check import Checked
from onetrunk.config.distill import Distill
from onetrunk.config.domains import DomainPart
from onetrunk.config.recipe import Recipe, named_recipes
from onetrunk.config.train import Train
from onetrunk.config.trunk import TrunkPart

__all__ = ["Checked", "Distill", "DomainPart", "Recipe", "Train", "TrunkPart", "named_recipes"]
