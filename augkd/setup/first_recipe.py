"""A first recipe for a user's own data: YAML with the reason for each choice beside it.

The choices are starting points and depend on the sizes of the data alone, so that the same files give the same recipe
on any machine. Names and paths from the user's data are quoted or cleaned: a class name must not end a comment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from augkd.data.tables import local_path
from augkd.errors import WorkspaceError
from augkd.recipe.table import MINILM
from augkd.setup.survey import MODEL_MAX_LENGTH, CorpusSurvey, TaskSurvey, short_name
from augkd.workspace.files import sweep_writes_of, write_text
from augkd.workspace.storage import url_of

K = 64  # neighbours searched for; which of them are kept is drawn, since a wide pool is the more varied
SCORED = 4  # candidates scored for each one that is kept
LEARNING_RATE = "6.0e-4"  # of two layers of MiniLM; chosen on validation (docs/science.md)
LAYERS_UP_TO = 5_000  # training texts; of more, the layers of all neighbours take gigabytes
STATIC_FROM = 2_000_000  # texts; a CPU needs days to encode more with MiniLM, and hours with a static encoder


class _BySize(NamedTuple):
    """Starting points for a number of training texts: the fewer, the more epochs and candidates."""

    max_train: float
    epochs: int
    teacher_epochs: int
    batch_size: int
    keep: int


_BY_SIZE = (
    _BySize(500, 20, 10, 16, 4),
    _BySize(2_000, 10, 6, 32, 2),
    _BySize(5_000, 6, 4, 32, 2),
    _BySize(50_000, 4, 3, 32, 2),
    _BySize(float("inf"), 3, 2, 32, 1),
)


@dataclass(frozen=True)
class Choices:
    """The values in a first recipe that depend on the data."""

    epochs: int
    teacher_epochs: int
    batch_size: int
    keep: int  # candidates of a text in each epoch
    max_length: int
    static: bool  # whether the index has a static encoder
    layers: bool  # whether the student also matches the teacher's layers


def choose(task: TaskSurvey, corpus: CorpusSurvey | None) -> Choices:
    """The starting points for data of these sizes."""
    one_class = task.task.target.problem_type == "single_label_classification"  # of single texts: where layers help
    row = next(row for row in _BY_SIZE if len(task.task.train) <= row.max_train)
    return Choices(
        epochs=row.epochs,
        teacher_epochs=row.teacher_epochs,
        batch_size=row.batch_size,
        keep=row.keep,
        max_length=_max_length(task, corpus),
        static=corpus is not None and corpus.texts > STATIC_FROM,
        layers=corpus is not None and one_class and not task.task.is_pair and len(task.task.train) <= LAYERS_UP_TO,
    )


def _max_length(task: TaskSurvey, corpus: CorpusSurvey | None) -> int:
    """Tokens for 99 % of the task's texts and of a corpus's, but at most twice the task's; a multiple of 16."""
    tokens = task.lengths.tokens_p99
    if corpus is not None and not corpus.documents:
        tokens = max(tokens, min(corpus.lengths.tokens_p99, 2 * tokens))
    special = 3 if task.task.is_pair else 2
    rounded_up = -(-(tokens + special) // 16) * 16
    return min(MODEL_MAX_LENGTH, max(32, rounded_up))


def write_recipe(out: Path, task: TaskSurvey, corpus: CorpusSurvey | None, dataset: str, force: bool = False) -> str:
    """Writes the recipe and returns its text. Raises WorkspaceError when `out` exists, unless `force`."""
    if out.exists() and not force:
        raise WorkspaceError(f"{out} already exists; give another --out, or --force to replace it")
    text = recipe_text(task, corpus, dataset, out.absolute().parent)
    sweep_writes_of(out)
    write_text(out, text)
    return text


def recipe_text(
    task: TaskSurvey,
    corpus: CorpusSurvey | None,
    dataset: str,  # the task's data, as the user gave it
    folder: Path,  # where the recipe is; paths below it are written relative to it
) -> str:
    """The recipe as YAML with comments."""
    chosen = choose(task, corpus)
    parts = [
        _head(task, corpus),
        _task(task, dataset, folder),
        _models(chosen),
        _data(corpus, chosen, folder) if corpus else _NO_CORPUS,
        _STRUCTURE if chosen.layers else [],
        _training(task, chosen, corpus is not None),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


# ---- parts of the recipe ----

_RANDOM_KNN = (
    "KD with kNN augmentation. The student is trained on the labelled texts and, in each epoch,",
    "# on other neighbours of theirs in the corpus, which the teacher labels.",
)
_VANILLA_KD = ("vanilla KD (Hinton et al. 2015). The student is trained on the labelled texts alone.",)


def _head(task: TaskSurvey, corpus: CorpusSurvey | None) -> list[str]:
    first, *rest = _RANDOM_KNN if corpus else _VANILLA_KD
    return [
        f"# {short_name(task.task.name)}: {first}",
        *rest,
        "# Written by `augkd init`; every value is a starting point.",
        "",
    ]


def _task(task: TaskSurvey, dataset: str, folder: Path) -> list[str]:
    columns = task.columns
    lines = ["task:", f"  dataset: {_path(dataset, folder)}", f"  text: {_quoted(columns.text)}"]
    if columns.text_pair:
        lines.append(f"  text_pair: {_quoted(columns.text_pair)}")
    lines += [f"  {name}: {_option(value)}  # {reason}" for name, value, reason in _decided(task)]
    names = [columns.label] if isinstance(columns.label, str) else columns.label
    label = _quoted(names[0]) if len(names) == 1 else f"[{', '.join(map(_quoted, names))}]"
    lines.append(f"  label: {label}  # {_label_comment(task)}")
    if columns.separator:
        lines.append(f"  separator: {_quoted(columns.separator)}  # between the labels of a text")
    counts = task.class_counts.values()
    if "f1" in task.task.target.metrics and counts and max(counts) > 0.75 * sum(counts):
        lines.append("  # metric: f1  # the classes are imbalanced, and accuracy mostly measures the largest")
    return [*lines, ""]


def _decided(task: TaskSurvey) -> list[tuple[str, Any, str]]:
    decided = task.decided
    return [(name, value, short_name(decided.reasons[name], 90)) for name, value in decided.options.items()]


def _option(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_quoted(file)}' for name, file in value.items())}}}"
    return json.dumps(value) if isinstance(value, bool) else _quoted(str(value))


def _label_comment(task: TaskSurvey) -> str:
    if task.label_range is not None:
        return f"numbers from {task.label_range[0]:g} to {task.label_range[1]:g}: a regression task"
    names = [short_name(name, 20) for name in task.class_counts]
    return f"{task.task.target.describe()}: {', '.join(names[:6])}{', …' if names[6:] else ''}"


def _models(chosen: Choices) -> list[str]:
    return [
        "teacher:  # a folder or a Hub name: any transformers model with safetensors weights; larger is usually better",
        f"  model: {MINILM}",
        f"  epochs: {chosen.teacher_epochs}  # 0 if the model is already fine-tuned for this task",
        "  learning_rate: 1.0e-4  # for large models, try 2.0e-5",
        "",
        "student: {layers: {middle: 2}}  # the middle of each half of the teacher; for another model: {model: …}",
        "",
    ]


_NO_CORPUS = [
    "# With unlabelled texts of the same kind, the student has more to learn from:",
    "# data:",
    "#   neighbours:",
    "#     index: {corpus: my-corpus.txt}",
    f"#     k: {K}",
    "#   select: {minimax: {keep: 2, of: 8}}",
    "#   weight: 2",
    "",
]


def _data(corpus: CorpusSurvey, chosen: Choices, folder: Path) -> list[str]:
    about = "" if corpus.complete else "about "
    lines = [
        "data:",
        "  neighbours:",
        "    index:",
        f"      corpus:  # {about}{corpus.texts:,} texts",
        f"        dataset: {_path(corpus.dataset, folder)}",
        f"        text: {_quoted(corpus.column)}",
    ]
    if corpus.encoding:
        lines.append(f"        encoding: {_quoted(corpus.encoding)}")
    if corpus.documents:
        lines.append("        sentences: en  # the language; splits these documents into sentences")
    return [
        *lines,
        *_encoder(chosen.static),
        f"      faiss: {{factory: auto, recall: 0.95}}  # {_search_comment(corpus.texts)}",
        f"    k: {K}  # neighbours retrieved for each labelled text",
        "    sample: used  # of these, as many as the training comes to; they are drawn at random and labelled",
        f"  select: {{minimax: {{keep: {chosen.keep}, of: {SCORED * chosen.keep}}}}}"
        "  # in each epoch, of others of these, where teacher and student diverge most",
        f"  weight: {chosen.keep}  # of a text's neighbours together, so that each weighs as much as the text",
        "",
    ]


def _encoder(static: bool) -> list[str]:
    if not static:
        return [f"      encoder: {{model: {MINILM}}}"]
    return [
        "      encoder: {kind: static, rerank: 100}  # a CPU would need days for this many texts with a full model;",
        f"      # with a GPU: {{model: {MINILM}}}",
    ]


def _search_comment(texts: int) -> str:
    from augkd.retrieval.dense.size import EXACT_UP_TO  # imports FAISS

    return "for this many texts: " + ("exact search" if texts <= EXACT_UP_TO else "an approximate index")


_STRUCTURE = [
    "structure: {pooling: mean, alp: {weight: 30.0}}  # match the teacher's layers on all of these texts too (ALP-KD)",
    "",
]


_QUICK = 3  # epochs of pipelines/quick.yaml
_QUICKER = f"; quicker: {_QUICK}, with learning_rate 9.0e-4 and dropout 0.0, as in the recipe `quick`"


def _training(task: TaskSurvey, chosen: Choices, augmented: bool) -> list[str]:
    steps = -(-len(task.task.train) // chosen.batch_size)
    temperature = "" if task.task.target.regression else ", temperature: 2.0"
    return [
        "training:",
        f"  kd: {{weight: 0.5{temperature}}}  # match the teacher's outputs",
        "  ce: {weight: 0.5}  # match the labels",
        f"  epochs: {chosen.epochs}  # {steps} steps each{_QUICKER if augmented and chosen.epochs > _QUICK else ''}",
        f"  learning_rate: {LEARNING_RATE}  # for a whole model as student, try 1.0e-4",
        f"  batch_size: {chosen.batch_size}  # labelled texts{', each with its candidates' if augmented else ''}",
        f"  max_length: {chosen.max_length}  # tokens; enough for about 99 % of the texts",
        "",
        "# card: {license: …, data_license: …, language: …}  # for the cards, should you share student or transfer set",
    ]


def _path(dataset: str, folder: Path) -> str:
    """A path as the recipe finds it: relative when it lies below the recipe's folder, else absolute."""
    if (url := url_of(dataset)) is not None:
        return _quoted(url)
    path = local_path(dataset)
    if path is None:
        return _quoted(dataset)
    absolute, base = path.resolve(), folder.resolve()
    return _quoted(absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else str(absolute))


def _quoted(value: str) -> str:
    """`value` as YAML, without quotes where it needs none; JSON strings are YAML strings."""
    plain = value.replace("_", "a").replace("-", "a").replace("/", "a").replace(".", "a").isalnum()
    special = value[:1] in "-." or value.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return value if plain and value[:1].isalpha() and value.isascii() and not special else json.dumps(value)
