"""MLM adaptation: trains a masked-LM head on a backbone without one, or adapts a masked LM to the domain.

The generator needs a masked LM with the teacher's vocabulary, and many backbones (MiniLM) come without a head. It is
trained on unlabelled text in the way the generator will use it: the same mask rate, and every masked token replaced by
the mask token (not BERT's 80/10/10).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from augkd.candidates.generator.generator import masked_positions, replace_tokens
from augkd.errors import DataError
from augkd.models.finite_training import FiniteTraining
from augkd.models.masked_lm import MaskedLM
from augkd.models.seeds import rng_of
from augkd.models.tokens import LengthGrouped, Tokens
from augkd.workspace.checkpoints import last_checkpoint, mark_whole, rotate, unmark
from augkd.workspace.disk import writing
from augkd.workspace.progress import Steps

HELD_OUT = 1000  # texts at most, a tenth of a small corpus: a standard error of 1.5 points on the accuracy


@dataclass(frozen=True)
class MaskedLMScore:
    """How well a masked LM predicts masked tokens of held-out texts."""

    perplexity: float
    accuracy: float  # top-1
    places: int  # masked tokens


def adapt(
    lm: MaskedLM,
    texts: Sequence[str],
    checkpoints: Path,
    *,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    rate: float = 0.3,
    max_length: int = 128,
    seed: int = 0,
    progress: Steps | None = None,
) -> tuple[MaskedLMScore, MaskedLMScore]:
    """Trains `lm` in place, resuming from `checkpoints`; returns its scores on held-out texts before and after.

    The held-out texts are drawn from `seed` and never trained on. Raises DataError for fewer than 20 texts.
    """
    if len(texts) < 20:
        raise DataError(f"adapt has {len(texts)} texts to train on; give a corpus of 20 or more")
    order = torch.randperm(len(texts), generator=rng_of(seed, 1)).tolist()
    count = min(HELD_OUT, len(texts) // 10)
    held_out = _tokens(lm, [texts[place] for place in order[:count]], max_length)
    train = _tokens(lm, [texts[place] for place in order[count : count + steps * batch_size]], max_length)
    before = score_masked_lm(lm, held_out, rate, seed)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=0.06,
        weight_decay=0.01,
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=max(50, math.ceil(steps / 10)),
        save_total_limit=None,  # see `_save_checkpoint`
        logging_steps=20,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = _MaskedTrainer(lm, arguments, _MaskedRows(train, lm, rate, seed), batch_size, progress)
    newest = last_checkpoint(checkpoints)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    lm.model.eval()
    lm.trained_head = True
    return before, score_masked_lm(lm, held_out, rate, seed)


@torch.no_grad()
def score_masked_lm(lm: MaskedLM, tokens: Tokens, rate: float, seed: int) -> MaskedLMScore:
    """Perplexity and top-1 accuracy at masked positions drawn from `seed`."""
    positions = masked_positions(tokens, lm.special(), rate, torch.rand(len(tokens.ids), generator=rng_of(seed, 2)))
    mask = torch.full((len(positions),), int(lm.tokenizer.mask_token_id))
    masked = replace_tokens(tokens, positions, mask)
    rows = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
    loss, correct, start = 0.0, 0, 0
    for group in torch.split(torch.arange(len(tokens)), 64):  # a row of logits is 122 KB at 30,522 tokens
        stop = int((rows[positions] <= int(group[-1])).sum())
        within_group = positions[start:stop] - int(tokens.offsets[group[0]])
        logits = lm.logits(masked.take(group), within_group, "adaptation").float().cpu()
        original = tokens.ids[positions[start:stop]]
        loss += float(functional.cross_entropy(logits, original, reduction="sum"))
        correct += int((logits.argmax(dim=-1) == original).sum())
        start = stop
    count = max(1, len(positions))
    return MaskedLMScore(math.exp(min(loss / count, 700.0)), correct / count, len(positions))


class _MaskedRows(Dataset[int]):
    """Rows that are masked afresh in each epoch, by (seed, epoch, first row of the batch)."""

    def __init__(self, tokens: Tokens, lm: MaskedLM, rate: float, seed: int):
        self.tokens, self._lm, self._rate, self._seed = tokens, lm, rate, seed
        self._special = lm.special()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """A batch with some tokens masked, their positions, and the original ids."""
        tokens = self.tokens.take(torch.tensor(rows))
        draws = torch.rand(len(tokens.ids), generator=rng_of(self._seed, 3, self.epoch, rows[0]))
        positions = masked_positions(tokens, self._special, self._rate, draws)
        mask = torch.full((len(positions),), int(self._lm.tokenizer.mask_token_id))
        masked = replace_tokens(tokens, positions, mask)
        return {"tokens": masked, "positions": positions, "original": tokens.ids[positions]}


class _MaskedTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` whose loss is the cross-entropy at masked positions."""

    def __init__(
        self, lm: MaskedLM, args: TrainingArguments, data: _MaskedRows, batch_size: int, progress: Steps | None
    ) -> None:
        self._lm, self._data, self._sampler = lm, data, LengthGrouped(data.tokens.lengths, batch_size, args.seed)
        self._finite = FiniteTraining(dict)
        callbacks = [_EpochAndProgress(self._data, self._sampler, progress), self._finite]
        super().__init__(model=lm.model, args=args, train_dataset=data, callbacks=callbacks)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Length-grouped batches."""
        loader: DataLoader[Any] = DataLoader(self._data, batch_sampler=self._sampler, collate_fn=self._data.collate)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        return None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """The mean over the masked positions of a batch."""
        logits = self._lm.logits(inputs["tokens"], inputs["positions"], "adaptation").float()
        loss: Tensor = functional.cross_entropy(logits, inputs["original"].to(logits.device))
        self._finite.see(loss, self.args, self.state.global_step + 1)
        return (loss, None) if return_outputs else loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As Trainer's, marked as whole, and with the older ones removed only then."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        unmark(folder)
        with writing(folder):
            super()._save_checkpoint(model, trial)
            mark_whole(folder, {})
        rotate(folder.parent, 2, None)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0


class _EpochAndProgress(TrainerCallback):  # type: ignore[misc]
    """Passes the epoch on to data and sampler, and the steps done to `progress`."""

    def __init__(self, data: _MaskedRows, sampler: LengthGrouped, progress: Steps | None):
        self._data, self._sampler, self._progress = data, sampler, progress

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epoch = int((state.epoch or 0.0) + 1e-6)
        self._data.epoch = epoch
        self._sampler.set_epoch(epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress:
            self._progress(state.global_step, state.max_steps)


def _tokens(lm: MaskedLM, texts: Sequence[str], max_length: int) -> Tokens:
    longest = min(max_length, int(getattr(lm.model.config, "max_position_embeddings", max_length)))
    encoded = lm.tokenizer(list(texts), truncation=True, max_length=longest, return_attention_mask=False)
    return Tokens.of(encoded["input_ids"], limit=longest)
