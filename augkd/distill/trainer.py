"""DistillationTrainer: `transformers.Trainer` with a pool of candidates, a selector and a list of losses.

Each step forwards the originals and the chosen candidates together and adds up weighted rows. The sum is divided by the
number of originals in the whole accumulated step, so that neither accumulation nor an uneven last batch moves the
gradient. The teacher is not here: its logits come with the transfer set.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from augkd import schedules
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset, LengthGrouped
from augkd.distill.freelb import freelb
from augkd.distill.hidden import Matched, matching
from augkd.distill.layer_teacher import LayerTeacher
from augkd.distill.losses import LOSSES
from augkd.distill.models import Classifier, run
from augkd.errors import AugkdError
from augkd.selection.divergence import divergence
from augkd.selection.pool import Batch, Pool, Tokens
from augkd.selection.selectors import SCORED, SELECTORS
from augkd.workspace import write_json

_COMPLETE = "augkd.json"  # written last into a checkpoint: one without it was cut off by a kill


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """Learns a student from a transfer set; `args.metric_for_best_model` names the validation figure that decides."""

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
        layers: LayerTeacher | None = None,
    ):
        """`validation` gives the figures of the student as it is; `progress` is told (steps done, steps in all);
        `layers` is what the student's layers follow, where they follow any.
        """
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
        self.layers = layers
        if layers is not None:
            layers.objective.to(self.args.device)
        self._matched: Matched | None = None
        self.data = train_dataset
        self.rows: Counter[str] = Counter()
        self._validation = validation
        ((self._selector, self._selector_options),) = args.selector.items()
        self._stale = torch.full((len(train_dataset.candidate_tokens),), torch.nan)
        self._sampler: LengthGrouped | None = None
        self._epoch = 0
        self._seen: Counter[str] = Counter()  # selection statistics since the last log: rows, and sums over them
        self._sums: dict[str, float] = defaultdict(float)

    def _clip_grad_norm(self, model: Any) -> Any:
        """As Trainer's, over the projections of the layer losses too."""
        extra = [] if self.layers is None else list(self.layers.objective.parameters())
        return self.accelerator.clip_grad_norm_([*model.parameters(), *extra], self.args.max_grad_norm)

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
        if not model.training:
            raise AssertionError("a training step in eval mode: dropout would be off")
        batch: Batch = inputs["batch"]
        loss = self._loss(model, batch, self._choose(model, batch), num_items_in_batch)
        return (loss, None) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """As Trainer's; with FreeLB several passes under a perturbation that climbs, their gradients averaged."""
        if self.args.freelb is None:
            step: Tensor = super().training_step(model, inputs, num_items_in_batch)
            return step
        model.train()
        batch: Batch = inputs["batch"]
        chosen = self._choose(model, batch)  # scored clean: a selector sees the texts as they are
        rng = torch.Generator().manual_seed(_mix(self.args.seed, self._epoch, int(batch.rows[0]), 1))
        return freelb(
            lambda: self._loss(model, batch, chosen, num_items_in_batch),
            self.accelerator.backward,
            model,
            batch.tokens.join(chosen.tokens),
            rng,
            self.args.token_budget,
            **self.args.freelb,
        )

    def _loss(self, model: Any, batch: Batch, chosen: Pool, step_originals: int | None) -> Tensor:
        tokens, originals = batch.tokens.join(chosen.tokens), len(batch.tokens)
        none = torch.nan if batch.labels.is_floating_point() else -100
        labels = torch.cat([batch.labels, torch.full((len(chosen),), none, dtype=batch.labels.dtype)])
        teacher = torch.cat([batch.teacher, chosen.teacher])
        if self.layers is None:
            rows = self._objective(self._run(model, tokens, "training"), teacher, labels)
        else:
            seen = (self.layers.of_rows(batch, chosen), self._progress, self._epoch, self.args.token_budget)
            with matching(self.layers.objective, model, tokens, *seen) as matched:
                logits = self._run(model, tokens, "training")
            rows = self._objective(logits, teacher, labels) + matched.rows
            self._matched = matched
        weights = torch.ones(len(rows), device=rows.device)
        weights[originals:] = self.args.candidate_weight / self.kept
        return (weights * rows).sum() / (step_originals or originals)

    @property
    def _progress(self) -> float:
        """Share of the stage that is done."""
        return float(self.state.global_step / max(1, self.state.max_steps))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, with the projections of the layer losses, which are not part of the student."""
        optimizer = super().create_optimizer(*args, **kwargs)
        extra = [] if self.layers is None else list(self.layers.objective.parameters())
        if extra and not any(extra[0] is known for group in optimizer.param_groups for known in group["params"]):
            optimizer.add_param_group({"params": extra, "weight_decay": self.args.weight_decay})
        return optimizer

    @property
    def kept(self) -> int:
        """Candidates an original can contribute a step: a candidate's weight is the share of one of them."""
        return max(1, min(int(self._selector_options.get("keep", self.data.most)), self.data.most))

    def _objective(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:  # (n,)
        progress = self._progress
        total = torch.zeros(len(logits), device=logits.device)
        for name, given in self.args.losses.items():
            extra = {key: value for key, value in given.items() if key != "weight"}
            value = LOSSES[name](logits, teacher.to(logits.device), labels.to(logits.device), progress, **extra)
            total = total + schedules.weight(given.get("weight", 1.0), progress) * value
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
        if self._matched is not None and "loss" in logs:
            logs |= self._matched.metrics  # of the last batch: the perplexity of ALP's attention among them
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
        if self.layers is not None and (projections := self.layers.objective.state_dict()):
            save_file(projections, folder / "projections.safetensors")
        write_json(folder / _COMPLETE, {"rows": dict(self.rows)})
        best = self.state.best_model_checkpoint
        rotate_checkpoints(self.args.output_dir, limit, best_model_checkpoint=best)

    def resume(self) -> None:
        """Trains from the last whole checkpoint of the output folder, or from the start; removes half-written ones."""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        if checkpoint is not None:
            self._stale = load_file(checkpoint / "selection.safetensors")["divergence"]
            if self.layers is not None and (checkpoint / "projections.safetensors").exists():
                self.layers.objective.load_state_dict(load_file(checkpoint / "projections.safetensors"))
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
        if self._trainer.layers is not None:
            self._trainer.layers.objective.zero_grad()  # Trainer zeroes the gradients of its model alone
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


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
