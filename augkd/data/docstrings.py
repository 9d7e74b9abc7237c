"""The built-in task and corpus, so that augkd can be tried with nothing downloaded and no data at hand.

The task: what is this docstring about? The label is the package, or part of one, that the docstring stands in; the
packages are ones that augkd itself depends on. The corpus: their other docstrings, without labels. All are read with
`ast`; nothing is imported. The split is by module, because the functions of one module repeat each other: a split by
row would put near-copies of the training texts into the test. For the same reason the corpus has nothing from a module
of validation or test, and texts that differ in names and numbers alone count as one.
"""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import importlib.util
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from augkd.errors import DataError

# Modules by what they are about.
TOPICS = {
    "algebra": "sympy.polys sympy.ntheory sympy.combinatorics sympy.matrices sympy.algebras sympy.liealgebras "
    "numpy.polynomial",
    "graphs": "networkx scipy.sparse.csgraph",
    "networks": "torch.nn torch.optim torch.ao.nn transformers.models transformers.optimization",
    "physics": "sympy.physics sympy.vector sympy.diffgeom scipy.constants",
    "statistics": "scipy.stats sympy.stats torch.distributions",
    "tables": "pandas",
}
PACKAGES = ("networkx", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
SIZES = {"test": 200, "validation": 60, "train": 500}  # rows of a topic at most; the corpus gets what is over in train
HELD_OUT = {"test": 0.28, "validation": 0.08}  # of a topic's rows at most
SLACK = 1.3  # a module may overfill a held-out split by this much; larger ones go to train
FEWEST_WORDS, MOST_WORDS = 8, 32  # of a text of the task
FEWEST_CORPUS_WORDS = 5
RUN = 8  # words in a row that a text outside may not share with one of validation or test
MOST_FILES = 300  # of one module of a topic; transformers.models has 2,000, many of them alike

_NAMES = "networkx|nx|numpy|np|pandas|pd|scipy|scikit|sklearn|sympy|torch|pytorch|transformers|hugging ?face"
_GIVES_AWAY = re.compile(rf"\b({_NAMES})\b", re.IGNORECASE)
_SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "_test", "__pycache__"})

Row = dict[str, str]


def task_rows() -> Iterator[Row]:
    """The labelled rows (`text`, `label`, `split`, `id`) in an order that mixes the classes and never changes."""
    yield from map(dict, _task(_folders()).rows)


def corpus_texts() -> Iterator[str]:
    """Docstring paragraphs of the packages, files in hashed order, so that any head is a mixed sample.

    No text of the task is among them and nothing from a module of its validation or test split. Repeats are kept.
    """
    folders = _folders()
    task = _task(folders)
    for path, module in sorted(_files(folders), key=lambda found: _digest(found[1])):
        if _unit(module) not in task.held_out:
            for _, docstring in _docstrings(path):
                for text in _paragraphs(docstring):
                    if _key(text) not in task.keys and not _runs(text) & task.runs:
                        yield text


@dataclass(frozen=True)
class _Task:
    rows: tuple[Row, ...]
    held_out: frozenset[str]  # modules of validation and test
    keys: frozenset[str]  # of all texts
    runs: frozenset[str]  # of the texts of validation and test


@functools.lru_cache(maxsize=1)  # a comparison reads the task for each of its runs, which takes 6 s
def _task(folders: tuple[tuple[str, Path], ...]) -> _Task:
    """Rows, splits and what the corpus must not have; of texts that count as one, the first that is read stays."""
    found: dict[str, Row] = {}
    for label, names in TOPICS.items():
        for name in names.split():
            files = sorted(_files(folders, name), key=lambda found: _digest(found[1]))
            for path, module in files[:MOST_FILES]:
                for row in _rows_of_file(path, module, label):
                    found.setdefault(_key(row["text"]), row)
    splits = _split_of_each_module(found.values())
    rows = list(_limited(row | {"split": splits[_module_of(row)]} for row in found.values()))
    runs = frozenset(run for row in rows if row["split"] != "train" for run in _runs(row["text"]))
    return _Task(
        rows=tuple(row for row in rows if row["split"] != "train" or not _runs(row["text"]) & runs),
        held_out=frozenset(module for module, split in splits.items() if split != "train"),
        keys=frozenset(_key(row["text"]) for row in rows),
        runs=runs,
    )


def _limited(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows in hashed order, of each topic and split no more than `SIZES`."""
    taken: Counter[tuple[str, str]] = Counter()
    for row in sorted(rows, key=lambda row: _digest(row["id"])):
        taken[row["label"], row["split"]] += 1
        if taken[row["label"], row["split"]] <= SIZES[row["split"]]:
            yield row


def _folders() -> tuple[tuple[str, Path], ...]:
    """Each package's name with its folder, not imported; raises DataError where one is missing."""
    return tuple((name, _folder(name)) for name in PACKAGES)


def _folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise DataError(f"the built-in task reads the sources of {name}, which is not installed; pip install {name}")
    return Path(spec.origin).parent


def _files(folders: Iterable[tuple[str, Path]], below: str = "") -> Iterator[tuple[Path, str]]:
    """Every source file with its module's name, without tests; of the module `below` and what is in it, or of all."""
    for package, folder in folders:
        if below.split(".")[0] not in ("", package):
            continue
        root = folder.joinpath(*below.split(".")[1:])
        for path in [root.with_suffix(".py")] if root.with_suffix(".py").is_file() else root.rglob("*.py"):
            relative = path.relative_to(folder)
            if not _SKIPPED_FOLDERS & set(relative.parts):
                parts = (package, *relative.with_suffix("").parts)
                yield path, ".".join(part for part in parts if part != "__init__")


def _rows_of_file(path: Path, module: str, label: str) -> Iterator[Row]:
    """The docstrings of what is public and says enough, without those that name a package."""
    for where, docstring in _docstrings(path):
        text = _description(docstring)
        private = any(part.startswith("_") for part in where.split("."))
        if not private and len(text.split()) >= FEWEST_WORDS and not _GIVES_AWAY.search(text):
            yield {"text": text, "label": label, "id": f"{module}:{where}"}


def _module_of(row: Row) -> str:
    return _unit(row["id"].partition(":")[0])


def _unit(module: str) -> str:
    """What is never parted by the split: a module four names deep with all below it."""
    return ".".join(module.split(".")[:4])


def _split_of_each_module(rows: Iterable[Row]) -> dict[str, str]:
    sizes: dict[str, Counter[str]] = {label: Counter() for label in TOPICS}
    for row in rows:
        sizes[row["label"]][_module_of(row)] += 1
    return {module: split for topic in sizes.values() for module, split in _split_topic(topic).items()}


def _split_topic(sizes: Mapping[str, int]) -> dict[str, str]:
    """Whole modules in hashed order, to test and validation while they fit, the others to train."""
    total = sum(sizes.values())
    splits = dict.fromkeys(sizes, "train")
    for split, share in HELD_OUT.items():
        wanted = min(SIZES[split], share * total)
        filled = 0
        for module in sorted((module for module in sizes if splits[module] == "train"), key=_digest):
            if filled < wanted and filled + sizes[module] <= SLACK * wanted:
                splits[module] = split
                filled += sizes[module]
    return splits


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Each docstring of a file with `qualified name:line`; nothing where the file cannot be read or parsed."""
    try:
        with warnings.catch_warnings(), _no_garbage_collection():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for name, node in [("", tree), *_definitions(tree)]:
        docstring = ast.get_docstring(node)
        if docstring:
            yield f"{name}:{getattr(node, 'lineno', 1)}".lstrip(":"), docstring


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A tree of a file is many objects and no cycle: looking for cycles among them took half of the time of parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(tree: ast.Module) -> Iterator[tuple[str, _Definition]]:
    """The classes and functions, however nested, with their qualified names, in the order of the file."""
    todo: list[tuple[str, ast.AST]] = [("", tree)]  # a stack: generated code nests deeper than Python recurses
    while todo:
        name, node = todo.pop()
        if isinstance(node, _Definition):
            name = f"{name}.{node.name}".lstrip(".")
            yield name, node
        below = [child for field in _BLOCKS for child in getattr(node, field, ())]
        todo += [(name, child) for child in reversed(below)]


_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # where statements stand, in the order of the source


_HEADINGS = (
    *("Args", "Arguments", "Attributes", "Examples?", "Notes?", "Parameters", "Raises", "References", "Returns?"),
    *("See Also", "Usage", "Yields"),
)
_NOT_PROSE = re.compile(rf">>>|---|===| : |:=|\.\. |^({'|'.join(_HEADINGS)}):?$|^({'|'.join(_HEADINGS)}):")


def _description(docstring: str) -> str:
    """The paragraphs before the first that is no prose, on one line, cut to whole sentences; may be empty."""
    text = ""
    for paragraph in docstring.split("\n\n"):
        prose = _prose(paragraph)
        if prose is None or len(text.split()) >= MOST_WORDS:
            break
        text = f"{text} {prose}".strip()
    return _cut(text)


def _paragraphs(docstring: str) -> Iterator[str]:
    """The description, then every paragraph of prose that is long enough."""
    description = _description(docstring)
    for text in (description, *(_cut(_prose(paragraph) or "") for paragraph in docstring.split("\n\n"))):
        if len(text.split()) >= FEWEST_CORPUS_WORDS and (text is description or text not in description):
            yield text


def _prose(paragraph: str) -> str | None:
    """The paragraph on one line; None for code and tables."""
    text = " ".join(paragraph.split())
    if not text or not text.isprintable() or not text[0].isalpha() or _NOT_PROSE.search(text):
        return None
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    return text if letters >= 0.8 * len(text) else None


def _cut(text: str) -> str:
    """The longest head of whole sentences within `MOST_WORDS`; empty when the first sentence is longer."""
    if len(text.split()) <= MOST_WORDS:
        return text
    head = ""
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text):
        longer = f"{head} {sentence}".strip()
        if len(longer.split()) > MOST_WORDS:
            break
        head = longer
    return head


_IDENTIFIER = re.compile(r"`[^`]*`|\S*[a-z]\S*[A-Z_]\S*|\S*\d\S*")


def _key(text: str) -> str:
    """The letters alone, without names of code and numbers: equal for texts that count as one."""
    return "".join(filter(str.isalpha, _IDENTIFIER.sub("", text).casefold()))


def _runs(text: str) -> set[str]:
    """Every `RUN` words in a row, by their letters; of a shorter text all its words."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return {" ".join(words[place : place + RUN]) for place in range(max(1, len(words) - RUN + 1))}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
