"""The cards of a finished run: README.md of the student and of its transfer set, written from manifests and results.

A card is read on the Hub, so it names no local path; it is meant for reproduction, so it holds the recipe without its
defaults. It holds no times: the same student has the same card. A licence or language that the recipe does not give is
left out of the metadata, and the text says that it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from augkd.data.markdown import fenced, markdown_code, markdown_text, one_line
from augkd.data.target import Target
from augkd.data.transfer_card import licence_line, sources_of, transfer_card
from augkd.data.transfer_set import TransferSet
from augkd.evaluation.calibration import read_calibrations
from augkd.evaluation.figures_read import read_figures
from augkd.evaluation.results import RunResults
from augkd.recipe import Recipe
from augkd.recipe.files import validate
from augkd.runs.card_metadata import is_own_model, metadata, target_of
from augkd.workspace.files import read_json, write_text
from augkd.workspace.manifest_kinds import RunManifest, StudentManifest, TransferSetManifest
from augkd.workspace.manifests import MANIFEST, read_manifest
from augkd.workspace.storage import BUCKETS

_COUNTS = ("originals", "candidates", "short")  # in a transfer set's manifest; the card counts rows itself


def write_cards(out: Path, transfer: Path | None = None) -> list[Path]:
    """Writes README.md of `out/student` and of the transfer set (by default `out/transfer_set`); returns both paths.

    Raises WorkspaceError when the run is unfinished.
    """
    folder = transfer or out / "transfer_set"
    recipe = read_manifest(out, RunManifest).recipe
    transfer_set = TransferSet.open(folder)
    counts = read_manifest(folder, TransferSetManifest).data.on_disk()
    title = read_figures(out / "results.json", RunResults)["task"]
    lines = [f"{name.replace('_', ' ')}: {count}" for name, count in counts.items() if name not in _COUNTS]
    card = transfer_card(transfer_set.table, transfer_set.target, title, lines, recipe.get("card"))
    cards = {out / "student" / "README.md": student_card(out, transfer_set), folder / "README.md": card}
    for path, text in cards.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # leaves an unchanged card untouched
            write_text(path, text)
    return list(cards)


def student_card(out: Path, transfer: TransferSet) -> str:
    """The text of the student's card, from a finished run and the transfer set that the student was trained on.

    Raises WorkspaceError for an unfinished run, RecipeError for a recipe that this augkd does not understand.
    """
    run = read_manifest(out, RunManifest)
    results = read_figures(out / "results.json", RunResults)
    student = read_manifest(out / "student", StudentManifest)
    config = read_json(out / "student" / "config.json")
    recipe = validate(Recipe, run.recipe, out / MANIFEST)
    name = one_line(f"{results['task']}-{results['recipe']}")
    pairs = transfer.table["text_pair"].null_count < len(transfer)
    sections = [
        metadata(name, recipe, results, config),
        f"# {markdown_text(name)}",
        "",
        *_summary(recipe, results, config, pairs),
        *_usage(config, recipe, pairs),
        *_scores(results),
        *_answers(out),
        *_training_data(results, sources_of(transfer.table)),
        *_limitations(config, recipe, results),
        *_reproduction(recipe, results, student),
    ]
    return "\n".join(sections) + "\n"


# ---- what it is ----


def _summary(recipe: Recipe, results: RunResults, config: Mapping[str, Any], pairs: bool) -> list[str]:
    target = target_of(config)
    texts, names = "pairs of texts" if pairs else "texts", ", ".join(map(markdown_text, target.labels))
    purpose = {
        "softmax": f"assigns {texts} to {len(target.labels)} classes ({names})",
        "sigmoid": f"gives {texts} any number of {len(target.labels)} labels ({names})",
        "identity": f"rates {texts}",
    }[target.activation]
    return [
        f"A model with {results['student']['parameters']:,} parameters that {purpose}.",
        "It was trained with augkd by knowledge distillation, to reproduce the predictions of a larger teacher.",
        f"The teacher is {_teacher(recipe)}.",
        f"The student is {_student(recipe)}.",
        "",
    ]


def _teacher(recipe: Recipe) -> str:
    teacher = recipe.teacher
    if teacher.logits is not None:
        return "a model known only by its outputs for each text"
    if teacher.ensemble is not None:
        return f"the mean of {len(teacher.ensemble)} models"
    if teacher.endpoint is not None:
        return f"the language model {markdown_code(teacher.model)}, asked for the class of each text"
    if teacher.answers is not None:
        return "people, or a model, known by their answers about each text"
    epochs = f"{teacher.epochs:g} epoch{'' if teacher.epochs == 1 else 's'}"
    fine_tuned = f", fine-tuned on the task for {epochs}" if teacher.epochs else ", without further fine-tuning"
    return f"{markdown_code(portable(str(teacher.model)))}{fine_tuned}"


def _student(recipe: Recipe) -> str:
    return _architecture(recipe) + (f", taught through {_assistants(recipe)}" if recipe.assistants else "")


def _assistants(recipe: Recipe) -> str:
    count = len(recipe.assistants)
    return f"{count} teacher assistant{'' if count == 1 else 's'}"


def _architecture(recipe: Recipe) -> str:
    student = recipe.student
    if student.layers is not None:
        if isinstance(student.layers, list):
            return f"initialised from the teacher's layers {', '.join(map(str, student.layers))}, counted from 0"
        ((rule, count),) = student.layers.items()
        return f"initialised from {count} of the teacher's layers (rule `{rule}`)"
    descriptions = {
        "scratch": "a smaller transformer, trained from random weights",
        "bilstm": "a bidirectional LSTM",
        "static": "the mean of static token vectors and a linear layer",
    }
    return descriptions.get(
        student.kind, f"{markdown_code(portable(str(student.model)))} with a new classification head"
    )


# ---- how to use it, and how good it is ----


def _usage(config: Mapping[str, Any], recipe: Recipe, pairs: bool) -> list[str]:
    lines = ["## Usage", "", "```python", "from transformers import pipeline"]
    if is_own_model(config):
        lines += ["", "# pip install augkd: transformers alone does not know this architecture"]
        lines += ["import augkd", "", "augkd.register_models()"]
    argument = '{"text": "the first text", "text_pair": "the second"}' if pairs else '"a text"'
    target = target_of(config)
    every = ", top_k=None" if target.activation == "sigmoid" else ""
    model = 'pipeline("text-classification", model="this folder or repository")'
    lines += ["", f"classify = {model}", f"print(classify({argument}, truncation=True{every}))", "```", ""]
    lines.append(f"The maximum length is {recipe.training.max_length} tokens, as in training.")
    return [*lines, *_thresholds(target), ""]


def _thresholds(target: Target) -> list[str]:
    """Above which probability a text has each of several labels."""
    if not target.thresholds:
        return []
    limits = ", ".join(f"{name} {limit:.3f}" for name, limit in zip(target.labels, target.thresholds, strict=True))
    return [
        "",
        "A text has a label when its score is above the label's threshold, chosen on the validation split for the",
        f"metric and kept in `config.json` under `thresholds`: {limits}.",
    ]


def _scores(results: RunResults) -> list[str]:
    metric, rows = markdown_text(results["metric"]), [("teacher", _row(results["teacher"]))]
    rows += [(f"assistant {n}", _row(scores)) for n, scores in enumerate(results.get("assistants", []), 1)]
    rows.append(("this student", _row(results["student"])))
    return [
        "## Results",
        "",
        f"| | validation {metric} | test {metric} | 95 % interval | parameters |",
        "|---|---|---|---|---|",
        *(f"| {name} | {row} |" for name, row in rows),
        "",
        f"One training run (seed {results['seed']}) on the task {markdown_code(results['task'])}.",
        "The interval is a bootstrap over the test examples; it does not include variation between seeds.",
        "The best epoch was selected on the validation split; the test split was evaluated once.",
        "",
    ]


def _answers(out: Path) -> list[str]:
    """When the student may answer for its teacher, where that was calibrated."""
    calibrated = read_calibrations(out / "student").get("pytorch")
    if calibrated is None:
        return []
    wanted = f"agree with the {calibrated.against} on at least {calibrated.agreement:.1%} of the texts it answers"
    if calibrated.threshold is None:
        return ["## When it may answer", "", f"No threshold on its confidence makes it {wanted}.", ""]
    return [
        "## When it may answer",
        "",
        f"With a confidence of {calibrated.confidence:.0%}, the student will {wanted},",
        f"when it answers only those whose probability is at least {calibrated.threshold:.4f} after division of the",
        f"logits by {calibrated.temperature:.4f}. On {calibrated.tested:,} texts of {calibrated.source}, these were "
        f"{calibrated.coverage:.1%}, with an agreement of {calibrated.agreed / calibrated.answered:.2%}.",
        "The promise is for texts like those; `augkd.Cascade` applies it and gives None for the others.",
        "",
    ]


def _row(scores: Mapping[str, Any]) -> str:
    low_high = scores.get("test_interval")
    interval = " to ".join(f"{end:.4f}" for end in low_high) if low_high else "–"
    parameters = f"{scores['parameters']:,}" if scores["parameters"] else "–"
    return f"{_decimal(scores['validation'])} | {_decimal(scores['test'])} | {interval} | {parameters}"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


# ---- what it was made from ----


def _training_data(results: RunResults, sources: Mapping[str, int]) -> list[str]:
    data = results["data"]
    of_task = data.get("labelled_texts_of_the_task")  # where the student saw only some of them
    lines = [f"- labelled texts: {data['originals']}" + (f" of the task's {of_task}" if of_task else "")]
    lines += [f"- candidates from {markdown_code(name)}: {count}" for name, count in sources.items()]
    if sources:
        kept = f"{data['kept_per_original']:g} per labelled text, selected by {markdown_code(data['selector'])}"
        lines.append(f"- distinct candidates: {data['candidates_unique']}; a training step uses {kept}")
        lines.append(f"- excluded, equal to a validation or test text: {data['excluded_evaluation_texts']}")
        near = data.get("excluded_near_copies")
        lines += [] if near is None else [f"- excluded, near copies of one: {near}"]
    return ["## Training data", "", *lines, ""]


def _limitations(config: Mapping[str, Any], recipe: Recipe, results: RunResults) -> list[str]:
    target = target_of(config)
    output = {"softmax": "one of its classes", "sigmoid": "scores of its labels", "identity": "a number"}
    return [
        "## Limitations",
        "",
        f"- It was trained for the task {markdown_code(results['task'])} only, and returns {output[target.activation]} "
        "even for an unrelated text.",
        "- It was trained on the teacher's predictions, so it has the teacher's errors and biases besides its own.",
        *([] if target.regression else ["- Its probabilities are not calibrated."]),
        f"- {licence_line(recipe.card.license, 'the teacher, the labelled texts and the corpus')}",
        "",
    ]


def _reproduction(recipe: Recipe, results: RunResults, student: StudentManifest) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    text = yaml.safe_dump(as_written(recipe), sort_keys=False, allow_unicode=True).rstrip()
    task, transfer_set = (
        markdown_text(value[:16]) for value in (student.made_from.task, student.made_from.transfer_set)
    )
    return [
        "## Reproduction",
        "",
        *fenced(f"# recipe.yaml; then: augkd run recipe.yaml --out runs/{one_line(results['recipe'])}\n{text}", "yaml"),
        "",
        f"Versions: {markdown_text(versions)}.",
        f"SHA-256 of the task's content: {task}…; of the transfer set: {transfer_set}….",
    ]


def as_written(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a person would write it: without defaults, and without the paths of this machine."""
    tree: dict[str, Any] = portable(recipe.model_dump(mode="json", exclude_defaults=True))
    tree.get("training", {}).pop("report_to", None)
    for teacher in (tree["teacher"], *tree["teacher"].get("ensemble", ())):
        if "endpoint" in teacher:
            teacher["endpoint"]["url"] = "https://your-server/v1"  # a server's address is nobody else's business
    return tree


def portable(value: Any) -> Any:
    """`value` with each absolute path in it reduced to its last name, since a card is read on other machines.

    So is a URL of a bucket, whose name is nobody else's business; one on the Hub stays.
    """
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("/", "~", *BUCKETS)):
        return Path(value).name
    return value
