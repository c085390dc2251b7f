"""Rolls a stepper out over trajectories, measures, and reports."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray
from numpy.typing import NDArray
from torch import Tensor, nn

from pdesurrogate.evaluation.checks import check_checkpoint, check_coverage, check_first_frame, check_gradients
from pdesurrogate.evaluation.provenance import device_description, git_commit, package_versions
from pdesurrogate.evaluation.report import SCHEMA_VERSION, Report
from pdesurrogate.fields.batch import collate
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.suites import default_suite
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.rollout import rollout

Kind = Literal["surrogate", "solver", "baseline"]

# Called with (metadata, trajectories, frames, shape); gives the metrics of one evaluation by any names.
SuiteFactory = Callable[[Metadata, int, int, tuple[int, ...]], dict[str, RolloutMetric]]


@dataclass(frozen=True)
class ModelCard:
    """What a report says about the model.

    Attributes:
        name: label in tables.
        kind: what sort of stepper it is.
        class_path: import path of the stepper or network.
        config: arguments that build it, plain values.
        parameters: real numbers that training can change; zero for solvers and baselines.
        parameters_without_gradient: names of those that the training never reached.
        checkpoint: ``file`` and ``sha256`` as `provenance.checkpoint_record` gives them.
        checkpoint_path: where that file lies now; not stored. By default at ``checkpoint["file"]``.
        training: ``seed``, ``steps``, ``epochs``, ``wall_time_s`` and ``device``.
    """

    name: str
    kind: Kind
    class_path: str
    config: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    parameters_without_gradient: tuple[str, ...] = ()
    checkpoint: dict[str, str] | None = None
    checkpoint_path: str | Path | None = None
    training: dict[str, Any] | None = None

    @classmethod
    def of(cls, stepper: Stepper, name: str, kind: Kind, **details: Any) -> ModelCard:
        """A card with class path and parameters read off ``stepper``; ``details`` are further attributes.

        Example:
            >>> from pdesurrogate.steppers.persistence import Persistence
            >>> ModelCard.of(Persistence(), "persistence", "baseline").class_path
            'pdesurrogate.steppers.persistence.Persistence'
        """
        parameters = stepper.parameters() if isinstance(stepper, nn.Module) else ()
        found = {
            "class_path": f"{type(stepper).__module__}.{type(stepper).__qualname__}",
            "parameters": sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters if p.requires_grad),
        }
        return cls(name, kind, **{**found, **details})

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "class_path": self.class_path,
            "config": self.config,
            "parameters": self.parameters,
            "parameters_without_gradient": list(self.parameters_without_gradient),
            "checkpoint": self.checkpoint,
            "training": self.training,
        }


class Evaluator:
    """Rolls out in batches, block by block, and measures each block before the next one is made.

    Neither a whole rollout nor a whole trajectory is ever held; memory grows with the batch and with one number for
    each trajectory, frame and curve. Runs in one process.

    Args:
        suite: gives the metrics of an evaluation; by default `default_suite`, chosen from the metadata.
        batch_size: trajectories rolled out side by side.
        device: where stepper and metrics run; a stepper that is a module is moved there and stays.
        bounds: lowest and highest value that a field may take; a trajectory that leaves them is stopped.

    Raises:
        ValueError: if the batch size is not positive.
    """

    def __init__(
        self,
        suite: SuiteFactory | None = None,
        batch_size: int = 16,
        device: str = "cpu",
        bounds: tuple[float, float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"Expected a batch size of at least one but got {batch_size}.")
        self.suite: SuiteFactory = default_suite if suite is None else suite
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.bounds = bounds

    def evaluate(
        self,
        stepper: Stepper,
        trajectories: Sequence[Trajectory],
        frames: int,
        *,
        model: ModelCard,
        split: str = "test",
        trajectories_declared: int | None = None,
        start_frame: int | None = None,
        command: str = "",
        seed: int | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Roll out from the same frame of every trajectory, measure, and report.

        Args:
            stepper: to be measured.
            trajectories: of one data set and grid; read lazily.
            frames: to predict.
            model: what the report says about ``stepper``.
            split: name of the split that the trajectories come from.
            trajectories_declared: number in the split; by default what the data's recipe says, else all that are given.
            start_frame: number of the first predicted frame; by default the first that has enough history.
            command: that was run, for the record.
            seed: of whatever is random in the stepper, for the record.
            on_batch: told (trajectories done, trajectories in all) after every batch.

        Raises:
            ValueError: if there is no trajectory, they are too short or hold values that are not finite, or the stepper
                was made for other fields.
        """
        begun = time.perf_counter()
        start = self._check(stepper, trajectories, frames, start_frame)
        metadata, shape = trajectories[0].metadata, trajectories[0].shape[2:]
        metrics = {
            name: metric.to(self.device)
            for name, metric in self.suite(metadata, len(trajectories), frames, shape).items()
        }
        clock = _StepClock(self.device)
        first_bad: list[Tensor] = []
        repeated: list[Tensor] = []
        precision = ""
        with torch.no_grad(), self._ready(stepper):
            for numbers in self._batches(len(trajectories)):
                history, context = self._given(stepper, trajectories, numbers, start)
                run = rollout(stepper, history, context, frames, bounds=self.bounds)
                places = torch.tensor(numbers, device=self.device)
                done = 0
                for block in clock.timed(run, len(numbers)):
                    target = _read(trajectories, numbers, start + done, start + done + block.shape[1]).to(self.device)
                    if done == 0:
                        last = history[:, -1]
                        repeated.append(_equal_frames(block[:, 0], last) & ~_equal_frames(target[:, 0], last))
                        precision = str(block.dtype).removeprefix("torch.")
                    for metric in metrics.values():
                        metric.update(block, target, done, places, context)
                    done += block.shape[1]
                first_bad.append(run.first_bad_frame)
                if on_batch is not None:
                    on_batch(numbers[-1] + 1, len(trajectories))
        curves = _curves(metrics, metadata, frames, torch.cat(first_bad).cpu().numpy())
        declared = trajectories_declared
        if declared is None:
            declared = _declared(metadata, split, default=len(trajectories))
        checks = [
            check_first_frame(torch.cat(repeated).nonzero().flatten().tolist(), model.kind),
            check_gradients(model.parameters_without_gradient),
            check_checkpoint(model.checkpoint, model.checkpoint_path),
            check_coverage(len(trajectories), declared),
        ]
        attributes = {
            "schema_version": SCHEMA_VERSION,
            "model": model.to_dict(),
            "data": {
                "name": metadata.name,
                "split": split,
                "content_hash": str(metadata.attributes.get("content_hash", "")),
                "channels": list(metadata.channel_names),
                "shape": list(shape),
                "periods": [axis.period for axis in metadata.grid.axes],
                "frame_interval": float(metadata.frame_interval),
                "trajectories": len(trajectories),
                "trajectories_declared": declared,
                "start_frame": start,
                "frames": frames,
                "recipe": _recipe(metadata),
            },
            "run": {
                "command": command,
                "seed": seed,
                "versions": package_versions(),
                "git_commit": git_commit(),
                "device": device_description(self.device),
                "precision": precision,
                "threads": torch.get_num_threads(),
                "wall_time_s": time.perf_counter() - begun,
                "seconds_per_frame": clock.seconds_per_frame,
                "batch_size": self.batch_size,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            "scores": scores_of(curves),
            "checks": [check.to_dict() for check in checks],
        }
        return Report(attributes, curves)

    def sample_rollout(
        self,
        stepper: Stepper,
        trajectories: Sequence[Trajectory],
        frames: int,
        indices: Sequence[int] = (0,),
        *,
        start_frame: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Prediction and truth ``(index, time, channel, *space)`` of a few trajectories, on the CPU, for pictures.

        Raises:
            ValueError: as `evaluate`, or if an index is out of range.
        """
        if not indices or not all(0 <= index < len(trajectories) for index in indices):
            raise ValueError(f"Expected indices within 0..{len(trajectories) - 1} but got {list(indices)}.")
        chosen = [trajectories[index] for index in indices]
        start = self._check(stepper, chosen, frames, start_frame)
        blocks = []
        with torch.no_grad(), self._ready(stepper):
            for numbers in self._batches(len(chosen)):
                history, context = self._given(stepper, chosen, numbers, start)
                run = rollout(stepper, history, context, frames, bounds=self.bounds)
                blocks.append(torch.cat([block.cpu() for block in run], dim=1))
        truth = _read(chosen, range(len(chosen)), start, start + frames)
        return torch.cat(blocks), truth

    def _check(self, stepper: Stepper, trajectories: Sequence[Trajectory], frames: int, start_frame: int | None) -> int:
        """Refuse what cannot be measured; gives the number of the first predicted frame."""
        if len(trajectories) == 0:
            raise ValueError("Expected at least one trajectory but the split is empty; choose another split.")
        if frames < 1:
            raise ValueError(f"Expected at least one frame to predict but got {frames}.")
        metadata, shape = trajectories[0].metadata, trajectories[0].shape[1:]
        trained_on = getattr(stepper, "metadata", None)
        if isinstance(trained_on, Metadata):
            trained_on.require_same_fields(metadata, what=f"data set {metadata.name!r}")
        start = stepper.history_frames if start_frame is None else start_frame
        if start < stepper.history_frames:
            raise ValueError(
                f"Expected start_frame of at least {stepper.history_frames}, the frames of history that the model "
                f"needs, but got {start}."
            )
        for number in range(len(trajectories)):
            trajectory = trajectories[number]
            if trajectory.shape[1:] != shape:
                raise ValueError(
                    f"Expected fields {shape} as in trajectory 0 but trajectory {number} has {trajectory.shape[1:]}; "
                    "evaluate them apart."
                )
            if start + frames > len(trajectory):
                raise ValueError(
                    f"Expected {frames} frames from frame {start} on but trajectory {number} has {len(trajectory)} "
                    f"frames in all; ask for at most {max(len(trajectory) - start, 0)}."
                )
        return start

    def _batches(self, count: int) -> Iterator[range]:
        for first in range(0, count, self.batch_size):
            yield range(first, min(first + self.batch_size, count))

    def _given(
        self, stepper: Stepper, trajectories: Sequence[Trajectory], numbers: Sequence[int], start: int
    ) -> tuple[Tensor, Context]:
        history = _read(trajectories, numbers, start - stepper.history_frames, start)
        context: Context = collate([trajectories[number].context for number in numbers])
        return history.to(self.device), _to_device(context, self.device)

    @contextmanager
    def _ready(self, stepper: Stepper) -> Iterator[None]:
        """The stepper on the device and in evaluation mode; its mode is put back afterwards."""
        if not isinstance(stepper, nn.Module):
            yield
            return
        stepper.to(self.device)
        modes = [(module, module.training) for module in stepper.modules()]
        stepper.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


class _StepClock:
    """Time spent in the stepper.

    The very first block also pays for plans, caches and compilation; it is counted only where there is no other.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._warm_up: tuple[float, int] | None = None
        self._seconds = 0.0
        self._frames = 0

    def timed(self, blocks: Iterable[Tensor], batch: int) -> Iterator[Tensor]:
        """Hand the blocks on; time that the caller spends with them is not counted."""
        remaining = iter(blocks)
        while True:
            begun = self._now()
            block = next(remaining, None)
            elapsed = self._now() - begun
            if block is None:
                return
            frames = batch * block.shape[1]
            if self._warm_up is None:
                self._warm_up = (elapsed, frames)
            else:
                self._seconds += elapsed
                self._frames += frames
            yield block

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @property
    def seconds_per_frame(self) -> float:
        """Of one trajectory."""
        if self._frames:
            return self._seconds / self._frames
        assert self._warm_up is not None, "nothing was timed"
        return self._warm_up[0] / self._warm_up[1]


def _read(trajectories: Sequence[Trajectory], numbers: Sequence[int], start: int, stop: int) -> Tensor:
    """Frames of several trajectories ``(batch, time, channel, *space)`` on the CPU; finite."""
    frames = torch.stack([trajectories[number].read(start, stop) for number in numbers])
    if not bool(torch.isfinite(frames).all()):
        place, frame = (~torch.isfinite(frames)).flatten(2).any(-1).nonzero()[0].tolist()
        raise ValueError(
            f"Expected finite data but frame {start + frame} of trajectory {numbers[place]} holds NaN or infinity; "
            "remove or regenerate that trajectory."
        )
    return frames


def _to_device(context: Context, device: torch.device) -> Context:
    rest = (None if value is None else value.to(device) for value in context[1:])
    return Context(tuple(points.to(device) for points in context.coordinates), *rest)


def _equal_frames(one: Tensor, other: Tensor) -> Tensor:
    """``(batch,)``: whether frames ``(batch, channel, *space)`` agree bit for bit."""
    return (one == other).flatten(1).all(1)


def _declared(metadata: Metadata, split: str, default: int) -> int:
    """Trajectories of a split by the recipe of the data."""
    counts = (_recipe(metadata) or {}).get("trajectories")
    return int(counts.get(split, default)) if isinstance(counts, dict) else default


def _recipe(metadata: Metadata) -> dict[str, Any] | None:
    """The recipe of the data; archives hold it as JSON text."""
    recipe = metadata.attributes.get("recipe")
    if isinstance(recipe, str):
        recipe = json.loads(recipe) if recipe else None
    return recipe if isinstance(recipe, dict) else None


def _curves(
    metrics: dict[str, RolloutMetric], metadata: Metadata, frames: int, first_bad: NDArray[np.int64]
) -> xarray.Dataset:
    """Everything that was measured, labelled; ``first_bad (trajectory,)`` as in `Rollout`."""
    numbers = np.arange(frames)
    lead_time = (numbers + 1) * metadata.frame_interval
    stopped = first_bad < frames
    data: dict[str, Any] = {
        "finite": (
            ("trajectory", "lead_time"),
            (numbers < first_bad[:, None]).astype(np.int8),
            {"units": "1", "long_name": "1 while the rollout is finite and within its bounds"},
        ),
        "blow_up_time": (
            ("trajectory",),
            np.where(stopped, (np.minimum(first_bad, frames - 1) + 1) * metadata.frame_interval, np.nan),
            {"units": metadata.time_units, "long_name": "lead time at which the rollout was stopped"},
        ),
    }
    coordinates: dict[str, Any] = {
        "trajectory": np.arange(len(first_bad)),
        "lead_time": ("lead_time", lead_time, {"units": metadata.time_units, "long_name": "time since the last input"}),
        "channel": list(metadata.channel_names),
    }
    sizes = {"trajectory": len(first_bad), "lead_time": frames, "channel": len(metadata.channels)}
    for metric in metrics.values():
        for name, axis in metric.coordinates.items():
            labels = {"units": axis.units, "long_name": axis.long_name}
            coordinates[name] = (name, axis.values.cpu().numpy(), labels)
            sizes[name] = len(axis.values)
        outputs = metric.compute()
        for name, variable in metric.variables.items():
            # A metric's output of one element comes without its axes.
            values = outputs[name].reshape([sizes[dim] for dim in variable.dims]).cpu().numpy()
            data[name] = (variable.dims, values, {"units": variable.units, "long_name": variable.long_name})
    return xarray.Dataset(data, coords=coordinates)


def scores_of(curves: xarray.Dataset) -> dict[str, dict[str, Any]]:
    """The single numbers of a table, from the curves at hand; ``{name: {value, spread, units, ...}}``.

    A value is a mean over trajectories and the spread its standard error. A score is null where a trajectory that
    counts in it was stopped: a mean over survivors would reward a model for blowing up.
    """
    last = {"lead_time": -1}
    scores = {}
    if "relative_l2" in curves:
        values = curves["relative_l2"].mean("channel", skipna=False)
        mean = values.mean("lead_time", skipna=False)
        scores["relative_l2"] = _score(mean, "1", "relative L2 error, mean over lead times and channels")
        scores["relative_l2_first"] = _score(values.isel(lead_time=0), "1", "relative L2 error of the first frame")
        scores["relative_l2_last"] = _score(values.isel(last), "1", "relative L2 error of the last frame")
    if "rmse" in curves:
        scores |= _rmse_scores(curves["rmse"])
    if "correlation_time" in curves:
        time_ = curves["correlation_time"]
        censored = curves["correlation_time_censored"].astype(float).mean("channel")
        scores["correlation_time"] = _score(
            time_.mean("channel"),
            time_.attrs["units"],
            f"{time_.attrs['long_name']}, mean over channels; the horizon where it never does",
            higher_is_better=True,
        )
        scores["correlation_time_censored"] = _score(
            censored, "1", "share of correlation times that reach the horizon", higher_is_better=True
        )
    if "log_spectral_distance" in curves:
        distance = curves["log_spectral_distance"].mean("lead_time", skipna=False)
        scores["log_spectral_distance"] = _score(
            distance.expand_dims("trajectory"),
            "1",
            "root mean square over shells of log10 (predicted energy / true energy), mean over lead times",
        )
    for quantity in ("energy", "enstrophy", "mean_vorticity", "momentum"):
        name = f"drift_{quantity}"
        if name in curves:
            drift = abs(curves[name] - curves[f"{name}_truth"]).isel(last)
            description = f"|{curves[name].attrs['long_name']}, less the truth's| at the last frame"
            scores[f"{quantity}_drift"] = _score(drift, "1", description)
    if "divergence" in curves:
        values = curves["divergence"]
        description = f"{values.attrs['long_name']}, mean over lead times"
        scores["divergence"] = _score(values.mean("lead_time", skipna=False), values.attrs["units"], description)
    if "finite" in curves:
        alive = curves["finite"].isel(last).astype(float)
        scores["finite_fraction"] = _score(
            alive, "1", "share of trajectories still finite and within bounds at the last frame", higher_is_better=True
        )
    return scores


def _rmse_scores(values: xarray.DataArray) -> dict[str, dict[str, Any]]:
    """One score if all channels have the same units, else one for each channel: metres do not add to pascals."""
    mean = values.mean("lead_time", skipna=False)
    description = "root mean squared error, mean over lead times"
    units = str(values.attrs["units"]).split(", ")
    if len(units) == 1:
        return {"rmse": _score(mean.mean("channel", skipna=False), units[0], f"{description} and channels")}
    names = [str(name) for name in values["channel"].values]
    return {
        f"rmse_{name}": _score(mean.sel(channel=name), unit, f"{description}, of {name}")
        for name, unit in zip(names, units, strict=True)
    }


def _score(values: xarray.DataArray, units: str, description: str, *, higher_is_better: bool = False) -> dict[str, Any]:
    """Mean and standard error of one number for each trajectory ``(trajectory,)``."""
    numbers = np.asarray(values.values, dtype=np.float64)
    finite = bool(np.isfinite(numbers).all())
    spread = float(numbers.std(ddof=1)) / math.sqrt(numbers.size) if finite and numbers.size > 1 else None
    return {
        "value": float(numbers.mean()) if finite else None,
        "spread": spread,
        "units": units,
        "higher_is_better": higher_is_better,
        "description": description,
    }
