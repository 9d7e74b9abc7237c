"""A bounded part of `make fuzz`: hostile input at every entry point and command, and no traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fuzzing.cases import Tally, run
from support.fuzzing.targets import targets
from support.fuzzing.world import World, make_world
from support.tiny import save_tiny_bert

CASES = 300
NAMES = (
    *(
        "recipes",
        "overrides",
        "index recipes",
        "tasks",
        "corpora",
        "samples",
        "given logits",
        "transfer sets",
        "tensors",
    ),
    *("models", "index manifests", "shards", "run manifests", "values", "commands", "arguments"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One of every artefact; the libraries' warnings about hostile files are nobody's business."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield make_world(tmp_path_factory.mktemp("world"), save_tiny_bert(tmp_path_factory.mktemp("bert")))
    logging.disable(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_no_hostile_input_ends_in_a_traceback(world: World, tmp_path: Path, name: str) -> None:
    everything, tally = targets(world, tmp_path), Tally()
    case, share = everything[name]
    shares = sum(share for _, share in everything.values())
    run(name, case, max(5, CASES * share // shares), tally)
    assert tally.failures == {}, "\n".join(tally.report())
    assert tally.cases[name] >= 5


def test_every_target_is_tried(world: World, tmp_path: Path) -> None:
    assert set(targets(world, tmp_path)) == set(NAMES)
