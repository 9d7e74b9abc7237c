"""The content of results.json: how good a run's student is, what it was trained on, and what that cost.

These are typed dicts and not dataclasses because the file is the interface: comparisons, reports and cards read it back
years later, and a user reads it with any JSON library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

Split = Literal["validation", "test"]


class ScoreOnTest(TypedDict):
    """The metric on the test split with its 95 % interval; both None where test texts have no labels."""

    test: float | None
    test_interval: Sequence[float] | None  # (low, high)


class Scores(ScoreOnTest):
    """The metric on both evaluation splits."""

    validation: float


class StudentResults(Scores):
    """Scores and size of the student."""

    parameters: int
    ensemble: NotRequired[Scores]  # of the student and its assistants together, where the recipe asks for it


class TeacherResults(TypedDict):
    """Scores and size of the teacher; None where labels, its outputs or its weights are not known."""

    validation: float | None
    test: float | None
    parameters: int | None


class AssistantResults(TypedDict):
    """Scores, size and cost of one teacher assistant."""

    validation: float
    test: float | None
    parameters: int
    rows: dict[str, int]  # texts forwarded, by purpose
    seconds: float


class DataCounts(TypedDict):
    """Size of the transfer set, and how many candidates a training step uses."""

    originals: int  # labelled texts
    labelled_texts_of_the_task: NotRequired[int]  # where the student sees only some of them
    labelled_by_the_teacher: NotRequired[int]  # with a label budget
    left_out: NotRequired[int]  # texts that a teacher which is asked gave no output for
    candidates: int
    candidates_unique: int
    excluded_evaluation_texts: int
    excluded_near_copies: NotRequired[int]  # an older augkd did not count them
    outside_teacher_bounds: int
    too_far_from_original: int
    generated_per_original: int  # by the generator, at each step
    kept_per_original: float  # by the selector, of stored and generated ones
    selector: str


class Cost(TypedDict):
    """Rows are texts forwarded through a model; a stage that runs share is counted in full in each of them."""

    teacher_rows: int
    generator_rows: int
    scoring_rows: int
    training_rows: int
    seconds: dict[str, float]  # by stage
    peak_rss_bytes: int  # of the process that trained the student


class StudentBetween(TypedDict):
    """Scores of a student that was trained between two rounds of a label budget."""

    labels: int  # texts that the teacher had labelled by then
    validation: float
    test: float | None


class LabelRounds(TypedDict):
    """The rounds of a label budget."""

    chosen: list[int]  # texts of each round
    students: list[StudentBetween]


class RunResults(TypedDict):
    """results.json of one run."""

    task: str
    metric: str
    seed: int
    recipe: str  # its name
    teacher: TeacherResults
    student: StudentResults
    data: DataCounts
    cost: Cost
    versions: dict[str, str]  # of libraries
    notes: NotRequired[list[str]]  # what a reader must know, such as that there were too few candidates
    assistants: NotRequired[list[AssistantResults]]
    label_rounds: NotRequired[LabelRounds]  # with data.label_budget
    asked: NotRequired[list[dict[str, Any]]]  # of each teacher that is asked: texts, tokens, calibration
