"""Trees with a folder for each case to archives, and archives that tell how many of their cases were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import Progress, convert, file_hash
from pdesurrogate.data.subsets import cases_of
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory


def convert_tree(
    adapter: Adapter,
    directory: str | Path,
    *,
    folder: str | Path,
    source: Mapping[str, Any],
    progress: Progress | None = None,
) -> list[Path]:
    """Write every split of an adapter of cases as an archive file whose attribute ``cases`` names them.

    Otherwise as `convert`. The content hash of the archive covers the bytes of all files, what the adapter makes of
    them by its own content hash, and ``source``.

    Args:
        adapter: with a content hash, and cases that `cases_of` knows.
        directory: of the archive; made where needed.
        folder: that holds all files of the tree.
        source: further words on where the cases come from, plain values: the adapter's class path and its options.
        progress: called with (trajectories done, trajectories in all).

    Returns:
        The files, in the order of the splits.

    Raises:
        ValueError: if cases differ in length, or as `convert` and `cases_of`.
    """
    names = {split: cases_of(adapter, split) for split in adapter.splits}
    _require_one_length(adapter)
    stated = {"folder": Path(folder).name, "hash": _tree_hash(Path(folder)), **source}
    text = json.dumps({**stated, "cases": adapter.metadata.attributes.get("content_hash", "")}, sort_keys=True)
    common = {"source": text, "content_hash": hashlib.sha256(text.encode()).hexdigest()}
    total, done = sum(map(len, names.values())), 0
    files = []
    for split, cases in names.items():

        def of_all(finished: int, of_split: int, before: int = done) -> None:
            if progress is not None:
                progress(before + finished, total)

        listed = [{"number": number, **case._asdict()} for number, case in enumerate(cases)]
        files += convert(_OneSplit(adapter, split), directory, attributes={**common, "cases": listed}, progress=of_all)
        done += len(cases)
    return files


class CountedReads(Archive):
    """An `Archive` that tells of each trajectory whose frames are read for the first time.

    Args:
        path: as `Archive` takes it.
        progress: called with (trajectories read, trajectories in all).
    """

    def __init__(self, path: str | Path, progress: Callable[[int, int], None]) -> None:
        super().__init__(path)
        self._progress = progress
        self._read: set[tuple[str, int]] = set()

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """See `Archive.trajectories`."""
        return [
            replace(trajectory, read_into=self._counting(trajectory, (split, number)))
            for number, trajectory in enumerate(super().trajectories(split))
        ]

    def _counting(self, trajectory: Trajectory, place: tuple[str, int]) -> Callable[[int, Tensor], None]:
        def read_into(start: int, out: Tensor) -> None:
            trajectory.read_into(start, out)
            self._read.add(place)
            self._progress(len(self._read), sum(len(self.numbers(split)) for split in self.splits))

        return read_into


@dataclass(frozen=True)
class _OneSplit:
    """An adapter with one split of another."""

    whole: Adapter
    split: str

    @property
    def metadata(self) -> Metadata:
        return self.whole.metadata

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.split,)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        return self.whole.trajectories(split)


def _tree_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [[path.relative_to(folder).as_posix(), file_hash(path)] for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _require_one_length(adapter: Adapter) -> None:
    """Of all cases of all splits, as an archive's are; the first other one is named."""
    every = [
        (case, trajectory)
        for split in adapter.splits
        for case, trajectory in zip(cases_of(adapter, split), adapter.trajectories(split), strict=True)
    ]
    first, other = every[0], next((pair for pair in every if len(pair[1]) != len(every[0][1])), None)
    shortest = min(len(trajectory) for _, trajectory in every)
    if other is not None:
        (case, trajectory), (one, ours) = other, first
        raise ValueError(
            f"Expected cases of one length, which an archive can hold, but {case.subset}/{case.name} has "
            f"{len(trajectory)} frames and {one.subset}/{one.name} {len(ours)}. Cut them to what all have with "
            f"frames={shortest}, or to more and leave shorter ones out with skip_bad_cases; or read the tree itself in "
            f"place of an archive, by the class path of {type(adapter).__name__}."
        )
