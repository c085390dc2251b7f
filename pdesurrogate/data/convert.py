"""Foreign files to our own archive layout, once, so that training maps them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.archive import Archive, ArchiveWriter, archive_path
from pdesurrogate.fields.trajectory import Trajectory

Progress = Callable[[int, int], None]
_BLOCK_BYTES = 64 << 20


def convert(
    adapter: Adapter,
    directory: str | Path,
    *,
    attributes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write every split of ``adapter`` as an archive file in ``directory``.

    Values are stored in float32, block by block, so memory does not grow with the data set. A conversion that was
    interrupted continues when it is run again; splits that are finished are kept.

    Args:
        adapter: source of the trajectories.
        directory: of the archive; made where needed.
        attributes: further global attributes of the files, with those of the adapter's metadata.
        progress: called with (trajectories done, trajectories in all).

    Returns:
        The files, in the order of the splits.

    Raises:
        ValueError: if a split's trajectories differ in shape, times, or coordinates along an axis that is periodic or
            has bounds, some have a mask and some have none, one has a forcing, which archives do not store, or the
            directory holds another data set.
    """
    directory = Path(directory)
    combined = {**adapter.metadata.attributes, **(attributes or {})}
    sources = {split: _require_uniform(adapter.trajectories(split), split) for split in adapter.splits}
    files = {split: archive_path(directory, split) for split in sources}
    for split, file in files.items():
        if file.exists():
            _require_same(file, adapter, sources[split], combined)
    finished, total = 0, sum(len(trajectories) for trajectories in sources.values())
    for split, trajectories in sources.items():
        for count in _write(trajectories, files[split], combined):
            finished += count
            if progress is not None:
                progress(finished, total)
    return list(files.values())


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as empty:
        ...     file_hash(empty.name)[:12]
        'e3b0c44298fc'
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: str | Path) -> str:
    """SHA-256 over names and bytes of all files below a folder, hexadecimal."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [[path.relative_to(folder).as_posix(), file_hash(path)] for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def provenance(
    path: str | Path, class_path: str, options: Mapping[str, Any], files: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Attributes ``source`` and ``content_hash`` of an archive made from one file, or from a folder of them.

    The hash covers the bytes of all files, the adapter's class path and its options, as a generated set's covers its
    recipe.

    Args:
        path: the file or folder.
        class_path: of the adapter.
        options: of the adapter.
        files: what is read beside it, as the files that a mapping names; folders too, as Zarr stores are.
    """
    source = {"file": Path(path).name, "hash": _digest(path), "adapter": class_path, "options": dict(options)}
    if files:
        listed = json.dumps([[Path(file).name, _digest(file)] for file in files])
        source["files_hash"] = hashlib.sha256(listed.encode()).hexdigest()
    text = json.dumps(source, sort_keys=True)
    return {"source": text, "content_hash": hashlib.sha256(text.encode()).hexdigest()}


def _digest(path: str | Path) -> str:
    return folder_hash(path) if Path(path).is_dir() else file_hash(path)


def _write(trajectories: Sequence[Trajectory], path: Path, attributes: dict[str, Any]) -> Iterator[int]:
    """Write one split, unless it is there; yields the number of trajectories that each block finished."""
    first, total = trajectories[0], len(trajectories)
    if path.exists():
        yield total
        return
    block = max(1, _BLOCK_BYTES // (4 * math.prod(first.shape)))
    with ArchiveWriter(
        path,
        first.metadata,
        first.context.coordinates,
        first.times,
        total,
        parameters=_parameters(trajectories),
        masks=_masks(trajectories),
        case_coordinates=_case_coordinates(trajectories),
        attributes=attributes,
    ) as writer:
        for start in range(0, total, block):
            members = trajectories[start : start + block]
            if not writer.complete[start : start + len(members)].all():
                writer.write(start, torch.stack([trajectory.read() for trajectory in members]))
            yield len(members)
        writer.finish()


def _parameters(trajectories: Sequence[Trajectory]) -> Tensor | None:
    if not trajectories[0].metadata.parameters:
        return None
    found = [trajectory.context.parameters for trajectory in trajectories]
    return torch.stack([values for values in found if values is not None])


def _masks(trajectories: Sequence[Trajectory]) -> Tensor | None:
    found = [trajectory.context.mask for trajectory in trajectories]
    masks = [mask for mask in found if mask is not None]
    return torch.stack(masks) if masks else None


def _case_coordinates(trajectories: Sequence[Trajectory]) -> tuple[Tensor, ...] | None:
    """Coordinates of every trajectory, unless all have those of the first."""
    first = trajectories[0].context.coordinates
    if all(all(map(torch.equal, each.context.coordinates, first)) for each in trajectories):
        return None
    return tuple(torch.stack([each.context.coordinates[axis] for each in trajectories]) for axis in range(len(first)))


def _require_uniform(trajectories: Sequence[Trajectory], split: str) -> Sequence[Trajectory]:
    if not trajectories:
        raise ValueError(f"Expected at least one trajectory in split {split!r} but got none.")
    first = trajectories[0]
    # Extents may differ along the others: see `Axis`.
    fixed = [axis.period is not None or axis.bounds is not None for axis in first.metadata.grid.axes]
    for number, other in enumerate(trajectories):
        same = other.shape == first.shape and torch.equal(other.times, first.times)
        lines = zip(fixed, other.context.coordinates, first.context.coordinates, strict=True)
        if not (same and all(torch.equal(theirs, ours) for shared, theirs, ours in lines if shared)):
            raise ValueError(
                f"Expected trajectories of one shape, on one grid (along axes that are periodic or have bounds) and at "
                f"one set of times in split {split!r}, but number {number} differs from number 0. Convert such cases "
                "one by one."
            )
        if (other.context.mask is None) != (first.context.mask is None) or other.context.forcing is not None:
            raise ValueError(
                "Expected a mask in all trajectories or in none, and no forcing, as archives do not store others, but "
                f"trajectory {number} of split {split!r} has another. Read this set through its adapter, or without "
                "its forcing where that is an option."
            )
    return trajectories


def _require_same(path: Path, adapter: Adapter, trajectories: Sequence[Trajectory], attributes: dict[str, Any]) -> None:
    archive = Archive(path)
    adapter.metadata.require_same_fields(archive.metadata, what=str(path))
    stored = archive.trajectories(archive.splits[0])
    wanted = str(attributes.get("content_hash", ""))
    found = str(archive.metadata.attributes.get("content_hash", ""))
    if len(stored) != len(trajectories) or stored[0].shape != trajectories[0].shape or wanted != found:
        raise ValueError(
            f"Expected the same data set, but {path} holds {len(stored)} trajectories {stored[0].shape} from another "
            "source or with other options. Delete it, or choose another output directory."
        )
