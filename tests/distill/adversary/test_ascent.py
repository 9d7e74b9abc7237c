"""The generator: what it draws, how the gradient returns to it, and what a gradient-ascent step may touch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from augkd.candidates.generator.generator import (
    Generator,
    gumbel_noise,
    masked_positions,
    replace_tokens,
    sample,
    soften,
)
from augkd.distill.adversary.ascent import OBJECTIVES, Adversary, Ascent, Softened
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.masked_lm import MaskedLM, check_same_vocabulary, load_masked_lm
from augkd.models.seeds import RowRandom, rng_of
from augkd.models.tokens import RowGroups, Tokens
from augkd.selection.pool import Batch, Pool

LABELS = ("animal", "food", "tool")
TEXTS = [
    "the cat is here and so is the dog",
    "she bought a cheese",
    "a hammer was in the house of the old man who lives there",
    "soup",
]


@pytest.fixture
def lm(tiny_bert: Path) -> MaskedLM:
    torch.manual_seed(3)
    return load_masked_lm(str(tiny_bert), "float32")


def classifier(folder: Path, seed: int) -> Classifier:
    loaded = load_backbone(str(folder), LABELS, 32, seed, "float32")
    loaded.model.eval()
    return loaded


@pytest.fixture
def teacher(tiny_bert: Path) -> Classifier:
    """A teacher whose outputs depend on the words more than those of random weights do."""
    loaded = classifier(tiny_bert, 1)
    for name, parameter in loaded.model.named_parameters():
        if parameter.dim() == 2 and "embeddings" not in name:
            parameter.data *= 10
    return loaded


@pytest.fixture
def student(tiny_bert: Path) -> Classifier:
    return classifier(tiny_bert, 2)


def tokens_of(model: Any) -> Tokens:
    return Tokens.of(model.tokenizer([*TEXTS])["input_ids"])


def draws(tokens: Tokens, seed: int) -> Tensor:
    return torch.rand(len(tokens.ids), generator=rng_of(seed))


def batch_of(tokens: Tokens) -> Batch:
    n = len(tokens)
    none = torch.zeros(0, dtype=torch.long)
    pool = Pool(Tokens.of([]), none, torch.zeros(0), torch.zeros(0, 3), none)
    return Batch(tokens, torch.zeros(n, dtype=torch.long), torch.zeros(n, 3), pool, torch.arange(n))


def adversary(lm: MaskedLM, teacher: Classifier, **given: Any) -> Adversary:
    samples = given.pop("samples", 1)
    return Adversary(Generator(lm), teacher, Ascent(**given), samples=samples, seed=5)


# ---- drawing ----


def test_masks_take_the_asked_share_and_never_a_special_token(lm: MaskedLM) -> None:
    tokens = tokens_of(lm).take(torch.zeros(400, dtype=torch.long))
    positions = masked_positions(tokens, lm.special(), 0.3, draws(tokens, 1))
    eligible = int((~lm.special()[tokens.ids]).sum())
    assert not lm.special()[tokens.ids[positions]].any()
    assert abs(len(positions) / eligible - 0.3) < 0.03  # 3,600 draws: standard error 0.008


def test_a_row_that_draws_no_mask_gets_one(lm: MaskedLM) -> None:
    tokens = tokens_of(lm)
    positions = masked_positions(tokens, lm.special(), 1e-6, draws(tokens, 1))
    assert torch.bucketize(positions, tokens.offsets[1:], right=True).tolist() == [0, 1, 2, 3]


def test_the_head_sees_masked_tokens_only_and_gives_the_logits_it_gives_everywhere(lm: MaskedLM) -> None:
    tokens = tokens_of(lm)
    positions = masked_positions(tokens, lm.special(), 0.4, draws(tokens, 2))
    masked = replace_tokens(tokens, positions, torch.full((len(positions),), lm.tokenizer.mask_token_id))
    with torch.no_grad():
        at_masks = lm.logits(masked, positions, "test", token_budget=40)  # several groups
        every = [
            lm.model(input_ids=masked.ids[a:b][None]).logits[0]
            for a, b in zip(masked.offsets[:-1].tolist(), masked.offsets[1:].tolist(), strict=True)
        ]
    assert torch.allclose(at_masks, torch.cat(every)[positions], atol=1e-5)


def test_a_draw_changes_masked_tokens_only_and_counts_what_it_kept(lm: MaskedLM) -> None:
    tokens = tokens_of(lm)
    drawn = Generator(lm, rate=0.5).draw(tokens, 3, RowRandom((4,), range(4)))
    before = tokens.take(torch.repeat_interleave(torch.arange(4), 3))
    changed = before.ids != drawn.tokens.ids
    assert not lm.special()[drawn.tokens.ids[changed]].any()
    assert lm.special()[before.ids].eq(lm.special()[drawn.tokens.ids]).all()
    for row in range(12):
        own = slice(int(before.offsets[row]), int(before.offsets[row + 1]))
        words = ~lm.special()[before.ids[own]]
        same = (before.ids[own] == drawn.tokens.ids[own]) & words
        assert drawn.kept[row] == pytest.approx(float(same.sum() / words.sum()))
    again = Generator(lm, rate=0.5).draw(tokens, 3, RowRandom((4,), range(4)))
    assert torch.equal(again.tokens.ids, drawn.tokens.ids)
    other = Generator(lm, rate=0.5).draw(tokens, 3, RowRandom((5,), range(4)))
    assert not torch.equal(other.tokens.ids, drawn.tokens.ids)


@pytest.mark.parametrize("width", [(), (4,)], ids=["sample", "soften"])
def test_draws_follow_the_softmax(width: tuple[int, ...]) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).expand(20_000, 4)
    uniform = torch.rand(20_000, *width, generator=rng_of(6))
    ids = soften(logits, 1.0, uniform)[0] if width else sample(logits, uniform)
    share = torch.bincount(ids, minlength=4) / 20_000
    expected = torch.tensor([0.0900, 0.2447, 0.6652, 0.0])  # softmax(0, 1, 2)
    assert torch.allclose(share, expected, atol=0.01)  # three standard errors


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    noise = gumbel_noise(torch.rand(200_000, generator=rng_of(7)))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(1.6449, abs=0.03)


# ---- the gradient ----


def test_outputs_under_the_straight_through_term_are_those_of_the_text(lm: MaskedLM, student: Classifier) -> None:
    tokens = tokens_of(lm)
    positions = masked_positions(tokens, lm.special(), 0.4, draws(tokens, 2))
    soft = torch.softmax(torch.randn(len(positions), len(lm.special()), generator=rng_of(1)), dim=-1).requires_grad_()
    hooked = Softened.of(student).logits(tokens, positions, soft, 40)
    groups = RowGroups.of(tokens, 40)
    assert torch.equal(hooked, student.logits(tokens, "test", groups=groups, without_padding=True))


def test_the_gradient_is_that_of_mixed_embeddings(lm: MaskedLM, student: Classifier) -> None:
    """Against the reference implementation: one-hot plus soft minus its value, times the whole embedding matrix."""
    tokens = tokens_of(lm).take(torch.tensor([2]))
    positions = masked_positions(tokens, lm.special(), 0.4, draws(tokens, 2))
    soft = torch.softmax(torch.randn(len(positions), len(lm.special()), generator=rng_of(1)), dim=-1)

    ours = soft.clone().requires_grad_()
    Softened.of(student).logits(tokens, positions, ours, 64).square().sum().backward()

    theirs = soft.clone().requires_grad_()
    table = student.model.get_input_embeddings().weight.detach()
    hard = torch.nn.functional.one_hot(tokens.ids[positions], len(lm.special())).float()
    embedded = table[tokens.ids].clone()
    embedded[positions] = (hard + theirs - theirs.detach()) @ table
    student.model(inputs_embeds=embedded[None]).logits.square().sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    size = float(theirs.grad.abs().max())
    assert size > 1e-7
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4 * size)


def test_in_bf16_the_gradient_is_that_of_float32_but_for_rounding(lm: MaskedLM, student: Classifier) -> None:
    tokens = tokens_of(lm)
    positions = masked_positions(tokens, lm.special(), 0.4, draws(tokens, 2))
    soft = torch.softmax(torch.randn(len(positions), len(lm.special()), generator=rng_of(1)), dim=-1)
    gradients = []
    for precision in ("float32", "bfloat16"):
        student.precision = precision
        choice = soft.clone().requires_grad_()
        Softened.of(student).logits(tokens, positions, choice).square().sum().backward()
        assert choice.grad is not None
        assert choice.grad.dtype == torch.float32
        gradients.append(choice.grad)
    exact, rounded = gradients
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.05


def test_an_ascent_moves_the_generator_and_touches_no_other_gradient(
    lm: MaskedLM, teacher: Classifier, student: Classifier
) -> None:
    tokens, before = tokens_of(lm), [p.detach().clone() for p in lm.model.parameters()]
    generating = adversary(lm, teacher, ascend=2)
    generating.ascend(student, tokens, len(tokens))
    assert any(not torch.equal(now, old) for now, old in zip(lm.model.parameters(), before, strict=True))
    assert all(p.grad is None for model in (teacher.model, student.model) for p in model.parameters())
    assert all(p.requires_grad for p in student.model.parameters())
    assert generating.steps == 2


def test_ascent_raises_the_divergence_of_its_samples_and_no_ascent_does_not(
    lm: MaskedLM, teacher: Classifier, student: Classifier
) -> None:
    tokens = tokens_of(lm).take(torch.arange(4).repeat(16))

    def divergence(generating: Adversary) -> float:
        pool = generating.pool(batch_of(tokens), RowRandom((9,), range(len(tokens))))
        with torch.no_grad():
            return float(OBJECTIVES["kl"](student.logits(pool.tokens, "test"), pool.teacher).mean())

    still = adversary(lm, teacher, ascend=0)
    first = divergence(still)
    still.ascend(student, tokens, len(tokens))
    assert divergence(still) == first
    ascending = adversary(lm, teacher, ascend=40, learning_rate=1e-2)
    ascending.ascend(student, tokens, len(tokens))
    assert divergence(ascending) > 1.5 * first, (divergence(ascending), first)


def test_cross_entropy_is_kl_plus_the_teachers_entropy() -> None:
    student, teacher = torch.tensor([[1.0, 0, -1], [0.5, 0.5, 0]]), torch.tensor([[2.0, -1, 0], [0, 1, 1]])
    assert float(OBJECTIVES["cross_entropy"](student, teacher).mean()) == pytest.approx(0.923593, abs=1e-6)
    assert float(OBJECTIVES["kl"](student, teacher).mean()) == pytest.approx(0.152781, abs=1e-6)


def test_the_linear_schedule_ends_at_zero(lm: MaskedLM, teacher: Classifier, student: Classifier) -> None:
    generating = adversary(lm, teacher, ascend=1, schedule="linear")
    before = [p.detach().clone() for p in lm.model.parameters()]
    generating.ascend(student, tokens_of(lm), 4, progress=1.0)
    assert all(torch.equal(now, old) for now, old in zip(lm.model.parameters(), before, strict=True))


def test_a_restored_adversary_continues_as_if_it_had_not_stopped(
    lm: MaskedLM, teacher: Classifier, student: Classifier, tiny_bert: Path
) -> None:
    first = adversary(lm, teacher, ascend=2)
    first.ascend(student, tokens_of(lm), 4)
    state = {name: value.clone() for name, value in first.state().items()}
    first.ascend(student, tokens_of(lm), 4)
    torch.manual_seed(8)
    second = adversary(load_masked_lm(str(tiny_bert), "float32"), teacher, ascend=2)
    second.load_state(state)
    second.ascend(student, tokens_of(lm), 4)
    for name, value in first.state().items():
        assert torch.equal(second.state()[name], value), name


# ---- counting ----


def test_a_pool_costs_one_generator_row_and_one_teacher_row_a_sample_and_no_gradient(
    lm: MaskedLM, teacher: Classifier
) -> None:
    calls: Counter[str] = Counter()
    for name, model in (("generator", lm.model), ("teacher", teacher.model)):
        model.register_forward_hook(
            lambda _, args, kwargs, out, name=name: calls.update({name: len(kwargs["input_ids"])}), with_kwargs=True
        )
    generating = adversary(lm, teacher, samples=3)
    pool = generating.pool(batch_of(tokens_of(lm)), RowRandom((1,), range(4)))
    assert calls == {"generator": 12, "teacher": 12} == generating.rows
    assert pool.owner.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert not pool.teacher.requires_grad
    expected = teacher.logits(pool.tokens, "test").detach()
    assert torch.allclose(pool.teacher, expected, atol=1e-6)


def test_in_bf16_a_pool_is_the_same_with_weights_rounded_once_and_they_follow_an_ascent(
    lm: MaskedLM, teacher: Classifier, student: Classifier
) -> None:
    lm.precision = teacher.precision = "bfloat16"
    tokens = tokens_of(lm).take(torch.arange(4).repeat(8))
    generating = adversary(lm, teacher, ascend=5, learning_rate=0.1)
    pools = []
    for _ in range(2):
        pool = generating.pool(batch_of(tokens), RowRandom((1,), range(32)))
        drawn = Generator(lm).draw(tokens, 1, RowRandom((1,), range(32))).tokens
        assert torch.equal(pool.tokens.ids, drawn.ids)
        assert torch.equal(pool.teacher, teacher.logits(drawn, "test", without_padding=True).detach())
        pools.append(pool)
        generating.ascend(student, tokens, 32)
    assert not torch.equal(pools[0].tokens.ids, pools[1].tokens.ids)


# ---- errors ----


def test_a_generator_of_another_vocabulary_is_rejected_with_the_token(lm: MaskedLM, tiny_bert: Path) -> None:
    from transformers import AutoTokenizer

    check_same_vocabulary(lm.tokenizer, teacher=AutoTokenizer.from_pretrained(tiny_bert))
    other = AutoTokenizer.from_pretrained(tiny_bert)
    other.add_tokens(["zyzzyva"])
    with pytest.raises(ModelError, match=r"not the student's \(30523\): 'zyzzyva' is None and 30522"):
        check_same_vocabulary(lm.tokenizer, teacher=lm.tokenizer, student=other)


def test_a_backbone_without_a_head_is_known_to_have_none(lm: MaskedLM, tmp_path: Path) -> None:
    assert not lm.trained_head
    lm.save(tmp_path)
    assert load_masked_lm(str(tmp_path), "float32").trained_head
