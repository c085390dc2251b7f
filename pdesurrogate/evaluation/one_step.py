"""The error of a single step, from every frame of the data that has enough history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.report import Report
from pdesurrogate.evaluation.scores import summarized
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.steppers.base import Stepper

_MEANINGS = {
    "relative_l2": "relative L2 error of the frame after true ones, mean over all windows and channels",
    "relative_l2_joint": (
        "relative L2 error, all channels as one vector, of the frame after true ones, mean over all windows"
    ),
}


def add_one_step(
    report: Report,
    evaluator: Evaluator,
    stepper: Stepper,
    trajectories: Sequence[Trajectory],
    *,
    on_batch: Callable[[int, int], None] | None = None,
) -> Report:
    """The report with the error of the first predicted frame after each window of true frames.

    A rollout sees one window of each trajectory; the one-step error of the literature is a mean over all of them. Adds
    the curve ``one_step_relative_l2 (trajectory, window, channel)``, with the number of the predicted frame as
    ``window``, and the score ``one_step_relative_l2``; those of ``relative_l2_joint`` too where channels share units.
    Where a network gives several frames at once, the first one counts.

    Args:
        report: of ``stepper``.
        evaluator: whose batch size, device and bounds hold here too.
        stepper: to be measured.
        trajectories: all of one length.
        on_batch: told (windows done, windows in all) after every batch.

    Raises:
        ValueError: if trajectories differ in length, or as an evaluation.
    """
    lengths = {len(trajectory) for trajectory in trajectories}
    if len(lengths) != 1:
        raise ValueError(f"Expected trajectories of one length but got {sorted(lengths)} frames; measure them apart.")
    past = stepper.history_frames
    predicted = range(past, lengths.pop())
    windows = [trajectory.part(frame - past, frame + 1) for trajectory in trajectories for frame in predicted]
    errors_alone = Evaluator(
        lambda plan: {"errors": ErrorMetric(plan)},
        batch_size=evaluator.batch_size,
        device=str(evaluator.device),
        bounds=evaluator.bounds,
    )
    found = errors_alone(stepper, windows, 1, trajectories_declared=len(windows), on_batch=on_batch)
    curves, scores = {}, dict(report.attributes["scores"])
    for name, meaning in _MEANINGS.items():
        if name not in found.curves:
            continue
        errors = found.curves[name].isel(lead_time=0)
        values = errors.values.reshape(len(trajectories), len(predicted), *errors.shape[1:])
        curves[f"one_step_{name}"] = (("trajectory", "window", *errors.dims[1:]), values, dict(errors.attrs))
        scores[f"one_step_{name}"] = {
            **summarized(values.reshape(len(trajectories), -1).mean(1)),
            "units": "1",
            "higher_is_better": False,
            "description": meaning,
        }
    about: dict[str, Any] = {"units": "1", "long_name": "number of the predicted frame"}
    together = report.curves.assign(curves).assign_coords(window=("window", np.array(predicted), about))
    return Report({**report.attributes, "scores": scores}, together)
