"""The outcome of an evaluation: labelled curves, scores, and all that is needed to trace and repeat them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import xarray

from pdesurrogate.evaluation.provenance import file_sha256

ATTRIBUTES_FILE = "report.json"
CURVES_FILE = "report.nc"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Report:
    """What was measured, on what, with what; ``report.json`` and ``report.nc`` of a folder.

    Attributes:
        attributes: plain values as ``report.schema.json`` describes them: ``model``, ``data``, ``run``, ``scores`` and
            ``checks``.
        curves: variables over ``trajectory``, ``lead_time``, ``channel`` and ``wavenumber``, each with the attributes
            ``units`` and ``long_name``.
    """

    attributes: dict[str, Any]
    curves: xarray.Dataset

    @property
    def identity(self) -> str:
        """Equal for the seeds of one model: name, kind, class, configuration and settings of the training."""
        model = self.attributes["model"]
        settings = (model["training"] or {}).get("settings")
        return json.dumps(
            [model["name"], model["kind"], model["class_path"], model["config"], settings], sort_keys=True
        )

    def save(self, directory: str | Path) -> Path:
        """Write both files into ``directory``; a file appears whole or not at all.

        Raises:
            ValueError: if the attributes do not fit the schema or a curve lacks its labels; nothing is written then.
        """
        directory = Path(directory)
        _check_curves(self.curves, "the report")
        _check_attributes({**self.attributes, "curves_sha256": "0" * 64}, "the report")
        directory.mkdir(parents=True, exist_ok=True)
        curves_part = directory / f"{CURVES_FILE}.part"
        self.curves.to_netcdf(curves_part, engine="netcdf4", format="NETCDF4")
        attributes = {**self.attributes, "curves_sha256": file_sha256(curves_part)}
        attributes_part = directory / f"{ATTRIBUTES_FILE}.part"
        attributes_part.write_text(_to_json(attributes), encoding="utf-8")
        # Should the second rename never come, the hash of the older report.json refuses the newer curves.
        os.replace(curves_part, directory / CURVES_FILE)
        os.replace(attributes_part, directory / ATTRIBUTES_FILE)
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> Report:
        """Read what `save` wrote.

        Raises:
            ValueError: if a file is missing or cut off, the two do not belong together, or they do not fit the schema.
        """
        directory = Path(directory)
        path, curves_path = directory / ATTRIBUTES_FILE, directory / CURVES_FILE
        for file in (path, curves_path):
            if not file.is_file():
                raise ValueError(f"Expected a report in {directory} but {file.name} is missing; evaluate again.")
        attributes = _from_json(path)
        _check_attributes(attributes, str(path))
        stored_hash, found = attributes.pop("curves_sha256"), file_sha256(curves_path)
        if found != stored_hash:
            raise ValueError(
                f"Expected {curves_path} with SHA-256 {stored_hash[:12]}... but got {found[:12]}...; it was cut off or "
                "comes from another run. Evaluate again, or copy both files of the report together."
            )
        # Lead times in seconds would otherwise be turned into time differences of whole nanoseconds.
        curves = xarray.load_dataset(curves_path, engine="netcdf4", decode_times=False, decode_timedelta=False)
        _check_curves(curves, str(curves_path))
        return cls(attributes, curves)


def _to_json(attributes: Mapping[str, Any]) -> str:
    try:
        return json.dumps(attributes, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected plain finite values in a report but got others ({error}); use null where there is no number."
        ) from error


def _from_json(path: Path) -> dict[str, Any]:
    try:
        attributes = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(f"Expected JSON in {path} but it cannot be read ({error}); evaluate again.") from error
    if not isinstance(attributes, dict):
        raise ValueError(f"Expected a JSON object in {path} but got {type(attributes).__name__}; evaluate again.")
    return attributes


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


@lru_cache(maxsize=1)
def _validator() -> Any:
    schema = json.loads(Path(__file__).with_name("report.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def _check_attributes(attributes: Mapping[str, Any], origin: str) -> None:
    version = attributes.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"Expected schema_version {SCHEMA_VERSION} in {origin} but got {version!r}; "
            "evaluate again with this version of pdesurrogate."
        )
    error = jsonschema.exceptions.best_match(_validator().iter_errors(attributes))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise ValueError(
            f"Expected {origin} to fit report.schema.json but at {place}: {error.message}; correct it there."
        )


def _check_curves(curves: xarray.Dataset, origin: str) -> None:
    missing = [name for name in ("relative_l2", "finite") if name not in curves]
    if missing or "lead_time" not in curves.coords:
        raise ValueError(
            f"Expected curves relative_l2 and finite over lead_time in {origin} but got {sorted(map(str, curves))}; "
            "keep ErrorMetric in the suite."
        )
    for name, values in curves.data_vars.items():
        unlabelled = [label for label in ("units", "long_name") if not isinstance(values.attrs.get(label), str)]
        if unlabelled:
            raise ValueError(f"Expected curve {name!r} in {origin} to state its {' and '.join(unlabelled)}; add them.")
