"""A first recipe for a user's own data: the survey's findings as a YAML file with the reason beside each choice.

The choices are starting points, decided by the sizes of the data alone, so that the same files give the same recipe on
any machine. What the user's data says (names, paths) is quoted or cleaned: a class name must not end a comment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.data.tables import local_path
from augkd.errors import WorkspaceError
from augkd.recipe.table import MINILM
from augkd.setup.survey import CorpusSurvey, TaskSurvey, shown_name
from augkd.workspace.files import write_text

EXACT_UP_TO = 200_000  # texts that `faiss.factory: auto` searches exactly
STATIC_FROM = 2_000_000  # texts from which a CPU takes days to encode with MiniLM; a static encoder takes hours
_LONGEST = 512  # tokens MiniLM can read

# Training texts up to which: epochs of student and teacher, batch size, neighbours, of them kept.
_BY_SIZE = (
    (500, 20, 10, 16, 16, 8),
    (2_000, 10, 6, 32, 8, 4),
    (5_000, 6, 4, 32, 8, 4),
    (50_000, 4, 3, 32, 8, 4),
)
_LARGE = (3, 2, 32, 4, 2)


@dataclass(frozen=True)
class Choices:
    """What a first recipe says, decided by sizes."""

    epochs: int
    teacher_epochs: int
    batch_size: int
    k: int
    keep: int
    max_length: int
    static: bool


def choices(task: TaskSurvey, corpus: CorpusSurvey | None) -> Choices:
    """The starting points for data of these sizes."""
    size = len(task.task.train)
    chosen = next((row[1:] for row in _BY_SIZE if size <= row[0]), _LARGE)
    epochs, teacher_epochs, batch_size, k, keep = chosen
    specials = 3 if task.task.is_pair else 2
    pieces = task.lengths.pieces_99
    if corpus is not None and not corpus.documents:  # candidates are a little longer at times; much longer ones are cut
        pieces = max(pieces, min(corpus.lengths.pieces_99, 2 * pieces))
    needed = -(-(pieces + specials) // 16) * 16  # to the next multiple of 16
    return Choices(
        epochs=epochs,
        teacher_epochs=teacher_epochs,
        batch_size=batch_size,
        k=k,
        keep=keep,
        max_length=min(_LONGEST, max(32, needed)),
        static=corpus is not None and corpus.texts > STATIC_FROM,
    )


def write_recipe(out: Path, task: TaskSurvey, corpus: CorpusSurvey | None, dataset: str, force: bool = False) -> str:
    """Writes the recipe and returns its text; raises WorkspaceError when `out` is there, unless `force`."""
    if out.exists() and not force:
        raise WorkspaceError(f"{out} is there already; give another --out, or --force to replace it")
    text = recipe_text(task, corpus, dataset, out.absolute().parent)
    write_text(out, text)
    return text


def recipe_text(task: TaskSurvey, corpus: CorpusSurvey | None, dataset: str, beside: Path) -> str:
    """The recipe as YAML with comments; paths that lie below `beside`, the recipe's folder, are relative to it."""
    chosen = choices(task, corpus)
    parts = [
        _head(task, corpus),
        _task(task, dataset, beside),
        _models(chosen),
        *([_data(corpus, chosen, beside)] if corpus else [_NO_CORPUS]),
        _training(task, chosen, corpus is not None),
    ]
    return "\n".join("\n".join(part) for part in parts) + "\n"


# ---- parts of the recipe ----


def _head(task: TaskSurvey, corpus: CorpusSurvey | None) -> list[str]:
    method = "Minimax-kNN: the student learns from the labelled texts and from their most instructive neighbours"
    what = f"{method} in the corpus." if corpus else "Vanilla KD: the student learns from the labelled texts alone."
    return [
        f"# {shown_name(task.task.name)}: {what}",
        "# Written by `augkd init`; every value is a starting point.",
        "",
    ]


def _task(task: TaskSurvey, dataset: str, beside: Path) -> list[str]:
    columns = task.columns
    lines = ["task:", f"  dataset: {_path(dataset, beside)}", f"  text: {_quoted(columns.text)}"]
    if columns.text_pair:
        lines.append(f"  text_pair: {_quoted(columns.text_pair)}")
    lines.append(f"  label: {_quoted(columns.label)}{_labels_comment(task)}")
    if task.classes and max(task.classes.values()) > 0.75 * sum(task.classes.values()):
        lines.append("  # metric: f1  # the classes are uneven: accuracy rewards the largest")
    return [*lines, ""]


def _labels_comment(task: TaskSurvey) -> str:
    if task.span is not None:
        return f"  # numbers from {task.span[0]:g} to {task.span[1]:g}: a regression task"
    names = [shown_name(name, 20) for name in task.classes]
    return f"  # {len(names)} classes: {', '.join(names[:6])}{', …' if names[6:] else ''}"


def _models(chosen: Choices) -> list[str]:
    return [
        "teacher:  # the larger the better: any model of transformers with safetensors weights, a folder or a Hub name",
        f"  model: {MINILM}",
        f"  epochs: {chosen.teacher_epochs}  # 0 for a teacher that is trained already",
        "  learning_rate: 1.0e-4  # of large models, 2e-5",
        "",
        "student: {layers: [0, 5]}  # two layers of the teacher; for a model of its own, {model: …}",
        "",
    ]


_NO_CORPUS = [
    "# With unlabelled texts of the same kind, the student gets more to learn from:",
    "# data:",
    "#   neighbours:",
    "#     index: {corpus: my-corpus.txt}",
    "#     k: 8",
    "#   select: {minimax: {keep: 4}}",
    "",
]


def _data(corpus: CorpusSurvey, chosen: Choices, beside: Path) -> list[str]:
    about = "" if corpus.whole else "about "
    lines = [
        "data:",
        "  neighbours:",
        "    index:",
        f"      corpus:  # {about}{corpus.texts:,} texts",
        f"        dataset: {_path(corpus.dataset, beside)}",
        f"        text: {_quoted(corpus.column)}",
    ]
    if corpus.documents:
        lines.append("        sentences: en  # texts are documents: each sentence becomes a text; change the language")
    if chosen.static:
        lines += [
            "      encoder: {kind: static, rerank: 100}  # so many texts are too many for a full model on a CPU;",
            f"      # on a GPU rather {{model: {MINILM}}}",
        ]
    else:
        lines.append(f"      encoder: {{model: {MINILM}}}")
    exact = "searched exactly" if corpus.texts <= EXACT_UP_TO else "an approximate index, tuned to the recall"
    lines += [
        f"      faiss: {{factory: auto, recall: 0.95}}  # for this many texts: {exact}",
        f"    k: {chosen.k}  # neighbours found for each labelled text",
        f"  select: {{minimax: {{keep: {chosen.keep}}}}}  # of them learnt from, chosen anew each epoch",
        "",
    ]
    return lines


def _training(task: TaskSurvey, chosen: Choices, augmented: bool) -> list[str]:
    steps = -(-len(task.task.train) // chosen.batch_size)
    loss = (
        ["  kd: {weight: 0.5, temperature: 2.0}  # follow the teacher", "  ce: {weight: 0.5}  # follow the labels"]
        if task.classes
        else ["  kd: {weight: 0.5}  # follow the teacher", "  ce: {weight: 0.5}  # follow the labels"]
    )
    return [
        "training:",
        *loss,
        f"  epochs: {chosen.epochs}  # of {steps} steps{', each with its candidates' if augmented else ''}",
        f"  batch_size: {chosen.batch_size}",
        f"  max_length: {chosen.max_length}  # tokens; about 99 % of the texts are no longer",
        "",
        "# card: {license: …, data_license: …, language: …}  # for the model card, should you share the student",
    ]


def _path(dataset: str, beside: Path) -> str:
    """A path as the recipe finds it again: relative when it lies below the recipe's folder, else absolute."""
    path = local_path(dataset)
    if path is None:
        return _quoted(dataset)
    whole = path.resolve()
    below = whole.is_relative_to(beside.resolve())
    return _quoted(whole.relative_to(beside.resolve()).as_posix() if below else str(whole))


def _quoted(value: str) -> str:
    """`value` as YAML, plain where it can be: JSON's quoting is YAML's too."""
    plain = value.replace("_", "a").replace("-", "a").replace("/", "a").replace(".", "a").isalnum()
    special = value[:1] in "-." or value.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return value if plain and value[:1].isalpha() and value.isascii() and not special else json.dumps(value)


# ---- the summary ----


def summary(task: TaskSurvey, corpus: CorpusSurvey | None) -> Iterator[str]:
    """The findings as lines to read, doubtful ones marked."""
    found = task.task
    yield f"task      {shown_name(found.name)}: {len(found.train)} train, {len(found.validation)} validation, " + (
        f"{len(found.test)} test"
    )
    yield from (f"          {reason}" for reason in task.columns.reasons)
    if task.span is not None:
        yield f"          regression: labels from {task.span[0]:g} to {task.span[1]:g}; metric {found.metric}"
    else:
        told = [f"{shown_name(name, 20)} {count}" for name, count in task.classes.items()]
        more = f", and {len(told) - 12} more" if told[12:] else ""
        yield f"          {len(told)} classes: {', '.join(told[:12])}{more}; metric {found.metric}"
    lengths = task.lengths
    yield f"          words in a text: {lengths.median_words} in the middle, {lengths.most_words} at most"
    yield from (f"          note: {note}" for note in found.notes)
    yield from (f"          look: {doubt}" for doubt in _doubts(task))
    if corpus:
        yield from _corpus_lines(corpus)


def _doubts(task: TaskSurvey) -> Iterator[str]:
    rows = len(task.task.train)
    if task.repeated:
        labels = f", {task.contradicting} of them with another label" if task.contradicting else ""
        yield f"{task.repeated} of {rows} training texts repeat an earlier one{labels}"
    if task.leaked:
        yield f"{task.leaked} validation and test texts are training texts too: figures on them say too much"
    rare = [shown_name(name, 20) for name, count in task.classes.items() if count < 10]
    if rare:
        yield f"fewer than 10 training texts: {', '.join(rare[:8])}{', …' if rare[8:] else ''}"
    if task.lengths.pieces_99 + 3 > _LONGEST:
        yield f"many texts are longer than the {_LONGEST} tokens the models read; their ends are cut off"


def _corpus_lines(corpus: CorpusSurvey) -> Iterator[str]:
    counts, about = corpus.counts, "" if corpus.whole else "about "
    yield f"corpus    {corpus.dataset}: {about}{corpus.texts:,} texts in column {corpus.column!r}"
    yield f"          words in a text: {corpus.lengths.median_words} in the middle, {corpus.lengths.most_words} at most"
    left = {name: getattr(counts, name) for name in ("empty", "duplicates", "too_long", "malformed")}
    dropped = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in left.items() if count)
    of = f"of {counts.read:,} read" if corpus.whole else f"of the first {counts.read:,}"
    if dropped:
        yield f"          left out {of}: {dropped}"
    if corpus.evaluation:
        yield f"          {corpus.evaluation} are validation or test texts; they will be kept out"
    if corpus.documents:
        yield "          look: its texts are much longer than the task's; the recipe cuts them into sentences"


def next_commands(out: Path) -> list[str]:
    """What to type next."""
    runs = f"runs/{out.stem}"
    return [
        f"augkd check {out}",
        f"augkd run {out} --out {runs}",
        f"augkd augment show {runs}/transfer_set -n 3",
        f"augkd compare {out} --seeds 3 --out {runs}-compare",
    ]


def values(task: TaskSurvey, corpus: CorpusSurvey | None, text: str) -> dict[str, Any]:
    """The findings and the recipe as plain values."""
    found, lengths = task.task, vars(task.lengths)
    told: dict[str, Any] = {
        "task": found.name,
        "columns": {name: getattr(task.columns, name) for name in ("text", "text_pair", "label")},
        "reasons": list(task.columns.reasons),
        "splits": {name: len(getattr(found, name)) for name in ("train", "validation", "test")},
        "classes": task.classes,
        "span": task.span,
        "metric": found.metric,
        "lengths": lengths,
        "notes": [*found.notes, *_doubts(task)],
        "recipe": text,
    }
    if corpus:
        told["corpus"] = {"texts": corpus.texts, "whole": corpus.whole, "column": corpus.column}
        told["corpus"] |= {"lengths": vars(corpus.lengths), "counts": vars(corpus.counts)}
    return told
