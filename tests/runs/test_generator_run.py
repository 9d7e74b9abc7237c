"""Whole runs with a generator: what they cost, what they choose among, that they go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import sentences

import augkd.runs.stages.student_training
from augkd.candidates.generator.adapt import adapt, score_masked_lm
from augkd.data.corpus import CorpusSource
from augkd.errors import DataError, ModelError
from augkd.models.masked_lm import load_masked_lm
from augkd.models.tokens import Tokens
from augkd.recipe import load_recipe
from augkd.runs.run import Run
from augkd.runs.stages.masked_lm import sample
from augkd.workspace.run_folder import RunFolder

GENERATOR = "{{model: {model}, adapt: {{corpus: {corpus}, steps: 6, batch_size: 16}}, ascend: 2, every: 4{more}}}"
ORIGINALS, EPOCHS = 90, 3


def generator(model: Path, corpus: Path, more: str = "") -> str:
    return f"data.generator={GENERATOR.format(model=model, corpus=corpus, more=more)}"


@pytest.fixture
def recipe(recipe_file: Path, tiny_bert: Path, corpus_file: Path) -> Any:
    def load(*sets: str, more: str = "") -> Any:
        return load_recipe(str(recipe_file), [generator(tiny_bert, corpus_file, more), *sets])

    return load


def test_mate_kd_costs_one_generator_row_and_one_teacher_row_an_original_and_two_student_rows(
    recipe: Any, tmp_path: Path
) -> None:
    results = Run(recipe("data.neighbours=null", "data.select=everything"), tmp_path / "run").results()
    seen = ORIGINALS * EPOCHS
    steps = EPOCHS * 3  # 90 originals in batches of 32
    ascents = 2 * len(range(0, steps, 4)) * 32
    cost = results["cost"]
    assert cost["training_rows"] == 2 * seen
    assert cost["scoring_rows"] == 0
    assert cost["generator_rows"] == seen + ascents
    teacher_before = ORIGINALS + 0  # the transfer set: originals alone
    assert cost["teacher_rows"] == teacher_before + seen + ascents
    assert (results["data"]["generated_per_original"], results["data"]["kept_per_original"]) == (1, 1)


def test_a_students_step_gives_no_gradient_to_generator_or_teacher(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    train = augkd.runs.stages.student_training.train_stages

    def spied(*given: Any) -> Any:
        seen.append(given[-1])
        return train(*given)

    monkeypatch.setattr(augkd.runs.stages.student_training, "train_stages", spied)
    changes = ("data.neighbours=null", "data.generator.ascend=0", "training.epochs=1")
    cost = Run(recipe(*changes), tmp_path / "run").results()["cost"]
    (player,) = seen
    models = (player.generator.lm.model, player.teacher.model)
    assert all(parameter.grad is None for model in models for parameter in model.parameters())
    assert cost["generator_rows"] == ORIGINALS
    assert cost["teacher_rows"] == 2 * ORIGINALS, "each original for the transfer set, each generated text in its step"


def test_neighbours_and_generated_texts_meet_in_one_minimax_selection(recipe: Any, tmp_path: Path) -> None:
    run = Run(recipe(more=", samples: 2"), tmp_path / "run")
    results = run.results()
    assert results["cost"]["scoring_rows"] == ORIGINALS * EPOCHS * (4 + 2)
    assert results["cost"]["training_rows"] == ORIGINALS * EPOCHS * (1 + 2)  # keep: 2


@pytest.mark.slow
def test_a_run_with_a_generator_that_was_stopped_ends_with_the_same_weights(recipe: Any, tmp_path: Path) -> None:
    given = recipe("training.checkpoints=2", more=", samples: 2")
    whole = Run(given, tmp_path / "whole")
    whole.results()

    class Stop(BaseException):
        pass

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "student" and done == 5:
            raise Stop

    with pytest.raises(Stop):
        Run(given, tmp_path / "cut", progress=stop).results()
    cut = Run(given, tmp_path / "cut")
    assert cut.results()["cost"]["generator_rows"] == whole.results()["cost"]["generator_rows"]
    for folder in ("student", "generator"):
        one, other = (load_file(tmp_path / name / folder / "model.safetensors") for name in ("whole", "cut"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), folder


def test_without_ascent_the_generator_stays_as_it_was(recipe: Any, tmp_path: Path) -> None:
    Run(recipe("training.epochs=1", "data.generator.ascend=0"), tmp_path / "run").results()
    stages = RunFolder.open(tmp_path / "run")
    before, after = (load_masked_lm(str(stages.stage(name))) for name in ("masked_lm", "generator"))
    pairs = zip(before.model.parameters(), after.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_stage_of_hard_labels_alone_makes_no_candidates(recipe: Any, tmp_path: Path) -> None:
    """Combined-KD's second stage: the published code went on generating and threw it away."""
    stages = "training={stages: [{annealed: {tau_max: 2}, epochs: 2}, {ce: {}, epochs: 1}], max_length: 32}"
    results = Run(recipe("data.neighbours=null", "data.select=everything", stages), tmp_path / "run").results()
    assert results["cost"]["training_rows"] == ORIGINALS * (2 * 2 + 1)


def test_layer_losses_see_generated_texts_through_the_live_teacher(recipe: Any, tmp_path: Path) -> None:
    without = ("data.neighbours=null", "data.select=everything", "training.epochs=1")
    rows = Run(recipe("structure={alp: {weight: 0.1}}", *without), tmp_path / "run").student().rows
    assert rows["training"] == ORIGINALS * 2
    # each drawn text, its layers, and two steps of ascent; the layers of originals are stored
    assert rows["teacher"] == ORIGINALS * 2 + 2 * 32


def test_a_trunk_without_a_head_is_refused_without_warm_up(recipe_file: Path, tiny_bert: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file), [f"data.generator={{model: {tiny_bert}}}", "data.neighbours=null"])
    with pytest.raises(ModelError, match=r"has no masked-LM head; add adapt: \{steps: 1000\}"):
        Run(recipe, tmp_path / "run").results()


# ---- warm-up ----


def test_warm_up_teaches_held_out_tokens_and_says_so(tiny_bert: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lm = load_masked_lm(str(tiny_bert), "float32")
    texts = [text for start in range(12) for text, _ in sentences(start)]
    before, after = adapt(lm, texts, tmp_path / "ck", steps=60, batch_size=32, learning_rate=5e-3, max_length=32)
    assert before.perplexity > 10_000  # of 30,522 tokens, by chance
    assert after.perplexity < 500
    assert after.accuracy > before.accuracy + 0.05
    assert before.places == after.places


def test_fit_is_the_cross_entropy_of_masked_tokens(tiny_bert: Path) -> None:
    """An LM whose head gives every token the same logit has a perplexity of the vocabulary's size."""
    lm = load_masked_lm(str(tiny_bert), "float32")
    head = lm.model.get_output_embeddings()
    lm.model.get_input_embeddings().weight.data.zero_()
    head.bias.data.zero_()
    tokens = Tokens.of(lm.tokenizer([text for text, _ in sentences()])["input_ids"])
    found = score_masked_lm(lm, tokens, 0.3, 0)
    assert found.perplexity == pytest.approx(30_522, rel=1e-3)
    assert found.accuracy == 0.0


def test_too_few_texts_to_adapt_to_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="adapt has 3 texts to train on; give a corpus of 20 or more"):
        adapt(load_masked_lm(str(tiny_bert)), ["a", "b", "c"], tmp_path, steps=1)


def test_a_sample_of_a_corpus_takes_its_end_as_often_as_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("\n".join(f"line number {n}" for n in range(100)))
    places = [int(text.split()[-1]) for seed in range(40) for text in sample(CorpusSource(str(path)), 10, seed)]
    assert len(places) == 400
    assert 42 < sum(places) / 400 < 57  # 49.5, standard error 1.4
