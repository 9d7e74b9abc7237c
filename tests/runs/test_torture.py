"""Nothing is lost and nothing silently wrong, whatever happens to a command that writes.

In the normal suite 50 faults of the cheaper commands; `make torture` sets AUGKD_TORTURE=long for more than 200 of all.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny import sentences
from support.torture import SIGNALS, Case, Nursery, Torture

pytestmark = pytest.mark.slow

LONG = os.environ.get("AUGKD_TORTURE") == "long"


def write_inputs(folder: Path, tiny_bert: Path) -> None:
    """A task, a corpus and the recipes over them."""
    for split, start in (("train", 0), ("validation", 10), ("test", 20)):
        rows = sentences(start)[: 90 if split == "train" else 18]
        (folder / "task").mkdir(parents=True, exist_ok=True)
        text = "".join(f"{text},{label}\n" for text, label in rows)
        (folder / "task" / f"{split}.csv").write_text(f"text,label\n{text}")
    lines = [f"{text} and {number}" for number in range(3) for text, _ in sentences(40 + number)]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n")
    (folder / "more.txt").write_text("".join(f"a new line about a goat {number}\n" for number in range(30)))
    (folder / "takedown.txt").write_text("\n".join(lines[3:9]) + "\n")
    corpus, encoder = f"corpus: {{dataset: {folder / 'corpus.txt'}}}\n", f"model: {tiny_bert}, max_length: 32"
    (folder / "dense.yaml").write_text(f"{corpus}encoder: {{{encoder}}}\nfaiss: {{factory: 'IVF4,SQ8'}}\n")
    (folder / "lexical.yaml").write_text(f"{corpus}encoder: {{kind: lexical}}\n")
    (folder / "static.yaml").write_text(f"{corpus}encoder: {{kind: static, model: {tiny_bert}, dim: 8}}\n")
    (folder / "run.yaml").write_text(
        f"task: {{dataset: {folder / 'task'}}}\n"
        f"teacher: {{model: {tiny_bert}, epochs: 1, learning_rate: 1.0e-3}}\n"
        "student: {layers: [0, 2]}\n"
        f"data:\n  neighbours:\n    index:\n      corpus: {{dataset: {folder / 'corpus.txt'}}}\n"
        f"      encoder: {{{encoder}}}\n    k: 3\n  select: {{minimax: {{keep: 2}}}}\n"
        "training: {kd: {weight: 0.5}, ce: {weight: 0.5}, epochs: 2, max_length: 32, checkpoints: 2}\n"
        "structure: {alp: {weight: 0.1}}\n"
    )


def case(
    name: str, *command: str, base: dict[str, str] | None = None, source: Path, tiny_bert: Path, **facts: object
) -> Case:
    """A case whose inputs are written into its place, with copies of finished artefacts: {place name: base name}."""

    def prepare(place: Path) -> list[str]:
        if not (place / "run.yaml").exists():
            write_inputs(place, tiny_bert)
            for target, origin in (base or {}).items():
                shutil.copytree(source / origin, place / target, symlinks=True)
        return [argument.replace("@", str(place)) for argument in command]

    return Case(name, prepare, **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torture]:
    folder = tmp_path_factory.mktemp("torture")
    sandbox = folder / "sandbox"
    sandbox.mkdir()
    nursery = Nursery(folder, sandbox)
    yield Torture(nursery, sandbox)
    nursery.close()


@pytest.fixture(scope="module")
def ran_here() -> list[str]:
    """The names of the tests that ran in this process."""
    return []


@pytest.fixture(autouse=True)
def _remembered(ran_here: list[str], request: pytest.FixtureRequest) -> None:
    ran_here.append(request.node.name)


@pytest.fixture(scope="module")
def cases(torture: Torture, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """A case by its name, measured when it is first asked for."""
    source = tmp_path_factory.mktemp("base")
    write_inputs(source, tiny_bert)
    made: dict[str, Case] = {}

    def base(name: str, *command: str) -> None:
        if not (source / name).exists():
            ended = torture.nursery.attempt([part.replace("@", str(source)) for part in command])
            assert ended.code == 0, ended.error[-3000:]

    def build(name: str) -> Case:
        if name in ("add", "remove", "search"):
            base("index", "index", "build", "@/dense.yaml", "--out", "@/index")
        if name == "merge":
            for number in (1, 2):
                base(
                    f"shard-{number}",
                    *("index", "build", "@/dense.yaml", "--out", f"@/shard-{number}", "--shard", f"{number}/2"),
                )
        if name in ("export", "report", "jsonl", "card", "rerun", "distill", "generate"):
            base("run", "run", "@/run.yaml", "--out", "@/run")
        made_from = {"source": source, "tiny_bert": tiny_bert}
        run, out = {"base": {"out": "run"}}, ("--out", "@/out")
        index: dict[str, object] = {"base": {"out": "index"}, "changes": True}
        corpus: dict[str, object] = {"inputs": ("corpus.txt",)}
        rows: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
            "lexical": (("index", "build", "@/lexical.yaml", *out), corpus),
            "dense": (("index", "build", "@/dense.yaml", *out), corpus),
            "static": (("index", "build", "@/static.yaml", *out), corpus),
            "shard": (("index", "build", "@/dense.yaml", *out, "--shard", "1/2"), corpus),
            "merge": (
                ("index", "merge", "@/one", "@/two", *out),
                {"base": {"one": "shard-1", "two": "shard-2"}, "inputs": ("two/manifest.json",)},
            ),
            "add": (("index", "add", "@/out", "@/more.txt"), {**index, "inputs": ("more.txt",)}),
            "remove": (("index", "remove", "@/out", "@/takedown.txt"), {**index, "inputs": ("takedown.txt",)}),
            "search": (("index", "search", "@/out", "a goat"), index),
            "augment": (("augment", "@/run.yaml", *out), {"inputs": ("task/train.csv", "corpus.txt")}),
            "run": (("run", "@/run.yaml", *out), {"inputs": ("task/test.csv",)}),
            "rerun": (("run", "@/run.yaml", *out), {**run}),
            "distill": (
                (
                    "distill",
                    "--transfer-set",
                    "@/given",
                    "--student",
                    str(tiny_bert),
                    *out,
                    "--set",
                    "training.epochs=1",
                ),
                {"base": {"given": "run/transfer_set"}, "inputs": ("given/data/train-00000.parquet",)},
            ),
            "compare": (("compare", f"{source}/run.yaml", "--controls", "none", "--seeds", "1", *out), {}),
            "export": (("export", "@/out"), {**run, "inputs": ("out/student/model.safetensors",)}),
            "report": (("report", "@/out"), {**run, "out": "out/report.html"}),
            "jsonl": (
                ("transfer", "jsonl", "@/out/transfer_set", "--out", "@/out/rows.jsonl"),
                {**run, "out": "out/rows.jsonl"},
            ),
            "card": (("transfer", "card", "@/out/transfer_set"), {**run, "out": "out/transfer_set/README.md"}),
            "init": (("init", "@/task", "--corpus", "@/corpus.txt", "--out", "@/out/my.yaml", "--force"), {}),
        }
        command, facts = rows[name]
        return case(name, *command, **made_from, **facts)  # type: ignore[arg-type]

    def measured(name: str) -> Case:
        if name not in made:
            made[name] = build(name)
            torture.measure(made[name])
        return made[name]

    return measured


def spread(events: int, count: int) -> list[int]:
    """`count` of the events 1 to `events`, evenly spread from the first to the last; all, if there are fewer."""
    if events <= count:
        return list(range(1, events + 1))
    return sorted({1 + round(step * (events - 1) / max(1, count - 1)) for step in range(count)})


# how many kills in the normal suite, and in the long form
KILLS = {
    **{"lexical": (5, 15), "dense": (4, 15), "static": (0, 12), "shard": (0, 9), "merge": (5, 12), "add": (6, 15)},
    **{"remove": (6, 15), "augment": (0, 12), "run": (0, 18), "distill": (0, 12), "compare": (0, 4)},
    **{"export": (0, 9), "report": (0, 6), "jsonl": (0, 6), "card": (0, 6), "rerun": (0, 6), "init": (0, 3)},
}
DISKS = {
    **{"lexical": (2, 4), "dense": (1, 3), "static": (0, 2), "merge": (1, 2), "add": (1, 3), "remove": (0, 3)},
    **{"augment": (0, 2), "run": (0, 3), "distill": (0, 2), "export": (0, 3), "jsonl": (0, 1), "report": (0, 1)},
}
VANISHED = {
    **{"lexical": (2, 3), "dense": (0, 3), "add": (1, 3), "remove": (0, 2), "merge": (1, 2), "augment": (0, 4)},
    **{"run": (0, 2), "distill": (0, 2), "export": (0, 2)},
}
FLIPS = {
    **{"add": (3, 8), "remove": (2, 6), "search": (2, 6), "rerun": (0, 12), "export": (0, 6), "report": (0, 8)},
    **{"jsonl": (0, 4), "merge": (3, 6), "distill": (0, 6)},
}
FLIPPED = {"merge": "two", "distill": "given"}  # the artefact whose bits flip, where it is not `out`
READ_ONLY = ("lexical", "merge", "add", "remove", "dense", "augment", "run", "distill", "export", "report", "jsonl")
BLOCKED = ("lexical", "merge", "dense", "shard", "augment", "run", "distill", "compare")
TOGETHER = {"lexical": (1, 1), "add": (1, 1), "augment": (0, 1), "export": (0, 1), "report": (0, 1), "merge": (0, 1)}


def amounts(table: dict[str, tuple[int, int]]) -> list[tuple[str, int]]:
    """The cases of this form of the suite, and how many faults each suffers."""
    return [(name, pair[LONG]) for name, pair in table.items() if pair[LONG]]


@pytest.mark.parametrize(("name", "count"), amounts(KILLS))
def test_a_kill_at_any_file_event_loses_nothing(
    torture: Torture, cases: Callable[[str], Case], name: str, count: int
) -> None:
    whole = cases(name)
    for at, signal in zip(spread(whole.events, count), itertools.cycle(SIGNALS), strict=False):
        torture.kill(whole, at, signal)


@pytest.mark.parametrize(("name", "count"), amounts(DISKS))
def test_a_full_disk_is_one_line_and_with_room_the_command_ends(
    torture: Torture, cases: Callable[[str], Case], name: str, count: int
) -> None:
    full = [torture.fill_disk(cases(name), (place + 0.5) / (count + 0.5)) for place in range(count)]
    assert any(full)


@pytest.mark.parametrize("name", READ_ONLY if LONG else READ_ONLY[:3])
def test_a_read_only_folder_is_one_line(torture: Torture, cases: Callable[[str], Case], name: str) -> None:
    if not torture.read_only(cases(name)):
        pytest.skip("only root may mount a read-only disk")


@pytest.mark.parametrize("name", BLOCKED if LONG else BLOCKED[:2])
def test_a_file_in_place_of_the_folder_is_one_line_and_stays(
    torture: Torture, cases: Callable[[str], Case], name: str
) -> None:
    torture.blocked(cases(name))


@pytest.mark.parametrize(("name", "count"), amounts(VANISHED))
def test_an_input_that_vanishes_is_one_line_and_when_it_is_back_the_command_ends(
    torture: Torture, cases: Callable[[str], Case], name: str, count: int
) -> None:
    whole = cases(name)
    for at, gone in zip(spread(whole.events, count), itertools.cycle(whole.inputs), strict=False):
        torture.vanish(whole, gone, at)


@pytest.mark.parametrize(("name", "count"), amounts(FLIPS))
def test_a_flipped_bit_is_refused_by_name_or_was_not_read(
    torture: Torture, cases: Callable[[str], Case], name: str, count: int
) -> None:
    rng = random.Random(name)
    for _ in range(count):
        torture.flip(cases(name), rng, FLIPPED.get(name, "out"))


@pytest.mark.parametrize(("name", "count"), amounts(TOGETHER))
def test_two_processes_never_write_the_same_artefact(
    torture: Torture, cases: Callable[[str], Case], name: str, count: int
) -> None:
    for _ in range(count):
        torture.twice(cases(name))


def test_the_faults_were_as_many_as_promised(
    torture: Torture, ran_here: list[str], request: pytest.FixtureRequest
) -> None:
    planned = {item.name for item in request.session.items if item.fspath == request.node.fspath} - {request.node.name}
    if len(planned) < 10:
        pytest.skip("only some of the faults were asked for")
    total, here = sum(torture.faults.values()), len(set(ran_here) - {request.node.name})
    print(
        f"\n{total} faults, all survived:", *(f"  {count:3} {what}" for what, count in torture.faults.items()), sep="\n"
    )
    assert total * len(planned) >= (200 if LONG else 40) * here  # the share of this process, where there are several
