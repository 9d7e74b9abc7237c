"""DistillationTrainer: `transformers.Trainer` with a pool of candidates, a selector and a list of losses.

Each step forwards the originals and the chosen candidates together and adds up weighted rows. The sum is divided by the
number of originals in the whole accumulated step, so that neither accumulation nor an uneven last batch moves the
gradient. The teacher is not here: its logits come with the transfer set.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from augkd.data.transfer_set import Candidates, TransferSet
from augkd.distill.arguments import DistillationArguments
from augkd.distill.losses import LOSSES
from augkd.distill.models import Classifier, run
from augkd.errors import AugkdError
from augkd.selection.divergence import divergence
from augkd.selection.pool import Batch, Pool, Tokens
from augkd.selection.selectors import SCORED, SELECTORS
from augkd.workspace import write_json

_COMPLETE = "augkd.json"  # written last into a checkpoint: one without it was cut off by a kill


class DistillationDataset(Dataset[int]):
    """A tokenised transfer set; each text is tokenised once, here."""

    def __init__(self, student: Classifier, transfer_set: TransferSet):
        pairs = list(zip(transfer_set.column("text"), transfer_set.column("text_pair"), strict=True))
        found: Candidates = transfer_set.candidates()
        self.tokens = student.tokens(pairs)
        self.labels = _labels(transfer_set.column("label"), transfer_set.labels)
        self.teacher = torch.from_numpy(transfer_set.teacher())
        self.candidate_tokens = student.tokens(list(zip(found.text, found.text_pair, strict=True)))
        self.candidate_teacher = torch.from_numpy(found.teacher)
        self.score = torch.from_numpy(found.score)
        self.start = torch.from_numpy(np.searchsorted(found.owner, np.arange(len(pairs) + 1)))
        self.sources = found.source

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def most(self) -> int:
        """The largest number of candidates an original has."""
        return int(self.start.diff().max()) if len(self) else 0

    def collate(self, rows: Sequence[int]) -> dict[str, Batch]:
        """The batch of the given originals, with all their candidates."""
        picked = torch.tensor(list(rows))
        counts = self.start[picked + 1] - self.start[picked]
        owner = torch.repeat_interleave(torch.arange(len(picked)), counts)
        first = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)[:-1]])
        places = torch.arange(len(owner)) - first[owner]
        row = self.start[picked][owner] + places
        pool = Pool(self.candidate_tokens.take(row), owner, self.score[row], self.candidate_teacher[row], row)
        return {"batch": Batch(self.tokens.take(picked), self.labels[picked], self.teacher[picked], pool, picked)}


class LengthGrouped(Sampler[list[int]]):
    """Batches of originals of similar length, in an order drawn from (seed, epoch)."""

    def __init__(self, lengths: Tensor, batch_size: int, seed: int):
        self._lengths, self._size, self._seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        order = rng.permutation(len(self._lengths))
        lengths = self._lengths.numpy()
        window = self._size * 32  # sorted within windows only, so that batches differ between epochs
        batches: list[list[int]] = []
        for begin in range(0, len(order), window):
            part = order[begin : begin + window]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[i : i + self._size].tolist() for i in range(0, len(part), self._size)]
        for place in rng.permutation(len(batches)):
            yield batches[place]


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """Learns a student from a transfer set.

    `metrics` maps validation logits to a dict of figures; `args.metric_for_best_model` picks one of them.
    """

    control: Any
    loss_is_scaled_for_ga = True  # compute_loss divides by the originals of the whole accumulated step

    def __init__(
        self,
        student: Classifier,
        args: DistillationArguments,
        train_dataset: DistillationDataset,
        validation: Callable[[Classifier], Mapping[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ):
        """`validation` gives the figures of the student as it is; `progress` is told (steps done, steps in all)."""
        if args.patience:
            callbacks = [*(callbacks or []), EarlyStoppingCallback(args.patience)]
        super().__init__(
            model=student.model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if validation else None,  # Trainer wants one; `evaluate` does not use it
            processing_class=student.tokenizer,
            callbacks=[*(callbacks or []), _EveryEpoch(self, progress)],
        )
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)  # the log is in the trainer's state; printing belongs to the caller
        self.student = student
        self.data = train_dataset
        self.rows: Counter[str] = Counter()
        self._validation = validation
        ((self._selector, self._selector_options),) = args.selector.items()
        self._stale = torch.full((len(train_dataset.candidate_tokens),), torch.nan)
        self._sampler: LengthGrouped | None = None
        self._epoch = 0
        self._seen: Counter[str] = Counter()  # selection statistics since the last log: rows, and sums over them
        self._sums: dict[str, float] = defaultdict(float)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Length-grouped batches of originals with their candidates."""
        size = self.args.per_device_train_batch_size
        self._sampler = LengthGrouped(self.data.tokens.lengths, size, self.args.data_seed or self.args.seed)
        loader: DataLoader[Any] = DataLoader(self.data, batch_sampler=self._sampler, collate_fn=self.data.collate)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """As Trainer's, with the number of originals in place of the number of label tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(inputs["batch"].tokens) for inputs in batches)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        return None  # Trainer would look for `labels` in the inputs

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted rows of originals and chosen candidates, summed and divided by the step's originals."""
        batch: Batch = inputs["batch"]
        if not model.training:
            raise AssertionError("a training step in eval mode: dropout would be off")
        chosen = self._choose(model, batch)
        logits = self._run(model, batch.tokens.join(chosen.tokens), "training")
        originals = len(batch.tokens)
        none = torch.nan if batch.labels.is_floating_point() else -100
        labels = torch.cat([batch.labels, torch.full((len(chosen),), none, dtype=batch.labels.dtype)])
        rows = self._objective(logits, torch.cat([batch.teacher, chosen.teacher]), labels)
        weights = torch.ones(len(rows), device=rows.device)
        weights[originals:] = self.args.candidate_weight / self.kept
        loss = (weights * rows).sum() / (num_items_in_batch or originals)
        return (loss, logits) if return_outputs else loss

    @property
    def kept(self) -> int:
        """Candidates an original can contribute a step: a candidate's weight is the share of one of them."""
        return max(1, min(int(self._selector_options.get("keep", self.data.most)), self.data.most))

    def _objective(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:  # (n,)
        progress = self.state.global_step / max(1, self.state.max_steps)
        total = torch.zeros(len(logits), device=logits.device)
        for name, given in self.args.losses.items():
            extra = {key: value for key, value in given.items() if key != "weight"}
            value = LOSSES[name](logits, teacher.to(logits.device), labels.to(logits.device), progress, **extra)
            total = total + given.get("weight", 1.0) * value
        return total

    def _choose(self, model: Any, batch: Batch) -> Pool:
        pool = batch.pool
        if len(pool) == 0 or self.args.candidate_weight == 0:
            return pool.take(torch.zeros(0, dtype=torch.long))
        scored = self._selector in SCORED
        values = self._divergence(model, pool) if scored else torch.zeros(len(pool))
        rng = torch.Generator().manual_seed(_mix(self.args.seed, self._epoch, int(batch.rows[0])))
        chosen = SELECTORS[self._selector](values, pool, rng, **self._selector_options)
        self._note(values if scored else None, pool, chosen)
        return pool.take(chosen)

    def _divergence(self, model: Any, pool: Pool) -> Tensor:  # (n,)
        """Divergence of every candidate: fresh every `refresh` epochs, else as last scored."""
        due = self._epoch % self.args.refresh == 0
        stale = torch.ones(len(pool), dtype=torch.bool) if due else self._stale[pool.row].isnan()
        rows = stale.nonzero().flatten()
        if len(rows):
            model.eval()  # no dropout noise in the scores
            with torch.no_grad():
                logits = self._run(model, pool.tokens.take(rows), "scoring").cpu()
            model.train()
            value = divergence(logits, pool.teacher[rows], self.args.selection_temperature)
            self._stale[pool.row[rows]] = value
        return self._stale[pool.row]

    def _run(self, model: Any, tokens: Tokens, purpose: str) -> Tensor:
        pad, budget = self.student.pad_id, self.args.token_budget
        return run(model, tokens, pad, self.args.precision, self.rows, purpose, self.student.order, budget)

    def _note(self, values: Tensor | None, pool: Pool, chosen: Tensor) -> None:
        self._seen["pool"] += len(pool)
        self._seen["picked"] += len(chosen)
        self._sums["score"] += float(pool.score[chosen].sum())
        if values is not None:
            self._sums["pool"] += float(values.sum())
            self._sums["picked"] += float(values[chosen].sum())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds selection statistics since the last log: mean divergence of the pool and of the picked, similarity."""
        if self._seen["picked"] and "loss" in logs:
            logs["selection/similarity"] = self._sums["score"] / self._seen["picked"]
            if self._selector in SCORED:
                logs["selection/divergence_picked"] = self._sums["picked"] / self._seen["picked"]
                logs["selection/divergence_pool"] = self._sums["pool"] / self._seen["pool"]
            self._seen.clear()
            self._sums.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Figures on the validation split."""
        if self._validation is None:
            raise AugkdError("this trainer was given no validation split")
        figures = self._validation(self.student)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: rows are (`self.rows`)."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As Trainer's, but older checkpoints go only when the new one is whole, so that a kill leaves one to go on.

        A step that is also an epoch's end is saved twice: the mark of the first time is taken off before the second.
        """
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / _COMPLETE).unlink(missing_ok=True)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if not self.args.should_save:
            return
        save_file({"divergence": self._stale}, folder / "selection.safetensors")
        write_json(folder / _COMPLETE, {"rows": dict(self.rows)})
        best = self.state.best_model_checkpoint
        rotate_checkpoints(self.args.output_dir, limit, best_model_checkpoint=best)

    def resume(self) -> None:
        """Trains from the last whole checkpoint of the output folder, or from the start; removes half-written ones."""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        if checkpoint is not None:
            self._stale = load_file(checkpoint / "selection.safetensors")["divergence"]
            self.rows.update(json.loads((checkpoint / _COMPLETE).read_text())["rows"])
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def begin_epoch(self, epoch: int) -> None:
        """Called by the callback at the start of each epoch."""
        self._epoch = epoch
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)


class _EveryEpoch(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer its epoch, and asks for the extra checkpoints."""

    def __init__(self, trainer: DistillationTrainer, progress: Callable[[int, int | None], None] | None):
        self._trainer, self._progress = trainer, progress

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.begin_epoch(int((state.epoch or 0.0) + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress:
            self._progress(state.global_step, state.max_steps)
        if args.save_every and state.global_step % args.save_every == 0:
            control.should_save = True


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; newer ones that a kill cut off are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in found:
        if (path / _COMPLETE).exists():
            return path
        shutil.rmtree(path)
    return None


def _labels(values: Sequence[Any], names: Sequence[str]) -> Tensor:
    if not names:
        return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)
    places = {name: place for place, name in enumerate(names)}
    return torch.tensor([-100 if value is None else places[value] for value in values], dtype=torch.long)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
