"""Layer vectors, token states and attention scores, out of models that somebody else runs.

`watched` listens to forward passes that others make, so the loop over groups of rows stays the one in `models.run`, and
gradients flow. Attention scores before the softmax are q·k/√d of the query and key projections, because fused attention
shows none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from augkd.distill.objective.layer_losses import alp_attention
from augkd.distill.objective.layer_objective import LayerObjective, Needs, Pooling, States
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, Pair, layer_list, takes_token_types
from augkd.models.devices import budget_of
from augkd.models.tokens import Tokens

_PROJECTIONS = (("attention.self.query", "attention.self.key"), ("attention.q_lin", "attention.k_lin"))


def pooled_layers(
    hidden_states: Sequence[Tensor],  # embeddings, then each layer: (n, t, d)
    attention_mask: Tensor,  # (n, t)
    layers: Sequence[int],
    pooling: Pooling,
) -> Tensor:  # (n, len(layers), d) float32
    """One vector a row for each of `layers` (0-based): the first token's, or the mean over real tokens."""
    states = [hidden_states[layer + 1] for layer in layers]
    if pooling == "cls":
        return torch.stack([state[:, 0].float() for state in states], dim=1)
    share = (attention_mask / attention_mask.sum(dim=1, keepdim=True)).float()
    return torch.stack([torch.einsum("nt,ntd->nd", share, state.float()) for state in states], dim=1)


@contextlib.contextmanager
def watched(model: Any, needs: Needs, receive: Callable[[States], None]) -> Iterator[None]:
    """While open, every forward pass of `model` hands what `needs` says of its layers to `receive`, with gradients.

    Raises ModelError when attention scores are needed of a model whose query and key projections are not known.
    """
    seen: dict[tuple[int, str], Tensor] = {}
    heads = model.config.num_attention_heads if needs.attention else 0

    def ask(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"output_hidden_states": bool(needs.layers or needs.tokens)}

    def hand_over(_: nn.Module, args: Any, kwargs: dict[str, Any], outputs: Any) -> None:
        mask, states = kwargs["attention_mask"], outputs.hidden_states
        with torch.autocast(mask.device.type, enabled=False):  # means and products of what bf16 gave, in float32
            vectors = pooled_layers(states, mask, needs.layers, needs.pooling) if needs.layers else None
            scores = tuple(
                attention_scores(seen[layer, "query"], seen[layer, "key"], heads)
                if layer in needs.attention
                else torch.empty(0)
                for layer in range(model.config.num_hidden_layers if needs.attention else 0)
            )
        seen.clear()
        receive(States(vectors, tuple(states) if needs.tokens else (), scores, mask))

    def keep(layer: int, kind: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: seen.__setitem__((layer, kind), output)

    hooks = [
        projection.register_forward_hook(keep(layer, kind))
        for layer in needs.attention
        for kind, projection in zip(("query", "key"), query_and_key(model, layer), strict=True)
    ]
    hooks += [
        model.register_forward_pre_hook(ask, with_kwargs=True),
        model.register_forward_hook(hand_over, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attention_scores(query: Tensor, key: Tensor, heads: int) -> Tensor:  # (n, t, d), (n, t, d) → (n, heads, t, t)
    """q·k/√(d/heads): what attention's softmax is taken of, padding included."""
    query, key = (one.float().reshape(*one.shape[:2], heads, -1).transpose(1, 2) for one in (query, key))
    products = query @ key.transpose(-1, -2)
    return products / math.sqrt(query.shape[-1])


def query_and_key(model: nn.Module, layer: int) -> tuple[nn.Module, nn.Module]:
    """The query and key projections of one layer of BERT, RoBERTa, ELECTRA, MiniLM (a BERT) or DistilBERT.

    Raises ModelError for others: their scores have more terms than q·k, or the two are one matrix.
    """
    block = layer_list(model)[layer]
    names = {name for name, _ in block.named_modules()}
    absolute = getattr(model.config, "position_embedding_type", None) in (None, "absolute")
    for query, key in _PROJECTIONS:
        if {query, key} <= names and absolute:
            return block.get_submodule(query), block.get_submodule(key)
    raise ModelError(
        f"attention scores of {type(model).__name__} are not known to augkd (BERT, RoBERTa, ELECTRA, MiniLM and "
        "DistilBERT are); leave out structure.attention"
    )


def check_same_tokens(student: Classifier, teacher: Classifier) -> None:
    """Raises ModelError unless both cut a text into the same tokens: losses of tokens compare them one by one."""
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab() or student.max_length != teacher.max_length:
        raise ModelError(
            "the student's tokenizer or maximum length is not the teacher's, and hidden, embedding, attention and "
            "distilbert_cosine compare token by token; use pkd, ckd, alp or rail"
        )


class Matched:
    """The layer losses of the rows of one step, gathered while `matching` is open."""

    def __init__(self, groups: list[Tensor]):
        self._groups = groups
        self._rows: list[Tensor] = []
        self._metrics: list[dict[str, Tensor]] = []

    def next_group(self) -> Tensor:
        """Positions of the rows of the group forwarded now."""
        return self._groups[len(self._rows)]

    def add(self, rows: Tensor, metrics: dict[str, Tensor]) -> None:
        """Values of the group forwarded now."""
        self._rows.append(rows)
        self._metrics.append(metrics)

    @property
    def rows(self) -> Tensor:  # (n,)
        """The loss of every row, in the order of the tokens."""
        assert len(self._rows) == len(self._groups), "matched rows are read before all of them were forwarded"
        rows = torch.cat(self._rows)
        return rows[torch.cat(self._groups).argsort().to(rows.device)]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the rows. Waits for the device: read it when logging."""
        return {name: float(total) / len(self.rows) for name, total in self.sums.items()}

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums over the rows, left on their device."""
        names = self._metrics[0] if self._metrics else {}
        return {name: torch.cat([group[name] for group in self._metrics]).sum() for name in names}


class MatchedMeans:
    """Metrics of several steps: their means over all rows since the last `take`. Noting waits for no device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows = 0

    def note(self, matched: Matched) -> None:
        """Adds a step whose rows were all forwarded."""
        self._sums = {name: self._sums.get(name, 0.0) + total for name, total in matched.sums.items()}
        self._rows += len(matched.rows)

    def take(self) -> dict[str, float]:
        """The means, and begins anew; {} when nothing was noted."""
        means = {name: float(total) / self._rows for name, total in self._sums.items()}
        self._sums, self._rows = {}, 0
        return means


@contextlib.contextmanager
def matching(
    objective: LayerObjective,
    model: nn.Module,
    tokens: Tokens,
    teacher: Tensor | Classifier,
    progress: float,
    epoch: int,
    budget: int | None = None,
) -> Iterator[Matched]:
    """While open, `models.run(model, tokens, …, budget)` also fills the yielded `Matched`.

    `teacher` is either the stored vectors of these rows, (n, layers needed, d), or a live classifier, which then sees
    the student's tokens (`check_same_tokens` first) in eval mode and without gradient.
    """
    device = next(model.parameters()).device
    matched = Matched(list(tokens.batches(budget_of(device, budget))))

    def receive(student: States) -> None:
        rows = matched.next_group()
        assert student.mask is not None
        expected = (len(rows), int(tokens.lengths[rows].max()))
        assert tuple(student.mask.shape) == expected, "forwarded under another budget than matched, or other rows"
        if isinstance(teacher, Tensor):
            theirs = States(vectors=teacher[rows.to(teacher.device)].to(device))
        else:
            theirs = _forwarded(teacher, tokens.take(rows), objective.needs())
        loss, metrics = objective(student, theirs, progress, epoch)
        matched.add(loss, metrics | attended(objective, student, theirs))

    with watched(model, objective.student_needs(), receive):
        yield matched


@torch.no_grad()
def attended(objective: LayerObjective, student: States, teacher: States) -> dict[str, Tensor]:  # name → (n,)
    """ALP's weights as metrics, `attention/{student layer}/{teacher layer}`; {} without ALP. 0 outside a bucket."""
    if "alp" not in objective.losses:
        return {}
    assert student.vectors is not None
    assert teacher.vectors is not None  # of every layer, for ALP needs them all
    options = {name: value for name, value in objective.losses["alp"].items() if name != "weight"}
    with torch.autocast(student.vectors.device.type, enabled=False):
        weights = alp_attention(objective.widen(student.vectors.float()), teacher.vectors.float(), **options)
    shape = weights.shape[1:]
    return {f"attention/{j}/{layer}": weights[:, j, layer] for j in range(shape[0]) for layer in range(shape[1])}


@torch.no_grad()
def _forwarded(teacher: Classifier, tokens: Tokens, needs: Needs) -> States:
    """What the teacher shows of rows that share one padded batch, in the caller's precision."""
    assert not teacher.model.training, "a teacher in training mode: dropout noise in every target"
    found: list[States] = []
    device = next(teacher.model.parameters()).device
    inputs = {name: value.to(device) for name, value in tokens.padded(teacher.pad_id).items()}
    if not takes_token_types(teacher.model):
        del inputs["token_type_ids"]
    with watched(teacher.model, needs, found.append):
        teacher.model(**inputs)
    teacher.rows["teacher layers"] += len(tokens)
    return found[0]


def layer_vectors(classifier: Classifier, texts: Sequence[Pair], needs: Needs) -> Tensor:  # (n, layers, d) float32
    """The pooled vectors of texts, in eval mode; the mode before is restored."""
    return token_layer_vectors(classifier, classifier.tokens(texts), needs)


@torch.no_grad()
def token_layer_vectors(classifier: Classifier, tokens: Tokens, needs: Needs) -> Tensor:  # (n, layers, d) float32
    """The same of rows that are tokens already."""
    found: list[States] = []
    training = classifier.model.training
    classifier.model.eval()
    with watched(classifier.model, needs, found.append):
        classifier.logits(tokens, "teacher layers", mixed=classifier.mixes)
    classifier.model.train(training)
    order = torch.cat(list(tokens.batches(budget_of(classifier.model.device), mixed=classifier.mixes)))
    vectors = torch.cat([states.vectors for states in found if states.vectors is not None]).cpu()
    return vectors[order.argsort()]
