"""How a network was trained, in plain values: what a checkpoint tells of its run, and what it must agree with."""

from __future__ import annotations

from typing import Any

import lightning
from torch import Tensor, nn


def described(part: object | None) -> dict[str, Any] | None:
    """Class and attributes of a loss, schedule or augmentation in plain values, and those of the objects it holds.

    Example:
        >>> from pdesurrogate.training.schedules import WarmupCosine
        >>> described(WarmupCosine(0.1))["warmup_fraction"]
        0.1
    """
    if part is None:
        return None
    shown = {name: value for name, value in vars(part).items() if value is not None and not name.startswith("_")}
    attributes = {name: _plain(value) for name, value in shown.items()}
    return {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", **attributes}


def optimizer_steps(trainer: lightning.Trainer, batches: int) -> int:
    """Optimizer steps of a whole fit with ``batches`` in an epoch.

    Lightning's own estimate loads the training batches before a checkpoint is restored, after which a run cannot be
    resumed in the middle of an epoch.

    Raises:
        ValueError: if the trainer says neither how many epochs nor how many steps.
    """
    limited, epochs = trainer.max_steps > 0, trainer.max_epochs
    if epochs is None or epochs < 1:
        if limited:
            return trainer.max_steps
        raise ValueError("Expected trainer.max_epochs or trainer.max_steps: the schedule needs the number of steps.")
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = max(1, -(-batches // trainer.accumulate_grad_batches) * epochs)
    return min(steps, trainer.max_steps) if limited else steps


def epochs_begun(trainer: lightning.Trainer) -> int:
    """So far; Lightning counts the running one only after its checkpoint is written."""
    batches = trainer.global_step * trainer.accumulate_grad_batches
    return -(-batches // max(int(trainer.num_training_batches), 1))


def never_stepped(trainer: lightning.Trainer, module: nn.Module) -> list[str]:
    """Trainable parameters that no gradient has reached so far: Adam and AdamW keep no state for them."""
    optimizers = [optimizer for optimizer in trainer.optimizers if optimizer.state]
    stepped = {parameter for optimizer in optimizers for parameter in optimizer.state}
    named = module.named_parameters()
    return [name for name, p in named if p.requires_grad and p not in stepped] if optimizers else []


def differences(ours: Any, theirs: Any, ignored: tuple[str, ...] = ()) -> list[str]:
    """Where two nests of plain values differ, as sentences about a configuration and a checkpoint.

    Args:
        ours: in the configuration.
        theirs: in the checkpoint.
        ignored: beginnings of keys that may differ.

    Example:
        >>> differences({"network": {"width": 8}}, {"network": {"width": 4}})
        ['network.width: 8 in the configuration, 4 in the checkpoint']
    """
    left, right = _flat(ours), _flat(theirs)
    keys = [key for key in sorted(left.keys() | right.keys()) if not key.startswith(ignored)]
    return [
        f"{key}: {left.get(key)!r} in the configuration, {right.get(key)!r} in the checkpoint"
        for key in keys
        if left.get(key) != right.get(key)
    ]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return described(value) if hasattr(value, "__dict__") else str(value)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict):
        parts = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(values, list | tuple):
        return _flat(dict(enumerate(values)), prefix)
    return {prefix: values}
