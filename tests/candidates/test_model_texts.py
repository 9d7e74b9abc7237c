"""Texts that a masked language model writes for the transfer set: decoded, counted, measured, bounded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from augkd.candidates.generator.generated_texts import decode_row, generate_texts
from augkd.candidates.generator.generator import Generator
from augkd.data.task import Example
from augkd.models.masked_lm import MaskedLM, load_masked_lm
from augkd.models.seeds import RowRandom
from augkd.models.tokens import Tokens
from augkd.recipe import load_recipe
from augkd.runs.run import Run

EXAMPLES = [
    Example("a", "The cat is here, isn't it?", None, 0),
    Example("b", "she bought a cheese", None, 1),
]
PAIRS = [Example("p", "the cat is here", "she bought a cheese", 0), Example("q", "soup", "a saw", 1)]


@pytest.fixture(scope="module")
def lm_folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random masked LM with a head of its own, saved as a run leaves a trained generator."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("generator")
    load_masked_lm(str(tiny_bert), "float32").save(folder)
    return folder


@pytest.fixture
def lm(lm_folder: Path) -> MaskedLM:
    return load_masked_lm(str(lm_folder), "float32")


def test_texts_are_the_tokens_that_were_drawn(lm: MaskedLM) -> None:
    """Every text is the decoded row of a `draw` with the same random numbers."""
    pools = generate_texts(EXAMPLES, Generator(lm, 0.3), samples=3, max_length=32, seed=7)
    tokens = Tokens.of(lm.tokenizer([e.text for e in EXAMPLES])["input_ids"])
    drawn = Generator(lm, 0.3).draw(tokens, 3, RowRandom((7, 5), range(len(EXAMPLES))))
    bounds = drawn.tokens.offsets.tolist()
    rows = [drawn.tokens.ids[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    texts = [lm.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=True) for row in rows]
    assert [c.text for c in pools[0]] == texts[:3]
    assert [c.text for c in pools[1]] == texts[3:]
    assert [c.score for pool in pools for c in pool] == pytest.approx(drawn.kept.tolist())
    assert {c.source for pool in pools for c in pool} == {"generator"}
    assert [c.owner for c in pools[1]] == ["b", "b", "b"]


def test_a_pair_stays_a_pair(lm: MaskedLM) -> None:
    pools = generate_texts(PAIRS, Generator(lm, 0.3), samples=2, max_length=32, seed=1)
    tokens = lm.tokenizer
    for example, pool in zip(PAIRS, pools, strict=True):
        for candidate in pool:
            assert candidate.text_pair is not None
            both = tokens(candidate.text, candidate.text_pair)["input_ids"]
            assert len(both) >= len(tokens(example.text, example.text_pair)["input_ids"]) - 2


def test_decoding_removes_the_special_tokens_and_nothing_else(lm: MaskedLM) -> None:
    single = lm.tokenizer("where is my hammer?")["input_ids"]
    assert decode_row(lm.tokenizer, single, False) == ("where is my hammer?", None)
    pair = lm.tokenizer("where is my hammer?", "a saw")["input_ids"]
    assert decode_row(lm.tokenizer, pair, True) == ("where is my hammer?", "a saw")


def test_a_draw_that_changes_nothing_is_not_a_candidate(lm: MaskedLM) -> None:
    """With a head that always predicts one token, each text of one word becomes it once, and the token itself never."""
    head = lm.model.get_output_embeddings()
    lm.model.get_input_embeddings().weight.data.zero_()
    head.bias.data.fill_(-50.0)
    head.bias.data[lm.tokenizer.convert_tokens_to_ids("soup")] = 50.0
    words = [Example("a", "bread", None, 0), Example("b", "soup", None, 0)]
    pools = generate_texts(words, Generator(lm), samples=4, max_length=32, seed=0)
    assert [[candidate.text for candidate in pool] for pool in pools] == [["soup"], []]


@pytest.fixture
def recipe(recipe_file: Path, lm_folder: Path) -> Any:
    def load(**more: str) -> Any:
        options = ", ".join(f"{key}: {value}" for key, value in {"samples": "3", **more}.items())
        sets = [
            "data.neighbours=null",
            "data.select=everything",
            "training.epochs=1",
            f"data.generated={{model: {lm_folder}, {options}}}",
            f"data.substitution={{model: {lm_folder}, n: 2}}",
        ]
        return load_recipe(str(recipe_file), sets)

    return load


def test_a_transfer_set_of_model_texts_opens_as_a_dataset_with_its_drift(recipe: Any, tmp_path: Path) -> None:
    from datasets import load_dataset

    results = Run(recipe(), tmp_path / "run").results()
    rows = load_dataset(str(tmp_path / "run/transfer_set"), split="train", cache_dir=str(tmp_path / "cache"))
    sources = [c["source"] for row in rows for c in row["candidates"]]
    counts = {name: sources.count(name) for name in ("generator", "substitution")}
    assert counts["generator"] > 250  # 90 × 3 less the repeated ones
    assert counts["substitution"] > 100
    assert results["data"]["candidates"] == sum(counts.values())
    assert results["cost"]["training_rows"] == 90 + sum(counts.values())
    drift = json.loads((tmp_path / "run/transfer_set/drift.json").read_text())
    assert drift.keys() == {"generator", "substitution"}
    for source, count in counts.items():
        assert drift[source]["cosine"]["count"] == count
        assert -1 <= drift[source]["cosine"]["mean"] <= 1
        assert 0 < drift[source]["replaced"]["mean"] < 1


def test_an_interrupted_transfer_set_does_not_predict_substitutions_again(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import augkd.candidates.substitution.masked_words as masked_words

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "teacher logits":
            raise KeyboardInterrupt

    whole = Run(recipe(), tmp_path / "whole").transfer_set()
    with pytest.raises(KeyboardInterrupt):
        Run(recipe(), tmp_path / "run", progress=stop).transfer_set()
    monkeypatch.setattr(masked_words, "_predictions", None)  # would fail if it were called
    again = Run(recipe(), tmp_path / "run").transfer_set()
    assert again.candidates().text == whole.candidates().text
    assert not (tmp_path / "run/transfer_set/.cache/words").exists()


def test_a_bound_on_the_distance_rejects_distant_texts_and_counts_them(recipe: Any, tmp_path: Path) -> None:
    free = Run(recipe(), tmp_path / "free")
    bound = Run(recipe(max_distance="0.2"), tmp_path / "bound")
    every, near = free.transfer_set(), bound.transfer_set()
    count = json.loads((near.folder / "manifest.json").read_text())["data"]
    assert count["too_far_from_original"] == len(every.candidates().text) - len(near.candidates().text) > 0
    drift = json.loads((near.folder / "drift.json").read_text())
    assert drift["generator"]["cosine"]["q5"] >= 0.8 - 1e-6


def test_an_evaluation_text_that_the_model_writes_is_withheld(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import augkd.candidates.model_texts
    from augkd.candidates.candidate import Candidate

    run = Run(recipe(), tmp_path / "run")
    stolen = run.task.test[0].text.upper()

    def leaky(examples: Any, *_: Any, **__: Any) -> list[list[Candidate]]:
        return [
            [Candidate("g0", e.id, stolen if n == 3 else f"{e.text} x", None, "generator", 0.5)]
            for n, e in enumerate(examples)
        ]

    monkeypatch.setattr(augkd.candidates.model_texts, "generate_texts", leaky)
    texts = run.transfer_set().candidates().text
    assert stolen not in texts
    assert (
        json.loads((tmp_path / "run/transfer_set/manifest.json").read_text())["data"]["excluded_evaluation_texts"] == 1
    )


def test_the_same_recipe_writes_the_same_bytes_and_another_seed_does_not(recipe: Any, tmp_path: Path) -> None:
    def bytes_of(name: str, **more: str) -> bytes:
        folder = Run(recipe(**more), tmp_path / name).transfer_set().folder
        return (folder / "data/train-00000.parquet").read_bytes()

    first = bytes_of("one")
    assert bytes_of("two") == first
    assert bytes_of("three", seed="1") != first
