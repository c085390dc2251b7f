"""Velocity on the centerlines of the lid-driven cavity, and how far a computed one is from it.

Marchi, Suero & Araki, J. Braz. Soc. Mech. Sci. Eng. 31 (2009) 186: u on x = 1/2 and v on y = 1/2 at 1/16, ..., 15/16,
lid y = 1 moving along x with speed 1, rounded here to six digits. NumPy alone, so that peers with an environment of
their own can import it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_U = {
    100: (
        -0.041975, -0.077125, -0.109816, -0.141930, -0.172712, -0.198471, -0.212962, -0.209149, -0.182081, -0.131256,
        -0.060246, 0.027874, 0.140425, 0.310557, 0.597467,
    ),
    1000: (
        -0.202330, -0.347845, -0.384409, -0.318946, -0.245694, -0.183732, -0.123410, -0.062056, 0.000562, 0.065249,
        0.133573, 0.207915, 0.288442, 0.362545, 0.422932,
    ),
}  # fmt: skip
_V = {
    100: (
        0.094808, 0.149243, 0.174343, 0.179243, 0.169132, 0.145730, 0.108776, 0.057537, -0.007749, -0.084067,
        -0.163010, -0.227827, -0.253769, -0.218691, -0.123318,
    ),
    1000: (
        0.280706, 0.365042, 0.367853, 0.307104, 0.231268, 0.160564, 0.092969, 0.025799, -0.041841, -0.110798,
        -0.181680, -0.253381, -0.331567, -0.467776, -0.456153,
    ),
}  # fmt: skip


def between_centers(line: Array) -> Array:
    """``line (n,)`` at cell centers, interpolated by cubics to 1/16, ..., 15/16; ``n`` is a multiple of 32."""
    at = np.arange(1, 16) * (len(line) // 16)
    found: Array = (9 * (line[at - 1] + line[at]) - line[at - 2] - line[at + 1]) / 16
    return found


def deviation(u: Array, v: Array, reynolds_number: int) -> float:
    """Largest difference from the published values; ``u (n,)`` on x = 1/2, ``v (n,)`` on y = 1/2, at cell centers."""
    differences = [between_centers(u) - _U[reynolds_number], between_centers(v) - _V[reynolds_number]]
    return float(np.abs(differences).max())
