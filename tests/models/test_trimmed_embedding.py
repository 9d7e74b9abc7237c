"""Training with the used rows of the word embedding is training with all of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from augkd.distill.clipping import clip_gradients
from augkd.models.trimmed_embedding import TrimmedEmbedding, full_table, grow_moments, trimmed_embedding

IDS = torch.tensor([[1, 5, 9, 2], [7, 5, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
USED = torch.tensor([0, 1, 2, 5, 7, 9])


def model() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return BertForSequenceClassification(config).train()


def train(trained: Any, steps: int, weight_decay: float = 0.1) -> list[float]:
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01, weight_decay=weight_decay)
    losses = []
    for _ in range(steps):
        loss = trained(IDS, MASK, labels=torch.tensor([0, 2])).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_a_trimmed_training_ends_with_the_weights_of_the_full_one() -> None:
    full, trimmed = model(), model()
    losses = train(full, 30)
    with trimmed_embedding(trimmed, USED):
        assert trimmed.get_input_embeddings().weight.shape == (len(USED) + 1, 16)
        assert train(trimmed, 30) == pytest.approx(losses, rel=1e-6)
    # Clipping sums squares in another order, and decay is applied to ones and multiplied once, not step by step.
    for (name, expected), actual in zip(full.state_dict().items(), trimmed.state_dict().values(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_absent_rows_are_decayed_and_not_left_as_they_were() -> None:
    trimmed = model()
    before = trimmed.get_input_embeddings().weight.detach().clone()
    with trimmed_embedding(trimmed, USED):
        train(trimmed, 10)
    after = trimmed.get_input_embeddings().weight.detach()
    torch.testing.assert_close(after[30], before[30] * (1 - 0.01 * 0.1) ** 10, rtol=1e-5, atol=0)


def test_any_token_is_looked_up_in_eval_mode_as_in_the_full_table() -> None:
    full, trimmed = model(), model()
    train(full, 5)
    others = torch.tensor([[1, 30, 31, 2]])
    with trimmed_embedding(trimmed, USED), torch.no_grad():
        with torch.enable_grad():
            train(trimmed, 5)
        torch.testing.assert_close(trimmed.eval()(others).logits, full.eval()(others).logits)


def test_a_trained_token_that_was_not_kept_is_an_error() -> None:
    trimmed = model()
    with pytest.raises(AssertionError, match="not among the kept"), trimmed_embedding(trimmed, USED[:-1]):
        train(trimmed, 2)


def test_an_error_in_a_diverged_training_is_not_replaced_and_the_table_is_back() -> None:
    trimmed = model()
    table = trimmed.get_input_embeddings()

    def diverge() -> None:
        trimmed.get_input_embeddings().weight.data.fill_(torch.nan)
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"), trimmed_embedding(trimmed, USED):
        diverge()
    assert trimmed.get_input_embeddings() is table
    assert table.weight.isnan().all()


def test_the_padding_row_has_no_gradient() -> None:
    embedding = nn.Embedding(10, 4, padding_idx=0)
    trimmed = TrimmedEmbedding(embedding, torch.tensor([0, 3]))
    trimmed(torch.tensor([0, 3, 3])).sum().backward()
    assert trimmed.weight.grad is not None
    assert trimmed.weight.grad.tolist() == [[0.0] * 4, [2.0] * 4, [0.0] * 4]


def test_gradients_of_several_passes_add_up_as_in_the_full_table() -> None:
    torch.manual_seed(0)
    full = nn.Embedding(10, 4, padding_idx=0)
    kept = torch.tensor([0, 2, 3, 7])
    trimmed = TrimmedEmbedding(full, kept)
    for table in (full, trimmed):
        for ids in (torch.tensor([[0, 3, 3], [7, 2, 0]]), torch.tensor([[3], [7]])):
            vectors = table(ids)
            (vectors * torch.linspace(-1, 2, vectors.numel()).view(vectors.shape)).sum().backward()
    assert full.weight.grad is not None
    assert trimmed.weight.grad is not None
    torch.testing.assert_close(trimmed.weight.grad[:-1], full.weight.grad[kept])


@pytest.mark.parametrize("in_several_processes", [False, True])
def test_no_step_sees_the_gradient_of_an_earlier_one(
    in_several_processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkd.models.trimmed_embedding.is_initialized", lambda: in_several_processes)
    full = nn.Embedding(10, 4)
    kept = torch.tensor([0, 2, 3, 7])
    trimmed = TrimmedEmbedding(full, kept)
    for ids in ([[0, 3]], [[7, 7]], [[2, 3]]):
        for table in (full, trimmed):
            table.weight.grad = None
            table(torch.tensor(ids)).sum().backward()
        assert full.weight.grad is not None
        assert trimmed.weight.grad is not None
        assert torch.equal(trimmed.weight.grad[:-1], full.weight.grad[kept])
        if in_several_processes:
            trimmed.weight.grad += 1  # the others' share, in any row


def test_memory_of_the_gradient_is_used_again() -> None:
    trimmed = TrimmedEmbedding(nn.Embedding(10, 4), torch.tensor([0, 3]))
    places = set()
    for _ in range(3):
        trimmed(torch.tensor([0, 3])).sum().backward()
        assert trimmed.weight.grad is not None
        places.add(trimmed.weight.grad.data_ptr())
        trimmed.weight.grad = None
    assert len(places) == 1


@pytest.mark.parametrize("reason", ["most rows are used", "frozen", "tied"])
def test_a_table_that_cannot_gain_is_left_alone(reason: str) -> None:
    untouched = model()
    table = untouched.get_input_embeddings()
    if reason == "frozen":
        table.requires_grad_(False)
    if reason == "tied":
        untouched.other = nn.Linear(16, 40, bias=False)
        untouched.other.weight = table.weight
    ids = torch.arange(40) if reason == "most rows are used" else USED
    with trimmed_embedding(untouched, ids):
        assert untouched.get_input_embeddings() is table


def test_a_model_without_word_embeddings_is_left_alone() -> None:
    class Characters(nn.Module):
        def get_input_embeddings(self) -> nn.Module:
            raise NotImplementedError

    with trimmed_embedding(Characters(), USED):
        pass


def test_a_checkpoint_in_mid_training_continues_to_the_same_table() -> None:
    whole, halves = model(), model()
    with trimmed_embedding(whole, USED):
        train(whole, 4, weight_decay=0.5)
        state = copy.deepcopy(whole.state_dict())
        train(whole, 4, weight_decay=0.5)
    with trimmed_embedding(halves, USED):
        halves.load_state_dict(state)
        train(halves, 4, weight_decay=0.5)
    assert torch.equal(whole.get_input_embeddings().weight, halves.get_input_embeddings().weight)


WRITTEN = [  # in each step, two passes over ids of which more and more are new
    [torch.tensor([[1, 5, 9, 2]]), torch.tensor([[7, 5, 0, 0]])],
    [torch.tensor([[1, 30, 9, 2]]), torch.tensor([[7, 31, 30, 0]])],
    [torch.tensor([[1, 5, 9, 3]]), torch.tensor([[39, 38, 37, 36]])],
]


def train_on_written(trained: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for ids in WRITTEN[step % len(WRITTEN)]:
            trained(ids, labels=torch.tensor([step % 2])).loss.backward()
        clip_gradients(list(trained.parameters()), 1.0)
        grow_moments(optimizer)
        optimizer.step()
        optimizer.zero_grad()


def adamw(trained: Any) -> torch.optim.Optimizer:
    # a bias of keys has no gradient but rounding errors: without eps, it would be moved by them
    return torch.optim.AdamW(trained.parameters(), lr=0.01, weight_decay=0.5, eps=1e-4, fused=True)


@pytest.fixture(params=[2, 1000], ids=["grows often", "grows once"])
def _more(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkd.models.trimmed_embedding._MORE", request.param)


@pytest.mark.usefixtures("_more")
def test_a_table_that_grows_ends_with_the_weights_of_the_full_one() -> None:
    full, grown = model(), model()
    train_on_written(full, adamw(full), range(12))
    with trimmed_embedding(grown, USED, grows=True):
        table, optimizer = grown.get_input_embeddings(), adamw(grown)
        train_on_written(grown, optimizer, range(1))
        assert len(table.weight) == len(USED) + 1
        train_on_written(grown, optimizer, range(1, 12))
        assert len(USED) + 8 <= len(table.weight) <= 41
        whole = full_table(table)
    for (name, expected), actual in zip(full.state_dict().items(), grown.state_dict().values(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7, msg=name)
    assert whole is not None
    assert torch.equal(whole, grown.get_input_embeddings().weight)


@pytest.mark.usefixtures("_more")
def test_a_table_that_grew_continues_from_a_checkpoint_to_the_same_bytes() -> None:
    whole, halves = model(), model()
    with trimmed_embedding(whole, USED, grows=True):
        optimizer = adamw(whole)
        train_on_written(whole, optimizer, range(2))
        state, moments = copy.deepcopy(whole.state_dict()), copy.deepcopy(optimizer.state_dict())
        train_on_written(whole, optimizer, range(2, 6))
    with trimmed_embedding(halves, USED, grows=True):
        optimizer = adamw(halves)
        halves.load_state_dict(state)
        optimizer.load_state_dict(moments)
        train_on_written(halves, optimizer, range(2, 6))
    assert torch.equal(whole.get_input_embeddings().weight, halves.get_input_embeddings().weight)


@pytest.mark.usefixtures("_more")
def test_a_table_that_grew_goes_back_to_its_best_step_and_on_from_there() -> None:
    trained = model()
    with trimmed_embedding(trained, USED, grows=True):
        train_on_written(trained, adamw(trained), range(1))
        best, table = copy.deepcopy(trained.state_dict()), trained.get_input_embeddings()
        whole = table.table()
        train_on_written(trained, adamw(trained), range(1, 6))
        trained.load_state_dict(best)
        assert len(table.weight) == len(USED) + 1
        assert torch.equal(table.table(), whole)
        train_on_written(trained, adamw(trained), range(1, 6))
        assert len(table.weight) > len(USED) + 1


def test_what_one_process_began_several_continue_and_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several have all rows from the start, as each would add others."""
    monkeypatch.setattr("augkd.models.trimmed_embedding._MORE", 2)
    whole, parts = model(), model()
    with trimmed_embedding(whole, USED, grows=True):
        train_on_written(whole, adamw(whole), range(6))
    state = moments = None
    for several, steps in ((False, range(2)), (True, range(2, 4)), (False, range(4, 6))):
        monkeypatch.setattr("augkd.models.trimmed_embedding.is_initialized", lambda several=several: several)
        parts = model()
        with trimmed_embedding(parts, USED, grows=True):
            optimizer = adamw(parts)
            if state is not None and moments is not None:
                parts.load_state_dict(state)
                optimizer.load_state_dict(moments)
            train_on_written(parts, optimizer, steps)
            assert (len(parts.get_input_embeddings().weight) == 41) == (steps.start > 0)
            state, moments = copy.deepcopy(parts.state_dict()), copy.deepcopy(optimizer.state_dict())
    for (name, expected), actual in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_a_checkpoint_of_the_full_table_is_refused_and_not_misread() -> None:
    state, grown = model().state_dict(), model()
    with trimmed_embedding(grown, USED, grows=True), pytest.raises(RuntimeError, match="size mismatch"):
        grown.load_state_dict(state, strict=False)
