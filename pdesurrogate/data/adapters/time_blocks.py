"""Splits of a long run: contiguous blocks of its frames, with frames left out between them."""

from __future__ import annotations


def time_blocks(frames: int, train: int | None, val: int, test: int, gap: int = 0, *, what: str) -> dict[str, range]:
    """Frames of each split of one run: the first are for training, then come those for validation and for testing.

    Neighboring frames are nearly the same, so what is tested on should be further from training than the flow
    remembers: ``gap`` frames after each block belong to none.

    Args:
        frames: of the run.
        train: frames at its start; by default all that are left.
        val: frames after those.
        test: frames at the end.
        gap: frames left out between two blocks.
        what: the run, for messages.

    Returns:
        Numbers of frames by split; splits without any are left out.

    Raises:
        ValueError: if a number is negative, nothing is left to train, or the blocks do not fit.

    Example:
        >>> time_blocks(100, None, val=10, test=20, gap=5, what="the run")
        {'train': range(0, 60), 'val': range(65, 75), 'test': range(80, 100)}
    """
    gaps = gap * ((val > 0) + (test > 0))
    if min(val, test, gap, 0 if train is None else train) < 0:
        raise ValueError(f"Expected numbers of frames >= 0 but got train {train}, val {val}, test {test}, gap {gap}.")
    train = frames - val - test - gaps if train is None else train
    if train < 1 or train + val + test + gaps > frames:
        raise ValueError(
            f"Expected blocks that fit into the {frames} frames of {what} but train {train}, val {val}, test {test} "
            f"and {gaps} between them do not; ask for fewer."
        )
    blocks = {
        "train": range(train),
        "val": range(train + gap, train + gap + val),
        "test": range(frames - test, frames),
    }
    return {split: block for split, block in blocks.items() if len(block)}
