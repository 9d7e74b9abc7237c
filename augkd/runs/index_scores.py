"""Built indexes, ranked for a task by the teacher's outputs on the neighbours they give; no student is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from augkd.errors import RecipeError
from augkd.evaluation.index_score import IndexScore, index_score, rank
from augkd.recipe import Recipe
from augkd.retrieval.manifest import encoder_options, index_manifest
from augkd.runs.run import Run
from augkd.workspace.files import write_json
from augkd.workspace.names import path_name
from augkd.workspace.progress import Progress, prefixed, silent
from augkd.workspace.storage import url_of


class IndexRanking(TypedDict):
    """score.json: the indexes of one task, best first."""

    task: str
    ranked: list[str]
    scores: dict[str, dict[str, float | int | None]]  # index → its figures


def score_indexes(
    recipe: Recipe, indexes: Sequence[Path | str], out: Path, progress: Progress = silent
) -> IndexRanking:
    """Ranks built indexes, folders or URLs, for the recipe's task; returns what is written to score.json in `out`.

    They are distinguished by their last names. Raises RecipeError for a recipe without neighbours, and for two
    indexes of one name.
    """
    if recipe.data.neighbours is None:
        raise RecipeError("this recipe has no data.neighbours; score indexes with one that has, e.g. minimax-knn")
    paths = [Path(index) for index in indexes]  # of a URL, only its last name is used
    if len({path.name for path in paths}) < len(paths):
        raise RecipeError(f"two of the indexes have the same name: {', '.join(path.name for path in paths)}")
    scores: dict[str, IndexScore] = {}
    for index, path in zip(indexes, paths, strict=True):
        name = path_name(path.name, f"the name of the index {path}", reserved=("score.json", "shared"))
        neighbours = recipe.data.neighbours.model_copy(update={"index": url_of(index) or str(path)})
        data = recipe.data.model_copy(update={"neighbours": neighbours, "augmented_samples": None})
        shown = prefixed(progress, f"{path.name}: ")
        run = Run(recipe.model_copy(update={"data": data}), out / name, out / "shared", shown, path.name)
        scores[path.name] = _score(run, neighbours.k)
    ranked = rank(scores, cosines=len({_space(index) for index in indexes}) == 1)
    ranking: IndexRanking = {
        "task": run.task.name,
        "ranked": ranked,
        "scores": {name: dataclasses.asdict(scores[name]) for name in ranked},
    }
    write_json(out / "score.json", ranking)
    return ranking


def _space(index: Path | str) -> tuple[str, str | None]:
    """Which model's cosines an index gives: indexes of one space can be compared by them."""
    encoder = encoder_options(index_manifest(index))
    return "sentence" if encoder["rerank"] else encoder["kind"], encoder.get("model")  # re-ranked: the full model's


def _score(run: Run, k: int) -> IndexScore:
    transfer, target = run.transfer_set(), run.context.target
    candidates = transfer.candidates()
    return index_score(
        target,
        transfer.teacher(),
        target.encode(transfer.column("label")),
        candidates.owner,
        candidates.teacher,
        candidates.score if run.index.bounded else None,
        list(zip(candidates.text, candidates.text_pair, strict=True)),
        k=k,
    )


def table(scores: Mapping[str, Mapping[str, float | int | None]]) -> list[str]:
    """The scores as lines, in the given order."""
    names = [field.name for field in dataclasses.fields(IndexScore)]
    width = max(map(len, scores))
    header = " " * width + "".join(f"{name:>12}" for name in names)
    return [
        header,
        *(f"{index:{width}}" + "".join(f"{_cell(score[n]):>12}" for n in names) for index, score in scores.items()),
    ]


def _cell(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
