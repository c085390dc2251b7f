"""``pdesurrogate doctor``: what is installed, what is missing, what this machine offers."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(\[[^\]]*\])?\s*\(?(?P<range>[^;)]*)\)?\s*(;.*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"].*)?"
)
_BOUND = re.compile(r"(?P<operator>>=|<=|==|<|>)\s*(?P<version>[\w.+]+)")


@dataclass(frozen=True)
class Package:
    """One dependency: the range that we ask for and what is there. ``status``: ok, missing or outside the range."""

    name: str
    wanted: str
    version: str | None
    status: str


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; returns 0 if every required package is there in a version that fits, else 1."""
    parser = argparse.ArgumentParser(prog="pdesurrogate doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    findings = examine()
    print(json.dumps(findings, indent=2) if arguments.json else _as_text(findings))
    return 0 if findings["healthy"] else 1


def examine() -> dict[str, Any]:
    """Everything that the verb prints, as plain values."""
    required, extras = _dependencies()
    return {
        "healthy": bool(required) and all(package.status == "ok" for package in required),
        "pdesurrogate": _version("pdesurrogate"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "torch": _torch(),
        "required": [asdict(package) for package in required],
        "extras": {
            extra: [asdict(package) for package in packages if package.status != "ok"]
            for extra, packages in extras.items()
        },
        "resources": _resources(),
    }


def fits(version: str, wanted: str) -> bool:
    """Whether ``version`` lies in the range ``wanted``, by the numbers at its start.

    Example:
        >>> fits("2.13.0+cpu", ">=2.13"), fits("5.0.1", ">=4.53,<5"), fits("1.7.5.post1", "==1.7.5")
        (True, False, True)
    """
    found = _numbers(version)
    for bound in _BOUND.finditer(wanted):
        difference = 0
        for ours, theirs in zip_longest(found, _numbers(bound["version"]), fillvalue=0):
            difference = difference or ours - theirs
        met = {
            ">=": difference >= 0,
            "<=": difference <= 0,
            "==": difference == 0,
            "<": difference < 0,
            ">": difference > 0,
        }
        if not met[bound["operator"]]:
            return False
    return True


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in match.group().split(".")] if match else []


def _dependencies() -> tuple[list[Package], dict[str, list[Package]]]:
    """Required packages, and those of every extra, as the installed distribution declares them."""
    required: list[Package] = []
    extras: dict[str, list[Package]] = {}
    declared = importlib.metadata.requires("pdesurrogate") if _version("pdesurrogate") else None
    for line in declared or []:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match is None:
            raise RuntimeError(f"Could not understand the declared requirement {line!r}.")
        group = required if match["extra"] is None else extras.setdefault(match["extra"], [])
        group.append(_package(match["name"], match["range"].strip()))
    return required, extras


def _package(name: str, wanted: str) -> Package:
    version = _version(name)
    if version is None:
        return Package(name, wanted, None, "missing")
    return Package(name, wanted, version, "ok" if fits(version, wanted) else "outside the range")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return {"devices": [], "threads": None}
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    devices = ["cpu", *(f"cuda:{index} {name}" for index, name in enumerate(names))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"devices": devices, "threads": torch.get_num_threads()}


def _resources() -> dict[str, Any]:
    """Where cards, recipes and configurations were found; a sentence where they were not."""
    try:
        import pdesurrogate.data.catalog as catalog
    except ImportError as error:
        return {"problem": f"cannot be looked for: {error}"}
    found: dict[str, Any] = {}
    for name, locate, pattern in (
        ("cards", catalog.datasets_directory, "*/README.md"),
        ("recipes", catalog.datasets_directory, "*/recipe.yaml"),
        ("configs", catalog.configs_directory, "**/*.yaml"),
    ):
        try:
            directory = locate()
        except ValueError as error:
            found[name] = {"problem": str(error)}
        else:
            found[name] = {"directory": str(directory), "files": len(list(directory.glob(pattern)))}
    return found


def _as_text(findings: dict[str, Any]) -> str:
    torch = findings["torch"]
    lines = [
        f"pdesurrogate {findings['pdesurrogate'] or 'is not installed: run pip install -e .'}",
        f"Python {findings['python']} on {findings['platform']}, {findings['cores']} cores, "
        f"{findings['free_disk_bytes'] / 1e9:.1f} GB free here",
        f"torch devices: {', '.join(torch['devices']) or 'none, torch is missing'}; threads: {torch['threads']}",
        "",
        "Required packages:",
    ]
    lines += [f"  {_line(package)}" for package in findings["required"]]
    for extra, absent in findings["extras"].items():
        text = ", ".join(package["name"] for package in absent)
        lines.append(
            f"Extra [{extra}]: " + (f"lacks {text}; pip install 'pdesurrogate[{extra}]'" if text else "complete")
        )
    lines.append("")
    for name, found in findings["resources"].items():
        lines.append(
            f"{name}: {found['files']} in {found['directory']}"
            if isinstance(found, dict) and "files" in found
            else f"{name}: {found['problem'] if isinstance(found, dict) else found}"
        )
    bad = [package["name"] for package in findings["required"] if package["status"] != "ok"]
    lines += ["", f"To repair: {', '.join(bad)}" if bad else "All required packages are there."]
    return "\n".join(lines)


def _line(package: dict[str, Any]) -> str:
    version = package["version"] or "-"
    problem = "" if package["status"] == "ok" else f"  <- {package['status']}, wanted {package['wanted']}"
    return f"{package['name']:<20} {version:<16}{problem}"
