"""Published enclosed flows, small files inside: the lid-driven cavity, and the vortex street of Schaefer and Turek."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from pdesurrogate.evaluation.enclosed.centerlines import Centerlines, Line

Source: TypeAlias = Literal["marchi_2009", "ghia_1982", "botella_1998"]

_NAMES: dict[Source, str] = {
    "marchi_2009": "Marchi et al. (2009)",
    "ghia_1982": "Ghia et al. (1982)",
    "botella_1998": "Botella & Peyret (1998)",
}


class Vortex(NamedTuple):
    """The primary vortex of a cavity, in widths of the box and velocities of the lid.

    Attributes:
        stream_function: its extreme value.
        x: of its center.
        y: likewise.
    """

    stream_function: float
    x: float
    y: float


# Ghia et al., Table V; the center is a point of their grid.
_VORTICES = {
    100: Vortex(-0.103423, 0.6172, 0.7344),
    400: Vortex(-0.113909, 0.5547, 0.6055),
    1000: Vortex(-0.117929, 0.5313, 0.5625),
}


@dataclass(frozen=True, eq=False)
class CavityReference:
    """A published square cavity whose lid, the top, slides to the right.

    Attributes:
        name: how figures call it.
        citation: whose work it is.
        reynolds_number: of lid and width.
        centerlines: in widths of the box and velocities of the lid, at the published points alone.
        vortex: where one is stated.
    """

    name: str
    citation: str
    reynolds_number: int
    centerlines: Centerlines
    vortex: Vortex | None


def cavity_reference(reynolds_number: float, source: Source = "marchi_2009") -> CavityReference:
    """Published centerlines of a cavity.

    - ``"marchi_2009"``: 100, 400 and 1000, extrapolated from grids of up to 1024 x 1024; the most accurate of the three
      for 100 and 400, equal to the next to six digits for 1000.
    - ``"botella_1998"``: 1000, by Chebyshev polynomials.
    - ``"ghia_1982"``: 100, 400 and 1000, what most papers compare with. Good to two or three digits: ``velocity_y``
      near its minimum for 100 is 3 % too small in magnitude. One misprinted value is left out.

    The tables were re-typed from public copies, which were compared with each other, not from the papers.

    Raises:
        ValueError: if this source has no such Reynolds number.

    Example:
        >>> reference = cavity_reference(100)
        >>> reference.name, round(float(reference.centerlines.velocity_x.values.min()), 3)
        ('Marchi et al. (2009)', -0.213)
    """
    if source not in _NAMES:
        raise ValueError(f"Expected a source among {sorted(_NAMES)} but got {source!r}.")
    text = files("pdesurrogate.evaluation.enclosed").joinpath("data", f"cavity_{source}.csv").read_text("utf-8")
    lines = text.splitlines()
    comments = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    rows = [line.split(",") for line in lines[len(comments) + 1 :]]
    known = sorted({int(row[1]) for row in rows})
    if reynolds_number not in known:
        raise ValueError(f"Expected a Reynolds number among {known} from {source!r} but got {reynolds_number:g}.")
    found = {}
    for component in ("velocity_x", "velocity_y"):
        table = [row[2:] for row in rows if row[0] == component and int(row[1]) == reynolds_number]
        positions, values = np.asarray(table, dtype=np.float64).T
        found[component] = Line(positions, values)
    number = int(reynolds_number)
    vortex = _VORTICES[number] if source == "ghia_1982" else None
    return CavityReference(_NAMES[source], " ".join(comments[:2]), number, Centerlines(**found), vortex)


class Interval(NamedTuple):
    """From ``low`` to ``high``."""

    low: float
    high: float


@dataclass(frozen=True)
class CylinderReference:
    """A published vortex street; intervals in which trusted results lie.

    Attributes:
        name: how figures call it.
        citation: whose work it is.
        largest_drag_coefficient: over a period; of the force, ``2 F / (density velocity^2 diameter)``.
        largest_lift_coefficient: likewise.
        strouhal_number: ``frequency diameter / velocity`` of the lift.
    """

    name: str
    citation: str
    largest_drag_coefficient: Interval
    largest_lift_coefficient: Interval
    strouhal_number: Interval


# As others quote them; the paper itself was not at hand.
SCHAEFER_TUREK_2D2 = CylinderReference(
    name="Schäfer & Turek, 2D-2",
    citation=(
        "M. Schäfer and S. Turek, Benchmark computations of laminar flow around a cylinder, Notes on Numerical Fluid "
        "Mechanics 52 (1996) 547-566, doi:10.1007/978-3-322-89849-4_39"
    ),
    largest_drag_coefficient=Interval(3.22, 3.24),
    largest_lift_coefficient=Interval(0.99, 1.01),
    strouhal_number=Interval(0.295, 0.305),
)
