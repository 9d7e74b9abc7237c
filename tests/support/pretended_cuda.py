"""A CUDA device without a GPU: tensors that say they are on `cuda:0`, hold real values on the CPU, and refuse to mix.

`.to(CUDA)` and `device=CUDA` give such tensors while `pretended_cuda` is open. Every operation reaches `_run`, which
raises the RuntimeError that CUDA would where tensors or random number generators of two devices meet, and otherwise
computes on the CPU, so that loops over lengths and comparisons with a CPU run see true numbers. A PyTorch without CUDA
cannot differentiate tensors of that device, so to PyTorch itself these are on `meta`: `.numpy()` fails, as on CUDA.

What it does not know: kernels that CUDA lacks, its numerics, autocast, and `cuda` without a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, _CPU = torch.device("cuda", 0), torch.device("cpu")
_aten = torch.ops.aten
_CROSSING = {_aten.copy_.default}  # the one operation whose tensors may be on two devices
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_MADE_INSIDE = {_aten.scalar_tensor.default}  # PyTorch makes them beside a tensor, where it takes ours to be: on meta
_LENGTHS_ON_CPU = {_aten._pack_padded_sequence.default}


class PretendedTensor(Tensor):
    """A tensor on the pretended device; `held` has its values, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendedTensor:
        made: PretendedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return CUDA

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)

    def tolist(self) -> Any:  # which CUDA allows
        return self.held.tolist()

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else self.held, spec)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendedTensor({self.held!r})"

    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # so that Module.to swaps a parameter and keeps ties
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], context: None, size: Any, stride: Any) -> PretendedTensor:
        return PretendedTensor(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """Sees the operations without a pretended tensor, too: those that make or move one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _without_lists(index: Any) -> tuple[Any, ...]:
    """The index with tensors for lists, of which PyTorch would make tensors on meta, without their values."""
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU; its results are on the device where CUDA would have them."""
    if func is _aten._fused_sdp_choice.default:
        return 0  # the products, for the fused kernels are CUDA's own
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if func not in _MADE_INSIDE and _is_meta(kwargs, tensors):
        assert not any(isinstance(tensor, PretendedTensor) for tensor in tensors), f"{func} of a tensor without values"
        return func(*args, **kwargs)
    if func is _aten._to_copy.default and _stays(args[0], kwargs):
        return PretendedTensor(args[0].held)
    written = _written(func, args, kwargs)
    device = _device_of(func, args, kwargs, tensors, written)
    kwargs = {key: _CPU if key == "device" and value is not None else value for key, value in kwargs.items()}
    results = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if written:
        changed = [tensor for tensor in written if isinstance(tensor, PretendedTensor)]
        assert all(tensor.shape == tensor.held.shape for tensor in changed), f"{func} changes a shape in place"
        return written[0] if isinstance(results, Tensor) else (tuple(written) if results is not None else None)
    return tree_map(lambda result: _on(result, device) if isinstance(result, Tensor) else result, results)


def _is_meta(kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
    """Whether this is about the real `meta` device."""
    if tensors:
        return any(tensor.device.type == "meta" for tensor in tensors)
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta"


def _stays(tensor: Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether a copy to CUDA changes nothing: CUDA would have returned the very tensor."""
    asked = kwargs.get("device")
    same = kwargs.get("dtype") in (None, tensor.dtype) and kwargs.get("memory_format") in (None, torch.preserve_format)
    return isinstance(tensor, PretendedTensor) and same and asked is not None and torch.device(asked).type == "cuda"


def _device_of(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Tensor], written: list[Tensor]
) -> torch.device:
    """Where the results are. Raises RuntimeError where CUDA would: tensors or generators of different devices."""
    asked = kwargs.get("device")
    if func in _LENGTHS_ON_CPU:
        if args[1].device.type != "cpu":
            raise RuntimeError(f"{func}: lengths have to be on the CPU, but they are on {args[1].device}")
        return args[0].device
    device = _CPU if asked is None else torch.device(asked)
    if device.type == "meta" and func in _MADE_INSIDE:
        device = CUDA
    elif asked is None or device.type == "meta":  # PyTorch asks for the device of a pretended tensor
        device = _common(func, args, tensors, written)
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != device.type:
        raise RuntimeError(f"{func}: a generator of {generator.device} cannot draw numbers on {device}")
    return device


def _common(func: Any, args: Sequence[Any], tensors: list[Tensor], written: list[Tensor]) -> torch.device:
    if func in _CROSSING:
        return args[0].device
    bound = [tensor for tensor in tensors if not _may_be_elsewhere(func, args, tensor, written)]
    devices = {tensor.device.type for tensor in bound or tensors}
    if len(devices) > 1:
        places = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found {places}")
    return CUDA if devices == {"cuda"} else _CPU


def _may_be_elsewhere(func: Any, args: Sequence[Any], tensor: Tensor, written: list[Tensor]) -> bool:
    """Whether CUDA takes this tensor from the CPU: a number without dimensions, or the index of a tensor on CUDA."""
    if tensor.device.type != "cpu" or any(tensor is other for other in written):
        return False
    if func in _INDEXED:
        is_index = any(tensor is index for index in args[1])
        return args[0].device.type == "cuda" and (is_index or tensor.dim() == 0)
    return tensor.dim() == 0 and torch.Tag.pointwise in func.tags


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that the operation writes into."""
    written: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            written += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return written


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendedTensor) else value


def _on(result: Tensor, device: torch.device) -> Tensor:
    return PretendedTensor(result) if device.type == "cuda" else result


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """While open, there is a device `cuda` for everything but `torch.cuda.is_available`, so that loading stays off it.

    Its random numbers are those of the CPU's generator: dropout included, which a test may therefore compare.
    """
    lifted = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch, torch.autograd.set_multithreading_enabled(False), _Everywhere():
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state())
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: torch.set_rng_state(state))
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)
