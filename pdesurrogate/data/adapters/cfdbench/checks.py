"""Whether frames look like what their files say: which way is up, where the body is, in which units."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pdesurrogate.data.adapters.cfdbench.tree import Case, listed

# Bands of rows that the lid's is compared with.
_BANDS = 8
# A body as fast as this share of the fluid is not where it should be.
_LARGEST_SPEED_INSIDE = 0.5
# Largest and smallest speed in units of the driving velocity; gravity drives the dam as well.
_SLOWEST, _FASTEST = 1e-3, 10.0
_SPACING_TOLERANCE = 1e-3


def look_at(frames: list[tuple[Case, Tensor]], solid: Callable[[Case], Tensor | None]) -> tuple[str, ...]:
    """What does not fit, a sentence for each kind of finding, with the cases where it was found.

    Args:
        frames: late frames ``(2, x, y)`` of some cases.
        solid: which cells of a case are inside a body, ``(x, y)``.
    """
    found: dict[str, list[str]] = {}
    for case, velocity in frames:
        for kind, detail in _findings(case, velocity, solid(case)):
            found.setdefault(kind, []).append(f"{case.name} ({detail})")
    return tuple(f"{kind} {listed(cases)}." for kind, cases in found.items())


def _findings(case: Case, velocity: Tensor, solid: Tensor | None) -> list[tuple[str, str]]:
    speed = velocity.norm(dim=0)
    findings = [*_spacing(case), *_units(case, float(speed.max()))]
    if case.values.get("rotated"):
        findings.append(("Marked as rotated, which is explained nowhere and was left as it is:", "rotated is true"))
    if case.problem == "cavity":
        findings += _lid(case, velocity)
    else:
        findings += _stream(case, velocity)
    if solid is not None and bool(solid.any()):
        inside, outside = float(speed[solid].mean()), float(speed[~solid].mean())
        if inside > _LARGEST_SPEED_INSIDE * outside:
            kind = "Expected a body at rest, so body, box or orientation may be others than the files say; not so in"
            findings.append((kind, f"speed {inside:.3g} inside, {outside:.3g} in the fluid"))
    return findings


def _lid(case: Case, velocity: Tensor) -> list[tuple[str, str]]:
    """The lid moves the top, to the right."""
    along = velocity[0].abs().mean(0)
    bands = [float(band.mean()) for band in along.tensor_split(_BANDS)]
    fastest = max(range(_BANDS), key=bands.__getitem__)
    if fastest == _BANDS - 1 and float(velocity[0, :, -1].mean()) * case.values[case.kind.velocity] >= 0:
        return []
    kind = (
        "Expected u to be largest in the last rows, under the lid, and along it, so rows may run downwards; not so in"
    )
    return [(kind, f"fastest in band {fastest + 1} of {_BANDS} from row 0")]


def _stream(case: Case, velocity: Tensor) -> list[tuple[str, str]]:
    """The stream enters at the left and is slower along the walls than at the inlet."""
    assert case.kind.inlet_height is not None
    along, (_, heights) = velocity[0], case.box.centers(case.cells)
    inlet = float(along[0, heights < case.kind.inlet_height(case.values)].mean())
    walls = float(along[:, [0, -1]].mean())
    if inlet > 0 and inlet >= walls:
        return []
    kind = "Expected a stream from the first column, faster there than along the walls; not so in"
    return [(kind, f"u is {inlet:.3g} at the inlet, {walls:.3g} in the first and last row")]


def _units(case: Case, fastest: float) -> list[tuple[str, str]]:
    driving = abs(case.values[case.kind.velocity])
    limit = float("inf") if case.problem == "dam" else _FASTEST
    if _SLOWEST * driving <= fastest <= limit * driving:
        return []
    kind = "Expected speeds of the order of the driving velocity, so units may differ; not so in"
    return [(kind, f"fastest {fastest:.3g}, driven at {driving:.3g}")]


def _spacing(case: Case) -> list[tuple[str, str]]:
    details = [
        f"{key} {case.values[key]:.6g}, {length / cells:.6g} by the box"
        for key, length, cells in zip(("dx", "dy"), case.box.lengths, case.cells, strict=True)
        if key in case.values and abs(case.values[key] * cells / length - 1) > _SPACING_TOLERANCE
    ]
    kind = "Expected dx and dy to be the box over the number of cells, which was taken; not so in"
    return [(kind, ", ".join(details))] if details else []
