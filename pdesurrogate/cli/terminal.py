"""Progress bars, device choice and how an error looks; shared by the verbs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


def choose_device(name: str, number: int | None = None) -> str:
    """``"auto"`` becomes a GPU where there is one; other names are checked.

    Args:
        name: what the user asked for.
        number: of the GPU that ``"auto"`` and ``"cuda"`` mean, where several processes share a machine.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and number is not None:
        name = f"cuda:{number}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"Expected a device of this machine but {name!r} cannot be used: {first_line}") from error
    return name


@contextmanager
def joined_processes() -> Iterator[tuple[int, int | None]]:
    """Rank of this process and number of its GPU; joins the process group that ``torchrun`` describes, if it did."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield 0, None
        return
    import torch

    # Gloo serves tensors on the CPU, NCCL those on GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    try:
        yield torch.distributed.get_rank(), int(os.environ.get("LOCAL_RANK", "0"))
    finally:
        torch.distributed.destroy_process_group()


class Bar(Protocol):
    """A progress bar under way."""

    def __call__(self, done: int, total: int) -> None:
        """Show how much is done."""
        ...

    def say(self, text: str) -> None:
        """Show some words beside the bar, in place of the last ones."""
        ...


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Bar]:
    """A bar that is told (done, in all); on standard error, silent where that is not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None, words="")

        class _Bar:
            def __call__(self, done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            def say(self, text: str) -> None:
                progress.update(task, words=text)

        yield _Bar()


def quiet_libraries() -> None:
    """Filter notices that a user can do nothing about; each goes when Lightning moves."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", module="jsonargparse")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.msg)
