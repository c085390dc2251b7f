"""A training step of our spatiotemporal Fourier neural operator beside that of a plain one with the same weights.

    python benchmarks/speed/sfno.py [--quick] [--rounds 9]

Also a section of ``run.py``, which says how it is timed.
"""

from __future__ import annotations

import functools
import statistics

import torch
from plain_sfno import PlainSFNO
from timing import Contestants, alternate, print_section, ratio, relative_difference
from torch import Tensor, nn

from pdesurrogate.evaluation.memory import peak_memory
from pdesurrogate.models.sfno import SFNO

CASES = [(16, 16, 5, 10), (12, 12, 5, 20), (32, 32, 5, 10)]
BATCH, SIZE, FRAMES = 4, 64, 10


def compare_sfno(quick: bool, rounds: int | None = None) -> list[str]:
    """Our SFNO and the plain one: time and memory of a training step."""
    lines = [
        "## SFNO against a plain one, equal weights",
        "",
        f"A training step, {FRAMES} frames to {FRAMES} at {SIZE}x{SIZE}, batch {BATCH}, float32: forward, relative L2",
        "error, backward, Adam. CPU time of the plain one over ours: median and range over the rounds, with Adam as",
        "torch has it by default and with the fused one, for both. Milliseconds are with the default one. Memory: what",
        "tensors made in the step take at most. Differences: of what both add to the last frame, and of the gradient",
        "of the error in the input.",
        "",
        "| modes | width | parameters | differences | ratio | ratio, fused | plain, ms | ours, ms "
        "| plain, MiB | ours, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rounds = rounds or (3 if quick else 9)
    return [*lines, *(_compare_case(*case, rounds) for case in (CASES[:1] if quick else CASES)), ""]


def _compare_case(modes_x: int, modes_y: int, modes_t: int, width: int, rounds: int) -> str:
    torch.manual_seed(0)
    config = {"modes_x": modes_x, "modes_y": modes_y, "modes_t": modes_t, "width": width}
    plain = PlainSFNO(**config)
    networks = {"plain": plain, "ours": SFNO.from_reference(config, plain.state_dict())}
    history, target = torch.randn(2, BATCH, FRAMES, 1, SIZE, SIZE)
    # Each gets its own axis order, laid out as its own data loader would.
    pairs = {
        "plain": (_time_last(history), _time_last(target)),
        "ours": (history, target),
    }
    differences = _differences(networks, pairs)
    if max(differences) > 1e-4:
        raise RuntimeError(f"Expected equal outputs and gradients at {config} but they differ by {differences}.")

    seconds: dict[bool, dict[str, list[float]]] = {}
    memory: dict[str, int | None] = {}
    for fused in (False, True):
        contestants: Contestants = {}
        for name, network in networks.items():
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=fused)
            contestants[name] = functools.partial(_training_step, network, optimizer, *pairs[name])
            if not fused:
                memory[name] = peak_memory(contestants[name], "cpu")
        seconds[fused] = alternate(contestants, rounds=rounds, repeats=1)
    ratios = [ratio(seconds[fused]["plain"], seconds[fused]["ours"]) for fused in (False, True)]
    milliseconds = [f"{1e3 * statistics.median(seconds[False][name]):.0f}" for name in networks]
    mebibytes = [f"{memory[name] / 2**20:.0f}" for name in networks]
    parameters = sum(each.numel() for each in plain.parameters())
    shown = " / ".join(f"{each:.0e}" for each in differences)
    cells = [f"{modes_x}x{modes_y}x{modes_t}", str(width), f"{parameters:,}", shown]
    return "| " + " | ".join([*cells, *ratios, *milliseconds, *mebibytes]) + " |"


def _time_last(fields: Tensor) -> Tensor:
    """From ``(batch, time, 1, x, y)`` to ``(batch, x, y, time)``."""
    return fields.squeeze(2).movedim(1, -1).contiguous()


def _relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of ``|prediction - target| / |target|``."""
    return ((prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).mean()


def _training_step(network: nn.Module, optimizer: torch.optim.Optimizer, history: Tensor, target: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    _relative_error(network(history), target).backward()
    optimizer.step()


def _differences(networks: dict[str, nn.Module], pairs: dict[str, tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Of the corrections to the last frame, and of the gradients of the error in the history."""
    corrections, gradients = [], []
    for name, network in networks.items():
        history, target = pairs[name]
        history = history.clone().requires_grad_()
        prediction = network(history)
        (gradient,) = torch.autograd.grad(_relative_error(prediction, target), history)
        last = history[..., -1:] if name == "plain" else history[:, -1:]
        correction = (prediction - last).detach()
        corrections.append(correction if name == "plain" else _time_last(correction))
        gradients.append(gradient if name == "plain" else _time_last(gradient))
    return relative_difference(*corrections), relative_difference(*gradients)


if __name__ == "__main__":
    print_section(compare_sfno, __doc__)
