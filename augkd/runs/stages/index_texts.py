"""The texts of an index that a label budget chooses from: rows of their own, without a label and without an owner.

Evaluation texts and their near copies are kept out, as they are among neighbours. Of a large index as many are drawn at
random as the recipe scores in a round.
"""

from __future__ import annotations

import numpy as np

from augkd.candidates.neighbours.near_copies import distinct_texts, make_guard
from augkd.data.cleaning import normalised
from augkd.data.task import Example, Task
from augkd.errors import RecipeError
from augkd.recipe import LabelBudgetOptions, NeighbourOptions
from augkd.retrieval.retriever import Retriever


def texts_of_index(
    task: Task, index: Retriever, options: NeighbourOptions, budget: LabelBudgetOptions, seed: int
) -> list[Example]:
    """Examples without a label, in the order of the index; none equals another one, an original or its near copy."""
    if task.is_pair:
        raise RecipeError("data.label_budget.of: index gives single texts, and the task has pairs; choose candidates")
    guard = make_guard(distinct_texts(task.evaluation_texts()), index, options.near_copy)
    seen = {normalised(example.text) for example in task.train} | {""}
    ids = np.arange(len(index))
    if len(ids) > budget.pool:
        ids = np.sort(np.random.default_rng([seed, len(ids)]).choice(len(ids), budget.pool, replace=False))
    examples = []
    for number, text in zip(ids.tolist(), index.texts(ids), strict=True):
        key = normalised(text)
        if key in seen or guard.rejects(key, text):
            continue
        seen.add(key)
        examples.append(Example(f"index-{number}", text))
    return examples
