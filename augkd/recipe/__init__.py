"""YAML → validated recipes, without importing torch."""

from augkd.recipe.card import CardOptions
from augkd.recipe.comparison import Comparison, by_name, is_comparison, load_comparison
from augkd.recipe.data import (
    AdaptOptions,
    DataOptions,
    GeneratedOptions,
    GeneratorOptions,
    NeighbourOptions,
    SubstitutionOptions,
)
from augkd.recipe.files import find, load_index_recipe, load_recipe, shipped
from augkd.recipe.index import CorpusOptions, EncoderOptions, FaissOptions, IndexRecipe
from augkd.recipe.pipeline import (
    AssistantOptions,
    Recipe,
    StudentOptions,
    TaskOptions,
    TeacherOptions,
)
from augkd.recipe.table import MINILM, dumped
from augkd.recipe.training import FreeLBOptions, StructureOptions, TrainingOptions

__all__ = [
    "MINILM",
    "AdaptOptions",
    "AssistantOptions",
    "CardOptions",
    "Comparison",
    "CorpusOptions",
    "DataOptions",
    "EncoderOptions",
    "FaissOptions",
    "FreeLBOptions",
    "GeneratedOptions",
    "GeneratorOptions",
    "IndexRecipe",
    "NeighbourOptions",
    "Recipe",
    "StructureOptions",
    "StudentOptions",
    "SubstitutionOptions",
    "TaskOptions",
    "TeacherOptions",
    "TrainingOptions",
    "by_name",
    "dumped",
    "find",
    "is_comparison",
    "load_comparison",
    "load_index_recipe",
    "load_recipe",
    "shipped",
]
