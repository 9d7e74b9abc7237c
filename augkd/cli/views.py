"""Results as lines of text: what a command prints unless it is asked for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augkd.evaluation.calibration import Calibration
    from augkd.evaluation.compare.schema import AverageSummary, ComparisonSummary
    from augkd.evaluation.results import RunResults
    from augkd.retrieval.dense.takedown import Takedown
    from augkd.ship.export import Export

_INDEX = ("count", "dim", "factory", "nprobe", "efSearch", "recall@10", "bytes_per_vector", "encoder", "corpus")


def run_lines(results: RunResults, out: Path) -> list[str]:
    """Teacher and student of a run side by side."""
    rows: tuple[tuple[str, Any], ...] = (("teacher", results["teacher"]), ("student", results["student"]))
    return [
        f"{'':10}{'validation':>12}{'test':>12}{'parameters':>14}",
        *(
            f"{name:10}{_score(row['validation']):>12}{_score(row['test']):>12}{row['parameters'] or 0:>14,}"
            for name, row in rows
        ),
        f"({results['metric']} on {results['task']}) student: {out / 'student'}  results: {out / 'results.json'}",
    ]


def calibration_lines(value: Calibration) -> Iterator[str]:
    """The promise, and how many texts of each class the student answers."""
    wanted = f"agrees with the {value.against} on at least {value.agreement:.1%} (confidence {value.confidence:.0%})"
    if value.threshold is None:
        yield f"no threshold passed: at none, the student {wanted}; {value.tested} texts of {value.source} tested"
        return
    yield f"the student answers where its confidence is at least {value.threshold:.4f}, and there it {wanted}"
    yield (
        f"that is {value.coverage:.1%} of {value.tested} texts of {value.source}; {value.agreed} of {value.answered} "
        f"agree ({value.agreed / value.answered:.2%}, lower bound {value.lower_bound:.2%}); "
        f"temperature {value.temperature:.3f}"
    )
    width = max(map(len, value.classes))
    for name, own in value.classes.items():
        share = f"{own.answered / own.texts:.1%}" if own.texts else "–"
        agreed = f"{own.agreed / own.answered:.1%}" if own.answered else "–"
        yield f"  {name:{width}}  {own.texts} texts, answered {share}, of those agreed {agreed}"


def comparison_lines(summaries: Sequence[ComparisonSummary], average: AverageSummary | None) -> Iterator[str]:
    """The table of each task, then the averages over them."""
    from augkd.evaluation.compare.table import average_table, comparison_table

    for summary in summaries:
        left_out = f" (needs classes, left out: {', '.join(summary['left_out'])})" if summary["left_out"] else ""
        yield from (f"{summary['task']}{left_out}", "", *comparison_table(summary).split("\n"), "")
    if average is not None:
        yield from ("all tasks", "", *average_table(average).split("\n"), "")


def comparison_notes(summaries: Sequence[ComparisonSummary]) -> list[str]:
    """The notes of all runs of a comparison, each once a recipe and task."""
    notes = {
        f"{summary['task']}, {name}: {note}"
        for summary in summaries
        for name, runs in summary["runs"].items()
        for run in runs
        for note in run.get("notes", [])
    }
    return sorted(notes)


def index_lines(folder: Path | str, manifest: Mapping[str, Any]) -> list[str]:
    """A built index, or a shard of one, as its manifest describes it."""
    lines = [f"index: {folder}", *(f"{name}: {manifest[name]}" for name in _INDEX if manifest.get(name) is not None)]
    target = manifest["made_from"].get("faiss", {}).get("recall", 0.0)
    if manifest.get("recall@10", 1.0) < target:
        lines.append(f"note: recall@10 is below the {target} asked for; a larger code, like IVF1024,SQ8, may reach it")
    return lines


def takedown_lines(takedown: Takedown) -> Iterator[str]:
    """The texts of an index that a takedown list means, and those of the list that it does not hold."""
    yield f"texts of the index to remove: {len(takedown.texts)}"
    yield from (f"  {text}" for text in takedown.texts)
    if takedown.missing:
        yield f"asked for, but not in the index: {len(takedown.missing)}"
        yield from (f"  {text}" for text in takedown.missing)


def export_lines(exported: Export) -> Iterator[str]:
    """The files of an export beside PyTorch: size, difference of the logits, score."""
    record = exported.record
    pytorch, trimmed = record["pytorch"], record["trimmed"]
    texts = "validation texts" if pytorch["source"] == "validation" else "texts of random tokens (its run is unknown)"
    yield f"student: {exported.folder}, checked on {pytorch['texts']} {texts}"
    if trimmed is not None:
        tokens, size = trimmed["tokens"], trimmed["bytes"]
        yield (
            f"trimmed: {tokens['before']:,} to {tokens['after']:,} tokens, {size['before'] / 1e6:.1f} to "
            f"{size['after'] / 1e6:.1f} MB, exact on {trimmed['texts']:,} texts"
        )
    yield f"{'':12}{'bytes':>14}{'max diff':>10}{'mean diff':>11}{'same class':>12}  {pytorch['metric'] or ''}"
    yield f"{'PyTorch':12}{pytorch['bytes']:>14,}{'':33}  {_score(pytorch['score'])}"
    for (path, file), (name, check) in zip(record["files"].items(), record["checks"].items(), strict=True):
        difference, same = check["logit_difference"], check["same_class"]
        same_class = "–" if same is None else f"{100 * same:.2f} %"
        figures = f"{file['bytes']:>14,}{difference['max']:>10.2g}{difference['mean']:>11.2g}{same_class:>12}"
        yield f"{name:12}{figures}  {_score(check['score'])}  {path}"
    yield from (f"note: {note}" for note in record["notes"])


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
