"""The built-in task and corpus, so that augkd can be tried with nothing downloaded and no data at hand.

The task: which part of Python's standard library does this docstring come from? The corpus: docstrings of whatever is
installed beside it. Both are read with `ast`; nothing is imported. The split is by module, because the methods of one
module repeat each other: a split by row would put near-copies of the training texts into the test.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from augkd.errors import DataError

FEWEST_WORDS, MOST_WORDS = 4, 60
HELD_OUT = 0.1  # share of each topic's rows for validation, and again for test
SLACK = 1.3  # a module may overfill a held-out split by this much; larger ones go to train

# `encodings` is left out: ninety near-copies of one sentence. Modules a Python no longer has are passed over.
TOPICS = {
    "text": "string re difflib textwrap stringprep locale gettext codecs shlex pprint reprlib html fnmatch getopt",
    "numbers": "numbers decimal _pydecimal fractions random statistics secrets hmac hashlib colorsys "
    "datetime _pydatetime calendar _strptime zoneinfo uuid",
    "files": "os pathlib shutil tempfile posixpath ntpath genericpath glob stat fileinput filecmp io _pyio linecache "
    "tarfile zipfile gzip bz2 lzma _compression nturl2path",
    "mail": "email mailbox smtplib smtpd imaplib poplib nntplib mailcap mimetypes quopri base64 uu",
    "network": "http urllib wsgiref ftplib socket ssl socketserver xmlrpc ipaddress telnetlib webbrowser cgi netrc",
    "concurrency": "asyncio multiprocessing threading concurrent queue subprocess selectors sched signal asyncore "
    "asynchat _threading_local",
    "formats": "json csv xml configparser plistlib tomllib pickle shelve dbm sqlite3 xdrlib wave sunau aifc chunk "
    "imghdr sndhdr _markupbase",
    "interface": "tkinter turtle turtledemo idlelib curses cmd rlcompleter getpass tty pty _pyrepl",
    "language": "typing abc _py_abc collections _collections_abc functools enum dataclasses types contextlib operator "
    "weakref _weakrefset copy copyreg heapq bisect graphlib inspect annotationlib",
    "code": "importlib ast dis symtable tokenize token pkgutil runpy zipimport pickletools modulefinder compileall "
    "py_compile imp pyclbr opcode lib2to3 codeop code tabnanny _ast_unparse",
    "development": "unittest doctest pdb bdb trace traceback pydoc cProfile profile pstats timeit logging warnings "
    "tracemalloc distutils venv ensurepip zipapp sysconfig site platform argparse optparse cgitb",
}

_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "__pycache__", "pydoc_data"})
_STDLIB_COPIES = frozenset({"_distutils", "backports"})  # packages that carry standard library files along


def task_rows() -> Iterator[dict[str, str]]:
    """The labelled rows (`text`, `label`, `split`, `id`) in an order that mixes the classes and never changes."""
    rows = _labelled_rows()
    splits = _split_of_each_module(rows)
    for row in sorted(rows, key=lambda row: _digest(row["id"])):
        yield row | {"split": splits[_module_of(row)]}


def corpus_texts() -> Iterator[str]:
    """Docstring paragraphs of the installed packages, files in hashed order, so that any head is a mixed sample.

    No text of the task is among them: packages carry copies of standard library files along. Repeats are kept.
    """
    task = {_fold(row["text"]) for row in _labelled_rows()}
    for path in _installed_files():
        for _, docstring in _docstrings(path):
            for text in _paragraphs(docstring):
                if _fold(text) not in task:
                    yield text


def fingerprint() -> str:
    """The sha256 of what decides the rows and the texts: the Python version and every installed distribution."""
    installed = {f"{found.name} {found.version}" for found in metadata.distributions()}
    return _digest("\n".join([platform.python_version(), *sorted(installed)]))


def _labelled_rows() -> list[dict[str, str]]:
    """All rows without their split; of a text that occurs twice, the first by module name stays."""
    root = Path(sysconfig.get_paths()["stdlib"])
    rows: dict[str, dict[str, str]] = {}
    for name, label in sorted(_topic_of_each_name().items()):
        for path in _module_files(root, name):
            for row in _rows_of_file(path, _dotted(path.relative_to(root)), label):
                rows.setdefault(_fold(row["text"]), row)
    if not rows:
        raise DataError(f"the built-in task needs the sources of Python's standard library; there are none in {root}")
    return list(rows.values())


def _topic_of_each_name() -> dict[str, str]:
    return {name: label for label, names in TOPICS.items() for name in names.split()}


def _module_files(root: Path, name: str) -> list[Path]:
    """The one file of a module, or every file of a package but its tests."""
    package = (
        path for path in (root / name).rglob("*.py") if not _SKIPPED_FOLDERS & set(path.parts[len(root.parts) :])
    )
    return [path for path in (root / f"{name}.py", *sorted(package)) if path.is_file()]


def _dotted(relative: Path) -> str:
    """`email/mime/text.py` → `email.mime.text`, `json/__init__.py` → `json`."""
    return ".".join(part for part in relative.with_suffix("").parts if part != "__init__")


def _rows_of_file(path: Path, module: str, label: str) -> Iterator[dict[str, str]]:
    for where, docstring in _docstrings(path):
        text = _prose(docstring.split("\n\n", 1)[0])
        if text:
            yield {"text": text, "label": label, "id": f"{module}:{where}"}


def _module_of(row: dict[str, str]) -> str:
    """What is never parted by the split: a top-level module, or a package's direct sub-module with all below it."""
    return ".".join(row["id"].partition(":")[0].split(".")[:2])


def _split_of_each_module(rows: Iterable[dict[str, str]]) -> dict[str, str]:
    sizes: dict[str, Counter[str]] = {label: Counter() for label in TOPICS}
    for row in rows:
        sizes[row["label"]][_module_of(row)] += 1
    return {module: split for topic in sizes.values() for module, split in _split_topic(topic).items()}


def _split_topic(sizes: Counter[str]) -> dict[str, str]:
    """About 80/10/10 of one topic's rows, whole modules, in hashed order; each held-out split gets one at least."""
    share = HELD_OUT * sizes.total()
    splits = dict.fromkeys(sizes, "train")
    for split in ("test", "validation"):
        left = sorted((module for module in sizes if splits[module] == "train"), key=_digest)
        filled = 0
        for module in left:
            if filled < share and filled + sizes[module] <= SLACK * share:
                splits[module] = split
                filled += sizes[module]
        if not filled and len(left) > 1:
            splits[min(left, key=lambda module: sizes[module])] = split
    return splits


def _installed_files() -> list[Path]:
    root = Path(sysconfig.get_paths()["purelib"])
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py")}
    kept = [name for name in found if not _STDLIB_COPIES & set(name.split("/"))]
    if not kept:
        raise DataError(f"the built-in corpus needs installed packages; there is no Python file in {root}")
    return [root / name for name in sorted(kept, key=_digest)]


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Each docstring of a file with `qualified name:line`; nothing where the file cannot be read or parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for name, node in [("", tree), *_definitions(tree)]:
        docstring = ast.get_docstring(node)
        if docstring:
            yield f"{name}:{getattr(node, 'lineno', 1)}".lstrip(":"), docstring


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(tree: ast.Module) -> Iterator[tuple[str, _Definition]]:
    """The classes and functions, however nested, with their qualified names, in the order of the file."""
    todo: list[tuple[str, ast.AST]] = [("", tree)]  # a stack: generated code nests deeper than Python recurses
    while todo:
        name, node = todo.pop()
        if isinstance(node, _Definition):
            name = f"{name}.{node.name}".lstrip(".")
            yield name, node
        todo += [(name, child) for child in reversed(list(ast.iter_child_nodes(node))) if isinstance(child, _HOLDERS)]


_HOLDERS = (ast.stmt, ast.ExceptHandler, ast.match_case)  # what a definition may be or stand in


def _paragraphs(docstring: str) -> Iterator[str]:
    for paragraph in docstring.split("\n\n"):
        text = _prose(paragraph)
        if text:
            yield text


_NOT_PROSE = re.compile(r">>>|---|===| : |^(Args|Arguments|Returns?|Raises|Yields|Attributes|Examples?|Usage):")


def _prose(paragraph: str) -> str | None:
    """The paragraph on one line, cut to whole sentences; None for code, tables and what is too short or too long."""
    text = _cut(" ".join(paragraph.split()))
    if len(text.split()) < FEWEST_WORDS or not text.isprintable() or not text[0].isalpha():
        return None
    if _NOT_PROSE.search(text) or sum(character.isalpha() or character == " " for character in text) < 0.8 * len(text):
        return None
    return text


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


def _fold(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
