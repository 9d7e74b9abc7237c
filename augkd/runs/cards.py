"""The cards of a finished run: README.md of the student and of its transfer set, made from manifests and results alone.

A card is written for a reader on the Hub, so it names no local path, and for reproduction, so it holds the recipe
without its defaults. It holds no times: the same student has the same card. What nobody said (a licence, a language) is
left out of the head and said to be unknown in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from augkd.data.transfer_card import TAGS, licence_line, sources_of, transfer_card
from augkd.data.transfer_set import TransferSet
from augkd.recipe import Recipe
from augkd.recipe.files import validated
from augkd.workspace.files import read_json, write_text
from augkd.workspace.manifests import MANIFEST, read_manifest

# Our names of metrics as the Hub has them.
_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
_OWN_KINDS = {"augkd_bilstm", "augkd_static"}  # of config.json: transformers knows them once augkd is imported
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def write_cards(out: Path, transfer: Path | None = None) -> list[Path]:
    """Writes README.md of `out/student` and of the transfer set (`out/transfer_set` unless given); returns both paths.

    Raises WorkspaceError when the run is unfinished.
    """
    folder = transfer or out / "transfer_set"
    recipe = read_manifest(out, "run")["recipe"]
    opened = TransferSet.open(folder)
    facts = read_manifest(folder, "transfer_set").get("data", {})
    title = str(read_json(out / "results.json")["task"])
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items() if name not in _COUNTED]
    card = transfer_card(opened.table, opened.labels, title, lines, recipe.get("card"))
    written = {out / "student" / "README.md": student_card(out, opened), folder / "README.md": card}
    for path, text in written.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # a finished run is left as it is
            write_text(path, text)
    return list(written)


_COUNTED = ("originals", "candidates", "short")  # the card counts the rows themselves


def student_card(out: Path, transfer: TransferSet) -> str:
    """The text of the student's card, from a finished run's manifests and results, and what it was trained on.

    Raises WorkspaceError for an unfinished run, RecipeError for a recipe that this augkd does not understand.
    """
    results, run = read_json(out / "results.json"), read_manifest(out, "run")
    student = read_manifest(out / "student", "student")
    config = read_json(out / "student" / "config.json")
    recipe = validated(Recipe, run["recipe"], out / MANIFEST)
    name = f"{results['task']}-{results['recipe']}"
    pairs = transfer.table["text_pair"].null_count < len(transfer)
    sections = [
        metadata(name, recipe, results, config),
        f"# {name}",
        "",
        *_summary(recipe, results, config, pairs),
        *_use(config, recipe, pairs),
        *_figures(results),
        *_data(results, sources_of(transfer.table)),
        *_limits(config, recipe, results),
        *_reproduce(recipe, results, student),
    ]
    return "\n".join(sections) + "\n"


# ---- the head ----


def metadata(name: str, recipe: Recipe, results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The YAML head that the Hub reads, with its dashes."""
    from huggingface_hub import ModelCardData  # 0.5 s to import

    datasets = [hub for dataset in _datasets(recipe) if (hub := hub_name(dataset))]
    own = config["model_type"] in _OWN_KINDS
    data = ModelCardData(
        language=recipe.card.language,
        license=recipe.card.license,
        library_name="augkd" if own else "transformers",
        pipeline_tag="text-classification",
        base_model=None if own else _base_model(recipe),
        datasets=datasets or None,
        tags=[*TAGS, *(["regression"] if not _labels(config) else [])],
        metrics=[_METRICS.get(results["metric"], results["metric"])],
        model_name=name,
        eval_results=_evaluation(recipe, results) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _evaluation(recipe: Recipe, results: Mapping[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult

    value = results["student"]["test"]
    if value is None:
        return []
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=hub_name(recipe.task.dataset) or results["task"],
            dataset_name=results["task"],
            dataset_config=recipe.task.config,
            dataset_split=(recipe.task.splits or {}).get("test", "test"),
            metric_type=_METRICS.get(results["metric"], results["metric"]),
            metric_value=round(value, 4),
            metric_name=results["metric"],
        )
    ]


def hub_name(name: str | None) -> str | None:
    """`name` when it can be the Hub's, owner/name; None for a path or what comes with augkd."""
    if name is None or "/" not in name or not _HUB_NAME.fullmatch(name):
        return None
    return name


def _base_model(recipe: Recipe) -> str | None:
    return hub_name(recipe.student.model or recipe.teacher.model)


def _datasets(recipe: Recipe) -> Iterator[str]:
    yield recipe.task.dataset
    neighbours = recipe.data.neighbours
    if neighbours and not isinstance(neighbours.index, str):
        yield neighbours.index.corpus.dataset


# ---- the text ----


def _summary(recipe: Recipe, results: Mapping[str, Any], config: Mapping[str, Any], pairs: bool) -> list[str]:
    labels = _labels(config)
    texts = "pairs of texts" if pairs else "texts"
    what = f"sorts {texts} into {len(labels)} classes ({', '.join(labels)})" if labels else f"scores {texts}"
    return [
        f"A model of {results['student']['parameters']:,} parameters that {what}.",
        f"It was trained with augkd to imitate a larger teacher (knowledge distillation): {_teacher(recipe)}.",
        f"The student is {_student(recipe)}.",
        "",
    ]


def _teacher(recipe: Recipe) -> str:
    teacher = recipe.teacher
    if teacher.logits is not None:
        return "numbers given for each text"
    if teacher.ensemble is not None:
        return f"the mean of {len(teacher.ensemble)} models"
    epochs = f"{teacher.epochs:g} epoch{'' if teacher.epochs == 1 else 's'}"
    tuned = f", fine-tuned on the task for {epochs}" if teacher.epochs else ", as it was"
    return f"`{portable(str(teacher.model))}`{tuned}"


def _student(recipe: Recipe) -> str:
    kind, student = recipe.student.kind, recipe.student
    through = f", with {len(recipe.assistants)} assistants between them" if recipe.assistants else ""
    if kind == "layers":
        which = student.layers if isinstance(student.layers, list) else [f"{k} {v}" for k, v in student.layers.items()]  # type: ignore[union-attr]
        return f"made of the teacher's layers {', '.join(map(str, which))}, counted from 0{through}"
    names = {"scratch": "a smaller transformer trained from random weights", "bilstm": "a bidirectional LSTM"}
    names["static"] = "the mean of token vectors and one linear layer"
    return names.get(kind, f"`{portable(str(student.model))}` with a new head") + through


def _use(config: Mapping[str, Any], recipe: Recipe, pairs: bool) -> list[str]:
    lines = ["## How to use it", "", "```python", "from transformers import pipeline"]
    if config["model_type"] in _OWN_KINDS:
        lines += ["", "# pip install augkd: transformers has no model of this kind"]
        lines += ["import augkd.models.small_students.registered"]
    given = '{"text": "the first text", "text_pair": "the second"}' if pairs else '"a text"'
    raw = "" if _labels(config) else ', function_to_apply="none"'
    model = 'pipeline("text-classification", model="this folder or repository")'
    lines += ["", f"classify = {model}", f"print(classify({given}{raw}))", "```", ""]
    return [*lines, f"Texts are cut at {recipe.training.max_length} tokens, as in training.", ""]


def _figures(results: Mapping[str, Any]) -> list[str]:
    metric, rows = results["metric"], [("teacher", results["teacher"])]
    rows += [(f"assistant {n}", figures) for n, figures in enumerate(results.get("assistants", []), 1)]
    rows.append(("this student", results["student"]))
    table = [
        f"| {name} | {_shown(row['validation'])} | {_shown(row['test'])} | {_interval(row)} | {_count(row)} |"
        for name, row in rows
    ]
    return [
        "## Results",
        "",
        f"| | validation {metric} | test {metric} | 95 % interval | parameters |",
        "|---|---|---|---|---|",
        *table,
        "",
        f"One training run (seed {results['seed']}) on the task `{results['task']}`.",
        "The interval is a bootstrap over the test examples; it holds no variation between seeds.",
        "The best epoch was chosen on validation; the test split was looked at once.",
        "",
    ]


def _data(results: Mapping[str, Any], sources: Mapping[str, int]) -> list[str]:
    data = results["data"]
    lines = [f"- labelled texts: {data['originals']}"]
    lines += [f"- candidates from `{name}`: {count}" for name, count in sources.items()]
    if sources:
        kept = f"{data['kept_per_original']:g} per labelled text, by `{data['selector']}`"
        lines.append(f"- distinct candidates: {data['candidates_unique']}; a step uses {kept}")
        lines.append(f"- kept out, equal to a validation or test text: {data['excluded_evaluation_texts']}")
        near = data.get("excluded_near_copies")
        lines += [] if near is None else [f"- kept out, near copies of one: {near}"]
    return ["## Training data", "", *lines, ""]


def _limits(config: Mapping[str, Any], recipe: Recipe, results: Mapping[str, Any]) -> list[str]:
    about = "its classes" if _labels(config) else "its range of numbers"
    return [
        "## Limits",
        "",
        f"- It knows the task `{results['task']}` and {about} only, and answers for any text, however foreign.",
        "- It learnt from the teacher's guesses too, and has the teacher's mistakes and biases beside its own.",
        "- Its probabilities were not calibrated.",
        f"- {_licence(recipe)}",
        "",
    ]


def _licence(recipe: Recipe) -> str:
    return licence_line(recipe.card.license, "the teacher, the labelled texts and the corpus")


def _reproduce(recipe: Recipe, results: Mapping[str, Any], student: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    made = student["made_from"]
    return [
        "## How to make it again",
        "",
        "```yaml",
        f"# recipe.yaml; then: augkd run recipe.yaml --out runs/{results['recipe']}",
        yaml.safe_dump(told(recipe), sort_keys=False, allow_unicode=True).rstrip(),
        "```",
        "",
        f"Versions: {versions}.",
        f"SHA-256 of the task's content {made['task'][:16]}…, of the transfer set's {made['transfer_set'][:16]}….",
    ]


def told(recipe: Recipe) -> dict[str, Any]:
    """The recipe as one would write it: without defaults, and without the folders of this machine."""
    tree: dict[str, Any] = portable(recipe.model_dump(mode="json", exclude_defaults=True))
    tree.get("training", {}).pop("report_to", None)
    return tree


def portable(value: Any) -> Any:
    """`value` with each absolute path, however deep, cut to its last name: a card is read on other machines."""
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    return value


def _labels(config: Mapping[str, Any]) -> list[str]:
    """Class names; none for regression, which has one output."""
    names = [str(name) for name in config["id2label"].values()] if "id2label" in config else []
    return names if len(names) > 1 else []


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(row: Mapping[str, Any]) -> str:
    return "–" if not row.get("test_interval") else " to ".join(f"{end:.4f}" for end in row["test_interval"])


def _count(row: Mapping[str, Any]) -> str:
    return f"{row['parameters']:,}" if row["parameters"] else "–"
