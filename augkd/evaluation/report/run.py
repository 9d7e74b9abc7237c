"""The sections of a run's report about the run as a whole: results, learning curves, schedule, cost, recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from augkd.evaluation.report.answers import answers
from augkd.evaluation.report.blocks import Code, Plot, Section, Table, count, decimal, duration, percent, size
from augkd.evaluation.report.data import Record, RunData
from augkd.evaluation.report.figures import Series, StyleSheet, bars, lines
from augkd.evaluation.report.labels import asked, label_curve
from augkd.evaluation.report.selection import attention, errors, explorer, rewritten_texts, selection, sources
from augkd.evaluation.results import Split
from augkd.recipe import TrainingOptions, options, schedules
from augkd.recipe.files import validate
from augkd.workspace.manifests import MANIFEST

_STAGES = ("index", "teacher", "masked_lm", "transfer_set", "assistants", "student")  # in the order they run


def run_sections(run: RunData, sheet: StyleSheet) -> list[Section]:
    """All sections of a run that have anything to show."""
    sections = [
        headline(run),
        label_curve(run, sheet),
        asked(run),
        learning(run, sheet),
        schedule(run, sheet),
        costs(run, sheet),
        errors(run, sheet),
        answers(run, sheet),
        explorer(run),
        selection(run, sheet),
        sources(run),
        attention(run),
        rewritten_texts(run),
        recipe(run),
    ]
    return [section for section in sections if section is not None]


def headline(run: RunData) -> Section:
    """Teacher, student and baseline in one table."""
    results, metric = run.results, run.results["metric"]
    student = results["student"]
    rows = [_model_row("teacher", results["teacher"], run), _model_row("student", student, run)]
    if "ensemble" in student:
        rows.append(_model_row("ensemble of student and assistants", student["ensemble"], run))
    for number, assistant in enumerate(results.get("assistants", []), 1):
        rows.append(_model_row(f"assistant {number}", assistant, run))
    if run.baseline is not None:
        rows.append(_model_row(f"baseline: {run.baseline['recipe']}", run.baseline["student"], run))
    rows += _export_rows(run)
    head = ["", f"validation {metric}", f"test {metric}", "95 % interval (test)", "parameters", "weights"]
    return Section("headline", "Result", _result(run), [Table("Scores and sizes", head, rows), *_latency(run)])


def _result(run: RunData) -> str:
    """The result in a few sentences."""
    results, metric = run.results, run.results["metric"]
    split: Split = "test" if results["student"]["test"] is not None else "validation"
    student, teacher = results["student"][split], results["teacher"][split]
    text = f"The student reaches {decimal(student)} {metric} on the {split} split"
    if results["teacher"]["parameters"]:
        text += f" with {percent(results['student']['parameters'], results['teacher']['parameters'])} of the teacher's "
        text += "parameters"
    if teacher is not None:
        text += f"; the teacher reaches {decimal(teacher)}"
    if run.baseline is not None:
        baseline = run.baseline["student"][split]
        if student is not None and baseline is not None:
            text += (
                f". The difference to {run.baseline['recipe']} with the same seed is {decimal(student - baseline, '+')}"
            )
    notes = "".join(f" Note: {note}." for note in results.get("notes", []))
    return f"{text}. Task {results['task']}, seed {results['seed']}.{notes}"


def _model_row(name: str, results: Mapping[str, Any], run: RunData) -> list[str]:
    interval = results.get("test_interval")
    scores = [decimal(results.get("validation")), decimal(results.get("test"))]
    shown = f"{decimal(interval[0])} to {decimal(interval[1])}" if interval else "–"
    return [name, *scores, shown, count(results.get("parameters")), size(run.sizes.get(name))]


def _export_rows(run: RunData) -> list[list[str]]:
    """The models that `augkd export` wrote, with their validation scores."""
    forms = (("onnx/model.onnx", "float32", "ONNX"), ("onnx/model_quantized.onnx", "int8", "ONNX, INT8"))
    return [
        [
            f"{name}, {form}",
            decimal(export["checks"][check].get("score")),
            "–",
            "–",
            "–",
            size(export["files"][file]["bytes"]),
        ]
        for name, export in run.exports.items()
        for file, check, form in forms
        if file in export["files"] and check in export["checks"]
    ]


def _latency(run: RunData) -> list[Table]:
    """The measurements of `augkd bench-student`, a table for each batch size."""
    if run.bench is None:
        return []
    head = ["", "weights", "median", "95th percentile", "texts per second", "speedup"]
    tables = []
    for batch, rows in run.bench["batch_sizes"].items():
        cells = [
            [
                f"{row['name']}, {row['precision']}",
                size(row["bytes"]),
                f"{row['median_ms']:.2f} ms",
                f"{row['p95_ms']:.2f} ms",
                f"{row['texts_per_second']:,.0f}",
                f"{row['speedup']:.2f}",
            ]
            for row in rows
        ]
        tables.append(Table(f"Latency of a batch of {batch}, on {run.bench['threads']} threads", head, cells))
    return tables


# ---- learning ----


def learning(run: RunData, sheet: StyleSheet) -> Section | None:
    """Training loss, validation score and divergences over the training."""
    if not run.log:
        return None
    log, ends = _continuous(run.log)
    plots = [*_loss(log, sheet, ends), *_validation(run, sheet, ends), *_divergence(log, sheet, ends)]
    intro = "Vertical lines separate the stages of the training." if ends else ""
    return Section("learning", "Learning curves", intro, plots)


def _continuous(log: Sequence[Record]) -> tuple[list[Record], list[int]]:
    """The log with steps counted over all stages, and the last step of each stage but the final one."""
    offset, last, stage = 0, 0, None
    entries, ends = [], []
    for entry in log:
        if stage is not None and entry.get("stage") != stage:
            offset = last
            ends.append(last)
        stage = entry.get("stage")
        step = offset + int(entry.get("step", 0))
        last = max(last, step)
        entries.append(entry | {"step": step})
    return entries, ends


def _loss(log: Sequence[Record], sheet: StyleSheet, ends: Sequence[int]) -> list[Plot]:
    losses = _logged(log, "loss")
    if len(losses) < 2:
        return []
    caption = f"The training loss went from {losses[0][1]:.3g} to {losses[-1][1]:.3g} in {losses[-1][0]:,} steps."
    return [Plot(lines(sheet, caption, [_series("loss", losses)], "step", "loss", log=True, ends=ends), caption)]


def _validation(run: RunData, sheet: StyleSheet, ends: Sequence[int]) -> list[Plot]:
    metric = run.results["metric"]
    logs = {"student": run.log, "teacher during fine-tuning": run.teacher_log}
    scores = {name: _logged(_continuous(log)[0], f"eval_{metric}") for name, log in logs.items()}
    series = [_series(name, values) for name, values in scores.items() if values]
    if not series:
        return []
    caption = f"Validation {metric} after each epoch"
    if scores["student"]:
        caption += f"; the student's best is {max(value for _, value in scores['student']):.4f}"
    plot = lines(sheet, f"{caption}.", series, "step", f"validation {metric}", marks=True, ends=ends)
    return [Plot(plot, f"{caption}.")]


def _divergence(log: Sequence[Record], sheet: StyleSheet, ends: Sequence[int]) -> list[Plot]:
    picked, pool = (_logged(log, f"selection/divergence_{name}") for name in ("picked", "pool"))
    if min(len(picked), len(pool)) < 2:
        return []
    caption = (
        f"Mean divergence between teacher and student went from {picked[0][1]:.3g} to {picked[-1][1]:.3g} on picked "
        f"candidates, and from {pool[0][1]:.3g} to {pool[-1][1]:.3g} on all candidates."
    )
    series = [_series("picked candidates", picked), _series("all candidates", pool)]
    return [Plot(lines(sheet, caption, series, "step", "divergence", log=True, ends=ends), caption)]


def _logged(log: Sequence[Record], key: str) -> list[tuple[int, float]]:
    """(step, value) of the entries that have the key."""
    return [(entry["step"], entry[key]) for entry in log if key in entry]


def _series(name: str, values: Sequence[tuple[float, float]]) -> Series:
    return Series(name, [x for x, _ in values], [y for _, y in values])


# ---- schedule ----


def schedule(run: RunData, sheet: StyleSheet) -> Section | None:
    """How the weights of the losses, and annealing's factor on the teacher, change over the training."""
    training = validate(TrainingOptions, run.recipe.get("training", {}), run.folder / MANIFEST)
    stages, progress = training.training_stages, np.linspace(0, 1, 101)
    total = sum(stage.epochs for stage in stages)
    curves: dict[str, list[tuple[float, float]]] = {}
    before = 0.0
    for stage in stages:
        for name, weight in _weights(stage, run.recipe.get("structure")).items():
            points = [(before + stage.epochs * float(p), weight(float(p))) for p in progress]
            curves.setdefault(name, []).extend(points)
        before += stage.epochs
    changing = {name: points for name, points in curves.items() if len({y for _, y in points}) > 1}
    if not changing and len(stages) == 1:
        return None
    caption = f"Weights of the losses over {total:g} epochs"
    caption += "; φ is annealing's factor on the teacher's logits." if any("φ" in name for name in curves) else "."
    ends = np.cumsum([stage.epochs for stage in stages])[:-1].tolist()
    series = [_series(name, points) for name, points in curves.items()]
    plot = lines(sheet, caption, series, "epoch", "weight", ends=ends)
    return Section("schedule", "Schedule", "", [Plot(plot, caption)])


def _weights(stage: TrainingOptions, structure: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schedule of every loss of a stage: name → function of the progress in [0, 1]."""
    layers = stage.structure.losses if stage.structure else (structure or {})
    losses = {name: chosen for name, chosen in {**stage.losses, **layers}.items() if isinstance(chosen, Mapping)}
    weights: dict[str, Any] = {}
    for name, chosen in losses.items():
        weights[name] = schedules.parse(chosen.get("weight", 1.0), name).at
        if name in stage.losses and (tau := _tau(name, chosen)):
            weights[f"φ of {name}"] = lambda progress, tau=tau: schedules.phi_at(progress, tau)
    return weights


def _tau(name: str, chosen: Mapping[str, Any]) -> int | None:
    """Annealing's τ_max, for a loss that has one."""
    declared = [option for option in options.family("loss")[name].options if option.name == "tau_max"]
    return int(chosen.get("tau_max", declared[0].default)) if declared else None


# ---- cost ----


def costs(run: RunData, sheet: StyleSheet) -> Section:
    """Time by stage, texts by purpose."""
    cost = run.results["cost"]
    stages = sorted(cost["seconds"], key=lambda name: _STAGES.index(name) if name in _STAGES else len(_STAGES))
    seconds = {name.replace("_", " "): cost["seconds"][name] for name in stages if cost["seconds"][name] > 0}
    total = sum(seconds.values())
    blocks: list[Plot | Table] = []
    if seconds:
        longest = max(seconds, key=lambda name: seconds[name])
        caption = f"{duration(total)} in total; the {longest} stage took {percent(seconds[longest], total)} of it."
        blocks.append(Plot(bars(sheet, caption, seconds, "seconds", duration), caption))
    rows = [
        ["labelling by the teacher", count(cost["teacher_rows"])],
        ["generating candidates", count(cost["generator_rows"])],
        ["scoring candidates", count(cost["scoring_rows"])],
        ["training the student", count(cost["training_rows"])],
    ]
    blocks.append(Table("Texts processed, by purpose", ["purpose", "texts"], rows))
    intro = (
        f"Peak memory of the process that trained the student: {size(cost['peak_rss_bytes'])}. "
        "A stage shared by several runs counts here in full."
    )
    return Section("cost", "Cost", intro, blocks)


# ---- recipe ----


def recipe(run: RunData) -> Section:
    """The resolved recipe, the command, versions, fingerprints."""
    text = yaml.safe_dump(_without_none(run.recipe), sort_keys=False, allow_unicode=True, width=100)
    inputs = run.student.made_from
    fingerprints = [["transfer set", inputs.transfer_set], ["task", inputs.task]]
    fingerprints += [[name, inputs.student[name]] for name in ("teacher", "model") if inputs.student.get(name)]
    versions = [[name, version] for name, version in run.manifest.versions.items()]
    return Section(
        "recipe",
        "Recipe and reproduction",
        f"To reproduce the run, save the recipe as recipe.yaml and run the command. The seed is {run.results['seed']}. "
        "The same versions on the same machine give the same student.",
        [
            Code("Command", "augkd run recipe.yaml --out runs/again"),
            Code("recipe.yaml", text),
            Table("Versions", ["library", "version"], versions),
            Table("Fingerprints (SHA-256) of the student's inputs", ["input", "fingerprint"], fingerprints),
        ],
    )


def _without_none(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _without_none(value) for name, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree] if isinstance(tree, list) else tree
