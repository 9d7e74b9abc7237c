"""The section of a run's report on which texts the student answers, where it was calibrated."""

from __future__ import annotations

from augkd.evaluation.calibration import Calibration
from augkd.evaluation.report.blocks import Plot, Section, Table, count, decimal, percent
from augkd.evaluation.report.data import RunData
from augkd.evaluation.report.figures import Series, StyleSheet, lines

_FORMS = {"pytorch": "PyTorch and float32 ONNX", "int8": "INT8"}


def answers(run: RunData, sheet: StyleSheet) -> Section | None:
    """Promise, risk-coverage curve and coverage by class of each calibrated form; None where there is none."""
    if not run.calibrations:
        return None
    blocks: list[Plot | Table] = []
    for form, value in run.calibrations.items():
        blocks += [_curve(_FORMS[form], value, sheet), _classes(_FORMS[form], value)]
    intro = " ".join(_promise(_FORMS[form], value) for form, value in run.calibrations.items())
    return Section("cascade", "When the student may answer", intro, blocks)


def _promise(form: str, value: Calibration) -> str:
    texts = f"{value.tested:,} texts of {value.source}"
    wanted = f"an agreement with the {value.against} of at least {percent(value.agreement, 1)}"
    if value.threshold is None:
        return f"{form}: no threshold gives {wanted} on {texts}; the student passes every text on."
    return (
        f"{form}: where its confidence is at least {value.threshold:.4f}, the student answers, which is "
        f"{percent(value.answered, value.tested)} of {texts}; there it agrees with the {value.against} on "
        f"{percent(value.agreed, value.answered)}. With a confidence of {percent(value.confidence, 1)}, {wanted} "
        f"holds for texts like these (lower bound {decimal(value.lower_bound)})."
    )


def _curve(form: str, value: Calibration, sheet: StyleSheet) -> Plot:
    shares = [100 * share for _, share, _ in value.curve]
    series = [Series(f"agreement with the {value.against}", shares, [100 * agreed for *_, agreed in value.curve])]
    series.append(Series("promised", [min(shares), 100.0], [100 * value.agreement] * 2))
    caption = f"{form}: agreement of the answered texts, by how many of all {value.texts:,} texts are answered."
    plot = lines(sheet, caption, series, "% of texts answered", "% agreement", ends=[100 * value.coverage])
    return Plot(plot, caption)


def _classes(form: str, value: Calibration) -> Table:
    rows = [
        [
            name,
            count(own.texts),
            percent(own.answered, own.texts),
            percent(own.agreed, own.answered),
        ]
        for name, own in value.classes.items()
    ]
    return Table(f"{form}: coverage by class of the {value.against}", ["class", "texts", "answered", "agreement"], rows)
