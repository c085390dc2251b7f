"""What is in a file of unknown layout: one table, and a mapping to start from."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pdesurrogate.data.adapters.mapped.decoding import Packing
from pdesurrogate.data.adapters.mapped.layout import UNEVEN
from pdesurrogate.data.adapters.mapped.sources import Source, Variable, open_source
from pdesurrogate.data.adapters.shards import in_natural_order

# Rows of the table of arrays, longest text in it, and candidates for parameters.
MOST_ROWS = 60
WIDEST = 60
MOST_PARAMETERS = 6
# Coordinates longer than this are not read.
LONGEST_LINE = 10_000_000

_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".mat", ".npy", ".npz", ".zarr")
_WORDS = {
    "time": {"time", "t", "step", "steps", "frame", "frames", "timestep", "timesteps", "snapshot", "nt", "t_coord"},
    "x": {"x", "lon", "longitude", "nx", "xc", "x_coord", "xcoor", "streamwise", "x0", "xx"},
    "y": {"y", "lat", "latitude", "ny", "yc", "y_coord", "ycoor", "y0", "yy"},
    "z": {"z", "lev", "level", "height", "depth", "altitude", "plev", "nz", "zc", "z_coord", "zcoor", "spanwise"},
    "trajectory": {
        "trajectory", "trajectories", "sample", "samples", "run", "runs", "case", "cases", "member", "ensemble",
        "batch",
        "simulation", "sim", "realization", "number", "b", "n",
    },
    "component": {"component", "components", "channel", "channels", "c", "values", "vector", "dim", "v"},
}  # fmt: skip
_STANDARD_NAMES = {
    "time": "time", "longitude": "x", "projection_x_coordinate": "x", "grid_longitude": "x", "latitude": "y",
    "projection_y_coordinate": "y", "grid_latitude": "y", "height": "z", "altitude": "z", "depth": "z",
    "air_pressure": "z", "realization": "trajectory",
}  # fmt: skip
_ORDER = ("trajectory", "time", "x", "y", "z", "component")
_VELOCITIES = (("u", "v", "w"), ("vx", "vy", "vz"), ("ux", "uy", "uz"), ("velocity_x", "velocity_y", "velocity_z"))
_SCALARS = {"p": "pressure", "pres": "pressure", "rho": "density", "omega": "vorticity"}

_MARK = "A mapping to start from (check what is marked):"


class _Dimension(NamedTuple):
    """A dimension that arrays have.

    Attributes:
        name: the file's, or ours where it has none.
        size: along it.
        role: among trajectory, time, x, y, z, component; ``None`` where there is no telling.
        coordinate: the array of its points.
    """

    name: str
    size: int
    role: str | None
    coordinate: str | None


def describe(path: str | Path) -> str:
    """Arrays, dimensions, shapes, types and attributes of a file, and a mapping for `MappedFiles` to start from.

    Dimensions are told apart by their names, and by the attributes ``axis``, ``standard_name`` and ``units`` of their
    coordinates; where the file does not name them, by the lengths of arrays with one dimension. What is guessed is
    marked.

    Args:
        path: a file, a Zarr store, or a folder of files of one layout, whose first is described.

    Raises:
        ValueError: if there is no such file, it is damaged or of unknown format.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/flow.npz", u=np.zeros((3, 5, 8, 6)), t=np.arange(5.0), x=np.arange(8.0))
        ...     print(describe(f"{folder}/flow.npz").split("A mapping")[0])  # doctest: +ELLIPSIS
        flow.npz: NumPy archive, ...
        <BLANKLINE>
        ARRAY  DIMENSIONS                    SHAPE          TYPE     UNITS  NOTES
        u      (trajectory?, time?, x?, y?)  3 x 5 x 8 x 6  float64
        t      (?)                           5              float64         0 to 4, step 1
        x      (?)                           8              float64         0 to 7, step 1
        <BLANKLINE>
        <BLANKLINE>
    """
    root = Path(path)
    first, pattern = _first_file(root)
    source = open_source(first)
    fields = _fields(source)
    guesses = _Guesses(source, fields)
    count = f" (the first of the files {pattern} in {root})" if first != root else ""
    parts = [f"{first.name}: {source.kind}, {_size(first)}{count}", _array_table(source, guesses)]
    stored = source.attributes()
    if stored:
        parts.append("ATTRIBUTES\n" + "\n".join(f"{name} = {_short(value)}" for name, value in stored.items()))
    if source.kind == "MATLAB 7.3":
        parts.append("MATLAB shows the dimensions the other way round: its last one stands first here.")
    if not fields:
        parts.append("No array has both a time and a space: there is nothing that a mapping could make frames of.")
        return "\n\n".join(parts) + "\n"
    parts.append(_MARK)
    return (
        "\n\n".join(parts) + "\n\n" + _skeleton(first, root if first != root else root.parent, pattern, source, guesses)
    )


def as_mapping(description: str) -> str:
    """What `describe` said as a mapping file: the YAML, and before it all else as comments.

    Raises:
        ValueError: if it proposes no mapping.

    Example:
        >>> print(as_mapping("flow.npz\\n\\nA mapping to start from (check what is marked):\\n\\nname: flow"))
        # flow.npz
        #
        # A mapping to start from (check what is marked):
        <BLANKLINE>
        name: flow
    """
    listing, mark, mapping = description.partition(_MARK)
    if not mark:
        raise ValueError("Expected an array that has both a time and a space but there is none, so no mapping is made.")
    comments = "".join(f"# {line}".rstrip() + "\n" for line in f"{listing}{mark}".splitlines())
    return comments + mapping.removeprefix("\n")


class _Guesses:
    """What the dimensions of a file are, as far as it can be told."""

    def __init__(self, source: Source, fields: list[Variable]) -> None:
        self._source = source
        self._lines = {name: each for name, each in source.variables.items() if len(each.shape) == 1}
        lines: tuple[str, ...] = ("time", "x", "y", "z")
        self._by_length = {
            role: name
            for role in lines
            for name in reversed(self._lines)
            if _role_of(name.rsplit("/", 1)[-1], source.attributes(name)) == role
        }
        best = max(fields, key=lambda each: (int(np.prod(each.shape)), len(each.shape)), default=None)
        self.fields = [each for each in fields if best is not None and self._alike(each, best)]

    def dimensions(self, variable: Variable) -> list[_Dimension]:
        """Of an array, in its order."""
        if None in variable.dimensions and len(variable.shape) > 1:
            return self._told_by_length(variable)
        return [
            self._named(name, size) if name is not None else _Dimension("?", size, None, None)
            for name, size in zip(variable.dimensions, variable.shape, strict=True)
        ]

    def attributes(self, name: str) -> dict[str, Any]:
        """Of an array."""
        return self._source.attributes(name)

    def _named(self, name: str, size: int) -> _Dimension:
        coordinate = name if name in self._lines else None
        attributes = self._source.attributes(name) if coordinate else {}
        return _Dimension(name, size, _role_of(name, attributes), coordinate)

    def _told_by_length(self, variable: Variable) -> list[_Dimension]:
        """By arrays with one dimension of the same length, then by the usual order."""
        roles: list[str | None] = [None] * len(variable.shape)
        for role, name in self._by_length.items():
            (length,) = self._lines[name].shape
            fitting = [place for place, size in enumerate(variable.shape) if size == length and roles[place] is None]
            if fitting:
                roles[fitting[0]] = role
        if roles[-1] is None and variable.shape[-1] <= 4 and len(roles) > 2:
            roles[-1] = "component"
        left = [place for place, role in enumerate(roles) if role is None]
        wanted = [role for role in ("x", "time", "y", "trajectory", "z", "component") if role not in roles][: len(left)]
        for place, role in zip(left, sorted(wanted, key=_ORDER.index), strict=False):
            roles[place] = role
        return [
            _Dimension(role or f"dimension_{place}", size, role, self._line_of(role, size))
            for place, (role, size) in enumerate(zip(roles, variable.shape, strict=True))
        ]

    def _line_of(self, role: str | None, size: int) -> str | None:
        name = self._by_length.get(role or "")
        return name if name is not None and self._lines[name].shape == (size,) else None

    def _alike(self, one: Variable, other: Variable) -> bool:
        """Whether two arrays are at the same times and points; components may differ."""
        return self._extent(one) == self._extent(other)

    def _extent(self, variable: Variable) -> list[tuple[str, int]]:
        found = [(each.name, each.size) for each in self.dimensions(variable) if each.role != "component"]
        return sorted(found)


def _fields(source: Source) -> list[Variable]:
    """Arrays that may be frames: of two dimensions or more."""
    return [each for each in source.variables.values() if len(each.shape) > 1 and min(each.shape) > 0]


def _role_of(name: str, attributes: dict[str, Any]) -> str | None:
    axis = str(attributes.get("axis", "")).lower()
    if axis in ("t", "x", "y", "z"):
        return "time" if axis == "t" else axis
    standard = str(attributes.get("standard_name", "")).lower()
    if standard in _STANDARD_NAMES:
        return _STANDARD_NAMES[standard]
    units = str(attributes.get("units", "")).lower()
    if " since " in units:
        return "time"
    if units.startswith(("degrees_east", "degrees_north")):
        return "x" if units.startswith("degrees_east") else "y"
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").replace("coordinate", "coord")
    return next((role for role, words in _WORDS.items() if plain in words), None)


def _first_file(root: Path) -> tuple[Path, str]:
    """The file to look into, and the pattern of its siblings."""
    if not root.is_dir() or root.suffix == ".zarr" or _arrays_of_one(root):
        return root, root.name
    found = in_natural_order(each for each in root.rglob("*") if each.suffix in _SUFFIXES)
    inside = [each for each in found if not any(parent.suffix == ".zarr" for parent in each.parents)]
    if not inside or (root / "zarr.json").exists() or (root / ".zgroup").exists():
        return root, root.name
    first = inside[0]
    folder = first.parent.relative_to(root)
    return first, (folder / f"*{first.suffix}").as_posix()


def _arrays_of_one(root: Path) -> bool:
    """Whether a folder has ``.npy`` files that are called after what they hold, not numbered."""
    stems = [re.sub(r"\d+", "", each.stem) for each in root.glob("*.npy")]
    return len(stems) > 1 and len(set(stems)) == len(stems)


def _array_table(source: Source, guesses: _Guesses) -> str:
    rows = [("ARRAY", "DIMENSIONS", "SHAPE", "TYPE", "UNITS", "NOTES")]
    for name, variable in list(source.variables.items())[:MOST_ROWS]:
        mark = "?" if None in variable.dimensions else ""
        told = [each.name if each.name == "?" else f"{each.name}{mark}" for each in guesses.dimensions(variable)]
        attributes = source.attributes(name)
        rows.append(
            (
                name,
                f"({', '.join(told)})",
                " x ".join(map(str, variable.shape)) or "one number",
                str(variable.dtype),
                _short(attributes.get("units", "")),
                _notes(source, variable, attributes),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    left = len(source.variables) - MOST_ROWS
    lines += [f"and {left} more"] if left > 0 else []
    lines += [f"{name}: not read, as it {reason}" for name, reason in list(source.others.items())[:MOST_ROWS]]
    return "\n".join(line.rstrip() for line in lines)


def _notes(source: Source, variable: Variable, attributes: dict[str, Any]) -> str:
    """Ends of coordinates, and what attributes say."""
    notes = []
    if len(variable.shape) == 1 and 0 < variable.shape[0] <= LONGEST_LINE:
        notes.append(_ends(source, variable, attributes))
    for key in ("standard_name", "long_name", "axis", "scale_factor", "add_offset", "_FillValue", "missing_value"):
        value = attributes.get(key)
        if value is not None and value == value:
            notes.append(_short(value) if key in ("standard_name", "long_name") else f"{key} {_short(value)}")
    return ", ".join(dict.fromkeys(notes))


def _ends(source: Source, variable: Variable, attributes: dict[str, Any]) -> str:
    points = _points(source, variable, attributes)
    text = f"{points[0]:.6g} to {points[-1]:.6g}"
    gaps = np.diff(points)
    if not len(gaps):
        return f"{points[0]:.6g}"
    if np.ptp(gaps) <= 1e-3 * abs(gaps.mean()):
        return f"{text}, step {gaps.mean():.6g}"
    return f"{text}, uneven"


def _points(source: Source, variable: Variable, attributes: dict[str, Any]) -> Any:
    packing = Packing.of(attributes, variable.dtype, "convert", variable.name)
    return np.asarray(packing.values(np.asarray(source.read(variable.name))), dtype=np.float64)


def _skeleton(first: Path, root: Path, pattern: str, source: Source, guesses: _Guesses) -> str:
    """YAML that `MappedFiles` reads, as far as the guesses are right."""
    fields = guesses.fields
    dimensions = guesses.dimensions(fields[0])
    told = {each.role: each for each in dimensions if each.role is not None}
    guessed = None in fields[0].dimensions
    name = re.sub(r"[^A-Za-z0-9]+", "_", first.stem).strip("_") or "my_data"
    where = root / f"{name}.yaml"
    lines = [
        f"# Save it as {where}, then:",
        f"#   pdesurrogate datasets convert {shlex.quote(str(where))} --format mapped --out DIR",
        f"name: {_word(name)}",
    ]
    lines.append(f"files: {json.dumps(pattern)}  # or {{train: ..., val: ..., test: ...}}")
    lines.append("# splits: {val: 1, test: 1}  # trajectories; or {by: time, val: 10, test: 10, gap: 5}, frames")
    if guessed:
        names = ", ".join(_word(each.name) for each in dimensions)
        lines.append(f"order: [{names}]  # check: the file does not name its dimensions")
    if "trajectory" in told:
        lines.append(f"trajectory: {_word(told['trajectory'].name)}")
    lines.append("axes:  # x first")
    space: list[str] = [role for role in ("x", "y", "z") if role in told]
    unknown = [each for each in dimensions if each.role is None and each.size > 1]
    lines += [_axis_line(role, told[role], source) for role in space]
    lines += [f"  # {_word(each.name)} ({each.size}): an axis? a component?" for each in unknown]
    lines.append(_time_line(told.get("time")))
    lines.append("channels:")
    for variable, components in _shown(fields, guesses):
        lines += _channel_lines(
            variable, components, space, fields, guessed and variable.shape != fields[0].shape, guesses
        )
    lines.append(_parameters_line(source, told.get("trajectory")))
    return "\n".join(lines) + "\n"


def _shown(fields: Sequence[Variable], guesses: _Guesses) -> Iterable[tuple[Variable, _Dimension | None]]:
    for variable in fields[:MOST_ROWS]:
        yield variable, next((each for each in guesses.dimensions(variable) if each.role == "component"), None)


def _axis_line(role: str, dimension: _Dimension, source: Source) -> str:
    words = [f"dimension: {_word(dimension.name)}"]
    hint = "  # add period: LENGTH, or bounds: [LOW, HIGH]"
    if dimension.coordinate is None:
        words.append("start: 0, spacing: 1")
        hint += "; check the spacing, the file has no coordinates"
    else:
        if dimension.coordinate != dimension.name:
            words.append(f"coordinate: {_word(dimension.coordinate)}")
        attributes = source.attributes(dimension.coordinate)
        points = _points(source, source.variables[dimension.coordinate], attributes)
        around = abs(points[-1] - points[0]) * len(points) / max(len(points) - 1, 1)
        if str(attributes.get("units", "")).startswith("degrees") and role == "x" and abs(around - 360) < 0.01:
            words.append("period: 360")
            hint = ""
        elif len(points) > 1 and np.ptp(np.diff(points)) <= UNEVEN * abs(np.diff(points).mean()):
            hint = f"  # add period: {around:.8g} if it is periodic, else bounds: [LOW, HIGH]"
    return f"  {role}: {{{', '.join(words)}}}{hint}"


def _time_line(dimension: _Dimension | None) -> str:
    if dimension is None:
        return "time: {dimension: TIME, interval: 1}  # no dimension looks like time; say which it is"
    words = [f"dimension: {_word(dimension.name)}"]
    if dimension.coordinate is None:
        return f"time: {{{words[0]}, interval: 1}}  # check the interval, the file has no times"
    if dimension.coordinate != dimension.name:
        words.append(f"coordinate: {_word(dimension.coordinate)}")
    return f"time: {{{', '.join(words)}}}"


def _parameters_line(source: Source, trajectory: _Dimension | None) -> str:
    """Numbers that may be parameters: one in the file, or one for each trajectory; the user chooses."""
    own = None if trajectory is None else (trajectory.size,)
    found = {
        _plain_name(name): f"{{attribute: {_word(name)}}}"
        for name, value in source.attributes().items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    found |= {
        _plain_name(name.rsplit("/", 1)[-1]): f"{{variable: {_word(name)}}}"
        for name, variable in source.variables.items()
        if variable.shape == () or (variable.shape == own and _role_of(name.rsplit("/", 1)[-1], {}) is None)
    }
    listed = ", ".join(f"{_word(name)}: {where}" for name, where in list(found.items())[:MOST_PARAMETERS])
    if listed:
        return f"# parameters: {{{listed}}}  # those that the flow depends on; or numbers: {{viscosity: 1e-3}}"
    return "# parameters: {viscosity: 1e-3}  # or {variable: NAME}, {attribute: NAME}"


def _channel_lines(
    variable: Variable,
    components: _Dimension | None,
    axes: list[str],
    fields: Sequence[Variable],
    own_order: bool,
    guesses: _Guesses,
) -> list[str]:
    names = [each.name.rsplit("/", 1)[-1] for each in fields]
    short = variable.name.rsplit("/", 1)[-1]
    if names.count(short) > 1:  # in several groups
        short = variable.name
    words = [f"variable: {_word(variable.name)}"]
    if own_order:
        words.append(f"order: [{', '.join(_word(each.name) for each in guesses.dimensions(variable))}]")
    if variable.dtype.kind != "f" and not {"scale_factor", "add_offset"} & guesses.attributes(variable.name).keys():
        words.append("integers: convert")
    if components is None or components.size == 1:
        name, vector = _channel_name(short, axes, names)
        return [_channel_line(name, words, vector)]
    velocity = components.size == len(axes) and ("vel" in short.lower() or short.lower() in ("u", "v"))
    lines = []
    for place in range(components.size):
        index = f"index: {{{_word(components.name)}: {place}}}"
        name = f"velocity_{axes[place]}" if velocity else f"{_plain_name(short)}_{place}"
        lines.append(_channel_line(name, [*words, index], "velocity" if velocity else ""))
    return lines


def _channel_line(name: str, words: list[str], vector: str) -> str:
    told = [f"name: {_word(name)}", *words, *([f"vector: {vector}"] if vector else [])]
    return f"  - {{{', '.join(told)}}}"


def _channel_name(short: str, axes: list[str], names: list[str]) -> tuple[str, str]:
    """Ours where the file's is a usual one, and the vector that it is a component of."""
    lower = [name.lower() for name in names]
    for words in _VELOCITIES:
        parts = dict(zip(words, ("x", "y", "z"), strict=True))
        here = [part for word, part in parts.items() if word in lower]
        if short.lower() in parts and len(axes) > 1 and here == axes:
            return f"velocity_{parts[short.lower()]}", "velocity"
    return _SCALARS.get(short.lower(), _plain_name(short)), ""


def _plain_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "field"


def _word(name: str) -> str:
    """As it may stand in YAML."""
    reserved = ("on", "off", "yes", "no", "true", "false", "null", "~", "y", "n")
    if re.fullmatch(r"[A-Za-z_][\w/.-]*", name) and name.lower() not in reserved[:-2]:
        return name
    return json.dumps(name)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[:6].tolist() + (["..."] if value.size > 6 else [])
    text = " ".join(str(value).split())
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _size(path: Path) -> str:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    size = float(sum(each.stat().st_size for each in files))
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
