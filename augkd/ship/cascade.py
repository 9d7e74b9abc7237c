"""A student that answers where it may and passes the rest on: None means that the teacher has to be asked.

Whether it may was measured by `augkd calibrate` and lies in the student's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from augkd.errors import ModelError
from augkd.evaluation.calibration import Calibration, read_calibrations
from augkd.models.classifier import Classifier, Pair
from augkd.models.onnx_graph import check_extra, session
from augkd.ship.export_record import FLOAT32, INT8, read_record
from augkd.ship.onnx_classifier import OnnxClassifier
from augkd.ship.student_folder import find_student, weights_fingerprint

_FILES = {"onnx": FLOAT32, "int8": INT8}
_THREADS = 0  # ONNX Runtime's own choice


class Cascade:
    """A calibrated student: `predict` gives a label, or None where the student is not sure enough.

    `form` is `pytorch`, `onnx` (the exported float32 graph, which shares PyTorch's calibration) or `int8`, which is
    calibrated on its own. Raises ModelError for a student that is not calibrated, or whose ONNX form is not exported.
    """

    def __init__(self, student: Path | str, form: Literal["pytorch", "onnx", "int8"] = "pytorch"):
        found = find_student(Path(student))
        task = found.task()
        self._target = found.target(task)
        classifier = found.load(task)
        self._model: Classifier | OnnxClassifier = classifier
        if form != "pytorch":
            self._model = onnx_student(found.folder, classifier, form)
        calibrations = read_calibrations(found.folder, weights_fingerprint(found.folder))
        needed: Literal["pytorch", "int8"] = "int8" if form == "int8" else "pytorch"
        if needed not in calibrations:
            option = " --form int8" if needed == "int8" else ""
            raise ModelError(f"{found.folder} is not calibrated; run: augkd calibrate {found.run or student}{option}")
        self.calibration: Calibration = calibrations[needed]

    def predict(self, texts: Sequence[str | Pair]) -> list[Any]:
        """For each text, or pair of texts, the class or the list of labels; None where the student passes."""
        pairs: list[Pair] = [(text, None) if isinstance(text, str) else (text[0], text[1]) for text in texts]
        if not pairs:
            return []
        logits = self._model.predict(pairs).numpy()
        threshold = self.calibration.threshold
        sure = self._target.confidence(logits, self.calibration.temperature)
        answers = np.zeros(len(sure), dtype=bool) if threshold is None else sure >= threshold
        labels = [self._target.decoded(row) for row in self._target.predictions(logits)]
        return [label if may else None for label, may in zip(labels, answers, strict=True)]


def onnx_student(folder: Path, classifier: Classifier, form: str) -> OnnxClassifier:
    """The exported form of a student; raises ModelError where it was not exported from these weights."""
    check_extra("an ONNX student")
    record = read_record(folder, folder)
    if record is None or _FILES[form] not in record["files"]:
        raise ModelError(f"{folder} has no {_FILES[form]} of its weights; run: augkd export {folder}")
    return OnnxClassifier(session((folder / _FILES[form]).read_bytes(), _THREADS), classifier)
