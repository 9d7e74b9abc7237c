"""Intermediate-layer losses equal figures computed elsewhere; buckets are the papers' (ALGORITHMS §13-18, §25)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augkd.distill.objective.layer_losses import (
    LAYER_LOSSES,
    VECTORS,
    alp,
    alp_attention,
    attention,
    bucket_spans,
    ckd,
    distilbert_cosine,
    embedding,
    hidden,
    perplexity,
    pkd,
    pkd_layers,
    rail,
)
from augkd.errors import ModelError

STUDENT = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])  # fixture B: two rows, one matched layer
TEACHER = torch.tensor([[[4.0, 3.0]], [[1.0, 1.0]]])
C_STUDENT = torch.tensor([[[1.0, 0.0]]])  # fixture C: one row, one student layer, three teacher layers
C_TEACHER = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(layers: int, width: int = 8, rows: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, layers, width, generator=rng(seed))


def with_last(values: Tensor) -> Tensor:
    """With a further layer of nan: PKD leaves the last student layer out, which this shows."""
    return torch.cat([values, torch.full_like(values, torch.nan)], dim=1)


# ---- which layers ----


@pytest.mark.parametrize(
    ("choice", "teacher", "student", "one_based"),
    [
        ("skip", 12, 6, [2, 4, 6, 8, 10]),
        ("last", 12, 6, [7, 8, 9, 10, 11]),
        ("last", 12, 3, [10, 11]),
        ("skip", 24, 6, [4, 8, 12, 16, 20]),
    ],
)
def test_pkd_s_layers_are_those_of_the_paper(choice: str, teacher: int, student: int, one_based: list[int]) -> None:
    assert [layer + 1 for layer in pkd_layers(choice, teacher, student)] == one_based


def test_pkd_of_one_student_layer_is_rejected_because_nothing_is_left_to_match() -> None:
    with pytest.raises(ModelError, match="a student of 1 layer has none"):
        pkd_layers("skip", 12, 1)


@pytest.mark.parametrize(
    ("buckets", "teacher", "student", "one_based"),
    [
        ("disjoint", 12, 4, ["1-3", "4-6", "7-9", "10-12"]),
        ("overlapping", 12, 4, ["1-4", "3-7", "6-10", "9-12"]),
        ("disjoint", 12, 2, ["1-6", "7-12"]),
        ("overlapping", 12, 2, ["1-7", "6-12"]),
        ("disjoint", 6, 2, ["1-3", "4-6"]),
        ("overlapping", 6, 2, ["1-4", "3-6"]),  # as in CKD's code
        ("all", 12, 2, ["1-12", "1-12"]),
        ("disjoint", 5, 2, ["1-2", "3-5"]),
    ],
)
def test_buckets_of_no_and_po(buckets: str, teacher: int, student: int, one_based: list[str]) -> None:
    spans = bucket_spans(buckets, teacher, student)
    assert [f"{span.start + 1}-{span.stop}" for span in spans] == one_based


def test_a_bucket_is_never_empty() -> None:
    assert bucket_spans("all", 2, 3) == (range(2),) * 3
    with pytest.raises(ModelError, match="3 student layers cannot share 2"):
        bucket_spans("disjoint", 2, 3)


# ---- PKD ----


def test_pkd_of_fixture_b_is_the_oracle() -> None:
    rows = pkd(with_last(STUDENT), with_last(TEACHER), 0.0, rng())
    assert rows.mean().item() == pytest.approx(0.166447, abs=1e-6)
    assert 2 * rows.mean().item() == pytest.approx(0.332893, abs=1e-6)  # summed over the 2 features


def test_pkd_without_normalising_sees_the_lengths_that_normalising_hides() -> None:
    student, teacher = with_last(STUDENT), with_last(TEACHER)
    assert pkd(student, teacher, 0.0, rng(), normalise=False).tolist() == pytest.approx([1.0, 1.0])
    longer = pkd(10 * student, teacher, 0.0, rng())
    assert longer.tolist() == pytest.approx(pkd(student, teacher, 0.0, rng()).tolist())
    assert pkd(10 * student, teacher, 0.0, rng(), normalise=False).tolist() != pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("layers", "chosen"), [("skip", [1, 3, 5, 7, 9]), ("last", [6, 7, 8, 9, 10])])
def test_pkd_is_zero_on_exactly_the_layers_of_its_map(layers: str, chosen: list[int]) -> None:
    teacher = vectors(12)
    student = with_last(teacher[:, chosen])[:, :6]
    assert pkd(student, teacher, 0.0, rng(), layers=layers).tolist() == [0] * 5  # type: ignore[arg-type]
    other = "last" if layers == "skip" else "skip"
    assert (pkd(student, teacher, 0.0, rng(), layers=other) > 0.01).all()  # type: ignore[arg-type]


# ---- ALP ----


def test_alp_of_fixture_c_is_the_oracle_raw_and_scaled() -> None:
    raw = alp_attention(C_STUDENT, C_TEACHER, scaled=False)
    assert raw[0, 0].tolist() == pytest.approx([0.244728, 0.090031, 0.665241], abs=1e-6)
    assert (raw[0] @ C_TEACHER[0])[0].tolist() == pytest.approx([1.575210, 1.420512], abs=1e-6)
    assert alp(C_STUDENT, C_TEACHER, 0.0, rng(), scaled=False).item() == pytest.approx(1.174361, abs=1e-6)
    scaled = alp_attention(C_STUDENT, C_TEACHER, scaled=True)
    assert scaled[0, 0].tolist() == pytest.approx([0.283995, 0.140029, 0.575975], abs=1e-6)


@pytest.mark.parametrize("buckets", ["all", "disjoint", "overlapping"])
@pytest.mark.parametrize("scaled", [True, False])
def test_alp_is_what_a_loop_over_rows_layers_and_buckets_gives(buckets: str, scaled: bool) -> None:
    student, teacher = vectors(2, seed=1), vectors(6, seed=2)
    expected = []
    for s, t in zip(student.double().numpy(), teacher.double().numpy(), strict=True):
        errors = []
        for j, span in enumerate(bucket_spans(buckets, 6, 2)):
            dots = np.array([s[j] @ t[k] for k in span]) / (np.sqrt(8) if scaled else 1)
            weights = np.exp(dots) / np.exp(dots).sum()
            errors.append(((s[j] - sum(w * t[k] for w, k in zip(weights, span, strict=True))) ** 2).mean())
        expected.append(np.mean(errors))
    rows = alp(student, teacher, 0.0, rng(), buckets=buckets, scaled=scaled)  # type: ignore[arg-type]
    assert rows.tolist() == pytest.approx(expected, rel=1e-5)


def test_raw_dot_products_saturate_and_scaled_ones_do_not() -> None:
    student, teacher = vectors(1, 768, 400, seed=1), vectors(12, 768, 400, seed=2)
    raw = perplexity(alp_attention(student, teacher, scaled=False)).mean().item()
    scaled = perplexity(alp_attention(student, teacher, scaled=True)).mean().item()
    assert raw == pytest.approx(1.10, abs=0.05)  # ALGORITHMS §15; 1.11 to 1.14 over seeds
    assert scaled > 7


def test_perplexity_is_1_for_one_layer_and_l_for_all_alike() -> None:
    weights = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])
    assert perplexity(weights).tolist() == pytest.approx([1, 4, 2])


@pytest.mark.parametrize("detached", [True, False])
def test_alp_s_gradient_with_and_without_the_path_through_the_attention(detached: bool) -> None:
    student = C_STUDENT.clone().requires_grad_()
    alp(student, C_TEACHER, 0.0, rng(), detached=detached).sum().backward()
    h, layers = C_STUDENT[0, 0].double().numpy(), C_TEACHER[0].double().numpy()
    dots = layers @ h / np.sqrt(2)
    weights = np.exp(dots) / np.exp(dots).sum()
    target = weights @ layers
    through = (layers.T * weights) @ (layers - target) / np.sqrt(2)  # dC/dh, (d, d)
    gradient = (np.eye(2) - (0 if detached else through.T)) @ (h - target)  # of mean((h - C)²) with d = 2
    assert student.grad is not None
    assert student.grad[0, 0].tolist() == pytest.approx(gradient.tolist(), abs=1e-6)


def test_a_student_can_steer_attached_attention_but_not_detached() -> None:
    def gradient(detached: bool) -> list[float]:
        student = C_STUDENT.clone().requires_grad_()
        alp(student, C_TEACHER, 0.0, rng(), detached=detached).sum().backward()
        assert student.grad is not None
        return list(student.grad[0, 0].tolist())

    assert gradient(True) != pytest.approx(gradient(False), abs=1e-2)


# ---- CKD and RAIL ----


@pytest.mark.parametrize("buckets", ["disjoint", "overlapping"])
def test_ckd_compares_with_the_concatenated_bucket_both_normalised(buckets: str) -> None:
    teacher = vectors(6)
    spans = bucket_spans(buckets, 6, 2)
    exact = [3 * teacher[:, list(span)].flatten(1) for span in spans]
    assert ckd(exact, teacher, 0.0, rng(), buckets=buckets).tolist() == pytest.approx([0] * 5, abs=1e-9)  # type: ignore[arg-type]
    opposite = ckd([-layer for layer in exact], teacher, 0.0, rng(), buckets=buckets)  # type: ignore[arg-type]
    assert opposite.tolist() == pytest.approx([4 / (8 * len(spans[0]))] * 5)  # |2u|² over the bucket's features


def drawn_layers(seed: int, concatenate: bool = False) -> list[int]:
    """The layers RAIL draws of 6 for 2: those on which a student that copies them costs nothing."""
    teacher = vectors(6)
    pairs = [(a, b) for a in range(6) for b in range(6)]
    costs = [rail(teacher[:, [a, b]], teacher, 0.0, rng(seed), concatenate=concatenate).sum().item() for a, b in pairs]
    (free,) = [pair for pair, cost in zip(pairs, costs, strict=True) if cost < 1e-9]
    return list(free)


def test_rail_draws_sorted_layers_without_replacement_and_others_for_other_seeds() -> None:
    drawn = [drawn_layers(seed) for seed in range(8)]
    assert all(a < b for a, b in drawn)
    assert len({tuple(layers) for layers in drawn}) > 3
    assert drawn == [drawn_layers(seed) for seed in range(8)]
    assert drawn == [drawn_layers(seed, concatenate=True) for seed in range(8)]


def test_rail_c_normalises_all_layers_as_one_where_rail_l_normalises_each() -> None:
    teacher = vectors(2)
    lopsided = teacher * torch.tensor([1.0, 5.0])[None, :, None]
    assert rail(lopsided, teacher, 0.0, rng()).tolist() == pytest.approx([0] * 5, abs=1e-9)
    assert (rail(lopsided, teacher, 0.0, rng(), concatenate=True) > 1e-3).all()
    assert rail(5 * teacher, teacher, 0.0, rng(), concatenate=True).tolist() == pytest.approx([0] * 5, abs=1e-9)


def test_rail_needs_as_many_teacher_layers_as_student_layers() -> None:
    with pytest.raises(ModelError, match="rail draws 3 layers"):
        rail(vectors(3), vectors(2), 0.0, rng())


# ---- every token ----

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def states(layers: int, seed: int = 0) -> list[Tensor]:
    draw = rng(seed)
    return [torch.randn(2, 4, 6, generator=draw) for _ in range(layers + 1)]


def scores(layers: int, seed: int = 0) -> list[Tensor]:
    draw = rng(seed)
    return [torch.randn(2, 3, 4, 4, generator=draw) for _ in range(layers)]


def test_tinybert_s_hidden_loss_is_a_loop_over_layers_and_real_tokens() -> None:
    student, teacher = states(2, 1), states(6, 2)
    expected = []
    for row, length in enumerate((3, 2)):
        pairs = [(student[1], teacher[3]), (student[2], teacher[6])]
        expected.append(np.mean([(a[row, :length] - b[row, :length]).square().mean().item() for a, b in pairs]))
    assert hidden(student, teacher, MASK, 0.0).tolist() == pytest.approx(expected)


def test_the_embedding_loss_sees_the_embeddings_alone() -> None:
    student, teacher = states(2, 1), states(6, 2)
    expected = [(student[0] - teacher[0])[row, :length].square().mean().item() for row, length in enumerate((3, 2))]
    assert embedding(student, teacher, MASK, 0.0).tolist() == pytest.approx(expected)
    assert embedding([teacher[0], *student[1:]], teacher, MASK, 0.0).tolist() == [0, 0]


def test_tinybert_s_attention_loss_is_a_loop_over_layers_heads_and_real_pairs() -> None:
    student, teacher = scores(2, 1), scores(6, 2)
    expected = []
    for row, length in enumerate((3, 2)):
        pairs = [(student[0], teacher[2]), (student[1], teacher[5])]
        errors = [(a[row, :, :length, :length] - b[row, :, :length, :length]).square().mean() for a, b in pairs]
        expected.append(torch.stack(errors).mean().item())
    assert attention(student, teacher, MASK, 0.0).tolist() == pytest.approx(expected)


def test_distilbert_s_cosine_is_one_minus_the_cosine_of_the_last_states() -> None:
    student, teacher = states(2, 1), states(6, 2)
    expected = []
    for row, length in enumerate((3, 2)):
        a, b = student[-1][row, :length].numpy(), teacher[-1][row, :length].numpy()
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        expected.append(1 - cosine.mean())
    assert distilbert_cosine(student, teacher, MASK, 0.0).tolist() == pytest.approx(expected, abs=1e-6)
    assert distilbert_cosine([-teacher[-1]], teacher, MASK, 0.0).tolist() == pytest.approx([2, 2])


@pytest.mark.parametrize("loss", [hidden, embedding, attention, distilbert_cosine])
@pytest.mark.parametrize("junk", [1e4, torch.nan])
def test_values_at_masked_positions_change_no_token_loss(loss: Callable[..., Tensor], junk: float) -> None:
    make = scores if loss is attention else states
    student, teacher = make(2, 1), make(6, 2)
    before = loss(student, teacher, MASK, 0.0)
    assert loss([state + 1 for state in student], teacher, MASK, 0.0).tolist() != pytest.approx(before.tolist())
    for state in (*student, *teacher):
        for row, length in enumerate((3, 2)):
            state[row].transpose(0, -2)[length:] = junk
            if loss is attention:
                state[row, :, :, length:] = junk
    assert loss(student, teacher, MASK, 0.0).tolist() == before.tolist()


# ---- every member ----


def fixture(name: str, rows: int = 5) -> tuple[Sequence[Tensor] | Tensor, Sequence[Tensor] | Tensor, list[Any]]:
    """(student, teacher, further arguments) of a 2-layer student and a 6-layer teacher."""
    draw = rng(3)
    if name == "ckd":
        return [torch.randn(rows, 24, generator=draw) for _ in range(2)], vectors(6, rows=rows), [0.5, rng()]
    if name in VECTORS:
        return torch.randn(rows, 2, 8, generator=draw), vectors(6, rows=rows), [0.5, rng()]
    shape = (rows, 3, 4, 4) if name == "attention" else (rows, 4, 8)
    extra = 0 if name == "attention" else 1
    student, teacher = ([torch.randn(shape, generator=draw) for _ in range(count + extra)] for count in (2, 6))
    return student, teacher, [torch.ones(rows, 4), 0.5]


def each(values: Sequence[Tensor] | Tensor, change: Callable[[Tensor], Tensor]) -> Any:
    return change(values) if isinstance(values, Tensor) else [change(value) for value in values]


@pytest.mark.parametrize("name", LAYER_LOSSES)
def test_every_intermediate_layer_loss_gives_one_finite_differentiable_value_per_row(name: str) -> None:
    student, teacher, further = fixture(name)
    student = each(student, lambda layer: layer.requires_grad_())
    rows = LAYER_LOSSES[name](student, teacher, *further)
    rows.sum().backward()
    assert rows.shape == (5,)
    assert (rows > 0).all()
    layers = [student] if isinstance(student, Tensor) else student
    gradients = [layer.grad for layer in layers if layer.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all((gradient.flatten(1).abs().sum(dim=1) > 0).all() for gradient in gradients)


@pytest.mark.parametrize("name", LAYER_LOSSES)
def test_a_row_s_loss_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    student, teacher, further = fixture(name)
    together = LAYER_LOSSES[name](student, teacher, *further)
    for row in range(5):
        further = [0.5, rng()] if name in VECTORS else [further[0][:1], 0.5]
        alone = LAYER_LOSSES[name](at(student, row), at(teacher, row), *further)
        assert alone.tolist() == pytest.approx([together[row].item()], rel=1e-5)


def at(values: Sequence[Tensor] | Tensor, row: int) -> Any:
    return each(values, lambda layer: layer[row : row + 1])
