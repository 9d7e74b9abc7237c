"""augkd: data augmentation for knowledge distillation, with a retrieval index.

`import augkd` defines names and nothing else: what a name stands for is imported when it is first used, so that a
program that reads recipes never waits for torch. Everything public is here; modules below are private.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augkd.candidates.candidate import Candidate as Candidate
    from augkd.candidates.neighbours.find import find_neighbours as find_neighbours
    from augkd.data.task import Example as Example
    from augkd.data.transfer_set import TransferSet as TransferSet
    from augkd.distill.any_module import Stage as Stage
    from augkd.distill.any_module import annealing as annealing
    from augkd.distill.any_module import chain as chain
    from augkd.distill.any_module import distill_modules as distill_modules
    from augkd.distill.arguments import DistillationArguments as DistillationArguments
    from augkd.distill.dataset import DistillationDataset as DistillationDataset
    from augkd.distill.stages import train_stages as train_stages
    from augkd.distill.trainer import DistillationTrainer as DistillationTrainer
    from augkd.errors import AugkdError as AugkdError
    from augkd.errors import ClusterError as ClusterError
    from augkd.errors import DamagedFileError as DamagedFileError
    from augkd.errors import DataError as DataError
    from augkd.errors import IndexFolderError as IndexFolderError
    from augkd.errors import ModelError as ModelError
    from augkd.errors import ProcessLostError as ProcessLostError
    from augkd.errors import RecipeError as RecipeError
    from augkd.errors import StorageError as StorageError
    from augkd.errors import TrainingError as TrainingError
    from augkd.errors import WorkspaceError as WorkspaceError
    from augkd.evaluation.report.report import write_report as write_report
    from augkd.models.classifier import Classifier as Classifier
    from augkd.models.classifier import load_backbone as load_backbone
    from augkd.models.classifier import load_classifier as load_classifier
    from augkd.models.cluster import Cluster as Cluster
    from augkd.models.layers import from_layers as from_layers
    from augkd.models.small_students import register_models as register_models
    from augkd.recipe.files import load_index_recipe as load_index_recipe
    from augkd.recipe.files import load_recipe as load_recipe
    from augkd.recipe.index import IndexRecipe as IndexRecipe
    from augkd.recipe.pipeline import Recipe as Recipe
    from augkd.retrieval.build import add_to_index as add_to_index
    from augkd.retrieval.build import build_index as build_index
    from augkd.retrieval.build import build_shard as build_shard
    from augkd.retrieval.build import merge_shards as merge_shards
    from augkd.retrieval.build import remove_from_index as remove_from_index
    from augkd.retrieval.build import verify_index as verify_index
    from augkd.retrieval.open import open_index as open_index
    from augkd.runs.comparison import compare_recipes as compare_recipes
    from augkd.runs.comparison import compare_tasks as compare_tasks
    from augkd.runs.controls import with_controls as with_controls
    from augkd.runs.label_plan import plan_labels as plan_labels
    from augkd.runs.labelling import import_labels as import_labels
    from augkd.runs.labelling import texts_to_label as texts_to_label
    from augkd.runs.run import Run as Run
    from augkd.runs.run import distill_transfer_set as distill_transfer_set
    from augkd.ship.bench import bench_student as bench_student
    from augkd.ship.calibrate import calibrate_student as calibrate_student
    from augkd.ship.cascade import Cascade as Cascade
    from augkd.ship.export import export_student as export_student
    from augkd.ship.push import push as push

__version__ = "0.1.0"

_MODULES = {
    "AugkdError": "errors",
    "Candidate": "candidates.candidate",
    "Cascade": "ship.cascade",
    "Classifier": "models.classifier",
    "Cluster": "models.cluster",
    "ClusterError": "errors",
    "DamagedFileError": "errors",
    "DataError": "errors",
    "DistillationArguments": "distill.arguments",
    "DistillationDataset": "distill.dataset",
    "DistillationTrainer": "distill.trainer",
    "Example": "data.task",
    "IndexFolderError": "errors",
    "IndexRecipe": "recipe.index",
    "ModelError": "errors",
    "ProcessLostError": "errors",
    "Recipe": "recipe.pipeline",
    "RecipeError": "errors",
    "Run": "runs.run",
    "Stage": "distill.any_module",
    "StorageError": "errors",
    "TrainingError": "errors",
    "TransferSet": "data.transfer_set",
    "WorkspaceError": "errors",
    "add_to_index": "retrieval.build",
    "annealing": "distill.any_module",
    "bench_student": "ship.bench",
    "build_index": "retrieval.build",
    "build_shard": "retrieval.build",
    "calibrate_student": "ship.calibrate",
    "chain": "distill.any_module",
    "compare_recipes": "runs.comparison",
    "compare_tasks": "runs.comparison",
    "distill_modules": "distill.any_module",
    "distill_transfer_set": "runs.run",
    "export_student": "ship.export",
    "find_neighbours": "candidates.neighbours.find",
    "from_layers": "models.layers",
    "import_labels": "runs.labelling",
    "load_backbone": "models.classifier",
    "load_classifier": "models.classifier",
    "load_index_recipe": "recipe.files",
    "load_recipe": "recipe.files",
    "merge_shards": "retrieval.build",
    "open_index": "retrieval.open",
    "plan_labels": "runs.label_plan",
    "push": "ship.push",
    "register_models": "models.small_students",
    "remove_from_index": "retrieval.build",
    "texts_to_label": "runs.labelling",
    "train_stages": "distill.stages",
    "verify_index": "retrieval.build",
    "with_controls": "runs.controls",
    "write_report": "evaluation.report.report",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    """Imports what `name` stands for, once."""
    if name not in _MODULES:
        raise AttributeError(f"module 'augkd' has no attribute '{name}'")
    value = getattr(import_module(f"augkd.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
