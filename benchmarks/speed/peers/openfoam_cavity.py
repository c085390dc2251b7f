"""The lid-driven cavity in OpenFOAM's icoFoam: case files, the run of the process, and what it found.

Debian's package openfoam 1912 (``apt-get install openfoam``). PISO with two correctors, implicit Euler, central
differences, GAMG for pressure (PCG with DIC took 1.1 to 1.5 times as long from 64x64 on), relative tolerance 0.05 in
the first corrector: what the tutorials and their users take. All terms but the pressure coupling are implicit, so that
steps far over the explicit limit converge to the same steady flow.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
from peers.centerlines import Array, deviation

SHARE = "/usr/share/openfoam"

_BLOCK_MESH = """scale 1;
vertices ((0 0 0) (1 0 0) (1 1 0) (0 1 0) (0 0 0.1) (1 0 0.1) (1 1 0.1) (0 1 0.1));
blocks (hex (0 1 2 3 4 5 6 7) ({cells} {cells} 1) simpleGrading (1 1 1));
edges ();
boundary
(
    lid {{ type wall; faces ((3 7 6 2)); }}
    walls {{ type wall; faces ((0 4 7 3) (2 6 5 1) (1 5 4 0)); }}
    sides {{ type empty; faces ((0 3 2 1) (4 5 6 7)); }}
);
"""
_CONTROL = """application icoFoam;
startFrom startTime; startTime 0; stopAt endTime; endTime {end_time}; deltaT {time_step};
writeControl timeStep; writeInterval {steps}; purgeWrite 0;
writeFormat ascii; writePrecision 10; writeCompression off; timeFormat general; timePrecision 8;
runTimeModifiable no;
"""
_SCHEMES = """ddtSchemes { default Euler; }
gradSchemes { default Gauss linear; }
divSchemes { default none; div(phi,U) Gauss linear; }
laplacianSchemes { default Gauss linear orthogonal; }
interpolationSchemes { default linear; }
snGradSchemes { default orthogonal; }
"""
_SOLUTION = """solvers
{
    p { solver GAMG; smoother GaussSeidel; tolerance 1e-6; relTol 0.05; }
    pFinal { $p; relTol 0; }
    U { solver smoothSolver; smoother symGaussSeidel; tolerance 1e-6; relTol 0; }
}
PISO { nCorrectors 2; nNonOrthogonalCorrectors 0; pRefCell 0; pRefValue 0; }
"""
_PRESSURE = """dimensions [0 2 -2 0 0 0 0];
internalField uniform 0;
boundaryField { lid { type zeroGradient; } walls { type zeroGradient; } sides { type empty; } }
"""
_VELOCITY = """dimensions [0 1 -1 0 0 0 0];
internalField uniform (0 0 0);
boundaryField
{
    lid { type fixedValue; value uniform (1 0 0); }
    walls { type noSlip; }
    sides { type empty; }
}
"""


def is_installed() -> bool:
    """Whether icoFoam and blockMesh can be run."""
    return shutil.which("icoFoam") is not None and shutil.which("blockMesh") is not None


def write_case(folder: Path, cells: int, reynolds_number: int, time_step: float, end_time: float) -> None:
    """Case files in ``folder``, mesh included."""
    steps = round(end_time / time_step)
    files = {
        "system/blockMeshDict": ("dictionary", _BLOCK_MESH.format(cells=cells)),
        "system/controlDict": (
            "dictionary",
            _CONTROL.format(end_time=steps * time_step, time_step=time_step, steps=steps),
        ),
        "system/fvSchemes": ("dictionary", _SCHEMES),
        "system/fvSolution": ("dictionary", _SOLUTION),
        "constant/transportProperties": ("dictionary", f"nu {1 / reynolds_number};\n"),
        "0/p": ("volScalarField", _PRESSURE),
        "0/U": ("volVectorField", _VELOCITY),
    }
    for name, (kind, text) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = f"FoamFile {{ version 2.0; format ascii; class {kind}; object {path.name}; }}\n"
        path.write_text(head + text)
    _run("blockMesh", folder)


def run_case(folder: Path) -> float:
    """CPU seconds of the whole icoFoam process, which starts at rest and writes its last fields."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run("icoFoam", folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def error_of_case(folder: Path, cells: int, reynolds_number: int) -> float:
    """Deviation of the last written fields from the published centerlines."""
    times = [entry for entry in folder.iterdir() if entry.name.replace(".", "").isdigit() and entry.name != "0"]
    text = (max(times, key=lambda entry: float(entry.name)) / "U").read_text()
    start = text.index("(", text.index("internalField")) + 1
    rows = text[start : text.index("\n)", start)].split("\n")
    values: Array = np.array([[float(value) for value in row.strip("()").split()] for row in rows if row])
    # Cells are numbered along x first; the centerlines lie between two of them.
    velocity = values.reshape(cells, cells, 3)
    middle = slice(cells // 2 - 2, cells // 2 + 2)
    weights = np.array([-1, 9, 9, -1]) / 16
    u = velocity[:, middle, 0] @ weights
    v = weights @ velocity[middle, :, 1]
    return deviation(u, v, reynolds_number)


def _run(program: str, folder: Path) -> None:
    environment = {"WM_PROJECT_DIR": SHARE, **os.environ}
    subprocess.run(
        [program, "-case", str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
