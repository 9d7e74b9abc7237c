"""Makes a masked language model of a trunk that has none, or moves one to the domain, on unlabelled text.

The generator needs a masked LM with the teacher's vocabulary, and many trunks (MiniLM) come without. The tied head is
trained as the generator will be used: the same mask rate, every masked token a mask token (no 80/10/10 as in BERT).
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
from transformers.trainer_utils import get_last_checkpoint

from augkd.candidates.generator.generator import masked_places, replaced
from augkd.errors import DataError
from augkd.models.masked_lm import MaskedLM
from augkd.models.seeds import rng_of
from augkd.models.tokens import LengthGrouped, Tokens
from augkd.workspace.progress import Steps

HELD_OUT = 1000  # texts at most, a tenth of a small corpus: 1.5 points of standard error on the accuracy


@dataclass(frozen=True)
class Fit:
    """How well held-out masked tokens are filled in."""

    perplexity: float
    accuracy: float  # top-1
    places: int  # masked tokens asked


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
) -> tuple[Fit, Fit]:
    """Trains `lm` in place, going on from `checkpoints`; returns its fit to held-out texts before and after.

    The texts held out are drawn from `seed` and never trained on. Raises DataError for fewer than 20 texts.
    """
    if len(texts) < 20:
        raise DataError(f"adapt has {len(texts)} texts to learn from; give a corpus of 20 or more")
    order = torch.randperm(len(texts), generator=rng_of(seed, 1)).tolist()
    held = min(HELD_OUT, len(texts) // 10)
    unseen = _tokens(lm, [texts[place] for place in order[:held]], max_length)
    wanted = order[held : held + steps * batch_size]
    before = fit(lm, unseen, rate, seed)
    data = _Rows(_tokens(lm, [texts[place] for place in wanted], max_length), lm, rate, seed)
    told = TrainingArguments(
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
        save_total_limit=2,
        logging_steps=20,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = _MaskedTrainer(lm, told, data, batch_size, progress)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None)
    lm.model.eval()
    lm.trained_head = True
    return before, fit(lm, unseen, rate, seed)


@torch.no_grad()
def fit(lm: MaskedLM, tokens: Tokens, rate: float, seed: int) -> Fit:
    """Perplexity and top-1 accuracy at masked places drawn from `seed`."""
    places = masked_places(tokens, lm.special(), rate, rng_of(seed, 2))
    mask = torch.full((len(places),), int(lm.tokenizer.mask_token_id))
    masked = replaced(tokens, places, mask)
    rows = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
    loss, right, start = 0.0, 0, 0
    for group in torch.split(torch.arange(len(tokens)), 64):  # a row of logits is 122 KB at 30,522 tokens
        stop = int((rows[places] <= int(group[-1])).sum())
        part = masked.take(group)
        logits = lm.logits(part, places[start:stop] - int(tokens.offsets[group[0]]), "adaptation").cpu()
        true = tokens.ids[places[start:stop]]
        loss += float(functional.cross_entropy(logits, true, reduction="sum"))
        right += int((logits.argmax(dim=-1) == true).sum())
        start = stop
    count = max(1, len(places))
    return Fit(math.exp(min(loss / count, 700.0)), right / count, len(places))


class _Rows(Dataset[int]):
    """Texts that are masked anew each time, by (seed, epoch, first row of the batch)."""

    def __init__(self, tokens: Tokens, lm: MaskedLM, rate: float, seed: int):
        self.tokens, self._lm, self._rate, self._seed = tokens, lm, rate, seed
        self._special = lm.special()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """A batch with its masks, and what was under them."""
        tokens = self.tokens.take(torch.tensor(rows))
        places = masked_places(tokens, self._special, self._rate, rng_of(self._seed, 3, self.epoch, rows[0]))
        mask = torch.full((len(places),), int(self._lm.tokenizer.mask_token_id))
        return {"tokens": replaced(tokens, places, mask), "places": places, "true": tokens.ids[places]}


class _MaskedTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` whose loss is the cross-entropy at masked places."""

    def __init__(
        self, lm: MaskedLM, args: TrainingArguments, data: _Rows, batch_size: int, progress: Steps | None
    ) -> None:
        self._lm, self._data, self._sampler = lm, data, LengthGrouped(data.tokens.lengths, batch_size, args.seed)
        told = _Told(self._data, self._sampler, progress)
        super().__init__(model=lm.model, args=args, train_dataset=data, callbacks=[told])
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Length-grouped batches."""
        loader: DataLoader[Any] = DataLoader(self._data, batch_sampler=self._sampler, collate_fn=self._data.collate)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        return None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Mean over the masked places of a batch."""
        logits = self._lm.logits(inputs["tokens"], inputs["places"], "adaptation")
        loss: Tensor = functional.cross_entropy(logits, inputs["true"].to(logits.device))
        return (loss, None) if return_outputs else loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0


class _Told(TrainerCallback):  # type: ignore[misc]
    """Tells data and sampler their epoch, and the caller how far it is."""

    def __init__(self, data: _Rows, sampler: LengthGrouped, progress: Steps | None):
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
    return Tokens.of(encoded["input_ids"])
