"""FreeLB's gradient in ragged passes is that of a hand-written loop; switched off, it is plain training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS, sentences
from torch import Tensor

from augkd.distill.adversary.freelb import added_to_embeddings, bounded, freelb, perturb
from augkd.distill.objective.losses import kd
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.seeds import RowRandom
from augkd.models.tokens import RowGroups, Tokens

TOKEN_BUDGET = 64  # several groups, two of them of more than one row
OPTIONS = {"steps": 3, "step_size": 0.2, "magnitude": 0.5, "radius": 0.3}
TEXTS = [text + " and so on" * (number % 4) for number, (text, _) in enumerate(sentences()[:12:2])]
TEACHER = torch.randn(len(TEXTS), len(LABELS), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def student(tiny_bert: Path) -> Classifier:
    """Three layers with dropout 0.1, in train mode."""
    classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    classifier.model.train()
    return classifier


@pytest.fixture
def plain(tiny_bert: Path, tmp_path: Path) -> Classifier:
    """The same without dropout."""
    folder = tmp_path / "plain"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    classifier = load_backbone(str(folder), LABELS, 32, seed=0, precision="float32")
    classifier.model.train()
    return classifier


def tokens_of(student: Classifier) -> Tokens:
    return student.tokens([(text, None) for text in TEXTS])


def rng_of_rows(seed: int) -> RowRandom:
    return RowRandom((seed,), range(len(TEXTS)))


def grouped(tokens: Tokens, token_budget: int = TOKEN_BUDGET) -> RowGroups:
    return RowGroups.of(tokens, token_budget)


def loss_of(student: Classifier, tokens: Tokens, groups: RowGroups) -> Tensor:
    logits = student.logits(tokens, "training", groups=groups)
    return kd(logits, TEACHER, torch.zeros(len(tokens), dtype=torch.long), 0.0).mean()


def backward(loss: Tensor) -> None:
    loss.backward()


def gradient_of(student: Classifier, run: Callable[[], Any], seed: int = 5) -> tuple[Tensor, Any]:
    """The parameters' gradient after `run` from a fixed dropout state, and what it returned."""
    student.model.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        result = run()
    gradients = [p.grad.flatten() for p in student.model.parameters() if p.grad is not None]
    return torch.cat(gradients), result


def train_adversarially(
    student: Classifier, tokens: Tokens, groups: RowGroups, rng: RowRandom, **options: Any
) -> Tensor:
    """A step as the trainer takes it: FreeLB's loss, backpropagated."""
    owner, loss = torch.arange(len(tokens)), lambda: loss_of(student, tokens, groups)
    loss = freelb(loss, backward, student.model, tokens, groups, owner, rng, **options)
    backward(loss)
    return loss.detach()


def adversarial(
    student: Classifier, token_budget: int = TOKEN_BUDGET, seed: int = 4, **given: Any
) -> tuple[Tensor, Any]:
    tokens = tokens_of(student)
    groups, options = grouped(tokens, token_budget), {**OPTIONS, **given}

    def run() -> Tensor:
        return train_adversarially(student, tokens, groups, rng_of_rows(seed), **options)

    return gradient_of(student, run)


def clean(student: Classifier) -> tuple[Tensor, Any]:
    tokens = tokens_of(student)

    def run() -> Tensor:
        loss = loss_of(student, tokens, grouped(tokens))
        backward(loss)
        return loss.detach()

    return gradient_of(student, run)


# ---- one step ----


def test_a_step_and_its_projection_are_the_oracle() -> None:
    delta, gradient = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert perturb(delta, gradient, step_size=0.5, radius=0).tolist() == [[3.0, 4.5]]
    after = perturb(delta, gradient, step_size=0.5, radius=4)
    assert after[0].tolist() == pytest.approx([2.218801, 3.328201], abs=1e-6)


def test_each_text_has_its_own_norm_over_its_tokens_and_features() -> None:
    gradient = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 1e-30], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    moved = perturb(torch.zeros(3, 2, 2), gradient, step_size=1.0)
    assert moved[0].flatten().tolist() == pytest.approx([0.6, 0, 0, 0.8])
    assert moved[1].isfinite().all()
    assert moved[2].tolist() == [[0, 0], [0, 0]]  # no gradient, no step, and no division by 0


def test_the_size_of_a_gradient_does_not_matter() -> None:
    gradient = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    wanted = perturb(torch.zeros(4, 3, 5), gradient, step_size=0.1)
    for scale in (1e-12, 1e12):
        assert torch.allclose(perturb(torch.zeros(4, 3, 5), scale * gradient, step_size=0.1), wanted, rtol=1e-5)
    assert wanted.flatten(1).norm(dim=1).tolist() == pytest.approx([0.1] * 4)


def test_a_perturbation_within_the_radius_is_left_as_it_is() -> None:
    delta = torch.tensor([[[0.3, 0.4]], [[3.0, 4.0]]])
    assert bounded(delta, 1.0).flatten(1).norm(dim=1).tolist() == pytest.approx([0.5, 1.0])
    assert torch.equal(bounded(delta, 0), delta)


# ---- the whole routine, against one written out by hand ----


def by_hand(student: Classifier, noise: Tensor, step_size: float, radius: float, steps: int) -> tuple[Tensor, float]:
    """Zhu et al.'s loop over one padded batch, the perturbation given as `inputs_embeds`; no dropout."""
    inputs = tokens_of(student).padded(student.pad_id)
    mask = inputs["attention_mask"][..., None].float()
    model, delta, total = student.model, noise * mask, 0.0
    words = model.get_input_embeddings()
    model.zero_grad()
    for step in range(steps):
        delta = delta.detach().requires_grad_()
        embeds = words(inputs["input_ids"]) + delta
        types = inputs["token_type_ids"]
        logits = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], token_type_ids=types).logits
        loss = kd(logits, TEACHER, torch.zeros(len(logits), dtype=torch.long), 0.0).mean() / steps
        loss.backward()
        total += loss.item()
        if step < steps - 1:
            for row in range(len(delta)):
                moved = delta[row] + step_size * delta.grad[row] / delta.grad[row].norm()
                delta.data[row] = moved * min(1.0, radius / moved.norm().item())
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), total


def test_the_gradient_is_that_of_a_hand_written_loop_over_one_padded_batch(plain: Classifier) -> None:
    tokens = tokens_of(plain)
    assert len(grouped(tokens)) > 1
    assert len({int(n) for n in tokens.lengths}) > 1
    rows = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
    drawn = rng_of_rows(4).uniform(rows, 32) * 2 - 1
    noise = torch.zeros(len(tokens), int(tokens.lengths.max()), 32)
    for row, length in enumerate(tokens.lengths.tolist()):
        start = int(tokens.offsets[row])
        noise[row, :length] = drawn[start : start + length] * 0.5 / (length * 32) ** 0.5
    assert (
        noise.flatten(1).norm(dim=1).max() < 0.3
    )  # within the radius, so nothing is scaled down before the first pass
    wanted, total = by_hand(plain, noise, step_size=0.2, radius=0.3, steps=3)
    gradient, loss = adversarial(plain)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert torch.allclose(gradient, wanted, atol=2e-6, rtol=1e-3)
    assert not torch.allclose(clean(plain)[0], wanted, atol=2e-6, rtol=1e-3)


def test_how_rows_are_grouped_changes_nothing(plain: Classifier) -> None:
    small, large = adversarial(plain, token_budget=16), adversarial(plain, token_budget=4096)
    assert torch.allclose(small[0], large[0], atol=2e-6, rtol=1e-3)
    assert small[1].item() == pytest.approx(large[1].item(), rel=1e-6)


def test_one_step_from_nothing_is_plain_training_to_the_bit(student: Classifier) -> None:
    wanted, loss = clean(student)
    gradient, adversarial_loss = adversarial(student, steps=1, magnitude=0.0, radius=0.0)
    assert torch.equal(gradient, wanted)
    assert adversarial_loss.item() == loss.item()
    assert not torch.equal(adversarial(student, steps=1, magnitude=0.5, radius=0.0)[0], wanted)
    assert not torch.equal(adversarial(student, steps=2, magnitude=0.0, radius=0.0)[0], wanted)


def test_all_steps_see_one_dropout_mask(student: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = clean(student)
    tiny = {"steps": 3, "magnitude": 0.0, "radius": 1e-12}  # three times the clean pass: their mean is it
    assert torch.allclose(adversarial(student, **tiny)[0], wanted, atol=1e-6)
    monkeypatch.setattr("augkd.distill.adversary.freelb._restore", lambda states, device: None)
    assert not torch.allclose(adversarial(student, **tiny)[0], wanted, atol=1e-3)


def test_dropout_continues_from_where_one_plain_pass_would_leave_it(student: Classifier) -> None:
    def after(run: Callable[[], Any]) -> list[float]:
        return gradient_of(student, lambda: (run(), torch.rand(4).tolist())[1])[1]

    tokens = tokens_of(student)
    groups, rng = grouped(tokens), rng_of_rows(0)

    def plain_pass() -> None:
        backward(loss_of(student, tokens, groups))

    once = after(plain_pass)
    for steps in (1, 3):
        assert after(lambda n=steps: train_adversarially(student, tokens, groups, rng, steps=n)) == once
    assert after(lambda: (plain_pass(), plain_pass())) != once


def test_the_adversary_raises_the_loss_and_descending_instead_lowers_it(
    plain: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"steps": 4, "magnitude": 0.0, "radius": 0.0, "step_size": 0.5}
    start = clean(plain)[1].item()
    assert adversarial(plain, **given)[1].item() > start * 1.01
    up = perturb
    down = lambda delta, gradient, **options: up(delta, -gradient, **options)  # noqa: E731
    monkeypatch.setattr("augkd.distill.adversary.freelb.perturb", down)
    assert adversarial(plain, **given)[1].item() < start * 0.99


def test_the_same_seed_gives_the_same_bits_and_another_does_not(student: Classifier) -> None:
    first, again, other = adversarial(student), adversarial(student), adversarial(student, seed=8)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_each_step_forwards_every_row_once(student: Classifier) -> None:
    adversarial(student, steps=3)
    assert student.rows["training"] == 3 * len(TEXTS)


# ---- the hook ----


def test_a_zero_perturbation_is_no_perturbation_and_the_hook_is_gone_after(plain: Classifier) -> None:
    tokens = tokens_of(plain)
    groups = grouped(tokens)
    shapes = [(*tokens.mask(rows).shape, 32) for rows in groups]
    before = plain.logits(tokens, "test", groups=groups)
    with added_to_embeddings(plain.model, [torch.zeros(shape) for shape in shapes]):
        assert torch.equal(plain.logits(tokens, "test", groups=groups), before)
    with added_to_embeddings(plain.model, [torch.full(shape, 0.1).cumsum(-1) for shape in shapes]):
        assert not torch.allclose(plain.logits(tokens, "test", groups=groups), before, atol=1e-4)
    assert torch.equal(plain.logits(tokens, "test", groups=groups), before)


def test_passes_that_do_not_match_the_perturbations_are_an_error_and_leave_no_hook(plain: Classifier) -> None:
    tokens = tokens_of(plain)
    for shapes in ([], [(1, 2, 32)], [(len(tokens), int(tokens.widths.max()), 32)] * 2):
        with pytest.raises(ModelError, match="freelb needs a model that embeds its input once per"):  # noqa: SIM117
            with added_to_embeddings(plain.model, [torch.zeros(shape) for shape in shapes]):
                plain.logits(tokens, "test", 4096)
        assert not plain.model.get_input_embeddings()._forward_hooks


def test_a_loss_that_ignores_the_perturbation_is_a_bug_that_is_named(plain: Classifier) -> None:
    tokens = tokens_of(plain)
    groups = grouped(tokens)

    def loss() -> Tensor:
        with torch.no_grad():
            loss_of(plain, tokens, groups)
        return torch.zeros((), requires_grad=True)

    owner, rng = torch.arange(len(tokens)), rng_of_rows(0)
    with pytest.raises(AssertionError, match="was it forwarded without gradients"):
        freelb(loss, backward, plain.model, tokens, groups, owner, rng, steps=2)
