"""DistillationTrainer: `transformers.Trainer` with a pool of candidates, a selector and a recipe's losses.

Each step chooses candidates, forwards them together with the originals, and adds up weighted losses. The sum is divided
by the number of originals in the whole accumulated step, so that neither accumulation nor an uneven last batch changes
the gradient. The teacher is not here: its logits come with the transfer set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from augkd.distill import checkpoint as checkpoints
from augkd.distill.adversary.ascent import Adversary
from augkd.distill.adversary.freelb import freelb
from augkd.distill.arguments import DistillationArguments
from augkd.distill.callbacks import BetweenSteps, callbacks_of, direct_logs
from augkd.distill.choice import Choice, Scorer
from augkd.distill.dataset import DistillationDataset
from augkd.distill.log_state import LogState
from augkd.distill.objective.matching import MatchedMeans
from augkd.distill.objective.objective import Objective
from augkd.distill.step import LayerTargets, StepLoss, StepRows
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.trace import SelectionTrace
from augkd.errors import AugkdError, RecipeError
from augkd.models.classifier import Classifier
from augkd.models.devices import token_budget_of
from augkd.models.finite_training import FiniteTraining
from augkd.models.seeds import rng_of
from augkd.models.tokens import LengthGrouped
from augkd.selection.pool import Batch, Pool
from augkd.workspace.checkpoints import check_checkpoint, last_checkpoint, rotate, unmark
from augkd.workspace.disk import writing
from augkd.workspace.progress import Steps


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """Trains a student on a transfer set, in place; `args.metric_for_best_model` names the deciding validation figure.

    `resume()` trains, continuing from the last checkpoint of `args.output_dir` where there is one; `train()` is that of
    `transformers`. `rows` then counts the student's forwarded rows by purpose, `all_rows` the generator's and the live
    teacher's too.
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
        progress: Steps | None = None,
        layers: LayerTeacher | None = None,
        adversary: Adversary | None = None,
    ):
        """`validation` gives figures of the student by name; None: no evaluation. `progress` is called with (steps
        done, steps in all). `layers` is what the student's layers are compared with, `adversary` generates further
        candidates; None: neither.

        Raises RecipeError for an unknown loss or option, and for an adversary in several processes.
        """
        self.objective = Objective(args.losses)
        self._finite = FiniteTraining(self._parts_beside_the_student)
        super().__init__(
            model=student.model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if validation else None,  # Trainer wants one; `evaluate` does not use it
            processing_class=student.tokenizer,
            callbacks=[*callbacks_of(args, callbacks), BetweenSteps(self, progress), self._finite],
        )
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)  # the log is in the trainer's state; printing belongs to the caller
        direct_logs(self.callback_handler.callbacks, args.logs)
        if adversary is not None and self.accelerator.num_processes > 1:
            raise RecipeError("data.generator is trained in one process; run on one device, or set its ascend: 0")
        if layers is not None:
            layers.objective.to(self.args.device)
        self.student, self.data = student, train_dataset
        self.layers, self.adversary = layers, adversary
        self.choice = Choice(args, train_dataset, adversary, self._new_trace())
        self.rows: Counter[str] = Counter()
        self._rows_before = adversary.rows if adversary is not None else {}
        self.matched = MatchedMeans()
        self.log_state = LogState(self)
        self._validation = validation
        self._sampler: LengthGrouped | None = None
        self.ascent_divergence: float | None = None  # before the last gradient-ascent step
        self._epoch = 0

    def _new_trace(self) -> SelectionTrace | None:
        """None without stored candidates, and with a time budget, whose number of epochs is not known beforehand."""
        if not len(self.data.candidate_tokens) or self.args.time_budget is not None:
            return None
        epochs, planned = math.ceil(self.args.num_train_epochs), self.args.planned_epochs
        return SelectionTrace(self.data.start, epochs, planned=planned or epochs, seed=self.args.seed)

    # ---- a step: choose, forward, weigh ----

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Chooses candidates, forwards the rows, weighs their losses; with FreeLB in several passes.

        The loss () is the weighted sum over originals and chosen candidates, divided by the step's originals.
        """
        batch: Batch = inputs["batch"]
        student = self._wrapped_student(model)
        chosen = self._choose(student, batch)  # scored clean: a selector sees the texts as they are
        loss = self._step_loss(student, batch, chosen, num_items_in_batch or len(batch.tokens))
        if self.args.freelb is None:
            value = loss()
        else:
            rng = rng_of(self.args.seed, self._epoch, int(batch.rows[0]), 1)
            rows, backward = loss.rows, self.accelerator.backward
            value = freelb(loss, backward, model, rows.tokens, rows.groups, rng, **self.args.freelb)
        self._finite.see(value, self.args, self.state.global_step + 1)
        return (value, None) if return_outputs else value

    def _wrapped_student(self, model: Any) -> Classifier:
        """The student with its model as Trainer wraps it, and its rows counted here."""
        return replace(self.student, model=model, precision=self.args.precision, rows=self.rows)

    def _choose(self, student: Classifier, batch: Batch) -> Pool:
        if not self._uses_candidates:
            return batch.pool.take(torch.zeros(0, dtype=torch.long))
        return self.choice.candidates(batch, self._epoch, Scorer(student, self.args.token_budget))

    def _step_loss(self, student: Classifier, batch: Batch, chosen: Pool, originals: int) -> StepLoss:
        """The loss of these rows as a function of the student; `originals` are those of the accumulated step."""
        rows = StepRows.of(
            batch,
            chosen,
            missing=self.data.target.missing,
            candidate_weight=self.args.candidate_weight / self.choice.kept,
            token_budget=token_budget_of(student.device, self.args.token_budget),
        )
        layers = None
        if self.layers is not None:
            targets = self.layers.targets(batch, chosen)
            layers = LayerTargets(self.layers.objective, targets, self._epoch, self.matched)
        return StepLoss(student, rows, self.objective, layers, originals, self._progress)

    @property
    def _progress(self) -> float:
        """Share of the stage that is done."""
        return float(self.state.global_step / max(1, self.state.max_steps))

    @property
    def _uses_candidates(self) -> bool:
        """Whether a loss of this stage uses them: hard labels alone do not, as candidates have none."""
        used = self.layers is not None or self.objective.uses_unlabelled_rows
        return used and self.args.candidate_weight > 0

    def ascend(self) -> None:
        """Trains the generator when it is due; called by the callback before each step."""
        adversary, args = self.adversary, self.args
        if adversary is None or not self._uses_candidates or not adversary.is_due(self.state.global_step):
            return
        student, originals = self._wrapped_student(self.model), self.data.tokens
        divergences = adversary.ascend(student, originals, args.generator_batch_size, self._progress, args.token_budget)
        self.ascent_divergence = divergences[-1]

    def begin_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0; called by the callback at its start."""
        self._epoch = epoch
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)

    # ---- batches ----

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

    # ---- the projections of intermediate-layer losses, which are not part of the student ----

    @property
    def _projections(self) -> list[torch.nn.Parameter]:
        return [] if self.layers is None else list(self.layers.objective.parameters())

    def _parts_beside_the_student(self) -> dict[str, torch.nn.Module]:
        return {} if self.layers is None else {"projection": self.layers.objective}  # the generator checks itself

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, with the projections."""
        optimizer = super().create_optimizer(*args, **kwargs)
        extra = self._projections
        if extra and not any(extra[0] is known for group in optimizer.param_groups for known in group["params"]):
            optimizer.add_param_group({"params": extra, "weight_decay": self.args.weight_decay})
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        """As Trainer's, over the projections too."""
        return self.accelerator.clip_grad_norm_([*model.parameters(), *self._projections], self.args.max_grad_norm)

    # ---- figures ----

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds to a training entry the means since the last one: selection, layers; and the generator's divergence."""
        if "loss" in logs:
            logs |= self.choice.statistics.take() | self.matched.take()
            if self.ascent_divergence is not None:
                logs["generator/divergence"] = self.ascent_divergence  # before the last gradient-ascent step
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """The figures of `validation`, each named with the prefix. Raises AugkdError when there is no validation."""
        if self._validation is None:
            raise AugkdError("this trainer has no validation to evaluate with; pass validation=")
        figures = self._validation(self.student)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: rows are (`self.rows`)."""
        return 0

    @property
    def all_rows(self) -> dict[str, int]:
        """Rows forwarded in this stage by purpose, those of the generator and the live teacher included."""
        counts = Counter(self.rows)
        if self.adversary is not None:
            counts.update(self.adversary.rows)
            counts.subtract(self._rows_before)
        return {name: count for name, count in counts.items() if count}

    # ---- checkpoints ----

    def resume(self) -> None:
        """Trains from the last whole checkpoint of the output folder, or from the start; removes half-written ones."""
        folder = last_checkpoint(Path(self.args.output_dir))
        if folder is not None:
            self.rows.update(checkpoints.load_state(folder, self._stateful_parts()))
        self.train(resume_from_checkpoint=str(folder) if folder else None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As Trainer's, but removes older checkpoints only when the new one is whole, so that a kill leaves one."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        unmark(folder)  # of the same step, written before a kill
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
                if self.args.should_save:
                    checkpoints.add_state(folder, self._stateful_parts(), self.all_rows)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate(folder.parent, limit, self.state.best_model_checkpoint)

    def _load_best_model(self) -> None:
        """As Trainer's, after a look at the checkpoint's checksums."""
        check_checkpoint(Path(self.state.best_model_checkpoint))
        super()._load_best_model()

    def _stateful_parts(self) -> dict[str, checkpoints.Stateful]:
        """What a checkpoint keeps besides the student and its optimiser, by the name of its file."""
        parts: dict[str, checkpoints.Stateful | None] = {
            "log": self.log_state,
            "selection": self.choice,
            "projections": self.layers,
            "generator": self.adversary,
        }
        return {name: part for name, part in parts.items() if part is not None}
