"""YAML → validated recipes, without importing torch."""

from augkd.recipe.comparison import Comparison, is_comparison, load_comparison
from augkd.recipe.files import find, load_index_recipe, load_recipe, shipped
from augkd.recipe.index import CorpusOptions, EncoderOptions, FaissOptions, IndexRecipe
from augkd.recipe.pipeline import (
    AssistantOptions,
    DataOptions,
    NeighbourOptions,
    Recipe,
    StudentOptions,
    TaskOptions,
    TeacherOptions,
)
from augkd.recipe.table import MINILM, dumped
from augkd.recipe.training import FreeLBOptions, StructureOptions, TrainingOptions

__all__ = [
    "MINILM",
    "AssistantOptions",
    "Comparison",
    "CorpusOptions",
    "DataOptions",
    "EncoderOptions",
    "FaissOptions",
    "FreeLBOptions",
    "IndexRecipe",
    "NeighbourOptions",
    "Recipe",
    "StructureOptions",
    "StudentOptions",
    "TaskOptions",
    "TeacherOptions",
    "TrainingOptions",
    "dumped",
    "find",
    "is_comparison",
    "load_comparison",
    "load_index_recipe",
    "load_recipe",
    "shipped",
]
