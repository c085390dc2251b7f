"""Archives of small cases with masks and extents of their own, for the tests of archives and of what reads them."""

import torch

from pdesurrogate.data.archive import ArchiveWriter
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

GRID = Grid((Axis("x", units="m"), Axis("y", units="m")))
METADATA = Metadata(
    "cases", GRID, (Channel("u", "m/s", location="face_x"), Channel("p", "Pa", location="cell")), 0.5, ("density",)
)
FRAMES, SHAPE, COUNT = 6, (8, 4), 5


def values(count=COUNT):
    return torch.randn(count, FRAMES, 2, *SHAPE, generator=torch.Generator().manual_seed(0))


def masks(count=COUNT):
    """Of every case another: its number and one more cells are solid."""
    found = torch.ones(count, *SHAPE, dtype=torch.bool)
    for case in range(count):
        found[case].view(-1)[: case + 1] = False
    return found


def lines(count=COUNT):
    """Centers of even cells in boxes of different sizes, the second half left of the origin too."""
    lengths = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    x, y = (lengths * (torch.arange(n, dtype=torch.float64) + 0.5) / n for n in SHAPE)
    return x - lengths / 2, 0.5 * y


def writer(path, count=COUNT, *, metadata=METADATA, rows=None, **changes):
    """Of cases; ``rows`` of them where a file holds only some."""
    rows = list(range(count)) if rows is None else rows
    options = {"masks": masks(count)[rows], "case_coordinates": [line[rows] for line in lines(count)], **changes}
    nominal = tuple(line[0] for line in lines(count))
    times = 0.5 * torch.arange(FRAMES, dtype=torch.float64)
    density = torch.arange(1.0, count + 1)[rows, None]
    return ArchiveWriter(path, metadata, nominal, times, len(rows), parameters=density, **options)


def write(path, dropped=(), **changes):
    with writer(path, **changes) as file:
        for case in dropped:
            file.drop(case, f"case {case} blew up")
        for case in sorted(set(range(COUNT)) - set(dropped)):
            file.write(case, values()[case : case + 1])
        return file.finish()
