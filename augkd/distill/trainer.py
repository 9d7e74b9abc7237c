"""DistillationTrainer: `transformers.Trainer` with a pool of candidates, a selector and a list of losses.

Each step forwards the originals and the chosen candidates together and adds up weighted rows. The sum is divided by the
number of originals in the whole accumulated step, so that neither accumulation nor an uneven last batch moves the
gradient. The teacher is not here: its logits come with the transfer set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy, rotate_checkpoints

from augkd.distill.adversary.ascent import Adversary
from augkd.distill.adversary.freelb import freelb
from augkd.distill.arguments import DistillationArguments, direct_logs
from augkd.distill.budget import Budget
from augkd.distill.checkpoint import last_checkpoint, read_rows, read_state, write_state
from augkd.distill.choice import Choice
from augkd.distill.dataset import DistillationDataset
from augkd.distill.objective.hidden import MatchedMeans, matching
from augkd.distill.objective.losses import LABELLED, LOSSES
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.trace import SelectionTrace
from augkd.errors import AugkdError, RecipeError
from augkd.models.classifier import Classifier, run
from augkd.models.seeds import rng_of
from augkd.models.tokens import LengthGrouped, Tokens
from augkd.recipe import schedules
from augkd.selection.pool import Batch, Pool
from augkd.workspace.progress import Steps


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
        progress: Steps | None = None,
        layers: LayerTeacher | None = None,
        adversary: Adversary | None = None,
    ):
        """`validation` gives the figures of the student as it is; `progress` is told (steps done, steps in all);
        `layers` is what the student's layers follow, where they follow any; `adversary` makes more candidates.
        """
        if args.patience:
            callbacks = [*(callbacks or []), EarlyStoppingCallback(args.patience)]
        if args.budget is not None:
            callbacks = [Budget(args.budget), *(callbacks or [])]
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
        direct_logs(self.callback_handler.callbacks, args.logs)
        self.student = student
        self.layers = layers
        if layers is not None:
            layers.objective.to(self.args.device)
        self.adversary = adversary
        if adversary is not None and self.accelerator.num_processes > 1:
            raise RecipeError("data.generator learns in one process; run on one device, or set its ascend: 0")
        self._rows_before = adversary.rows if adversary is not None else {}
        self._matched = MatchedMeans()
        self.data = train_dataset
        self.rows: Counter[str] = Counter()
        self._validation = validation
        self._sampler: LengthGrouped | None = None
        self._climbed: float | None = None
        self._epoch = 0
        self.choice = Choice(args, train_dataset, adversary, self._new_trace())

    def _new_trace(self) -> SelectionTrace | None:
        """None without stored candidates, and with a budget, whose epochs nobody knows beforehand."""
        if not len(self.data.candidate_tokens) or self.args.budget is not None:
            return None
        epochs, planned = math.ceil(self.args.num_train_epochs), self.args.planned_epochs
        return SelectionTrace(self.data.start, epochs, planned=planned or epochs, seed=self.args.seed)

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
        rng = rng_of(self.args.seed, self._epoch, int(batch.rows[0]), 1)
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
            self._matched.note(matched)
        weights = torch.ones(len(rows), device=rows.device)
        weights[originals:] = self.args.candidate_weight / self.choice.kept
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

    def _objective(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:  # (n,)
        progress = self._progress
        total = torch.zeros(len(logits), device=logits.device)
        for name, given in self.args.losses.items():
            extra = {key: value for key, value in given.items() if key != "weight"}
            value = LOSSES[name](logits, teacher.to(logits.device), labels.to(logits.device), progress, **extra)
            total = total + schedules.weight(given.get("weight", 1.0), progress) * value
        return total

    def _choose(self, model: Any, batch: Batch) -> Pool:
        if not self._wants_candidates:
            return batch.pool.take(torch.zeros(0, dtype=torch.long))

        def score(tokens: Tokens) -> Tensor:
            model.eval()  # no dropout noise in the scores
            with torch.no_grad():
                logits = self._run(model, tokens, "scoring").cpu()
            model.train()
            return logits

        return self.choice.chosen(batch, self._epoch, score)

    @property
    def _wants_candidates(self) -> bool:
        """Whether a loss of this stage looks at them: hard labels alone do not, as they have none."""
        seen = self.layers is not None or any(name not in LABELLED for name in self.args.losses)
        return seen and self.args.candidate_weight > 0

    def ascend(self) -> None:
        """Called by the callback before each step: trains the generator when its turn has come."""
        adversary, size = self.adversary, self.args.generator_batch_size
        if adversary is None or not self._wants_candidates or not adversary.due(self.state.global_step):
            return

        def texts(rng: torch.Generator) -> Tokens:
            return self.data.tokens.take(torch.randperm(len(self.data), generator=rng)[:size])

        def forward(tokens: Tokens) -> Tensor:
            return self._run(self.model, tokens, "ascent")

        climbed = adversary.ascend(self.model, forward, texts, self._progress, self.args.token_budget)
        self._climbed = climbed[-1]

    def _run(self, model: Any, tokens: Tokens, purpose: str) -> Tensor:
        pad, budget = self.student.pad_id, self.args.token_budget
        return run(model, tokens, pad, self.args.precision, self.rows, purpose, self.student.order, budget)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds what was selected since the last log, the generator's ascent, and the metrics of the layer losses."""
        if "loss" in logs:
            logs |= self.choice.statistics.take() | self._matched.take()
        if self._climbed is not None and "loss" in logs:
            logs["generator/divergence"] = self._climbed  # of the last step of ascent, before it
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
        """As Trainer's, but older checkpoints go only when the new one is whole, so that a kill leaves one to go on."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if not self.args.should_save:
            return
        write_state(folder, self._state(), self.counted)
        best = self.state.best_model_checkpoint
        rotate_checkpoints(self.args.output_dir, limit, best_model_checkpoint=best)

    def _state(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps besides the student and its optimiser."""
        state = {
            "selection": {"divergence": self.choice.scores} | (self.choice.trace.state() if self.choice.trace else {})
        }
        if self.layers is not None and (projections := self.layers.objective.state_dict()):
            state["projections"] = projections
        if self.adversary is not None:
            state["generator"] = self.adversary.state()
        return state

    def resume(self) -> None:
        """Trains from the last whole checkpoint of the output folder, or from the start; removes half-written ones."""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        if checkpoint is not None:
            selection = read_state(checkpoint, "selection")
            self.choice.scores = selection["divergence"]
            if self.choice.trace is not None:
                self.choice.trace.load_state(selection)
            if "projections" in self._state():
                assert self.layers is not None
                self.layers.objective.load_state_dict(read_state(checkpoint, "projections"))
            if self.adversary is not None:
                self.adversary.load_state(read_state(checkpoint, "generator"))
            self.rows.update(read_rows(checkpoint))
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    @property
    def counted(self) -> dict[str, int]:
        """Rows forwarded by purpose, those of generator and live teacher in this stage among them."""
        counted = Counter(self.rows)
        if self.adversary is not None:
            counted.update(self.adversary.rows)
            counted.subtract(self._rows_before)
        return {name: count for name, count in counted.items() if count}

    def begin_epoch(self, epoch: int) -> None:
        """Called by the callback at the start of each epoch."""
        self._epoch = epoch
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)


class _EveryEpoch(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer its epoch, and asks for the extra checkpoints."""

    def __init__(self, trainer: DistillationTrainer, progress: Steps | None):
        self._trainer, self._progress = trainer, progress

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.begin_epoch(int((state.epoch or 0.0) + 1e-6))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.ascend()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._trainer.layers is not None:
            self._trainer.layers.objective.zero_grad()  # Trainer zeroes the gradients of its model alone
        if self._progress:
            self._progress(state.global_step, state.max_steps)
        if args.save_every and state.global_step % args.save_every == 0:
            # The epoch's last step is saved after its validation; saved here too, a kill in between would skip that.
            ended = control.should_training_stop or float(state.epoch).is_integer()
            if not (ended and args.save_strategy == SaveStrategy.EPOCH):
                control.should_save = True
