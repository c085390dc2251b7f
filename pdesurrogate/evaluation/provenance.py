"""Where a figure came from: package versions, source commit, device, file hashes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

PACKAGES = (
    "pdesurrogate",
    "torch",
    "lightning",
    "torchmetrics",
    "numpy",
    "xarray",
    "netCDF4",
    "h5py",
    "neuraloperator",
)


def package_versions() -> dict[str, str]:
    """Versions of Python, this package and those that can change a figure; packages that are absent are left out.

    Example:
        >>> versions = package_versions()
        >>> versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
        True
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(source: Path | None = None) -> str | None:
    """Commit of the checkout that this package runs from, ``+changes`` added where tracked files differ from it.

    Args:
        source: top of the checkout; by default the folder above this package.

    Returns:
        ``None`` where that folder is not the top of a git checkout with a commit, or there is no git.
    """
    source = Path(__file__).resolve().parents[2] if source is None else source.resolve()
    top = _git(source, "rev-parse", "--show-toplevel")
    # An installed package may lie inside someone else's repository, whose commit would mislead.
    if top is None or Path(top).resolve() != source:
        return None
    commit = _git(source, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changes = _git(source, "status", "--porcelain", "--untracked-files=no")
    return commit if changes == "" else f"{commit}+changes"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def device_description(device: str | torch.device) -> str:
    """The device and its model, for example ``cuda (NVIDIA A100)``; timings mean little without."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({_processor()})"
    return str(device.type)


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checkpoint_record(path: str | Path, name: str | None = None) -> dict[str, str]:
    """How a report names a checkpoint: its file and hash.

    Args:
        path: where the file lies now.
        name: how the report names it, best relative to the report; by default the bare file name.

    Raises:
        ValueError: if there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a checkpoint file but {path} does not exist.")
    return {"file": path.name if name is None else name, "sha256": file_sha256(path)}
