"""A word embedding that holds the rows of the tokens that a training can meet, and the full table again afterwards.

A task uses a few thousand of a vocabulary's 30,000 tokens or more, but every step clears, clips and updates the whole
table. The rows of absent tokens have no gradient, so an optimiser only decays them, all by the same factor. One more
row, of ones, decays with them and tells the factor, in a resumed training too. Where a generator writes texts, any
token can be met: its row is then added, decayed by that factor, when it is met first. On a GPU, which would be waited
for, and in several processes, which would meet different ones, all are added at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import is_initialized
from torch.optim import Optimizer

_WORTH = 0.7  # share of the table's rows in use above which trimming gains nothing
_MORE = 1024  # rows by which a table grows at least: each time, it and its moments are copied


class TrimmedEmbedding(nn.Module):
    """Stands in for an `nn.Embedding`: the same vectors for the same ids, with fewer trainable rows.

    In eval mode any id is looked up; in train mode only those that were kept, or, if it grows, any.
    """

    def __init__(self, full: nn.Embedding, kept: Tensor, *, grows: bool = False):
        """`kept` are the ids (k,) that are trainable from the start, ascending. `grows`: in train mode, others become
        so when they are met, or all at once. Before each step, its optimiser needs `grow_moments`.
        """
        super().__init__()
        rows = full.weight.detach()
        self.weight = nn.Parameter(torch.cat([rows[kept], torch.ones_like(rows[:1])]))  # (k + 1 or more, width)
        self._full, self._absent, self._grows, self._has_all = rows, len(kept), grows, False
        place = torch.full((len(rows),), self._absent, dtype=torch.long, device=rows.device)
        place[kept] = torch.arange(len(kept), device=rows.device)
        self.place: Tensor
        self.register_buffer("place", place, persistent=grows)  # id → row; of an absent token: the row of ones
        self._padding_id = full.padding_idx
        self._gradient = _Gradient(len(self.weight))
        # on the weight, which is all that clipping is given; a Parameter's type does not list what is set on it
        self.weight.rows_with_gradient = self._gradient.rows  # type: ignore[attr-defined]
        self.embedding_dim, self.num_embeddings = full.embedding_dim, full.num_embeddings
        self._find_padding()
        self._keep_all_where_needed()

    def forward(self, ids: Tensor) -> Tensor:  # (…) → (…, width)
        """The vectors of the ids."""
        rows = self.place[ids]
        absent = rows == self._absent
        if self.training and self._grows and not self._has_all and absent.any():
            self._keep(torch.unique(ids[absent]))
            rows = self.place[ids]
        if self.weight.device.type == "cpu":
            vectors: Tensor = _Lookup.apply(self.weight, rows, self._padding, self._gradient)  # type: ignore[no-untyped-call]
        else:
            vectors = nn.functional.embedding(rows, self.weight, self._padding)
        if self.training or not absent.any():
            return vectors
        return torch.where(absent[..., None], self._full.to(ids.device)[ids] * self.weight[self._absent, 0], vectors)

    @property
    def is_true_to_kept(self) -> bool:
        """Whether no absent token was trained: then the row of ones has only decayed, evenly."""
        ones = self.weight.detach()[self._absent]
        return bool((ones == ones[0]).all())

    def table(self) -> Tensor:  # (vocabulary, width)
        """The full table: trained rows where they are, the others decayed as the optimiser would have."""
        weight = self.weight.detach()
        full = self._full.to(weight.device) * weight[self._absent, 0]
        kept = (self.place != self._absent).nonzero().flatten()
        full[kept] = weight[self.place[kept]]
        return full

    def _keep(self, ids: Tensor) -> None:
        """Makes absent ids (n,) trainable, starting from what they have decayed to."""
        first = int(self.place.max()) + 1
        if first + len(ids) > len(self.weight):
            self._resize(min(first + max(len(ids), _MORE), self.num_embeddings + 1))
        rows = torch.arange(first, first + len(ids), device=self.place.device)
        self.weight.data[rows] = self._full.to(ids.device)[ids] * self.weight.data[self._absent, 0]
        self.place[ids] = rows
        self._find_padding()

    def _find_padding(self) -> None:
        self._padding = None if self._padding_id is None else int(self.place[self._padding_id])

    def _keep_all_where_needed(self) -> None:
        if self._grows and (self.weight.device.type != "cpu" or is_initialized()):
            self._keep((self.place == self._absent).nonzero().flatten())
            self._has_all = True

    def _resize(self, rows: int) -> None:
        """Rows that are no token's are 0."""
        self.weight.data = resized(self.weight.data, rows)
        self._gradient.resize(self.weight)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self._grows and f"{prefix}place" in state_dict:  # else it is another module's, and of another size
            self._resize(len(state_dict[f"{prefix}weight"]))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._find_padding()
        self._keep_all_where_needed()


class _Gradient:
    """The gradient of a table, in one process in the same memory in each step: only rows looked up are cleared.

    Of 16,000 rows, a new one is 25 MB of zeros in each step.
    """

    def __init__(self, rows: int):
        self._memory: Tensor | None = None  # 0 but in the rows that are not clear
        self._unclear = torch.zeros(rows, dtype=torch.bool)

    def add(self, table: Tensor, rows: Tensor, values: Tensor) -> None:
        """Adds `values` (n, width) to the gradient of `rows` (n,)."""
        if table.grad is None:
            table.grad = torch.zeros_like(table) if is_initialized() else self._cleared(table)
        table.grad.index_add_(0, rows, values)
        self._unclear[rows] = True

    def resize(self, table: nn.Parameter) -> None:
        """Follows the table's new number of rows; those that stay keep their gradient."""
        self._unclear = resized(self._unclear, len(table))
        if self._memory is not None:
            self._memory = resized(self._memory, len(table))
        if table.grad is not None:
            table.grad = self._memory

    def rows(self) -> Tensor | None:  # (r,) ascending
        """The rows that may have a gradient; None: any may, as other processes add theirs."""
        return None if is_initialized() else self._unclear.nonzero().flatten()

    def _cleared(self, table: Tensor) -> Tensor:
        if self._memory is None:
            self._memory = torch.zeros_like(table)
        else:
            self._memory[self._unclear.nonzero().flatten()] = 0
        self._unclear.fill_(False)
        return self._memory


class _Lookup(torch.autograd.Function):
    """`nn.functional.embedding` on a CPU that adds to the table's gradient only where it looked.

    PyTorch's makes a gradient of the whole table in every pass and adds that: of 16,000 rows, 6.4 ms for 2,048 tokens,
    where this takes 0.3.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, padding: int | None, gradient: _Gradient) -> Tensor:
        ctx.table, ctx.padding, ctx.gradient = table, padding, gradient
        ctx.save_for_backward(rows)
        return nn.functional.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, None]:
        (rows,), table = ctx.saved_tensors, ctx.table
        ctx.gradient.add(table, rows.flatten(), gradients[0].reshape(-1, table.shape[1]))
        if ctx.padding is not None:
            table.grad[ctx.padding] = 0
        return None, None, None, None


def rows_with_gradient(weight: nn.Parameter) -> Tensor | None:  # (r,) ascending
    """The rows of a weight's gradient that may not be 0, where it is a trimmed embedding's that knows; else None."""
    rows: Callable[[], Tensor | None] | None = getattr(weight, "rows_with_gradient", None)
    return None if rows is None else rows()


def resized(rows: Tensor, number: int) -> Tensor:  # (n, …) → (number, …)
    """The first rows; zeros where there are not as many."""
    return torch.cat([rows[:number], rows.new_zeros(max(0, number - len(rows)), *rows.shape[1:])])


def grow_moments(optimizer: Optimizer) -> None:
    """Gives the moments of trimmed embeddings as many rows as these have; needed before each step of `optimizer`.

    A row that was not there has moments of 0, as any row has before its first gradient.
    """
    for weight, state in optimizer.state.items():
        if not hasattr(weight, "rows_with_gradient"):
            continue
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim() and len(value) != len(weight):
                state[name] = resized(value, len(weight))


def full_table(embedding: nn.Module) -> Tensor | None:  # (vocabulary, width)
    """The vectors of all tokens, without gradient; None for an embedding that is not a plain table or a trimmed one."""
    if isinstance(embedding, TrimmedEmbedding):
        return embedding.table()
    return embedding.weight.detach() if isinstance(embedding, nn.Embedding) else None


@contextmanager
def trimmed_embedding(model: Any, ids: Tensor, *, grows: bool = False) -> Iterator[None]:
    """While open, `model` trains only the rows of its word embedding that `ids` name; then it has its full table back.

    `grows`: other tokens can be met in training, and have their rows added. Nothing is changed where the model has no
    plain word embedding, or where it would keep most of its rows.
    """
    full = _word_embedding(model)
    kept = torch.unique(ids)
    if not _can_trim(model, full) or len(kept) > _WORTH * full.num_embeddings:
        yield
        return

    trimmed = TrimmedEmbedding(full, kept.to(full.weight.device), grows=grows).train(model.training)
    model.set_input_embeddings(trimmed)
    try:
        yield
        assert trimmed.is_true_to_kept, "a token was trained that is not among the kept ones"
    finally:  # a training that stopped, even one that diverged, leaves what it came to
        with torch.no_grad():
            full.weight.copy_(trimmed.table())
        model.set_input_embeddings(full)


def _word_embedding(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:  # a model of characters or bytes has none
        return None


def _can_trim(model: Any, embedding: Any) -> bool:
    """Not where the table is frozen, is another module's as well (tied), or embeds in a way of its own."""
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad:
        return False
    plain = embedding.max_norm is None and not embedding.scale_grad_by_freq and not embedding.sparse
    users = sum(parameter is embedding.weight for _, parameter in model.named_parameters(remove_duplicate=False))
    return plain and users == 1
