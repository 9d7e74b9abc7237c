"""Intermediate-layer losses during a forward pass that the caller runs: `matching` watches the student and fills in.

The row groups are made once, by the caller, and given to both `matching` and the forward pass, so that the i-th group
means the same rows to both. Stored teacher vectors are looked up by row; a live teacher is run on the student's tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from augkd.distill.objective.layer_losses import alp_attention
from augkd.distill.objective.layer_objective import LayerObjective
from augkd.distill.objective.layer_states import Needs, States, watched
from augkd.distill.parallel import ALONE, Ranks
from augkd.errors import ModelError
from augkd.models.classifier import Classifier
from augkd.models.tokens import RowGroups, Tokens, takes_token_types


def check_same_tokens(student: Classifier, teacher: Classifier) -> None:
    """Raises ModelError unless both split a text into the same tokens: token losses compare them one by one."""
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab() or student.max_length != teacher.max_length:
        raise ModelError(
            "the student's tokenizer or maximum length differs from the teacher's, and hidden, embedding, attention "
            "and distilbert_cosine compare token by token; use pkd, ckd, alp or rail"
        )


class Matched:
    """The intermediate-layer losses of one forward pass, filled in group by group while `matching` is open."""

    def __init__(self, groups: RowGroups):
        self._groups = groups
        self._losses: list[Tensor] = []
        self._metrics: list[dict[str, Tensor]] = []

    def current_group(self) -> Tensor:
        """Positions of the rows that are being forwarded."""
        return self._groups[len(self._losses)]

    def add(self, losses: Tensor, metrics: dict[str, Tensor]) -> None:
        """Records the values of the current group, one per row, and moves to the next group."""
        self._losses.append(losses)
        self._metrics.append(metrics)

    @property
    def losses(self) -> Tensor:  # (n,)
        """The loss of every row, in the order of the tokens."""
        assert len(self._losses) == len(self._groups), "losses are read before all rows were forwarded"
        return self._groups.restore(self._losses)

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the rows. Waits for the device: read it when logging."""
        return {name: float(total) / len(self.losses) for name, total in self.sums.items()}

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums over the rows, left on their device."""
        names = self._metrics[0] if self._metrics else {}
        return {name: torch.cat([group[name] for group in self._metrics]).sum() for name in names}


class MatchedMeans:
    """Metrics of several passes: their means over all rows since the last `take`. Adding waits for no device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows = 0

    def add(self, matched: Matched) -> None:
        """Adds a pass whose rows have all been forwarded."""
        self._sums = {name: self._sums.get(name, 0.0) + total for name, total in matched.sums.items()}
        self._rows += len(matched.losses)

    def take(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means over all `ranks`, and starts over; {} when nothing was added."""
        self.load_state(self.state(ranks))
        means = {name: float(total) / self._rows for name, total in self._sums.items()}
        self._sums, self._rows = {}, 0
        return means

    def state(self, ranks: Ranks = ALONE) -> dict[str, Tensor]:
        """For a checkpoint: the sums by name, and their rows, of all `ranks` together."""
        own: dict[str, float] = {f"sum/{name}": float(total) for name, total in self._sums.items()}
        return {name: torch.tensor(total) for name, total in ranks.total({**own, "rows": self._rows}).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from `state`."""
        self._rows = int(state["rows"])
        self._sums = {name.removeprefix("sum/"): total for name, total in state.items() if name != "rows"}


@contextlib.contextmanager
def matching(
    objective: LayerObjective,
    model: nn.Module,
    tokens: Tokens,
    groups: RowGroups,  # of `tokens`
    teacher: Tensor | Classifier,  # stored vectors of these rows, (n, needed layers, d), or the live teacher
    progress: float,
    epoch: int,
) -> Iterator[Matched]:
    """While open, `Classifier.logits(tokens, …, groups=groups)` also fills the yielded `Matched`.

    A live teacher is run on the student's tokens (`check_same_tokens` first), in eval mode and without gradient.
    """
    matched = Matched(groups)

    def receive(student: States) -> None:
        rows = matched.current_group()
        assert student.mask is not None
        expected = tuple(tokens.mask(rows).shape)
        assert tuple(student.mask.shape) == expected, "the pass forwards other row groups than it is matched with"
        if isinstance(teacher, Tensor):
            states = States(vectors=teacher[rows.to(teacher.device)].to(student.mask.device))
        else:
            states = _teacher_states(teacher, tokens.take(rows), objective.needs())
        losses, metrics = objective(student, states, progress, epoch)
        matched.add(losses, metrics | attention_weights(objective, student, states))

    with watched(model, objective.student_needs(), receive):
        yield matched


@torch.no_grad()
def attention_weights(objective: LayerObjective, student: States, teacher: States) -> dict[str, Tensor]:
    """ALP's weights (n,) as metrics `attention/{student layer}/{teacher layer}`, 0 outside a bucket; {} without ALP."""
    alp = objective.term("alp")
    if alp is None:
        return {}
    assert student.vectors is not None
    assert teacher.vectors is not None  # of every layer, for ALP needs all of them
    with torch.autocast(student.vectors.device.type, enabled=False):
        weights = alp_attention(objective.widen(student.vectors.float()), teacher.vectors.float(), **alp.options)
    _, student_layers, teacher_layers = weights.shape
    return {
        f"attention/{j}/{layer}": weights[:, j, layer] for j in range(student_layers) for layer in range(teacher_layers)
    }


@torch.no_grad()
def _teacher_states(teacher: Classifier, tokens: Tokens, needs: Needs) -> States:
    """The live teacher's states of rows that share one padded batch, in the caller's precision."""
    assert not teacher.model.training, "a teacher in training mode: dropout noise in every target"
    states: list[States] = []
    inputs = {name: value.to(teacher.device) for name, value in tokens.padded(teacher.pad_id).items()}
    if not takes_token_types(teacher.model):
        del inputs["token_type_ids"]
    with watched(teacher.model, needs, states.append):
        teacher.model(**inputs)
    teacher.rows["teacher layers"] += len(tokens)
    return states[0]
