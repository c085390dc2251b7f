"""A run's log: one line of a CSV file for each trajectory whenever a simulator is looked at."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

_HEAD = ("trajectory", "step", "time")


class RunLog:
    """Appends to a CSV file and flushes every line; a run that is continued repeats none.

    Args:
        path: of the file; a log that lies there is continued.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> with RunLog(path) as log:
        ...     for step in (0, 5, 10):
        ...         log.write([3], step, 0.1 * step, {"energy": [2.0 - step / 10]})
        ...     log.rewind([3], 5)  # a restart at step 5
        ...     log.write([3], 10, 1.0, {"energy": [1.0]})
        >>> print(path.read_text().strip())
        trajectory,step,time,energy
        3,0,0,2
        3,5,0.5,1.5
        3,10,1,1
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def write(self, trajectories: Sequence[int], step: int, time: float, values: Mapping[str, Sequence[float]]) -> None:
        """One line for each trajectory; ``values`` names what is logged and holds one for each of them."""
        file = self._open([*_HEAD, *values])
        for trajectory, *row in zip(trajectories, *values.values(), strict=True):
            file.write(",".join([str(trajectory), str(step), *(f"{value:.9g}" for value in (time, *row))]) + "\n")
        file.flush()

    def rewind(self, trajectories: Sequence[int], step: int) -> None:
        """Drop the lines of these trajectories after a step; those of others stay. With -1 all of theirs go."""
        self.close()
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            head, *rows = [*csv.reader(file)] or [[]]
        own = {str(trajectory) for trajectory in trajectories}
        # A line that was cut short was being written when the run was stopped.
        whole = [row for row in rows if len(row) == len(head)]
        kept = [row for row in whole if row[0] not in own or int(row[1]) <= step]
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text("".join(",".join(row) + "\n" for row in [head, *kept]))
        os.replace(part, self.path)

    def sync(self) -> None:
        """Bring all lines to the disk, before a restart that counts on them."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, head: list[str]) -> TextIO:
        if self._file is None:
            new = not self.path.exists()
            self._file = self.path.open("a", newline="")
            if new:
                self._file.write(",".join(head) + "\n")
        return self._file

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def columns_of(diagnostics: Any) -> dict[str, list[float]]:
    """Values of a NamedTuple of tensors for each trajectory, by name; of a ``(batch, n)`` one its columns are numbered.

    Example:
        >>> import collections, torch
        >>> diagnostics = collections.namedtuple("D", "cfl stress")(torch.ones(2), torch.tensor([[1.0, 2], [3, 4]]))
        >>> columns_of(diagnostics)
        {'cfl': [1.0, 1.0], 'stress_1': [1.0, 3.0], 'stress_2': [2.0, 4.0]}
    """
    columns: dict[str, list[float]] = {}
    for name, value in diagnostics._asdict().items():
        if value.ndim == 1:
            columns[name] = value.tolist()
        else:
            columns |= {f"{name}_{number}": column.tolist() for number, column in enumerate(value.unbind(1), 1)}
    return columns
