"""onetrunk: one vision network for all of your image domains and tasks."""

from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.inspect import inspect
from onetrunk.data.loader import Batch, Loader
from onetrunk.data.pixels import Pixels
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, Missing, OnetrunkError
from onetrunk.learn.distill.foreign import Foreign
from onetrunk.learn.distill.views import precompute
from onetrunk.learn.grow.add import add
from onetrunk.learn.train import Run, train
from onetrunk.measure.budget import Budget, budget
from onetrunk.measure.evaluate import evaluate
from onetrunk.measure.summary import decathlon_score, delta_mtl
from onetrunk.measure.table import Table
from onetrunk.model.pack import Pack
from onetrunk.model.saved import load, save
from onetrunk.model.trunk import Trunk
from onetrunk.model.universal import Universal
from onetrunk.recipe import Recipe
from onetrunk.serve.export import export
from onetrunk.serve.report import report

__all__ = [
    "Augment",
    "BadInput",
    "Batch",
    "Budget",
    "Domain",
    "Failed",
    "Foreign",
    "Loader",
    "Missing",
    "OnetrunkError",
    "Pack",
    "Pixels",
    "Recipe",
    "Run",
    "Split",
    "Table",
    "Task",
    "Trunk",
    "Universal",
    "add",
    "budget",
    "decathlon_score",
    "delta_mtl",
    "evaluate",
    "export",
    "inspect",
    "load",
    "precompute",
    "report",
    "save",
    "train",
]
