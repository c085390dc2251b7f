"""Rolls a stepper out over trajectories, measures, and reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from pdesurrogate.evaluation.card import ModelCard
from pdesurrogate.evaluation.checks import check_checkpoint, check_coverage, check_first_frame, check_gradients
from pdesurrogate.evaluation.clock import StepClock
from pdesurrogate.evaluation.cost import Performance, cost_of
from pdesurrogate.evaluation.memory import module_bytes, peak_memory
from pdesurrogate.evaluation.provenance import device_description, git_commit, package_versions
from pdesurrogate.evaluation.recipes import declared_trajectories, forcing_of, recipe_of
from pdesurrogate.evaluation.report import SCHEMA_VERSION, Report
from pdesurrogate.evaluation.scores import curves_of, scores_of
from pdesurrogate.fields.batch import collate
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.errors import SurvivalMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.suites import default_suite
from pdesurrogate.steppers.base import ProbabilisticStepper, Stepper
from pdesurrogate.steppers.ensemble import EnsembleStepper
from pdesurrogate.steppers.rollout import Rollout, rollout

# Gives the metrics of one evaluation by any names.
Suite = Callable[[RolloutPlan], dict[str, RolloutMetric]]


class _Means:
    """The mean of a `ProbabilisticStepper` as a plain one, for a rollout; the variance of the latest block is kept."""

    def __init__(self, stepper: ProbabilisticStepper) -> None:
        self._stepper = stepper
        self.variance = torch.empty(0)

    @property
    def history_frames(self) -> int:
        """As the stepper has it."""
        return self._stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The mean of the next block."""
        mean, self.variance = self._stepper.predict(history, context)
        return mean


class Evaluator:
    """Rolls out in batches, block by block, and measures each block before the next one is made.

    Neither a whole rollout nor a whole trajectory is ever held; memory grows with the batch and, slowly, with the
    numbers that are kept for each trajectory and frame. Where a process group is initialized each process takes every
    n-th trajectory and all of them give the same report.

    Args:
        suite: gives the metrics of an evaluation; by default `default_suite`, chosen from the metadata.
        metrics: further metrics by any names, each built from the plan.
        batch_size: trajectories rolled out side by side.
        device: where stepper and metrics run; a stepper that is a module is moved there and stays.
        bounds: lowest and highest value that a field may take; a trajectory that leaves them is stopped.

    Raises:
        ValueError: if the batch size is not positive.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> grid = Grid((Axis("x", period=1.0),))
        >>> metadata = Metadata("rest", grid, (Channel("height"),), frame_interval=0.1)
        >>> read_into = lambda start, out: out.copy_(torch.arange(8.0).expand_as(out))
        >>> rest = Trajectory(metadata, Context((torch.arange(8) / 8,)), torch.arange(5.0), read_into, (5, 1, 8))
        >>> report = Evaluator()(Persistence(), [rest], frames=3)
        >>> report.attributes["scores"]["relative_l2"]["value"]
        0.0
    """

    def __init__(
        self,
        suite: Suite | None = None,
        *,
        metrics: Mapping[str, Callable[[RolloutPlan], RolloutMetric]] | None = None,
        batch_size: int = 16,
        device: str = "cpu",
        bounds: tuple[float, float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"Expected a batch size of at least one but got {batch_size}.")
        self.suite: Suite = default_suite if suite is None else suite
        self.metrics = dict(metrics or {})
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.bounds = bounds

    def __call__(
        self,
        stepper: Stepper,
        trajectories: Sequence[Trajectory],
        frames: int,
        *,
        model: ModelCard | None = None,
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
            trajectories: of one data set; read lazily.
            frames: to predict.
            model: what the report says about ``stepper``; by default what can be read off it.
            split: name of the split that the trajectories come from.
            trajectories_declared: number in the split; by default what the data's recipe says, else all that are given.
            start_frame: number of the first predicted frame; by default the first that has enough history.
            command: that was run, for the record.
            seed: of whatever is random in the stepper, for the record.
            on_batch: told (trajectories done, trajectories in all) after every batch.

        Raises:
            ValueError: if there is no trajectory, they are too short or hold values that are not finite, a mask leaves
                nothing to measure, or the stepper was made for other fields.
        """
        begun = time.perf_counter()
        start = self._check(stepper, trajectories, frames, start_frame)
        model = ModelCard.of(stepper) if model is None else model
        members = stepper.members if isinstance(stepper, EnsembleStepper) else 1
        means = _Means(stepper) if isinstance(stepper, ProbabilisticStepper) else None
        plan = RolloutPlan.of(trajectories, frames, members=members, has_variance=means is not None)
        metadata = plan.metadata
        metrics = {name: metric.to(self.device) for name, metric in self._build_metrics(plan).items()}
        forcing = forcing_of(metadata, plan.shape)
        clock, stopwatch = StepClock(self.device), StepClock(self.device)
        repeated: list[tuple[range, Tensor]] = []
        memory: int | None = None
        precision = ""
        with torch.no_grad(), self._ready(stepper), _raised_by_all():
            for numbers in self._batches(len(trajectories)):
                history, context = self._given(stepper, trajectories, numbers, start)
                places = torch.tensor(numbers, device=self.device)
                measured = _with_forcing(context, forcing)
                done = 0
                run = self._rollout(means or stepper, history, context, frames)
                for frames_made in clock.timed(run, len(numbers)):
                    prediction, ensemble = _folded(stepper, frames_made)
                    variance = None if means is None else means.variance[:, : prediction.shape[1]]
                    target = _read(trajectories, numbers, start + done, start + done + prediction.shape[1])
                    target = target.to(self.device)
                    if done == 0:
                        last = history[:, -1]
                        same = _equal_frames(prediction[:, 0], last) & ~_equal_frames(target[:, 0], last)
                        repeated.append((numbers, same))
                        precision = str(prediction.dtype).removeprefix("torch.")
                    with stopwatch.running(len(numbers) * prediction.shape[1]):
                        block = Block(
                            plan, prediction, target, done, places, measured, members=ensemble, variance=variance
                        )
                        for metric in metrics.values():
                            metric.update(block)
                    done += prediction.shape[1]
                if memory is None:
                    memory = self._step_memory(stepper, history, context)
                if on_batch is not None:
                    on_batch(numbers[-1] + 1, len(trajectories))
        curves = curves_of(metrics, plan)
        declared = trajectories_declared
        if declared is None:
            declared = declared_trajectories(metadata, split, default=len(trajectories))
        checks = [
            check_first_frame(_chosen(repeated), model.kind),
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
                "shape": list(plan.shape),
                "periods": [axis.period for axis in metadata.grid.axes],
                "frame_interval": float(metadata.frame_interval),
                "trajectories": len(trajectories),
                "trajectories_declared": declared,
                "start_frame": start,
                "frames": frames,
                "recipe": recipe_of(metadata),
            },
            "run": {
                "command": command,
                "seed": seed,
                "versions": package_versions(),
                "git_commit": git_commit(),
                "device": device_description(self.device),
                "precision": next(filter(None, _from_all(precision)), ""),
                "threads": torch.get_num_threads(),
                "processes": _world()[1],
                "wall_time_s": max(_from_all(time.perf_counter() - begun)),
                "seconds_per_frame": _mean_where_positive(clock.seconds_per_frame),
                "metric_seconds_per_frame": _mean_where_positive(stopwatch.seconds_per_frame),
                "batch_size": self.batch_size,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            "cost": None,
            "scores": scores_of(metrics, curves),
            "checks": [check.to_dict() for check in checks],
        }
        report = Report(attributes, curves)
        if "relative_l2" not in curves:
            return report
        cost = cost_of(
            report,
            Performance.of_reports([report]),
            None,
            peak_memory_bytes=next((size for size in _from_all(memory) if size is not None), None),
            module_bytes=module_bytes(stepper),
        )
        return Report({**attributes, "cost": cost.to_dict()}, curves)

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
            ValueError: as for a call, or if an index is out of range.
        """
        if not indices or not all(0 <= index < len(trajectories) for index in indices):
            raise ValueError(f"Expected indices within 0..{len(trajectories) - 1} but got {list(indices)}.")
        chosen = [trajectories[index] for index in indices]
        start = self._check(stepper, chosen, frames, start_frame)
        blocks = []
        with torch.no_grad(), self._ready(stepper):
            for first in range(0, len(chosen), self.batch_size):
                numbers = range(first, min(first + self.batch_size, len(chosen)))
                history, context = self._given(stepper, chosen, numbers, start)
                run = self._rollout(stepper, history, context, frames)
                blocks.append(torch.cat([_folded(stepper, made)[0].cpu() for made in run], dim=1))
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
            mask = trajectory.context.mask
            if mask is not None and not bool(mask.any()):
                raise ValueError(
                    f"Expected a mask that is true where there is fluid but that of trajectory {number} covers "
                    "everything; leave that case out or turn the mask round."
                )
            if start + frames > len(trajectory):
                raise ValueError(
                    f"Expected {frames} frames from frame {start} on but trajectory {number} has {len(trajectory)} "
                    f"frames in all; ask for at most {max(len(trajectory) - start, 0)}."
                )
        return start

    def _step_memory(self, stepper: Stepper, history: Tensor, context: Context) -> int | None:
        """Peak memory of one step of a batch, apart from the rollout, whose time it would spoil."""
        if isinstance(stepper, EnsembleStepper):
            history, context = stepper.spread(history, context)
        return peak_memory(lambda: stepper.step(history, context), self.device)

    def _build_metrics(self, plan: RolloutPlan) -> dict[str, RolloutMetric]:
        # A report without survival would be one of survivors.
        metrics = {"survival": SurvivalMetric(plan)} | self.suite(plan)
        twice = sorted(metrics.keys() & self.metrics.keys())
        if twice:
            raise ValueError(f"Expected further metrics of new names but {twice} are in the suite; rename them.")
        return metrics | {name: build(plan) for name, build in self.metrics.items()}

    def _rollout(self, stepper: Stepper, history: Tensor, context: Context, frames: int) -> Rollout:
        if isinstance(stepper, EnsembleStepper):
            history, context = stepper.spread(history, context)
        return rollout(stepper, history, context, frames, bounds=self.bounds)

    def _batches(self, count: int) -> Iterator[range]:
        """Numbers of the trajectories of each batch of this process."""
        rank, processes = _world()
        own = range(rank, count, processes)
        for first in range(0, len(own), self.batch_size):
            yield own[first : first + self.batch_size]

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


def _folded(stepper: Stepper, block: Tensor) -> tuple[Tensor, Tensor | None]:
    """The prediction, and the members that it is the mean of."""
    if not isinstance(stepper, EnsembleStepper):
        return block, None
    members = stepper.fold(block)
    return members.mean(0), members


def _with_forcing(context: Context, forcing: Tensor | None) -> Context:
    """The context as metrics see it; steppers get their own, since a solver has its forcing inside."""
    if forcing is None or context.forcing is not None:
        return context
    points = context.coordinates[0]
    return context._replace(forcing=forcing.to(points).expand(points.shape[0], *forcing.shape))


def _world() -> tuple[int, int]:
    """Rank of this process and their number."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@contextmanager
def _raised_by_all() -> Iterator[None]:
    """What one process refuses, all refuse with the same words; else they would wait for it in vain."""
    refusal: ValueError | None = None
    try:
        yield
    except ValueError as error:
        refusal = error
    messages = [message for message in _from_all(None if refusal is None else str(refusal)) if message]
    if refusal is not None:
        raise refusal
    if messages:
        raise ValueError(messages[0])


def _mean_where_positive(seconds: float) -> float:
    """Mean over the processes that had anything to time."""
    found = [value for value in _from_all(seconds) if value > 0]
    return sum(found) / len(found) if found else 0.0


def _chosen(batches: Sequence[tuple[range, Tensor]]) -> list[int]:
    """Numbers of the trajectories that are flagged, from all processes."""
    own = [number for numbers, flags in batches for number, flag in zip(numbers, flags.tolist(), strict=True) if flag]
    return sorted(number for part in _from_all(own) for number in part)


def _from_all(value: Any) -> list[Any]:
    """The value of every process."""
    parts: list[Any] = [value]
    processes = _world()[1]
    if processes > 1:
        parts = [None] * processes
        torch.distributed.all_gather_object(parts, value)
    return parts
