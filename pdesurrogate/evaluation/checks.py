"""Self-checks: what would make a figure misleading is looked for, and the finding is stored beside the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdesurrogate.evaluation.provenance import file_sha256
from pdesurrogate.evaluation.report import Report


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: of what was checked.
        passed: whether nothing is wrong.
        reason: what was found, in words.
    """

    name: str
    passed: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return {"name": self.name, "passed": self.passed, "reason": self.reason}


def check_first_frame(repeated: Sequence[int], kind: str) -> Check:
    """Whether given frames were counted as predicted ones.

    Args:
        repeated: numbers of the trajectories whose first predicted frame equals the last given one bit for bit while
            the truth's does not.
        kind: ``"baseline"`` may repeat a frame.
    """
    name = "input_not_counted"
    if not repeated:
        return Check(name, True, "no first predicted frame equals the last given one")
    if kind == "baseline":
        return Check(name, True, "a baseline may repeat the last given frame")
    return Check(
        name,
        False,
        f"the last given frame is repeated bit for bit in {len(repeated)} trajectories, first in {repeated[0]}: "
        "an input frame is counted as a prediction",
    )


def check_gradients(parameters_without_gradient: Sequence[str]) -> Check:
    """Whether every parameter was reached by the training."""
    name = "parameters_trained"
    if not parameters_without_gradient:
        return Check(name, True, "no parameter is known to have been without gradient")
    shown = ", ".join(parameters_without_gradient[:3]) + (", ..." if len(parameters_without_gradient) > 3 else "")
    return Check(name, False, f"{len(parameters_without_gradient)} parameters had no gradient: {shown}")


def check_checkpoint(record: Mapping[str, str] | None, path: str | Path | None) -> Check:
    """Whether the file at ``path`` is the checkpoint that ``record`` (``file``, ``sha256``) names."""
    name = "checkpoint_hash"
    if record is None:
        return Check(name, True, "there is no checkpoint")
    path = Path(record["file"]) if path is None else Path(path)
    if not path.is_file():
        return Check(name, False, f"there is no file {path.name} to compare with the hash {record['sha256'][:12]}")
    found = file_sha256(path)
    if found != record["sha256"]:
        return Check(name, False, f"{path.name} has the hash {found[:12]}, not {record['sha256'][:12]}")
    return Check(name, True, f"{path.name} has the hash {found[:12]}")


def check_coverage(evaluated: int, declared: int) -> Check:
    """Whether all trajectories of the split were evaluated."""
    return Check(
        "all_trajectories", evaluated == declared, f"{evaluated} of {declared} trajectories of the split were evaluated"
    )


def failed_checks(report: Report) -> list[str]:
    """``name: reason`` of every check that a report failed; empty if all is well."""
    return [f"{check['name']}: {check['reason']}" for check in report.attributes["checks"] if not check["passed"]]


def verify_checkpoint(report: Report, path: str | Path) -> Check:
    """Whether the file at ``path`` is the checkpoint whose figures the report holds."""
    return check_checkpoint(report.attributes["model"]["checkpoint"], path)
