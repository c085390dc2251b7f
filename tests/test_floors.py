"""Imports go down the floors of ARCHITECTURE.md, heavy guests stay at the edge, and there are no circles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pdesurrogate"
FLOORS = {
    "_lazy": 0, "fields": 1, "layers": 1, "physics": 2, "data": 2, "models": 2,
    "simulators": 3, "metrics": 3, "steppers": 3, "evaluation": 4, "training": 5, "viz": 5, "leaderboard": 5,
    "cli": 6, "__main__": 7,
}  # fmt: skip
GUESTS = {
    "matplotlib": ("viz",),
    "h5py": ("data",),
    "netCDF4": ("data",),
    "lightning": (
        "data/datamodule.py",
        "data/frame_data.py",
        "data/point_data.py",
        "training",
        "cli/train.py",
        "cli/demo.py",
    ),
    "neuralop": ("models/neuralop.py",),
    "pooch": ("data/downloads",),
    "requests": ("data/downloads",),
    "huggingface_hub": ("data/downloads",),
    "zarr": ("data/adapters",),
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, those for type checking alone left out."""
    tree = ast.parse(path.read_text())
    checking = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in checking:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def folder(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported(path):
        if not module.startswith("pdesurrogate.") or folder(module) == own:
            continue
        assert FLOORS[folder(module)] < FLOORS[own], f"{path} imports {module}, which stands no lower"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_guests_stay_at_the_edge(path):
    place = path.relative_to(PACKAGE).as_posix()
    for module in imported(path):
        allowed = GUESTS.get(module.split(".")[0])
        assert allowed is None or place.startswith(allowed), f"{place} imports {module}"


def test_inside_the_package_nobody_imports_from_a_face():
    faces = {f"pdesurrogate.{name}" for name, floor in FLOORS.items() if (PACKAGE / name).is_dir()}
    for path in FILES:
        assert not imported(path) & (faces | {"pdesurrogate"}), path


def test_no_circles():
    edges = {path: {m for m in imported(path) if m.startswith("pdesurrogate.")} for path in FILES}
    names = {path: "pdesurrogate." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES}
    done: set[str] = set()
    graph = {names[path]: edges[path] & set(names.values()) for path in FILES}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())
