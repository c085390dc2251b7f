"""Cost of a time step of the channel solver, and how near it comes to what the memory allows.

    python benchmarks/speed/channel_flow.py [--quick] [--rounds 9]

Every operation is taken to read its arguments and write its result once: these bytes, counted while a step runs, over
the bandwidth of sums of two arrays as large as a velocity component, a few dozen of them in turn as in the solver, are
the time that the same operations would take if nothing but memory cost time. ``timing.py`` says how it is timed.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any, Literal

import torch
from timing import Contestants, alternate, print_section
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.start import TrippedChannel

Shape = tuple[int, int, int]
Precision = Literal["float64", "float32"]
MINIMAL: Shape = (32, 48, 32)
COARSE: Shape = (96, 72, 64)
CASES: list[tuple[Shape, Precision, int]] = [
    (MINIMAL, "float64", 1),
    (MINIMAL, "float32", 1),
    (MINIMAL, "float64", 4),
    (MINIMAL, "float32", 4),
    (COARSE, "float64", 1),
    (COARSE, "float32", 1),
]
# Arrays that the bandwidth is measured on: about as many as a step has in use.
ARRAYS = 24


class ByteCount(TorchDispatchMode):
    """Adds up what operations read and write; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count it."""
        result = function(*arguments, **(keywords or {}))
        returns = function._schema.returns
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in returns)
        name = function._schema.name
        if not is_view and not name.startswith("aten::empty") and name != "aten::new_empty":
            # The target of a copy is not read.
            read = arguments[1:] if name == "aten::copy_" else arguments
            self.bytes += sum(_bytes(each) for each in tree_leaves((read, keywords, result)))
            self.operations += 1
        return result


def _bytes(value: object) -> int:
    """Of the elements that are stored; those of a broadcast one count once."""
    if not isinstance(value, Tensor):
        return 0
    stored = (size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return math.prod(stored) * value.element_size()


def compare_channel_flow(quick: bool, rounds: int | None = None) -> list[str]:
    """A step of the solver: time, bytes, and the time that these bytes take."""
    lines = [
        "## A time step of the channel solver",
        "",
        "CPU time: median and range over the rounds. Bytes and operations are counted, each operation reading its",
        "arguments and writing its result once; the bandwidth is that of sums of arrays of the same size and number.",
        "Share: of the measured time, what these bytes take at that bandwidth.",
        "",
        "| cells | precision | batch | us a cell and step | ms a step | bytes a cell and step | operations a step "
        "| bandwidth, GB/s | share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rounds = rounds or (3 if quick else 9)
    return [*lines, *(_time_case(*case, rounds) for case in (CASES[:1] if quick else CASES)), ""]


@torch.no_grad()
def _time_case(shape: Shape, precision: Precision, batch: int, rounds: int) -> str:
    steps = 10 if shape == MINIMAL else 2
    lengths = (math.pi, math.pi / 3) if shape == MINIMAL else (4 * math.pi, 4 * math.pi / 3)
    solver = ChannelFlow(shape, lengths, 1 / 2800, 1.0, 20, precision=precision)
    start = TrippedChannel().sample(batch, solver.channel_grid, torch.Generator().manual_seed(0))
    state = solver.march(start.to(solver.dtype), 2)[0]
    found = solver.diagnostics(state)
    if float(found.divergence.max()) > 1e-2 or float((found.bulk_velocity - 1).abs().max()) > 1e-5:
        raise RuntimeError(f"Expected a flow without divergence and with its flow rate but got {found}.")

    count = _count(lambda: solver.march(state, 2)), _count(lambda: solver.march(state, 1))
    # The difference of two steps and one leaves out the way from and to a state.
    moved = count[0].bytes - count[1].bytes
    operations = count[0].operations - count[1].operations
    size = batch * math.prod(shape)
    arrays = itertools.cycle(torch.rand(ARRAYS, size, dtype=solver.dtype).unbind())

    def add() -> None:
        torch.add(next(arrays), next(arrays), out=next(arrays))

    contestants: Contestants = {"step": functools.partial(solver.march, state, steps)}
    seconds = [each / steps for each in alternate(contestants, rounds, repeats=1)["step"]]
    adds = alternate({"add": add}, rounds, repeats=max(1, 20_000_000 // size))["add"]
    bandwidth = 3 * size * state.element_size() / statistics.median(adds)
    middle = statistics.median(seconds)
    each = [1e6 * value / size for value in (middle, min(seconds), max(seconds))]
    cells = [
        "x".join(map(str, shape)),
        precision,
        str(batch),
        f"**{each[0]:.3f}** ({each[1]:.3f}–{each[2]:.3f})",
        f"{1e3 * middle:.1f}",
        f"{moved / size:.0f}",
        str(operations),
        f"{bandwidth / 1e9:.1f}",
        f"{100 * moved / bandwidth / middle:.0f} %",
    ]
    return "| " + " | ".join(cells) + " |"


def _count(run: Callable[[], object]) -> ByteCount:
    with ByteCount() as count:
        run()
    return count


if __name__ == "__main__":
    print_section(compare_channel_flow, __doc__)
