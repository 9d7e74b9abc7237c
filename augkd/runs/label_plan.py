"""What labels would cost: texts, requests, tokens and, with a price, money, for several label budgets.

Nothing is contacted, no index is searched and no torch is imported, so the number of candidates is an upper bound and
their length that of the training texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from augkd.data.task import Task, texts_of, with_labelled
from augkd.distill.teacher.answer_store import AnswerStore
from augkd.distill.teacher.prompt import question_for
from augkd.recipe import Recipe
from augkd.runs.plan import pool_size
from augkd.runs.task import read_task

USUAL = (250, 500, 1000, 2000, 4000)  # label budgets that are shown beside the recipe's own
_CHARACTERS = 4  # per token: the usual figure for English
_FRAME = 8  # tokens that a server puts around a message
_WRITTEN = 2  # tokens of an answer that is a letter
_FEWEST = 20  # stored answers whose tokens count as a measurement
_SAMPLE = 1000  # training texts whose length is taken


@dataclass(frozen=True)
class LabelCost:
    """What one label budget would cost."""

    unlabelled: int | None  # the label budget; None: all texts
    texts: int  # with those that have a label, and evaluation texts where they are asked about
    requests: int | None  # None where nothing is sent
    tokens_read: int | None
    tokens_written: int | None
    money: float | None  # in the unit of the price


@dataclass(frozen=True)
class LabelPlan:
    """The costs, and what they were computed from."""

    labelled: int  # texts with a label, which the teacher is asked about first
    pool: int | None  # unlabelled texts at most; None: not known before the corpus is read
    evaluation: int  # validation and test texts that are asked about
    orders: int  # requests for each text
    read: float | None  # tokens of a request
    written: float | None
    measured: int  # stored answers that the tokens were measured on; 0: estimated
    costs: list[LabelCost]


def plan_labels(
    recipe: Recipe,
    texts: Sequence[int] | None = None,
    price: float | None = None,
    price_written: float | None = None,
) -> LabelPlan:
    """What the label budgets `texts` would cost, by default the recipe's own, usual ones, and all texts.

    Prices are for a million tokens, read and written (None: the same). Raises what the run itself would raise for a
    recipe that does not fit its task.
    """
    task = read_task(recipe)
    student_task = with_labelled(task, recipe.data.labelled)
    recipe = recipe.for_texts(len(student_task.train))
    labelled = sum(example.label is not None for example in student_task.train)
    pool = pool_size(recipe, student_task)
    endpoint = recipe.teacher.endpoint
    evaluation = [*task.validation, *task.test] if endpoint is not None and endpoint.evaluate else []
    orders, read, written, measured = 0, None, None, 0
    if endpoint is not None:
        orders = len(question_for(recipe.teacher, task.target, task.is_pair).orders)
        read, written, measured = _tokens(recipe, student_task)
    asked_first = len(evaluation) + (0 if recipe.teacher.kind == "answers" else labelled)

    def cost(unlabelled: int | None) -> LabelCost | None:
        own = pool if unlabelled is None else unlabelled
        if own is None:
            return None
        number = asked_first + own
        if read is None or written is None:
            return LabelCost(unlabelled, number, None, None, None, None)
        tokens = round(number * orders * read), round(number * orders * written)
        money = None
        if price is not None:
            money = (tokens[0] * price + tokens[1] * (price if price_written is None else price_written)) / 1e6
        return LabelCost(unlabelled, number, number * orders, *tokens, money)

    sizes = _sizes(recipe, texts, pool)
    costs = [found for size in [*sizes, *([] if texts else [None])] if (found := cost(size)) is not None]
    return LabelPlan(labelled, pool, len(evaluation), orders, read, written, measured, costs)


def plan_lines(recipe: Recipe, plan: LabelPlan) -> Iterator[str]:
    """A plan as text."""
    first = "by people already" if recipe.teacher.kind == "answers" else "asked about first"
    yield f"labelled      {plan.labelled} texts, {first}"
    yield f"unlabelled    {_pool(plan.pool)}"
    if plan.evaluation:
        yield f"evaluation    {plan.evaluation} texts (teacher.endpoint.evaluate)"
    if plan.read is not None:
        how = f"measured on {plan.measured} stored answers" if plan.measured else "estimated, 4 characters a token"
        yield f"requests      {plan.orders} for each text: {plan.read:.0f} tokens read, {plan.written:.0f} written"
        yield f"              ({how})"
    head = ("label budget", "texts", "requests", "tokens read", "tokens written", "cost")
    rows = [_cells(cost) for cost in plan.costs]
    shown = [place for place in range(len(head)) if any(row[place] for row in rows)]
    for row in (head, *rows):
        yield "".join(f"{row[place]:>16}" for place in shown)


def _pool(texts: int | None) -> str:
    return "not known before the corpus is read" if texts is None else f"at most {texts} texts"


def _cells(cost: LabelCost) -> tuple[str, ...]:
    numbers = (cost.texts, cost.requests, cost.tokens_read, cost.tokens_written)
    money = "" if cost.money is None else f"{cost.money:,.2f}"
    own = "all" if cost.unlabelled is None else f"{cost.unlabelled:,}"
    return (own, *("" if number is None else f"{number:,}" for number in numbers), money)


def _sizes(recipe: Recipe, texts: Sequence[int] | None, pool: int | None) -> list[int]:
    if texts:
        return sorted(set(texts))
    budget = recipe.data.label_budget
    sizes = {*USUAL, *([budget.texts] if budget else [])}
    return sorted(size for size in sizes if pool is None or size < pool)


def _tokens(recipe: Recipe, task: Task) -> tuple[float, float, int]:
    """Tokens read and written for one request, and how many stored answers say so."""
    if recipe.teacher.answers is not None:
        store = AnswerStore(Path(recipe.teacher.answers))
        store.refresh()
        usage = [record["usage"] for record in store.records() if record.get("model") == recipe.teacher.model]
        counted = [pair for pair in usage if pair[0]]
        if len(counted) >= _FEWEST:
            read, written = (sum(pair[place] for pair in counted) / len(counted) for place in (0, 1))
            return read, written, len(counted)
    question = question_for(recipe.teacher, task.target, task.is_pair)
    prompts = [question.text(text, question.orders[0]) for text in texts_of(task.train[:_SAMPLE])]
    return sum(map(len, prompts)) / len(prompts) / _CHARACTERS + _FRAME, float(_WRITTEN), 0
