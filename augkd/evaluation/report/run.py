"""The sections of a run's report that say what came out, how it got there, what it cost and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from augkd.evaluation.report.blocks import Code, Plot, Section, Table, count, duration, figure, share, size
from augkd.evaluation.report.data import Facts, RunData
from augkd.evaluation.report.figures import Series, Sheet, bars, lines
from augkd.evaluation.report.selection import attention, errors, explorer, made_texts, selection, sources
from augkd.recipe import TrainingOptions, options, schedules


def run_sections(run: RunData, sheet: Sheet) -> list[Section]:
    """All sections of a run, those without anything to show left out."""
    found = [
        headline(run),
        learning(run, sheet),
        schedule(run, sheet),
        costs(run, sheet),
        errors(run, sheet),
        explorer(run),
        selection(run, sheet),
        sources(run),
        attention(run),
        made_texts(run),
        recipe(run),
    ]
    return [section for section in found if section is not None]


def headline(run: RunData) -> Section:
    """Teacher, student and baseline in one table."""
    results, metric = run.results, run.results["metric"]
    student, teacher = results["student"], results["teacher"]
    rows = [_model_row("teacher", teacher, run), _model_row("student", student, run)]
    if "ensemble" in student:
        rows.append(_model_row("student and assistants together", student["ensemble"], run))
    for number, assistant in enumerate(results.get("assistants", []), 1):
        rows.append(_model_row(f"assistant {number}", assistant, run))
    if run.baseline is not None:
        rows.append(_model_row(f"baseline: {run.baseline['recipe']}", run.baseline["student"], run))
    rows += _exported(run)
    head = ["", f"validation {metric}", f"test {metric}", "95 % interval", "parameters", "weights"]
    table = Table("Teacher, student and what they are measured by", head, rows)
    return Section("headline", "Result", _said(run), [table, *_latency(run)])


def _said(run: RunData) -> str:
    results = run.results
    split = "test" if results["student"]["test"] is not None else "validation"
    ours, theirs = results["student"][split], results["teacher"][split]
    said = f"The student reaches {figure(ours)} {results['metric']} on the {split} split"
    if theirs is not None:
        said += f"; the teacher {figure(theirs)}"
    if results["teacher"]["parameters"]:
        portion = share(results["student"]["parameters"], results["teacher"]["parameters"])
        said += f", of whose parameters it has {portion}"
    if run.baseline is not None and None not in (ours, run.baseline["student"][split]):
        difference = figure(ours - run.baseline["student"][split], "+")
        said += f". Against {run.baseline['recipe']} with the same seed: {difference}"
    return f"{said}. Seed {results['seed']}, task {results['task']}."


def _model_row(name: str, facts: Mapping[str, Any], run: RunData) -> list[str]:
    interval = facts.get("test_interval")
    shown = f"{figure(interval[0])} to {figure(interval[1])}" if interval else "–"
    figures = [figure(facts.get("validation")), figure(facts.get("test")), shown]
    return [name, *figures, count(facts.get("parameters")), size(run.sizes.get(name))]


def _exported(run: RunData) -> list[list[str]]:
    """The forms that `augkd export` wrote, with what they score on validation."""
    forms = (("onnx/model.onnx", "float32", "ONNX"), ("onnx/model_quantized.onnx", "int8", "ONNX, INT8"))
    return [
        [
            f"{name}, {form}",
            figure(facts["checks"][check].get("score")),
            "–",
            "–",
            "–",
            size(facts["files"][file]["bytes"]),
        ]
        for name, facts in run.exports.items()
        for file, check, form in forms
        if file in facts["files"]
    ]


def _latency(run: RunData) -> list[Table]:
    """What `augkd bench-student` measured, a table for each batch size."""
    if run.bench is None:
        return []
    head = ["", "weights", "median", "95th percentile", "texts a second", "times the first"]
    tables = []
    for batch, rows in run.bench["batch_sizes"].items():
        shown = [
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
        tables.append(Table(f"Time of a batch of {batch}, on {run.bench['threads']} threads", head, shown))
    return tables


# ---- learning ----


def learning(run: RunData, sheet: Sheet) -> Section | None:
    """Loss, validation figure and divergences over the training."""
    if not run.log:
        return None
    log, ends = _running(run.log)
    plots = []
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    if len(losses) > 1:
        said = f"The training loss went from {losses[0][1]:.3g} to {losses[-1][1]:.3g} in {losses[-1][0]:,} steps."
        plots.append(Plot(lines(sheet, said, [_series("loss", losses)], "step", "loss", log=True, ends=ends), said))
    plots += _validation(run, sheet, ends)
    kinds = [("picked", "selection/divergence_picked"), ("whole pool", "selection/divergence_pool")]
    found = [(name, [(e["step"], e[key]) for e in log if key in e]) for name, key in kinds]
    if all(len(values) > 1 for _, values in found):
        said = (
            f"Mean divergence of teacher and student on picked candidates went from {found[0][1][0][1]:.3g} to "
            f"{found[0][1][-1][1]:.3g}, on the whole pool from {found[1][1][0][1]:.3g} to {found[1][1][-1][1]:.3g}."
        )
        series = [_series(name, values) for name, values in found]
        plots.append(Plot(lines(sheet, said, series, "step", "divergence", log=True, ends=ends), said))
    lead = "" if not ends else "The upright lines part the stages of the training."
    return Section("learning", "Learning curves", lead, plots)


def _running(log: Sequence[Facts]) -> tuple[list[Facts], list[int]]:
    """The log with steps counted over all stages, and the steps at which stages ended but for the last."""
    before, stage, ends, found = 0, None, [], []
    last = 0
    for entry in log:
        if stage is not None and entry.get("stage") != stage:
            before = last
            ends.append(last)
        stage = entry.get("stage")
        last = max(last, before + int(entry.get("step", 0)))
        found.append(entry | {"step": before + int(entry.get("step", 0))})
    return found, ends


def _validation(run: RunData, sheet: Sheet, ends: Sequence[int]) -> list[Plot]:
    metric = run.results["metric"]
    key = f"eval_{metric}"
    series = []
    for name, log in (("student", run.log), ("teacher, while fine-tuned", run.teacher_log)):
        values = [(entry["step"], entry[key]) for entry in _running(log)[0] if key in entry]
        if values:
            series.append(_series(name, values))
    if not series or not len(series[0].x):
        return []
    best = max(float(np.max(one.y)) for one in series if one.name == "student") if series[0].name == "student" else None
    said = f"Validation {metric} after each epoch" + (f"; the student's best is {best:.4f}." if best else ".")
    return [Plot(lines(sheet, said, series, "step", f"validation {metric}", marks=True, ends=ends), said)]


def _series(name: str, values: Sequence[tuple[float, float]]) -> Series:
    return Series(name, [x for x, _ in values], [y for _, y in values])


# ---- schedule ----


def schedule(run: RunData, sheet: Sheet) -> Section | None:
    """How the weights of the losses, and annealing's factor on the teacher, change over the training."""
    phases, progress = TrainingOptions.model_validate(run.recipe["training"]).training_stages, np.linspace(0, 1, 101)
    total = sum(phase.epochs for phase in phases)
    courses: dict[str, list[tuple[float, float]]] = {}
    before = 0.0
    for phase in phases:
        for name, course in _courses(phase, run.recipe.get("structure")).items():
            points = [((before + phase.epochs * float(p)), course(float(p))) for p in progress]
            courses.setdefault(name, []).extend(points)
        before += phase.epochs
    changing = {name: points for name, points in courses.items() if len({y for _, y in points}) > 1}
    if not changing and len(phases) == 1:
        return None
    said = f"Weights of the losses over {total:g} epochs"
    said += "; φ is annealing's factor on the teacher's logits." if any("φ" in name for name in courses) else "."
    ends = np.cumsum([phase.epochs for phase in phases])[:-1].tolist()
    drawn = [_series(name, points) for name, points in courses.items()]
    return Section("schedule", "Schedule", "", [Plot(lines(sheet, said, drawn, "epoch", "weight", ends=ends), said)])


def _courses(phase: TrainingOptions, structure: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name → value at a progress, for every loss of a stage."""
    layers = phase.structure.losses if phase.structure else (structure or {})
    weights = {name: given for name, given in {**phase.losses, **layers}.items() if isinstance(given, Mapping)}
    found: dict[str, Any] = {}
    for name, given in weights.items():
        found[name] = schedules.parse(given.get("weight", 1.0), name).at
        if name in phase.losses and (tau := _tau(name, given)):
            found[f"φ of {name}"] = lambda progress, tau=tau: schedules.phi_at(progress, tau)
    return found


def _tau(name: str, given: Mapping[str, Any]) -> int | None:
    """Annealing's τ of a loss that has one."""
    found = [option for option in options.family("loss")[name].options if option.name == "tau_max"]
    return int(given.get("tau_max", found[0].default)) if found else None


# ---- cost ----


def costs(run: RunData, sheet: Sheet) -> Section:
    """Seconds by stage, rows by purpose."""
    cost = run.results["cost"]
    seconds = {name.replace("_", " "): value for name, value in cost["seconds"].items() if value > 0}
    total = sum(seconds.values())
    blocks: list[Plot | Table] = []
    if seconds:
        longest = max(seconds, key=lambda name: seconds[name])
        said = f"{duration(total)} in all; the longest stage is the {longest}, {share(seconds[longest], total)}."
        blocks.append(Plot(bars(sheet, said, seconds, "seconds", duration), said))
    rows = [[name.removesuffix("_rows"), count(value)] for name, value in cost.items() if name.endswith("_rows")]
    blocks.append(Table("Texts forwarded through a model, by purpose", ["purpose", "texts"], rows))
    lead = (
        "A stage that several runs share was paid for once; it is counted here in full. "
        f"Training the student took {size(cost['peak_rss_bytes'])} of memory at most."
    )
    return Section("cost", "Where the time went", lead, blocks)


# ---- the recipe ----


def recipe(run: RunData) -> Section:
    """The resolved recipe, the command, versions, fingerprints."""
    text = yaml.safe_dump(_without_none(run.recipe), sort_keys=False, allow_unicode=True, width=100)
    made = run.student["made_from"]
    prints = [["transfer set", made["transfer_set"]], ["task", made["task"]]]
    prints += [[name, made["student"][name]] for name in ("teacher", "model") if made["student"].get(name)]
    versions = [[name, version] for name, version in run.manifest["versions"].items()]
    return Section(
        "recipe",
        "Recipe, and how to reproduce it",
        f"Save the recipe as recipe.yaml and run the command. The seed is {run.results['seed']}; the same versions on "
        "the same machine give the same student.",
        [
            Code("Command", "augkd run recipe.yaml --out runs/again"),
            Code("recipe.yaml", text),
            Table("Versions", ["library", "version"], versions),
            Table("Fingerprints (sha256) of what the student was made from", ["input", "fingerprint"], prints),
        ],
    )


def _without_none(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _without_none(value) for name, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree] if isinstance(tree, list) else tree
