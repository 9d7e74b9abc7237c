"""A random sample of mutants of the modules that decide results, each run against the tests of its module.

    make mutants                                             # 120 mutants, seed 0
    python -m support.mutants --count 40 --seed 1 --module selection/selectors.py     (in tests/)

The mutations are those of Cosmic Ray, made in a copy of the checkout. Torch and the other large libraries are imported
once; each mutant is tested in a fork of that process, which imports augkd from the copy. What changes only annotations,
docstrings or messages is no mutant. Survivors are printed as diffs.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[2]
TESTS = {  # module → the tests that must notice a change in it
    "selection/selectors.py": ["selection/test_selectors.py"],
    "selection/divergence.py": ["selection/test_divergence.py", "distill/objective/test_loss_defaults.py"],
    "selection/pool.py": ["selection/test_pool.py", "selection/test_selectors.py"],
    "distill/objective/losses.py": [
        f"distill/objective/test_{name}.py" for name in ("losses", "loss_defaults", "objective")
    ],
    "data/transfer_set.py": ["data/test_transfer_set.py"],
    "workspace/manifests.py": ["workspace"],
}
_SECONDS = 120  # after which a mutant that does not end counts as killed
_IGNORED = ("VariableReplacer", "VariableInserter", "RemoveDecorator")  # need settings, or break the import


def main() -> None:
    """Prints survivors and the share of mutants that were killed; the exit status is 1 below 85 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", choices=TESTS, help="only this module (default: all, by their number of mutants)")
    options = parser.parse_args()
    modules = [options.module] if options.module else list(TESTS)
    sample, mutations = _sample(modules, options.count, options.seed)
    print(f"{len(sample)} mutants of {mutations} mutations, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = _copy(Path(scratch))
        _import_libraries(copy)
        for module in sorted({module for module, _ in sample}):
            assert not _killed(copy, module, (ROOT / "augkd" / module).read_text()), f"the tests of {module} fail"
        survived = sum(not _reported(copy, module, source) for module, source in sample)
    share = 1 - survived / max(1, len(sample))
    print(f"killed {len(sample) - survived} of {len(sample)}: {share:.1%}")
    raise SystemExit(share < 0.85)


def _places(module: str) -> Iterator[tuple[str, str, int]]:
    """Every mutation of a module: module, operator, occurrence."""
    tree = get_ast((ROOT / "augkd" / module).read_text())
    for name in sorted(operator_names()):
        if not any(ignored in name for ignored in _IGNORED):
            operator = get_operator(name)()
            count = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
            yield from ((module, name, occurrence) for occurrence in range(count))


def _sample(modules: list[str], count: int, seed: int) -> tuple[list[tuple[str, str]], int]:
    """`count` different mutants, (module, source), that change what a module does; and the number of all mutations."""
    places = [place for module in modules for place in _places(module)]
    random.Random(seed).shuffle(places)
    originals = {module: (ROOT / "augkd" / module).read_text() for module in modules}
    seen = {_meaning(source) for source in originals.values()}
    sample: list[tuple[str, str]] = []
    for module, name, occurrence in places:
        source = _mutated(originals[module], get_operator(name)(), occurrence)
        if source is not None and (meaning := _meaning(source)) not in seen:
            seen.add(meaning)
            sample.append((module, source))
        if len(sample) == count:
            break
    return sample, len(places)


def _mutated(source: str, operator: Any, occurrence: int) -> str | None:
    try:
        mutant: str | None = mutate_code(source, operator, occurrence)
    except AttributeError:  # an operator of Cosmic Ray's that does not know a piece of syntax: `except A as b`
        return None
    return mutant


class _Plain(ast.NodeTransformer):
    """Leaves out what a test need not notice: annotations, docstrings, the words of messages."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        """Without what cannot show: -1 for 1 as the last of two dimensions, a frozen class that nobody changes."""
        self.generic_visit(node)
        if node.arg == "dim" and isinstance(node.value, ast.UnaryOp):
            node.value = node.value.operand
        return None if node.arg in ("frozen", "include_url") else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        of_shape = isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
        if of_shape and isinstance(node.slice, ast.UnaryOp):
            node.slice = node.slice.operand
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.Pass()


def _meaning(source: str) -> str:
    try:
        return ast.dump(_Plain().visit(ast.parse(source)))
    except SyntaxError:
        return ""


def _copy(scratch: Path) -> Path:
    for name in ("augkd", "indexes", "pipelines", "tests", "docs", "pyproject.toml", "README.md"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, scratch / name)
    return scratch


def _import_libraries(copy: Path) -> None:
    """The libraries that take seconds, but nothing of augkd, which comes from the copy."""
    os.chdir(copy)
    kept = [place for place in sys.path if Path(place).resolve() not in (ROOT, ROOT / "tests")]
    sys.path[:] = [str(copy), str(copy / "tests"), *kept]
    for name in [name for name in sys.modules if name.split(".")[0] in ("augkd", "support")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True  # two mutants of a second have one time of change
    import datasets  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)  # no pool of threads that a fork would not have


def _reported(copy: Path, module: str, source: str) -> bool:
    started = time.monotonic()
    killed = _killed(copy, module, source)
    print(f"{'killed' if killed else 'SURVIVED'} {module} {time.monotonic() - started:.1f} s", flush=True)
    if not killed:
        original = (ROOT / "augkd" / module).read_text().splitlines()
        print("\n".join(difflib.unified_diff(original, source.splitlines(), module, module, lineterm="", n=1)))
    return killed


def _killed(copy: Path, module: str, source: str) -> bool:
    """Whether the tests of `module` fail with this source of it."""
    (copy / "augkd" / module).write_text(source)
    process = os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.alarm(_SECONDS)
        import pytest

        tests = [str(copy / "tests" / name) for name in TESTS[module]]
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(copy), *tests]
        os._exit(int(pytest.main(arguments)) != 0)
    _, status = os.waitpid(process, 0)
    shutil.copyfile(ROOT / "augkd" / module, copy / "augkd" / module)
    return status != 0


if __name__ == "__main__":
    main()
