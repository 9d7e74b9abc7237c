"""The report has the values of the run's files, shows any text as text, and works in a browser offline."""

from __future__ import annotations

import base64
import html
import html.parser
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from support.chromium import BINARY, Page
from support.manifests import complete_manifest, sign_again
from support.results import complete_comparison, complete_results
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.data.transfer_set import TransferSet, write_rows
from augkd.distill.trace import SelectionTrace
from augkd.errors import AugkdError, WorkspaceError
from augkd.evaluation.compare.summary import NO_VERDICT
from augkd.evaluation.report import report
from augkd.evaluation.report.data import read_run
from augkd.evaluation.report.explorer import explorer_data, replaced_words
from augkd.evaluation.report.figures import Effect, Series, StyleSheet, forest, lines
from augkd.evaluation.report.report import write_report
from augkd.evaluation.report.run import headline, learning
from augkd.evaluation.report.selection import attention, confusion, errors, rewritten_texts, sources
from augkd.workspace.checksums import write_signed
from augkd.workspace.files import write_json
from augkd.workspace.fingerprints import file_fingerprint

LABELS = ("animal", "food", "tool")
HOSTILE = [
    "</script><script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "javascript:document.title='broken'",
    "line\u2028and\u2029paragraph \" ' & &amp; {{ 7 * 7 }} \\u003c",
    "<!-- ]]> a$x$ ﷽ \U0001f40d",
]
EPOCHS = 3


# ---- a run's folder, written by hand ----


def logits(*best: int, largest: float = 3.0) -> NDArray[np.float32]:
    values = np.zeros((len(best), len(LABELS)), dtype=np.float32)
    values[np.arange(len(best)), best] = largest
    return values


def rows(texts: list[str], k: int, source: str = "neighbours") -> list[dict[str, Any]]:
    """Originals with labels in turn; the teacher predicts class (i + c) % 3 for candidate c of original i."""
    originals = []
    for i, text in enumerate(texts):
        candidates = [
            {
                "id": f"{i}-{c}",
                "text": f"candidate {c} of {text}",
                "text_pair": None,
                "source": source if c else "neighbours",
                "score": 0.9 - 0.1 * c,
                "teacher_logits": logits((i + c) % 3)[0].tolist(),
            }
            for c in range(k)
        ]
        teacher = logits(i % 3 if i % 5 else (i + 1) % 3)[0].tolist()  # every fifth original: a wrong class
        row = {"id": str(i), "text": text, "text_pair": None, "label": LABELS[i % 3], "teacher_logits": teacher}
        originals.append(row | {"candidates": candidates})
    return originals


def make_run(folder: Path, texts: list[str], k: int = 2, source: str = "neighbours", log: Any = None) -> Path:
    """A finished run as `augkd run` leaves it, without weights."""
    transfer = folder / "transfer_set"
    write_rows(transfer, iter(rows(texts, k, source)), LABELS)
    complete_manifest(transfer, "transfer_set", {}, data={})
    training = {"epochs": EPOCHS, "kd": {"weight": {"linear": {"from": 1.0, "to": 0.25}}}, "annealed": {"tau_max": 4}}
    recipe = {"task": {"dataset": "x"}, "teacher": {"model": None}, "training": training, "seed": 7}
    inputs = {"transfer_set": file_fingerprint(transfer / "data"), "task": "5" * 64, "student": {"teacher": "6" * 64}}
    write_json(folder / "student" / "log.json", log or LOG)
    trace = SelectionTrace(torch.arange(0, k * len(texts) + 1, k), EPOCHS)
    every = torch.arange(k * len(texts))
    for epoch in range(EPOCHS):
        trace.record(
            epoch, every, (1 + every % k).float() / 2**epoch, every[every % k == k - 1]
        )  # the last one is picked
    trace.result().write(folder / "student" / "trace.safetensors")
    save_file(PREDICTIONS, folder / "student" / "predictions.safetensors")
    complete_manifest(folder / "student", "student", inputs)
    write_json(folder / "results.json", complete_results(RESULTS))
    complete_manifest(folder, "run", {}, recipe=recipe, seed=7, stages=STAGES)
    return folder


STAGES = {"transfer_set": "transfer_set", "student": "student"}
LOG = [
    {"loss": 2.0, "selection/divergence_picked": 0.5, "selection/divergence_pool": 0.25, "step": 10},
    {"eval_accuracy": 0.8, "epoch": 1.0, "step": 10},
    {"loss": 0.5, "selection/divergence_picked": 0.1, "selection/divergence_pool": 0.05, "step": 20},
    {"eval_accuracy": 0.9, "epoch": 2.0, "step": 20},
]
TRUE = np.array([0, 0, 1, 1, 2, -100])
PREDICTIONS = {
    "test": logits(0, 1, 1, 1, 2, 0),
    "test_labels": TRUE,
    "teacher_test": logits(0, 0, 1, 2, 2, 0),
    "validation": logits(0),
    "validation_labels": np.array([0]),
    "teacher_validation": logits(0),
}
RESULTS = {
    "task": "things",
    "metric": "accuracy",
    "seed": 7,
    "recipe": "minimax",
    "teacher": {"validation": 0.95, "test": 0.9625, "parameters": 4000},
    "student": {"validation": 0.9, "test": 0.9125, "test_interval": [0.9, 0.925], "parameters": 1000},
    "data": {"originals": 5, "candidates": 10, "kept_per_original": 1, "selector": "minimax"},
    "cost": {
        "teacher_rows": 15,
        "generator_rows": 0,
        "scoring_rows": 30,
        "training_rows": 45,
        "seconds": {"index": 0.0, "transfer_set": 30.0, "student": 90.0},
        "peak_rss_bytes": 2**30,
    },
}


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def embedded(page: str) -> dict[str, Any]:
    """The explorer's columns, decompressed as in the browser."""
    raw = re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', page, re.DOTALL)
    assert raw is not None
    value: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(json.loads(raw[1])["data"])))
    return value


class Reader(html.parser.HTMLParser):
    """Tags and visible text of a page; each table as rows of cells, by its caption."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._caption] = self._rows
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] in ("script", "style"):
            return
        self.words.append(data)
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "run", [f"text number {i}" for i in range(45)])


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return page_of(run)


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def columns(folder: Path, limit: int = 10**6) -> dict[str, Any]:
    """The explorer's columns, without rendering a page."""
    there = read_run(folder)
    assert there.transfer is not None
    value: dict[str, Any] = json.loads(
        zlib.decompress(base64.b64decode(explorer_data(there.transfer, there.candidates, there.trace, limit)["data"]))
    )
    return value


# ---- sections ----


def test_the_headline_has_the_scores_of_results_json(read: Reader) -> None:
    table = read.tables["Scores and sizes"]
    assert table[1] == ["teacher", "0.9500", "0.9625", "–", "4,000", "–"]
    assert table[2] == ["student", "0.9000", "0.9125", "0.9000 to 0.9250", "1,000", "–"]
    assert (
        "The student reaches 0.9125 accuracy on the test split with 25.0 % of the teacher's parameters; the teacher "
        "reaches 0.9625. Task things, seed 7." in read.text
    )


def test_exported_models_and_latencies_join_the_headline(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["a", "b"])
    assert [block.caption for block in headline(read_run(folder)).blocks] == ["Scores and sizes"]
    export = {"files": {"onnx/model_quantized.onnx": {"bytes": 2048}}, "checks": {"int8": {"score": 0.875}}}
    write_json(folder / "student-trimmed" / "onnx" / "export.json", export)
    row = {"name": "student", "precision": "int8", "bytes": 2048, "score": None, "median_ms": 1.25, "p95_ms": 2.5}
    row |= {"texts_per_second": 1234.5, "speedup": 8.5}
    write_json(folder / "bench.json", {"threads": 2, "batch_sizes": {"32": [row]}})
    first, second = headline(read_run(folder)).blocks
    assert cells(first)[-1] == ["trimmed student, ONNX, INT8", "0.8750", "–", "–", "–", "2 KiB"]
    assert second.caption == "Latency of a batch of 32, on 2 threads"
    assert cells(second) == [["student, int8", "2 KiB", "1.25 ms", "2.50 ms", "1,234", "8.50"]]


def test_the_confusion_matrix_equals_counting_and_texts_without_a_label_are_left_out(read: Reader) -> None:
    table = read.tables["Confusion matrix of the student"]
    assert [row[1:4] for row in table[2:]] == [["1", "1", "·"], ["·", "2", "·"], ["·", "·", "1"]]
    assert [row[4] for row in table[2:]] == ["50.0 %", "100.0 %", "100.0 %"]
    assert [row[1:4] for row in read.tables["Confusion matrix of the teacher"][2:]][1] == ["·", "1", "1"]
    assert "agree on 60.0 %. Only the teacher is right on 1 of them, only the student on 1." in read.text
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    by_hand = np.zeros((4, 4), dtype=int)
    for a, b in zip(true, predicted, strict=True):
        by_hand[a, b] += 1
    np.testing.assert_array_equal(confusion(predicted, true, 4), by_hand)


def test_learning_curves_cost_and_schedule_are_described_in_words_too(read: Reader) -> None:
    assert "The training loss went from 2 to 0.5 in 20 steps." in read.text
    assert "the student's best is 0.9000" in read.text
    assert "went from 0.5 to 0.1 on picked candidates, and from 0.25 to 0.05 on all candidates" in read.text
    assert "2 min in total; the student stage took 75.0 % of it." in read.text
    assert read.tables["Texts processed, by purpose"][1:] == [
        ["labelling by the teacher", "15"],
        ["generating candidates", "0"],
        ["scoring candidates", "30"],
        ["training the student", "45"],
    ]
    labels = [attrs["aria-label"] for tag, attrs in read.tags if tag == "svg"]
    assert f"Weights of the losses over {EPOCHS} epochs; φ is annealing's factor on the teacher's logits." in labels


def test_selection_and_sources_are_counted_from_the_trace(read: Reader) -> None:
    assert (
        "On average, an epoch picks 50.0 % of the candidates; 50.0 % were picked at least once in 3 epochs."
        in read.text
    )
    assert "Epoch 1: the median divergence is 2 for picked candidates and 1 for the others." in read.text
    assert "Epoch 3: the median divergence is 0.5 for picked candidates and 0.25 for the others." in read.text
    (row,) = read.tables["Candidates by source"][1:]
    # the teacher predicts (i + c) % 3, which is the label for c = 0 only; last epoch: mean of 1/4 and 2/4
    assert row == ["neighbours", "90", "100.0 %", "0.8500", "50.0 %", "50.0 %", "0.3750"]


def test_a_run_without_a_trace_and_predictions_has_no_sections_on_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["one text", "two texts"])
    for name in ("trace", "predictions"):
        (folder / "student" / f"{name}.safetensors").unlink()
    sign_again(folder / "student")
    read = Reader(page_of(folder))
    assert "This run did not record which candidates were picked." in read.text
    ids = {attrs.get("id") for tag, attrs in read.tags if tag == "section"}
    assert {"selection", "errors"} & ids == set()
    assert {"headline", "explorer", "sources", "recipe"} <= ids


def test_steps_are_counted_over_all_stages(tmp_path: Path) -> None:
    log = [{"loss": 2.0, "step": 5, "stage": 1}, {"loss": 1.0, "step": 8, "stage": 1}]
    folder = make_run(tmp_path / "run", ["a", "b"], log=[*log, {"loss": 0.5, "step": 4, "stage": 2}])
    section = learning(read_run(folder), StyleSheet())
    assert section is not None
    assert [block.caption for block in section.blocks] == ["The training loss went from 2 to 0.5 in 12 steps."]


def cells(table: Any) -> list[list[str]]:
    return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]


def test_alp_attention_is_a_table_of_student_layers_by_teacher_layers(tmp_path: Path) -> None:
    first = {"attention/0/0": 0.25, "attention/0/1": 0.75, "attention/1/0": 0.0, "attention/1/1": 1.0}
    last = first | {"attention/0/0": 0.5, "attention/0/1": 0.5}
    log = [{"loss": 1.0, "step": 1, **first}, {"loss": 0.5, "step": 2, **last}]
    section = attention(read_run(make_run(tmp_path / "run", ["a", "b"], log=log)))
    assert section is not None
    assert [block.caption for block in section.blocks] == [
        "Step 1, the first one logged",
        "Step 2, the last one logged",
    ]
    assert cells(section.blocks[0]) == [["student 0", "0.25", "0.75"], ["student 1", "·", "1.00"]]
    assert cells(section.blocks[1])[0] == ["student 0", "0.50", "0.50"]
    assert [cell.shade for cell in section.blocks[0].rows[0][1:]] == [3, 8]  # tenths of the largest, 1.00
    assert attention(read_run(make_run(tmp_path / "without", ["a", "b"]))) is None


def test_words_that_differ_from_the_original_are_marked_and_others_are_not(tmp_path: Path) -> None:
    assert replaced_words("the cat is here", "the dog is over here") == [1, 3]
    assert replaced_words("the cat", "the cat") == []
    folder = make_run(tmp_path / "run", ["the cat is here"], source="substitution")
    assert columns(folder)["marked"] == {"1": [0, 1, 2]}  # candidate 0 is a neighbour
    section = rewritten_texts(read_run(folder))
    assert section is not None
    page = " ".join(report.render("title", [section], "", None).split())
    assert "<ins>candidate</ins> <ins>1</ins> <ins>of</ins> the cat is here" in page
    assert rewritten_texts(read_run(make_run(tmp_path / "other", ["the cat is here"]))) is None


def test_regression_has_a_scatter_plot_instead_of_confusion_matrices(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["a", "b"])
    data = [row | {"label": 1.5, "teacher_logits": [1.25]} for row in rows(["a", "b"], 2)]
    for row in data:
        row["candidates"] = [candidate | {"teacher_logits": [2.0]} for candidate in row["candidates"]]
    write_rows(folder / "transfer_set", iter(data), ())
    sign_again(folder / "transfer_set")
    inputs = {"transfer_set": file_fingerprint(folder / "transfer_set" / "data"), "task": "5" * 64, "student": {}}
    complete_manifest(folder / "student", "student", inputs)
    values = {"test": np.array([[1.0], [3.0]], np.float32), "test_labels": np.array([1.0, 2.0], np.float32)}
    values["teacher_test"] = np.array([[1.0], [2.0]], np.float32)
    save_file(values, folder / "student" / "predictions.safetensors")
    sign_again(folder / "student")
    there = read_run(folder)
    section, table = errors(there, StyleSheet()), sources(there)
    assert section is not None
    assert table is not None
    (plot,) = section.blocks
    assert plot.caption.endswith("root mean squared error: student 0.707, teacher 0.000.")  # √((0² + 1²)/2)
    assert cells(table.blocks[0])[0][4] == "0.5000"  # |2.0 - 1.5|


# ---- the explorer's data ----


def test_every_text_prediction_and_picked_candidate_is_in_the_page(run: Path, page: str) -> None:
    data, there = embedded(page), read_run(run)
    assert there.transfer is not None
    candidates = there.transfer.candidates()
    assert [data["texts"][place] for place in data["text"]] == there.transfer.column("text")
    assert [data["texts"][place] for place in data["ctext"]] == candidates.text
    assert np.repeat(np.arange(45), data["count"]).tolist() == candidates.owner.tolist()
    assert [LABELS[place] for place in data["label"]] == there.transfer.column("label")
    probability = np.exp(3) / (np.exp(3) + 2)
    assert data["cteacher"] == [101 * int(c) + round(100 * probability) for c in candidates.teacher.argmax(axis=1)]
    assert data["score"] == [0.9, 0.8] * 45
    assert data["trace"]["picked"] == ["01" * 45] * EPOCHS


def test_a_divergence_in_the_page_equals_the_trace_up_to_rounding(run: Path) -> None:
    trace = columns(run)["trace"]
    levels = np.array([[trace["alphabet"].index(character) for character in line] for line in trace["divergence"]])
    shown = 10 ** (trace["high"] - trace["decades"] + levels / (len(trace["alphabet"]) - 1) * trace["decades"])
    there = read_run(run).trace
    assert there is not None
    np.testing.assert_allclose(shown, there.divergence.astype(float), rtol=10 ** (trace["decades"] / 176) - 1 + 1e-3)
    assert not {"<", ">", "&", '"', "\\"} & set(trace["alphabet"])


def test_with_many_epochs_the_page_has_some_including_the_first_and_the_last(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["a", "b"])
    trace = SelectionTrace(torch.tensor([0, 2, 4]), 40)
    for epoch in range(40):
        trace.record(epoch, torch.arange(4), None, torch.tensor([epoch % 4]))
    trace.result().write(folder / "student" / "trace.safetensors")
    sign_again(folder / "student")
    shown = columns(folder)["trace"]
    assert (len(shown["epochs"]), shown["epochs"][0], shown["epochs"][-1], shown["total_epochs"]) == (12, 1, 40, 40)
    assert [line.index("1") for line in shown["picked"]] == [(epoch - 1) % 4 for epoch in shown["epochs"]]
    assert set("".join(shown["divergence"])) == {"!"}


def test_above_the_limit_a_random_sample_of_whole_originals_is_kept(run: Path) -> None:
    whole, limit = columns(run), 1000
    data = columns(run, limit=limit)
    texts = [data["texts"][place] for place in data["text"]]
    assert 5 < len(texts) < 45 == len(whole["text"])
    assert texts == sorted(texts, key=lambda text: int(text.split()[-1]))
    assert texts != [f"text number {i}" for i in range(len(texts))]
    assert [data["texts"][place] for place in data["ctext"]] == [
        f"candidate {c} of {text}" for text in texts for c in (0, 1)
    ]
    assert data["trace"]["picked"] == ["01" * len(texts)] * EPOCHS


def test_a_page_stays_below_its_limit_and_states_its_sample(
    run: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LIMIT", len(page.encode()) + 900)  # 1,000 bytes are held back
    short = page_of(run)
    shown = len(embedded(short)["text"])
    assert len(short.encode()) < report.LIMIT
    assert 20 < shown < 45
    assert f"a random sample of {shown} of 45 originals" in " ".join(short.split())
    assert "To keep this file below 3 MB" not in page


def test_the_same_folder_gives_the_same_bytes_in_another_process_and_torch_is_not_imported(
    run: Path, page: str, tmp_path: Path
) -> None:
    code = "import sys, pathlib\nfrom augkd.evaluation.report.report import write_report\n"
    code += "write_report(*map(pathlib.Path, sys.argv[1:]))\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code, str(run), str(tmp_path / "other.html")], check=True)
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == page


# ---- hostile texts ----


def test_hostile_texts_and_names_stay_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", HOSTILE, source="generator")
    results = RESULTS | {"recipe": HOSTILE[0], "task": HOSTILE[1]}
    write_json(folder / "results.json", complete_results(results))
    sign_again(folder)
    page = page_of(folder)
    read = Reader(page)
    scripts = [attrs for tag, attrs in read.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "explorer-data"}, {}]
    assert not [tag for tag, attrs in read.tags if tag == "img" or any(name.startswith("on") for name in attrs)]
    assert not [attrs for _, attrs in read.tags if str(attrs.get("href", "")).startswith("javascript")]
    assert "{{ 7 * 7 }}" in read.text
    assert "\u2028" not in re.findall(r"<script.*?</script>", page, re.DOTALL)[0]
    data = embedded(page)
    assert [data["texts"][place] for place in data["text"]] == HOSTILE


def test_the_json_for_the_script_cannot_end_the_script() -> None:
    data = {"originals": 1, "shown": 1, "data": "</script><!--&\u2028\u2029"}
    page = report.render("title", [], "", data)
    raw = re.search(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)
    assert raw is not None
    assert not set("<>&\u2028\u2029") & set(raw[1])
    assert json.loads(raw[1]) == data


def test_the_policy_admits_only_the_page_s_own_script_and_style(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy[1]).split("; "))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert rules["style-src"] == f"'{report._hash(style[1])}'"
    assert not re.search(r'\sstyle="', page)
    assert not re.search(r'(src|href)="(?!#)', page)  # nothing is fetched, nothing links elsewhere


def test_plots_are_labelled_coloured_by_the_page_and_escape_names() -> None:
    sheet = StyleSheet()
    name = "<script>&$x^2$"
    plot = lines(sheet, f'shows "{name}"', [Series(name, [1, 2], [3, 4]), Series("b", [1, 2], [1, 2])], "step", name)
    other = forest(sheet, "y", [Effect(name, 0.5, (0.25, 1.0), [0.5])], "x")
    read = Reader(plot + other)
    assert not [tag for tag, _ in read.tags if tag == "script"]
    assert read.text.count(name) == 3
    assert read.tags[0][1]["aria-label"] == f'shows "{name}"'
    assert "#" not in sheet.css
    assert "var(--c1)" in sheet.css
    ids = re.findall(r' id="([^"]*)"', plot + other)
    assert len(ids) == len(set(ids))


# ---- folders without a report ----


def test_a_folder_that_is_no_run_gives_an_error_of_one_line(tmp_path: Path, run: Path) -> None:
    for folder, match in (
        (tmp_path, "is neither a finished run nor a comparison"),
        (tmp_path / "no", "does not exist"),
    ):
        with pytest.raises(WorkspaceError, match=match) as caught:
            write_report(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(WorkspaceError, match="is a folder; name the file"):
        write_report(run, tmp_path)


def test_a_trace_of_another_transfer_set_is_an_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["a", "b"])
    other = SelectionTrace(torch.tensor([0, 2]), 1).result()
    other.write(folder / "student" / "trace.safetensors")
    sign_again(folder / "student")
    with pytest.raises(WorkspaceError, match="traces 2 candidates, but the transfer set has 4"):
        write_report(folder)


@pytest.mark.parametrize("training", [{"freelb": {"a": None}}, {}, 3, {"kd": {"weight": "x"}}])
def test_a_manifest_whose_recipe_cannot_be_trained_is_an_error_of_one_line(tmp_path: Path, training: Any) -> None:
    folder = make_run(tmp_path / "run", ["a", "b"])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["training"] = training
    del manifest["checksum"]
    write_signed(folder / "manifest.json", manifest)
    with pytest.raises(AugkdError) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


# ---- a comparison ----


def comparison(folder: Path, interval: bool) -> dict[str, Any]:
    """Writes compare.json of two recipes, with or without intervals."""
    table: list[dict[str, Any]] = []
    for name, values, differences in (("kd", [0.8, 0.9], [None, None]), ("<b>Mine", [0.9, 0.95], [0.1, 0.05])):
        scores = {"mean": sum(values) / 2, "sd": 0.05, "values": values}
        baseline = name == "kd"
        difference = {"mean": None if baseline else 0.075, "sd": None, "values": differences}
        shown = interval and not baseline
        difference |= {"interval": [0.01, 0.14], "p": 0.01, "verdict": "better"} if shown else NO_VERDICT
        gap = {"share": 0.5, "interval": [0.1, 0.9]} if shown else None
        row = {"recipe": name, "seeds": 2, "validation": scores, "test": scores, "difference": difference}
        table.append(row | {"gap_closed": gap, "cost": COST})
    runs = {row["recipe"]: [RESULTS | {"recipe": row["recipe"], "seed": seed} for seed in (0, 1)] for row in table}
    value = {"task": "things", "metric": "accuracy", "baseline": "kd", "rows": table, "runs": runs, "split": "test"}
    value |= {"teacher": {"test": 0.95, "validation": 0.9}, "shared_seconds": {"index": 0.0, "teacher": 90.0}}
    value |= {"examples": 200 if interval else None, "resamples": 2000}
    value = complete_comparison(value)
    write_json(folder / "compare.json", value)
    return value


COST = {"training_rows": 10, "scoring_rows": 5, "seconds": {"student": 60.0}, "candidates": 40}
COST |= {"kept_per_original": 2.0, "peak_rss_bytes": 2**30}


def test_a_comparison_shows_differences_intervals_and_every_seed(tmp_path: Path) -> None:
    comparison(tmp_path, interval=True)
    read = Reader(page_of(tmp_path))
    table = read.tables["Mean ± standard deviation over seeds"]
    assert table[2][2:] == ["0.9250 ± 0.0500", "+0.0750", "+0.0100 to +0.1400", "better", "50 % (10 to 90 %)", "2"]
    assert table[1][3:6] == ["–", "–", "baseline"]
    assert read.tables["Test accuracy of each seed"][2] == ["<b>Mine", "0.9000", "0.9500"]
    labels = [attrs["aria-label"] for tag, attrs in read.tags if tag == "svg"]
    assert labels[0] == "Difference in accuracy to kd: <b>Mine +0.0750 (+0.0100 to +0.1400)."
    assert "200 texts, 2,000 bootstrap resamples" in read.text
    assert read.tables["Cost of each recipe"][1] == ["kd", "1 min", "10", "5", "40", "2", "1 GiB"]
    assert "Index, teacher and transfer sets are shared and took: teacher 1 min 30 s." in read.text


def test_a_comparison_without_intervals_says_that_differences_may_be_due_to_chance(tmp_path: Path) -> None:
    comparison(tmp_path, interval=False)
    read = Reader(page_of(tmp_path))
    assert "No intervals were recorded, so differences may be due to chance." in read.text
    assert read.tables["Mean ± standard deviation over seeds"][2][4] == "–"


def test_runs_with_a_report_are_linked_relative_to_the_page_and_others_are_not(tmp_path: Path) -> None:
    comparison(tmp_path, interval=True)
    assert not [attrs for tag, attrs in Reader(page_of(tmp_path)).tags if attrs.get("href") == "runs/kd-s0/report.html"]
    (tmp_path / "runs" / "kd-s0").mkdir(parents=True)
    (tmp_path / "runs" / "kd-s0" / "report.html").touch()
    assert [attrs for tag, attrs in Reader(page_of(tmp_path)).tags if attrs.get("href") == "runs/kd-s0/report.html"]
    away = write_report(tmp_path, tmp_path / "away" / "page.html").read_text()
    assert 'href="../runs/kd-s0/report.html"' in away


def test_a_run_in_a_comparison_reads_its_shared_transfer_set_and_its_baseline(tmp_path: Path) -> None:
    value = comparison(tmp_path, interval=True)
    folder = make_run(tmp_path / "runs" / "mine-s1", ["a", "b"])
    write_json(folder / "results.json", complete_results(RESULTS | {"recipe": "mine", "seed": 1}))
    write_json(folder / "student" / "config.json", {"id2label": dict(enumerate(LABELS))})
    sign_again(folder)
    sign_again(folder / "student")
    stages = STAGES | {"transfer_set": "../../shared/transfer_set-0123"}
    complete_manifest(folder, "run", {}, recipe=read_run(folder).recipe, seed=7, stages=stages)
    assert read_run(folder).transfer is None
    (tmp_path / "shared").mkdir()
    (folder / "transfer_set").rename(tmp_path / "shared" / "transfer_set-0123")
    there = read_run(folder)
    assert isinstance(there.transfer, TransferSet)
    assert there.target.labels == LABELS
    assert there.baseline == value["runs"]["kd"][1]
    assert cells(headline(there).blocks[0])[2][0] == "baseline: kd"


def test_a_transfer_set_that_was_replaced_is_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["a", "b"])
    write_json(folder / "student" / "config.json", {"id2label": dict(enumerate(LABELS))})
    sign_again(folder / "student")
    write_rows(folder / "transfer_set", iter(rows(["a", "c"], 2)), LABELS)
    with pytest.raises(WorkspaceError, match=r"train-00000\.parquet is damaged"):  # that is not the same as replaced
        read_run(folder)
    sign_again(folder / "transfer_set")
    assert read_run(folder).transfer is None


def test_a_comparison_on_several_tasks_has_means_differences_and_ranks(tmp_path: Path) -> None:
    row = {"recipe": "kd", "mean": 0.75, "rank": 1.5, "better": 1, "worse": 0, "gap_closed": None}
    rows = [
        row | {"difference": {"mean": None, **NO_VERDICT}},
        row | {"recipe": "mine", "difference": {"mean": 0.1, "interval": [0.05, 0.15], "p": 0.01, "verdict": "better"}},
    ]
    rows[1]["gap_closed"] = {"share": 0.8, "interval": [0.5, 1.2]}
    value = {"tasks": ["a", "b"], "metrics": ["accuracy", "f1"], "baseline": "kd", "teacher": 0.875}
    value |= {"resamples": 100, "level": 0.95, "left_out": [], "gap_baseline": "kd"}
    write_json(tmp_path / "compare.json", value | {"rows": rows, "comparisons": 1})
    read = Reader(page_of(tmp_path))
    assert read.tables["Means over tasks"][1:] == [
        ["kd", "0.7500", "–", "–", "baseline", "", "1.50", "1", "0"],
        ["mine", "0.7500", "+0.1000", "+0.0500 to +0.1500", "better", "80 % (50 to 120 %)", "1.50", "1", "0"],
        ["teacher", "0.8750", "", "", "", "", "", "", ""],
    ]
    assert read.tables["Tasks"][2] == ["b", "f1", "–"]
    assert "not for other tasks" in read.text
    write_json(tmp_path / "compare.json", value | {"rows": rows[:1], "comparisons": 0})
    assert "differences may be due to chance" in page_of(tmp_path)


def test_the_command_prints_where_the_page_is(tmp_path: Path) -> None:
    comparison(tmp_path, interval=False)
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert done.output == f"report: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert isinstance(CliRunner().invoke(app, ["report", str(tmp_path / "none")]).exception, WorkspaceError)


# ---- in a browser ----

READY = "document.documentElement.dataset.explorer === 'ready'"
STATUS = "document.getElementById('x-status').textContent"
browser = pytest.mark.skipif(
    BINARY is None, reason="chromium or google-chrome is not on PATH; apt-get install chromium"
)


@browser
def test_in_a_browser_the_explorer_filters_sorts_and_pages_without_errors_or_requests(run: Path) -> None:
    path = write_report(run)
    with Page() as page:
        page.open(path, ready=READY)
        assert page.value(STATUS) == "45 of 45 originals, with 90 candidates"
        assert page.value("document.querySelectorAll('#x-list > li').length") == 20
        page.value("document.getElementById('x-next').click()")
        assert "text number 20" in page.value("document.querySelector('#x-list h3').textContent")
        queries = {
            "q=NUMBER+7": (1, 2),
            "q=number+4": (6, 12),  # 4 and 40 to 44
            "label=1": (15, 30),
            "teacher=disagrees": (9, 18),  # every fifth
            "teacher=disagrees&label=0": (3, 6),  # 0, 15, 30
            "picked=ever": (45, 45),
            "picked=never&q=number+44": (1, 1),
            "q=candidate+1+of": (45, 45),
            "q=.*": (0, 0),  # literal text, not a pattern
        }
        for query, (originals, candidates) in queries.items():
            page.value(f"location.hash = '#explorer?{query}'; new Promise((done) => setTimeout(done, 50))")
            assert page.value(STATUS) == f"{originals} of 45 originals, with {candidates} candidates", query
        page.value("location.hash = '#explorer?q=number+44&order=divergence'; new Promise((d) => setTimeout(d, 50))")
        assert page.value("document.querySelector('#x-list mark').textContent") == "number 44"
        label = page.value("document.querySelectorAll('.spark')[1].getAttribute('aria-label')")
        assert label == "epoch 1: 2.0, picked; epoch 2: 1.0, picked; epoch 3: 0.51, picked"  # 0.5 on the page's scale
        assert page.value("document.querySelectorAll('.candidates tr td:last-child')[0].textContent") == "not picked"
        assert page.errors == []
        assert page.requests == [path.resolve().as_uri()]


@browser
def test_in_a_browser_lines_join_only_epochs_in_which_a_candidate_was_scored(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ["a"])
    trace = SelectionTrace(torch.tensor([0, 2]), 5)
    for epoch, scored in enumerate(([0, 1], [0, 1], [1], [0], [1])):
        trace.record(epoch, torch.tensor(scored), torch.ones(len(scored)), torch.tensor([scored[0]]))
    trace.result().write(folder / "student" / "trace.safetensors")
    sign_again(folder / "student")
    points = "[...line.getAttribute('points').split(' ')].length"
    lines = f"[...svg.querySelectorAll('polyline')].map((line) => {points})"
    with Page() as page:
        page.open(write_report(folder), ready=READY)
        assert page.value(f"[...document.querySelectorAll('.spark')].map((svg) => {lines})") == [[2], [3]]
        assert page.value(
            "[...document.querySelectorAll('.spark')].map((svg) => svg.querySelectorAll('circle').length)"
        ) == [3, 4]
        assert page.errors == []


@browser
def test_in_a_browser_hostile_texts_run_nothing_and_are_shown_in_full(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run", HOSTILE, source="generator"))
    with Page() as page:
        page.open(path, ready=READY)
        assert page.value("document.title") == "minimax on things · augkd"
        shown = page.value("[...document.querySelectorAll('#x-list h3')].map((heading) => heading.textContent)")
        assert shown == HOSTILE
        assert page.value("document.querySelectorAll('img, script').length") == 2
        # the policy alone would also stop a script that got in
        page.value("document.body.append(document.createElement('script'))")
        assert page.errors == []
        with pytest.raises(AssertionError, match="TrustedScript"):
            page.value("document.body.setAttribute('onclick', 'document.title = 1')")
        assert page.value("document.title") == "minimax on things · augkd"


@browser
def test_on_a_phone_nothing_is_wider_than_the_screen(run: Path) -> None:
    path = write_report(run)
    with Page(width=390, height=800) as page:
        page.open(path, ready=READY)
        assert page.value("document.documentElement.scrollWidth") <= 390
        assert page.value(
            "[...document.querySelectorAll('select, input, button')].every((e) => e.labels?.length || e.textContent)"
        )


@browser
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_a_contrast_of_4_5_in_light_and_dark_mode(run: Path, dark: bool) -> None:
    code = """(() => {
      const box = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const light = (colour) => {
        box.fillStyle = colour; box.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...box.getImageData(0, 0, 1, 1).data].slice(0, 3)
          .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const clear = (colour) => colour === 'transparent' || /, 0\\)$/.test(colour);
      const ground = (e) => { while (e && clear(getComputedStyle(e).backgroundColor)) e = e.parentElement;
        return getComputedStyle(e || document.body).backgroundColor; };
      const ratios = {};
      for (const e of document.querySelectorAll('main *, header *')) {
        if (e.tagName === 'title' || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
        const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
        const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
        if (!e.disabled) ratios[`${e.tagName}.${e.getAttribute('class')}`] = (a + 0.05) / (b + 0.05);
      }
      return ratios;
    })()"""
    with Page(dark=dark) as page:
        page.open(write_report(run), ready=READY)
        ratios = page.value(code)
    assert len(ratios) > 15
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < 4.5} == {}
