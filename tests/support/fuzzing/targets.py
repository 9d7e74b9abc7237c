"""The entry points and the commands, each with the hostile input that reaches it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.fuzzing.cases import Case, command
from support.fuzzing.values import (
    as_json,
    atoms,
    changed,
    changed_bytes,
    changed_table,
    changed_tensors,
    texts,
    values,
)
from support.fuzzing.world import World, sign, sign_file, tree_of

from augkd.candidates.augmented_samples import read_candidates
from augkd.cli.printing import neutral
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.given_transfer_set import copy_training_rows, task_of
from augkd.data.markdown import front_matter, markdown_code, markdown_text
from augkd.data.target import Target
from augkd.data.task import load_task
from augkd.data.transfer_set import TransferSet, describe, in_memory, write_card
from augkd.distill.teacher.given import GivenTeacher
from augkd.distill.trace import Trace
from augkd.errors import AugkdError
from augkd.evaluation.predictions import read_predictions
from augkd.models.locate import locate, model_fingerprint, parameter_count
from augkd.models.pretrained import load_config, load_tokenizer
from augkd.recipe import load_comparison, load_index_recipe, load_recipe
from augkd.recipe.schedules import parse
from augkd.recipe.units import parse_bytes, parse_seconds
from augkd.retrieval.dense.changes import remove_texts
from augkd.retrieval.dense.search import Index
from augkd.retrieval.encoders.sentence_model import stated_max_length
from augkd.retrieval.encoders.static import StaticEncoder
from augkd.retrieval.engines.shards import merge_encoded_shards
from augkd.runs.cards import student_card
from augkd.runs.plan import plan
from augkd.ship.push import plan_upload
from augkd.ship.student_folder import find_student, index_texts
from augkd.workspace.names import path_name, user_path
from augkd.workspace.run_folder import RunFolder

KEYS = [
    *("task.dataset", "task.text", "task.label", "task.labels", "task.splits", "task.name", "task.metric", "task"),
    *("teacher.model", "teacher.epochs", "teacher.logits", "teacher.ensemble", "teacher.layers", "teacher.labels"),
    *("student.layers", "student.model", "student.scratch", "student.bilstm.width", "student.static", "student"),
    *(
        "data.neighbours.k",
        "data.neighbours.index",
        "data.neighbours.index.corpus",
        "data.select",
        "data.select.minimax",
    ),
    *("data.select.minimax.keep", "data.generator", "data.generated.model", "data.substitution.adapt", "data.labelled"),
    *("training.kd.weight", "training.kd", "training.epochs", "training.stages", "training.budget", "training.freelb"),
    *(
        "training.max_length",
        "training.report_to",
        "structure.alp",
        "structure.pooling",
        "assistants",
        "ensemble",
        "seed",
    ),
    *(
        "corpus.dataset",
        "corpus.limit",
        "encoder.kind",
        "encoder.model",
        "faiss.memory",
        "faiss.recall",
        "card.license",
    ),
    *("a", "a.b.c", ".", "", "task..x", "training.annealed.tau_max", "training.ce.x", "structure.rail.layers"),
]


def targets(world: World, scratch: Path) -> dict[str, tuple[Case, int]]:
    """Name → the case and its share of all cases."""
    library: dict[str, tuple[Callable[[st.DataObject, World, Path], None], int]] = {
        **{"recipes": (recipes, 12), "overrides": (overrides, 12), "index recipes": (index_recipes, 6)},
        **{"tasks": (tasks, 12), "corpora": (corpora, 8), "samples": (samples, 6), "given logits": (given_logits, 8)},
        **{"transfer sets": (transfer_sets, 8), "tensors": (tensors, 5), "models": (models, 3)},
        **{"index manifests": (index_manifests, 6), "shards": (shards, 2), "run manifests": (run_manifests, 5)},
        **{"values": (small_values, 5)},
        **{"commands": (commands, 3), "arguments": (arguments, 3)},
    }

    def case(function: Callable[[st.DataObject, World, Path], None]) -> Case:
        def one(data: st.DataObject) -> None:
            place = scratch / "case"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            function(data, world, place)

        return one

    return {name: (case(function), share) for name, (function, share) in library.items()}


# ---- recipes ----


def recipes(data: st.DataObject, world: World, place: Path) -> None:
    path = place / "recipe.yaml"
    path.write_bytes(_yaml(data, tree_of(world / "recipe.yaml")))
    load = data.draw(st.sampled_from(["recipe", "plan", "comparison"]))
    if load == "comparison":
        load_comparison(str(path))
        return
    recipe = load_recipe(str(path))
    if load == "plan":
        list(plan(recipe, place))


def index_recipes(data: st.DataObject, world: World, place: Path) -> None:
    path = place / "index.yaml"
    tree = {"corpus": str(world / "corpus.txt"), "encoder": {"kind": "static", "dim": 8}, "faiss": {"recall": 0.9}}
    path.write_bytes(_yaml(data, tree))
    load_index_recipe(str(path), _overrides(data))


def overrides(data: st.DataObject, world: World, place: Path) -> None:
    name = data.draw(st.sampled_from([str(world / "recipe.yaml"), "minimax-knn", "combined-kd", "demo", "mate-alp"]))
    load_recipe(name, _overrides(data))


def _overrides(data: st.DataObject) -> list[str]:
    return [
        f"{data.draw(st.sampled_from(KEYS) | texts)}={data.draw(_yaml_values)}"
        for _ in range(data.draw(st.integers(1, 3)))
    ]


def _safe(value: Any) -> str:
    try:
        return str(yaml.safe_dump(value, default_flow_style=True))
    except Exception:  # what YAML cannot write, JSON may
        return as_json(value)


_SNIPPETS = [
    "&a [*a]",
    "{<<: [&b {c: 1}, *b]}",
    "!!python/name:os.system",
    "!!timestamp x",
    "2001-99-99",
    "a: b: c",
    "[",
    "*x",
]
_yaml_values = st.one_of(values.map(_safe), texts, st.sampled_from(_SNIPPETS))


def _yaml(data: st.DataObject, tree: Any) -> bytes:
    if data.draw(st.integers(0, 3)) == 0:
        return data.draw(changed_bytes(yaml.safe_dump(tree).encode()))
    return _safe(data.draw(changed(tree))).encode("utf-8", "surrogatepass")


# ---- data ----


def tasks(data: st.DataObject, world: World, place: Path) -> None:
    _write_rows(data, place, "train", {"text": "one", "label": "a", "id": 1, "text_pair": None})
    if data.draw(st.booleans()):
        facts = {"task": "t", "type": "regression", "label_names": ["a"], "text_columns": ["text"], "metrics": ["f1"]}
        (place / "labels.json").write_text(as_json(data.draw(changed(facts))))
    options = {
        "text": "text",
        "label": "label",
        "text_pair": None,
        "labels": None,
        "regression": None,
        "max_train": None,
    }
    task = load_task(dataset=str(place), **(options if data.draw(st.booleans()) else _options(data, options)))
    list(task.evaluation_texts())


def _options(data: st.DataObject, options: dict[str, Any]) -> dict[str, Any]:
    """Options as a validated recipe may have them: names that are not there, and numbers in range."""
    names = st.sampled_from(["text", "label", "id", "nowhere", "", "\0"])
    drawn = {"text": data.draw(names), "label": data.draw(names), "text_pair": data.draw(st.none() | names)}
    drawn["labels"] = data.draw(st.none() | st.lists(texts, min_size=1, max_size=3))
    drawn["regression"] = data.draw(st.sampled_from([None, True, False]))
    drawn["max_train"] = data.draw(st.none() | st.integers(2, 9))
    return options | drawn


def _write_rows(data: st.DataObject, place: Path, stem: str, row: dict[str, Any]) -> Path:
    """A file of changed rows in one of the formats."""
    kind = data.draw(st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "parquet"]))
    rows = [row if data.draw(st.booleans()) else data.draw(changed(row)) for _ in range(data.draw(st.integers(0, 8)))]
    path = place / f"{stem}.{kind}"
    if kind == "parquet":
        table = pa.table({name: pa.array([str(name)] * 4) for name in row})
        pq.write_table(data.draw(changed_table(table)), path)
        return path
    if kind in ("json", "jsonl"):
        content = as_json(rows) if kind == "json" else "\n".join(as_json(one).replace("\n", " ") for one in rows)
    else:
        separator = "\t" if kind == "tsv" else ","
        table = [
            list(row),
            *([str(one.get(name)) if isinstance(one, dict) else str(one) for name in row] for one in rows),
        ]
        content = "\n".join(separator.join(line) for line in table)
    encoded = content.encode("utf-8", "surrogatepass")
    path.write_bytes(data.draw(changed_bytes(encoded)) if data.draw(st.integers(0, 3)) == 0 else encoded)
    return path


def corpora(data: st.DataObject, world: World, place: Path) -> None:
    path = _write_rows(data, place, "corpus", {"text": "some words of text", "other": 1})
    duplicates = data.draw(st.sampled_from(["keep", "exact", "near"]))
    sentences = data.draw(st.sampled_from([None, None, "en", "xx"]))
    source = CorpusSource(
        str(path), duplicates=duplicates, sentences=sentences, text=data.draw(st.sampled_from(["text", "x"]))
    )
    counts = CorpusCounts()
    kept = list(stream_corpus(source, counts))
    assert len(kept) == counts.kept


def samples(data: st.DataObject, world: World, place: Path) -> None:
    row = {"guid": "train-1", "augmented_samples": ["a", {"text_a": "b", "text_b": "c"}]}
    path = _write_rows(data, place, "samples", row)
    task = load_task(dataset=str(world / "task"))
    read_candidates(path, task.train, set())


def given_logits(data: st.DataObject, world: World, place: Path) -> None:
    columns = {
        "text": ["a", "b"],
        "text_pair": [None, "c"],
        "logits": [[0.1, 0.9]] * 2,
        "probabilities": [[0.5, 0.5]] * 2,
    }
    path = place / "logits.parquet"
    _write_parquet(data, pa.table(columns), path)
    column = data.draw(st.sampled_from(["logits", "probabilities"]))
    labels = Target(data.draw(st.sampled_from([("x", "y"), ()])))
    teacher = GivenTeacher(path, column, labels, ["x", "y"], data.draw(st.booleans()))
    assert np.isfinite(teacher.logits([("a", None)])).any() or True


def _write_parquet(data: st.DataObject, table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        pq.write_table(data.draw(changed_table(table)), path)
    except pa.ArrowNotImplementedError:  # what Parquet cannot hold, nobody can give us
        return
    if data.draw(st.integers(0, 5)) == 0:
        path.write_bytes(data.draw(changed_bytes(path.read_bytes())))


def transfer_sets(data: st.DataObject, world: World, place: Path) -> None:
    candidate = {"id": "c", "text": "x", "text_pair": None, "source": "s", "score": 0.5, "teacher_logits": [0.0, 1.0]}
    row = {
        "id": "1",
        "text": "one",
        "text_pair": "p",
        "label": "yes",
        "teacher_logits": [0.0, 1.0],
        "candidates": [candidate],
    }
    rows = [row, {**row, "id": "2", "label": None, "candidates": []}, {**row, "id": "3", "label": "no"}]
    table = in_memory(rows, ("no", "yes")).table
    _write_parquet(data, table, place / "data" / "train-00000.parquet")
    opened = TransferSet.open(place)
    candidates = opened.candidates()
    assert len(candidates.teacher) == len(candidates.owner)
    assert opened.teacher().shape == (len(opened), opened.target.outputs)
    assert len(opened.target.encode(opened.column("label"))) == len(opened)
    for shown in opened.table.to_pylist():
        list(describe(shown, opened.target))
    write_card(place, data.draw(texts), [data.draw(texts)])
    opened.write_jsonl(place / "out.jsonl")
    task = task_of(opened)
    copy_training_rows(opened, place / "copy", [example.id for example in task.train], task)


# ---- artefacts ----


def tensors(data: st.DataObject, world: World, place: Path) -> None:
    kind = data.draw(st.sampled_from(["trace", "predictions", "static"]))
    student = world / "run" / "student"
    if kind == "static":
        vectors = {"vectors": np.ones((3, 2), np.float32), "pair_vectors": np.ones((1, 2), np.float32)}
        _write_tensors(data, vectors | {"pair_keys": np.array([1])}, place / "model.safetensors")
        shutil.copy(world / "bert" / "tokenizer.json", place)
        manifest = {
            "format": 2,
            "kind": "static_encoder",
            "name": "n",
            "fingerprint": "0" * 64,
            "facts": {},
            "files": {},
        }
        sign(place, manifest)
        StaticEncoder.load(place)
        return
    name = f"{kind}.safetensors"
    _write_tensors(data, load_file(student / name), place / name)
    if kind == "trace":
        trace = Trace.read(place / name)
        assert trace.divergence.shape == trace.picked.shape
        return
    read = read_predictions(place, data.draw(st.sampled_from(["test", "validation"])))
    assert read is None or read.student.shape[0] == len(read.labels)


def _write_tensors(data: st.DataObject, arrays: dict[str, Any], path: Path) -> None:
    save_file(data.draw(changed_tensors(arrays)), path)
    if data.draw(st.integers(0, 4)) == 0:
        path.write_bytes(data.draw(changed_bytes(path.read_bytes())))


def models(data: st.DataObject, world: World, place: Path) -> None:
    folder = place / "model"
    folder.mkdir()
    for file in (world / "bert").iterdir():
        (folder / file.name).symlink_to(file)
    name = data.draw(st.sampled_from(["config.json", "tokenizer_config.json", "tokenizer.json", "modules.json"]))
    content = (
        (world / "bert" / name).read_text() if name != "modules.json" else '[{"path": "", "type": "x.Transformer"}]'
    )
    (folder / name).unlink(missing_ok=True)
    if name != "tokenizer.json" and data.draw(st.booleans()):
        (folder / name).write_text(as_json(data.draw(changed(json.loads(content)))))
    else:
        (folder / name).write_bytes(data.draw(changed_bytes(content.encode())))
    locate(str(folder))
    model_fingerprint(folder)
    parameter_count(folder)
    stated_max_length(folder)
    load_config(folder, "x")
    if name.startswith("tokenizer"):
        load_tokenizer(folder, "x")


def index_manifests(data: st.DataObject, world: World, place: Path) -> None:
    name = data.draw(st.sampled_from(["dense", "run/index"]))
    folder = world.copy(name, place / "index")
    before = {path.name for path in folder.rglob("*") if path.is_file()}
    _change_manifest(data, folder)
    action = data.draw(st.sampled_from(["open", "remove", "texts", "info", "dropped", "verify", "search", "push"]))
    try:
        if action == "open":
            Index.open(folder)
        elif action == "remove":
            remove_texts(folder, ["line number 3"])
        elif action == "texts":
            list(index_texts(folder))
        elif action == "search":
            command("index", "search", str(folder), "line")
        elif action == "push":
            plan_upload(folder)
        else:
            arguments = {"info": ["index", "info", "--verify"], "dropped": ["index", "dropped"], "verify": ["verify"]}[
                action
            ]
            command(*arguments, str(folder))
    except AugkdError:
        assert {path.name for path in folder.rglob("*") if path.is_file()} >= before - {"building.json"}, (
            "a file is gone"
        )
        raise


def _change_manifest(data: st.DataObject, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("checksum", None)
    sign(folder, data.draw(changed(manifest)))


def shards(data: st.DataObject, world: World, place: Path) -> None:
    folders = [world.copy(f"shard-{number}", place / "in" / f"shard-{number}") for number in (1, 2)]
    _change_manifest(data, data.draw(st.sampled_from(folders)))
    merge_encoded_shards(folders, place / "in" / "merged")
    assert {path.name for path in place.iterdir()} == {"in"}


def run_manifests(data: st.DataObject, world: World, place: Path) -> None:
    run = world.copy("run", place / "run")
    folder = data.draw(st.sampled_from([run, run / "student", run / "transfer_set", run / "teacher"]))
    _change_manifest(data, folder)
    action = data.draw(st.sampled_from(["card", "student", "push", "stages", "verify", "transfer"]))
    if action == "card":
        student_card(run, TransferSet.open(run / "transfer_set"))
    elif action == "student":
        student = find_student(run)
        student.teacher(), student.index(), student.max_length
        student.task()
    elif action == "push":
        plan_upload(run, data.draw(st.sampled_from([None, "student", "transfer-set", "index"])))
    elif action == "stages":
        opened = RunFolder.open(run)
        [opened.stage(name) for name in ("index", "teacher", "student")]
    elif action == "verify":
        command("verify", str(run))
    else:
        command("transfer", "card", str(run / "transfer_set"))


# ---- small values ----


def small_values(data: st.DataObject, world: World, place: Path) -> None:
    text, value = data.draw(texts), data.draw(values)
    assert neutral(neutral(text)) == neutral(text)
    assert "\n" not in markdown_text(text) + markdown_code(text)
    assert front_matter({"a": text}).count("---\n") == 2
    for refusing in (
        lambda: parse_bytes(text),
        lambda: parse_seconds(text),
        lambda: parse(value, "weight"),
        lambda: user_path(text),
        lambda: path_name(text, "name"),
    ):
        try:
            refusing()
        except AugkdError as exc:
            message = str(exc)
        else:
            message = ""
        assert "\n" not in message


# ---- commands ----


def _files(folder: Path) -> list[Path]:
    ends = (".json", ".parquet", ".safetensors", ".arrow", ".npy", ".txt", ".jsonl", ".yaml", ".md")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in ends and path.name[0] != ".")


_RUN_COMMANDS = [
    *(["transfer", "show", "transfer_set"], ["transfer", "jsonl", "transfer_set", "--out", "@/out.jsonl"]),
    *(["transfer", "card", "transfer_set"], ["push", ".", "a/b", "--dry-run"], ["verify", "."], ["report", "."]),
    *(["push", ".", "a/b", "--dry-run", "--what", "index"], ["index", "info", "index", "--verify"]),
    *(["index", "search", "index", "cats"], ["index", "dropped", "index"], ["calibrate", "."]),
]


def commands(data: st.DataObject, world: World, place: Path) -> None:
    """One file of a run is changed, and signed, then a command reads it."""
    run = world.copy("run", place / "run")
    file = data.draw(st.sampled_from(_files(run)))
    _change_file(data, file)
    sign_file(file)
    first, *rest = data.draw(st.sampled_from(_RUN_COMMANDS))
    if first == "calibrate":
        first, rest = "verify", ["."]
    arguments = [part.replace("@", str(place)) for part in rest]
    places = [str(run / part) if part in (".", "index", "transfer_set") else part for part in arguments]
    command(first, *places)


def _change_file(data: st.DataObject, file: Path) -> None:
    if file.suffix == ".json" and data.draw(st.integers(0, 4)):
        value = json.loads(file.read_text())
        if file.name == "manifest.json":
            value.pop("checksum", None)
            sign(file.parent, data.draw(changed(value)))
        else:
            file.write_text(as_json(data.draw(changed(value))))
    elif file.suffix == ".parquet" and data.draw(st.booleans()):
        pq.write_table(data.draw(changed_table(pq.read_table(file))), file)
    elif file.suffix == ".safetensors" and data.draw(st.booleans()):
        save_file(data.draw(changed_tensors(load_file(file))), file)
    elif file.suffix in (".arrow", ".npy"):
        file.write_bytes(data.draw(changed_bytes(file.read_bytes())))
    else:
        file.write_bytes(data.draw(changed_bytes(file.read_bytes())))


def arguments(data: st.DataObject, world: World, place: Path) -> None:
    """Any command with any arguments; those that would train have a recipe that names no model."""
    broken = place / "broken.yaml"
    broken.write_text(
        "task: {dataset: nowhere.csv}\nteacher: {model: ./nowhere}\nstudent: {layers: [0]}\ntraining: {kd: {}}\n"
    )
    out = ["--out", str(place / "out")]
    things = st.sampled_from(
        [str(place), str(world / "task"), str(broken), str(place / "nowhere"), "demo ", "", "\x1b[2J"]
    )
    thing = st.one_of(things, texts.map(lambda text: text.replace("\0", "") or "x")).filter(
        lambda text: text[:1] != "-"
    )
    forms: list[Callable[[], list[str]]] = [
        *(
            lambda name=name: [name, str(broken), *out, *_sets(data)]
            for name in ("run", "augment", "distill", "compare")
        ),
        lambda: ["check", str(broken), *_sets(data)],
        lambda: ["check", data.draw(thing)],
        lambda: ["list", data.draw(thing)],
        lambda: ["init", data.draw(thing), "--out", str(place / "new.yaml")],
        lambda: ["init", str(world / "task"), "--out", str(place / "new.yaml"), "--label", data.draw(thing)],
        lambda: ["index", "build", str(broken), *out, *_sets(data)],
        lambda: ["index", "build", "questions", *out, "--shard", data.draw(thing), "--set", "corpus=nowhere.txt"],
        lambda: ["index", "merge", data.draw(thing), data.draw(thing), *out],
        lambda: ["index", "add", str(place), data.draw(thing)],
        lambda: ["index", "remove", str(place), data.draw(thing)],
        lambda: ["index", "search", data.draw(thing), data.draw(thing), "-k", str(data.draw(atoms))],
        lambda: [
            "index",
            "plan",
            "--vectors",
            str(data.draw(atoms)),
            "--dim",
            str(data.draw(st.sampled_from([1, 0, 384, 10**10]))),
        ],
        lambda: ["index", "plan", "--vectors", "1e6", "--memory", data.draw(thing)],
        lambda: ["index", "info", data.draw(thing)],
        lambda: ["index", "score", str(broken), data.draw(thing), *out],
        lambda: ["transfer", "show", data.draw(thing), "-n", str(data.draw(atoms))],
        lambda: ["report", data.draw(thing), "--out", data.draw(thing)],
        lambda: ["export", data.draw(thing)],
        lambda: ["bench-student", data.draw(thing)],
        lambda: ["push", data.draw(thing), data.draw(thing), "--dry-run"],
        lambda: ["verify", data.draw(thing)],
        lambda: ["distill", "--transfer-set", data.draw(thing), "--student", data.draw(thing), *out],
        lambda: [data.draw(thing), data.draw(thing)],
    ]
    parts = data.draw(st.sampled_from(forms))()
    command(*[part.replace("\0", "").encode("utf-8", "replace").decode() for part in parts])


def _sets(data: st.DataObject) -> Iterator[str]:
    for override in _overrides(data):
        yield from ("--set", override)
