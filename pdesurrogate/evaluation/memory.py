"""How much memory a step needs, apart from what is there anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(function: Callable[[], Any], device: torch.device | str) -> int | None:
    """Most bytes that tensors made by ``function`` take at one time, its result included.

    What was there before is not counted: inputs, parameters, buffers. ``function`` is called twice, since a first call
    may build caches that stay. On CUDA it is what the allocator had in use, workspaces included. On a CPU the results
    of all operations are followed until they are let go of, whatever allocator is below; copies that live within a
    single operation, as some transforms make of their input, are not seen, and code under ``torch.compile`` is measured
    as it runs without.

    Args:
        function: for example one step, under ``torch.no_grad`` as in a rollout.
        device: where it works.

    Returns:
        Bytes; ``None`` on devices that are neither a CPU nor CUDA.

    Example:
        >>> x = torch.ones(1000)
        >>> peak_memory(lambda: (x + 1) * 2, "cpu")  # the sum and the product, 4000 bytes each
        8000
    """
    device = torch.device(device)
    if device.type == "cuda":
        function()
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = function()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        del result
        return peak - before
    if device.type != "cpu":
        return None
    function()
    with _Followed() as followed:
        function()
    return followed.peak


def module_bytes(stepper: object) -> int:
    """Bytes of all parameters and buffers, each storage once; zero for a stepper that is no module.

    Example:
        >>> module_bytes(nn.Linear(10, 5))  # float32: 50 weights and 5 biases
        220
    """
    if not isinstance(stepper, nn.Module):
        return 0
    storages = (tensor.untyped_storage() for tensor in (*stepper.parameters(), *stepper.buffers()))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


class _Followed(TorchDispatchMode):
    """Bytes of all live storages that operations made since it was entered, and their maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # A weak reference keeps the address of a storage from being used again, so addresses tell storages apart.
        self._alive = {address: entry for address, entry in self._alive.items() if not entry[0].expired()}
        given = {address for address, _ in _storages((args, kwargs))}
        for address, storage in _storages(result):
            if address in self._alive or address not in given:
                self._alive[address] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def _storages(tree: Any) -> list[tuple[int, torch.UntypedStorage]]:
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return [(storage._cdata, storage) for storage in (tensor.untyped_storage() for tensor in tensors)]
