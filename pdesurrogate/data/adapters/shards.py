"""Which files of a folder belong to which split."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

# The field's words for our splits.
SPLIT_WORDS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
_WORD = re.compile(r"[A-Za-z]+")
_DIGITS = re.compile(r"(\d+)")


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted so that 10 comes after 2: the order of a folder differs from machine to machine.

    Example:
        >>> [path.name for path in in_natural_order([Path("run10.h5"), Path("run9.h5"), Path("run1.h5")])]
        ['run1.h5', 'run9.h5', 'run10.h5']
    """

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = _DIGITS.split(path.as_posix())
        return [(int(part.isdigit()), int(part) if part.isdigit() else 0, part) for part in parts]

    return sorted(paths, key=key)


def split_of(path: Path, root: Path) -> str | None:
    """The split that a file is for: by the folder that it is in below ``root``, else by a word of its own name.

    Raises:
        ValueError: if the name has words of several splits.

    Example:
        >>> split_of(Path("data/valid/seed_1.hdf5"), Path("data"))
        'val'
        >>> split_of(Path("data/NavierStokes2D_train_296423_0.40963_32.h5"), Path("data"))
        'train'
    """
    *folders, name = path.relative_to(root).parts
    for folder in folders:
        if folder.lower() in SPLIT_WORDS:
            return SPLIT_WORDS[folder.lower()]
    found = {SPLIT_WORDS[word] for word in _WORD.findall(Path(name).stem.lower()) if word in SPLIT_WORDS}
    if len(found) > 1:
        raise ValueError(f"Expected the word of one split in the name of {path} but got those of {sorted(found)}.")
    return found.pop() if found else None


def shards_of_splits(
    root: str | Path, patterns: Sequence[str] = ("*.h5", "*.hdf5"), *, one_file: bool = False
) -> dict[str, list[Path]]:
    """Files of each split below a folder, in natural order; splits in the order train, val, test.

    Files that fit and do not say their split are left out with a warning; hidden ones are not looked at.

    Args:
        root: a folder, or a single file whose name says its split.
        patterns: of names.
        one_file: whether the format has one file for each split, so that a second one is another data set.

    Raises:
        ValueError: if there is no such folder or file, no file in it fits, none says its split, or there are two files
            for one split where the format has one.
    """
    root = Path(root)
    if not root.exists():
        raise ValueError(f"Expected a folder of files but {root} does not exist.")
    base = root.parent if root.is_file() else root
    every = [root] if root.is_file() else {path for pattern in patterns for path in root.rglob(pattern)}
    files = in_natural_order(path for path in every if path.is_file() and not path.name.startswith("."))
    if not files:
        raise ValueError(f"Expected files {' or '.join(patterns)} in {root} but found none.")
    splits: dict[str, list[Path]] = {}
    unknown = []
    for path in files:
        split = split_of(path, base)
        if split is None:
            unknown.append(path.name)
        else:
            splits.setdefault(split, []).append(path)
    if not splits:
        raise ValueError(
            f"Expected one of the words {sorted(SPLIT_WORDS)} in the names of files or folders of {root} but got "
            f"{', '.join(unknown[:5])}. Rename them, or put them into folders train, valid and test."
        )
    if unknown:
        warnings.warn(
            f"Left out {len(unknown)} files of {root}, of whose names and folders no word says the split: "
            f"{', '.join(unknown[:5])}. Rename them if they belong to it.",
            stacklevel=3,
        )
    for split, found in splits.items():
        if one_file and len(found) > 1:
            names = " and ".join(path.name for path in found[:3])
            raise ValueError(
                f"Expected one file for the split {split!r} in {root} but found {len(found)}: {names}. They are other "
                "data sets; give each a folder of its own."
            )
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}
