"""The YAML at the top of a student's card, which the Hub reads: origin, licence and scores, in the Hub's own names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from augkd.data.markdown import one_line
from augkd.data.target import Target
from augkd.data.transfer_card import TAGS
from augkd.evaluation.results import RunResults
from augkd.recipe import Recipe

# augkd's names of metrics → the Hub's.
_METRICS = {
    **{"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"},
    **{"micro_f1": "f1", "macro_f1": "f1", "mAP": "mean_average_precision"},
}
_TAGS = {"softmax": [], "sigmoid": ["multi-label-classification"], "identity": ["regression"]}  # by activation
_OWN_MODEL_TYPES = {"augkd_bilstm", "augkd_static"}  # in config.json; transformers opens them once they are registered
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def metadata(name: str, recipe: Recipe, results: RunResults, config: Mapping[str, Any]) -> str:
    """The YAML, between its two lines of dashes."""
    from huggingface_hub import ModelCardData  # 0.5 s to import

    datasets = [hub for dataset in _datasets(recipe) if (hub := hub_name(dataset))]
    own = is_own_model(config)
    data = ModelCardData(
        language=recipe.card.language,
        license=recipe.card.license,
        library_name="augkd" if own else "transformers",
        pipeline_tag="text-classification",
        base_model=None if own else _base_model(recipe),
        datasets=datasets or None,
        tags=[*TAGS, *_TAGS[target_of(config).activation]],
        metrics=[one_line(_METRICS.get(results["metric"], results["metric"]))],
        model_name=name,
        eval_results=_evaluation(recipe, results) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _evaluation(recipe: Recipe, results: RunResults) -> list[Any]:
    from huggingface_hub import EvalResult

    score = results["student"]["test"]
    if score is None:
        return []
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=hub_name(recipe.task.dataset) or one_line(results["task"]),
            dataset_name=one_line(results["task"]),
            dataset_config=recipe.task.config,
            dataset_split=(recipe.task.splits or {}).get("test", "test"),
            metric_type=_METRICS.get(results["metric"], results["metric"]),
            metric_value=round(score, 4),
            metric_name=results["metric"],
        )
    ]


def _base_model(recipe: Recipe) -> str | None:
    return hub_name(recipe.student.model or recipe.teacher.network)


def _datasets(recipe: Recipe) -> Iterator[str]:
    yield recipe.task.dataset
    neighbours = recipe.data.neighbours
    if neighbours and not isinstance(neighbours.index, str):
        yield neighbours.index.corpus.dataset


def hub_name(name: str | None) -> str | None:
    """`name` if it can be a repository of the Hub, owner/name; None for a path or the built-in task."""
    if name is None or "/" not in name or not _HUB_NAME.fullmatch(name):
        return None
    return name


def is_own_model(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a BiLSTM or static student, which transformers alone cannot open."""
    return config["model_type"] in _OWN_MODEL_TYPES


def target_of(config: Mapping[str, Any]) -> Target:
    """What the model of a config.json predicts; a single output is a number."""
    return Target.of_config(config)
