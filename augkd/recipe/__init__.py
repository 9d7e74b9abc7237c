"""Recipes: YAML files read into validated, frozen models, without importing torch."""

from augkd.recipe.card import CardOptions
from augkd.recipe.comparison import Comparison, is_comparison, load_comparison, recipes_by_name
from augkd.recipe.data import (
    AdaptOptions,
    DataOptions,
    GeneratedOptions,
    GeneratorOptions,
    NeighbourOptions,
    SubstitutionOptions,
)
from augkd.recipe.files import (
    find_recipe,
    load_index_recipe,
    load_recipe,
    load_transfer_set_recipe,
    shipped_recipes,
)
from augkd.recipe.index import CorpusOptions, EncoderOptions, FaissOptions, IndexRecipe
from augkd.recipe.label_budget import LabelBudgetOptions
from augkd.recipe.pipeline import (
    AssistantOptions,
    Recipe,
    StudentOptions,
    TaskOptions,
)
from augkd.recipe.table import MINILM, dump
from augkd.recipe.teacher import PLACEHOLDERS, EndpointOptions, TeacherOptions
from augkd.recipe.training import FreeLBOptions, StructureOptions, TrainingOptions

__all__ = [
    "MINILM",
    "PLACEHOLDERS",
    "AdaptOptions",
    "AssistantOptions",
    "CardOptions",
    "Comparison",
    "CorpusOptions",
    "DataOptions",
    "EncoderOptions",
    "EndpointOptions",
    "FaissOptions",
    "FreeLBOptions",
    "GeneratedOptions",
    "GeneratorOptions",
    "IndexRecipe",
    "LabelBudgetOptions",
    "NeighbourOptions",
    "Recipe",
    "StructureOptions",
    "StudentOptions",
    "SubstitutionOptions",
    "TaskOptions",
    "TeacherOptions",
    "TrainingOptions",
    "dump",
    "find_recipe",
    "is_comparison",
    "load_comparison",
    "load_index_recipe",
    "load_recipe",
    "load_transfer_set_recipe",
    "recipes_by_name",
    "shipped_recipes",
]
