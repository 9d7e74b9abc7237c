"""Training one student in several processes, launched by torchrun or `accelerate launch`; each is a rank.

Every rank has the whole transfer set and takes its share of each batch, candidates with their originals. Losses are
divided by the originals of the whole batch and gradients are added up once a step, so a step is that of one process.
DistributedDataParallel is not used: it reduces in each backward pass, while here ranks forward different numbers of row
groups, FreeLB backpropagates several times a step, projections lie outside the student, and a rank may have no row.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from augkd.errors import AugkdError, ProcessLostError, TrainingError
from augkd.workspace.launch import alone, launch

T = TypeVar("T")

_PATIENCE = timedelta(days=100)  # for the first rank's own work: an index may take days
_LARGE = 1 << 16  # values of a gradient that is a message of its own: 20 MB in one, copied, took a third longer on gloo
_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")  # in messages that a peer has ended


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them. All call the same methods in the same order."""

    index: int = 0
    count: int = 1
    patient: Any = None  # a process group without a timeout worth the name, on the CPU

    @property
    def first(self) -> bool:
        """Whether this is the rank that evaluates and writes."""
        return self.index == 0

    def share(self, rows: Sequence[T]) -> list[T]:
        """This rank's part of a batch; every `count`-th row, so that ranks get rows of like length."""
        return list(rows[self.index :: self.count])

    # ---- the first rank's own work ----

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first rank, which does it alone, on all ranks.

        Raises ProcessLostError in the others where it raises in the first.
        """
        if self.count == 1:
            return work()
        answer: list[Any] = [None]
        if self.first:
            try:
                with alone():
                    answer = [work()]
            except Exception:
                self._broadcast([None, "failed"])
                raise
        answer = self._broadcast([*answer, None])
        if answer[1] is not None:
            raise _lost()
        value: T = answer[0]
        return value

    def first_before_others(self, work: Callable[[], T]) -> T:
        """Does `work` in every rank, the first one before the others: they find finished what it writes."""
        done: list[T] = []
        self.from_first(lambda: done.append(work()))
        return done[0] if done else work()

    def _broadcast(self, values: list[Any]) -> list[Any]:
        with named_if_lost():
            dist.broadcast_object_list(values, src=0, group=self.patient)
        return values

    def wait(self) -> None:
        """Waits until all ranks are here."""
        self.from_first(lambda: None)

    def clock(self) -> float:
        """Seconds from some origin by the first rank's clock, so that all ranks see the same time."""
        return self.from_first(time.monotonic)

    # ---- sums over the ranks ----

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sum of each number over the ranks; a name that a rank does not have counts 0."""
        if self.count == 1:
            return dict(numbers)
        gathered: list[Any] = [None] * self.count
        with named_if_lost():
            dist.all_gather_object(gathered, dict(numbers), group=self.patient)
        sums: Counter[str] = Counter()
        for part in gathered:
            for name, number in part.items():
                sums[name] += number
        return dict(sums)

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over the ranks; of tensors on the CPU."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Tensor) -> Tensor:
        """The elementwise maximum over the ranks; of tensors on the CPU."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: Any) -> Tensor:
        if self.count == 1:
            return values
        values = values.clone()
        with named_if_lost():
            dist.all_reduce(values, operation, group=self.patient)
        return values

    # ---- weights and gradients ----

    @torch.no_grad()
    def replicate(self, modules: Iterable[nn.Module]) -> None:
        """Gives the modules of every rank the first one's weights and buffers."""
        if self.count == 1:
            return
        with named_if_lost():
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor.detach(), src=0)

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Makes each gradient its sum over the ranks. None counts as 0, and stays None where all ranks have none."""
        if self.count == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        present = [float(parameter.grad is not None) for parameter in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.contiguous() for p in parameters]
        small = [gradient for gradient in gradients if gradient.numel() < _LARGE]
        large = [gradient for gradient in gradients if gradient.numel() >= _LARGE]
        flat = torch.cat([*(gradient.flatten() for gradient in small), gradients[0].new_tensor(present)])
        with named_if_lost():
            for message in [dist.all_reduce(values, async_op=True) for values in (*large, flat)]:
                message.wait()
        *sums, shares = torch.split(flat, [*map(Tensor.numel, small), len(parameters)])
        for gradient, values in zip(small, sums, strict=True):
            gradient.copy_(values.view_as(gradient))
        for parameter, gradient, share in zip(parameters, gradients, shares.tolist(), strict=True):
            parameter.grad = gradient if share else None


ALONE = Ranks()


def leave_unwrapped(accelerator: Any) -> None:
    """Has `accelerator` prepare models without DistributedDataParallel; gradients are added up here.

    Raises TrainingError where it is set up to split the model itself over the processes.
    """
    kind = str(accelerator.distributed_type.value)
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise TrainingError(
            f"accelerate is set up for {kind}; each process needs the whole student: launch with torchrun, or choose "
            "multi-GPU in `accelerate config`"
        )
    accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)


def ranks() -> Ranks:
    """The processes of this launch, connected at the first call; one alone without a launch, and within `alone`.

    Connecting waits for all of them.
    """
    here = launch()
    return ALONE if here.count == 1 else _connected(here.index, here.count)


def disconnect() -> None:
    """Closes the connection to the other processes, at the end of the last training."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    _connected.cache_clear()


def on_cpu() -> bool:
    """Whether processes that train together do so on the CPU; `accelerate` takes it from no environment but its own."""
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")


@cache
def _connected(index: int, count: int) -> Ranks:
    from accelerate import PartialState

    PartialState(cpu=on_cpu())  # NCCL or gloo, and this rank's device
    return Ranks(index, count, dist.new_group(backend="gloo", timeout=_PATIENCE))


@contextmanager
def named_if_lost() -> Iterator[None]:
    """Raises ProcessLostError where the connection to another process breaks."""
    try:
        yield
    except AugkdError:
        raise
    except RuntimeError as exc:  # gloo raises no other
        if isinstance(exc, dist.DistError) or any(word in str(exc) for word in _LOST):
            raise _lost() from exc
        raise


def _lost() -> ProcessLostError:
    return ProcessLostError("another process of the training has ended; its own message says why")
