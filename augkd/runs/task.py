"""The task of a recipe: a data set of its own, or the labelled texts of a given transfer set."""

from __future__ import annotations

from augkd.data.given_transfer_set import locate_transfer_set, task_of
from augkd.data.task import Task, load_task
from augkd.data.transfer_set import TransferSet
from augkd.recipe import Recipe, dump


def read_task(recipe: Recipe) -> Task:
    """The recipe's task; that of its given transfer set where it names no other."""
    given = recipe.data.transfer_set
    if given is not None and recipe.task.dataset == given:
        return task_of(TransferSet.open(locate_transfer_set(given)))
    return load_task(**dump(recipe.task))
