"""The task of a recipe: a data set of its own, or the labelled texts of a given transfer set."""

from __future__ import annotations

from augkd.data.given_transfer_set import locate_transfer_set, task_of
from augkd.data.tables import local_path
from augkd.data.task import Task, load_task
from augkd.data.transfer_set import TransferSet
from augkd.recipe import Recipe, TaskOptions, dump
from augkd.workspace.progress import Progress, silent
from augkd.workspace.storage import url_of


def read_task(recipe: Recipe, progress: Progress = silent) -> Task:
    """The recipe's task; that of its given transfer set where it names no other."""
    given = recipe.data.transfer_set
    if given is not None and recipe.task.dataset == given:
        return task_of(TransferSet.open(locate_transfer_set(given, progress)))
    return task_from(recipe.task, progress)


def task_from(options: TaskOptions, progress: Progress = silent) -> Task:
    """The task of a recipe's table; `progress` is that of a download."""
    if url_of(options.dataset) is not None:
        local_path(options.dataset, progress)  # `load_task` finds the copy
    return load_task(**dump(options))
