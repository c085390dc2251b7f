"""Networks of points: from the parameters of a case, a time and a place to the fields there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdesurrogate.layers.conv_blocks import BlockActivation
from pdesurrogate.layers.frames import check_kinds, check_positive
from pdesurrogate.layers.standardized_activation import Activation, Perceptron, StandardizedActivation, Statistics
from pdesurrogate.models.cfdbench import (
    Compat,
    UnitRanges,
    identity_ranges,
    linear_translations,
    reference_values,
    require_alone,
    scaled_parameters,
)
from pdesurrogate.models.reference_weights import Translation, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded

Standardization = Literal["none", "features"]

_KINDS = {
    "standardization": ("none", "features"),
    "compat": ("none", "reference"),
    "activation": ("gelu", "relu", "silu", "tanh", "sigmoid"),
}
# The authors' names of activations, and ours.
REFERENCE_ACTIVATIONS: dict[str, BlockActivation] = {"relu": "relu", "tanh": "tanh", "gelu": "gelu", "swish": "silu"}


class PointNetwork(nn.Module):
    """What networks of points have in common: which numbers they take and give, each brought to -1 ... 1 inside.

    Args:
        parameter_ranges: lowest and highest value of each parameter of a case.
        point_ranges: of the time, and of each coordinate.
        field_ranges: of each field at a point.

    Raises:
        ValueError: for a range without length, fewer than a time and a coordinate, or no field.
    """

    def __init__(
        self,
        parameter_ranges: Sequence[tuple[float, float]],
        point_ranges: Sequence[tuple[float, float]],
        field_ranges: Sequence[tuple[float, float]],
    ) -> None:
        super().__init__()
        if len(point_ranges) < 2 or not field_ranges:
            raise ValueError(
                "Expected point_ranges of the time and of each coordinate, and field_ranges of at least one field, but "
                f"got {len(point_ranges)} and {len(field_ranges)}."
            )
        self.parameter_ranges = UnitRanges(parameter_ranges)
        self.point_ranges = UnitRanges(point_ranges)
        self.field_ranges = UnitRanges(field_ranges)

    @property
    def fields(self) -> int:
        """At a point."""
        return len(self.field_ranges)

    @property
    def dimension(self) -> int:
        """Numbers of a point: the time and the coordinates."""
        return len(self.point_ranges)

    def scaled(self, parameters: Tensor | None, points: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters ``(case, count)`` and points, brought to their ranges.

        Raises:
            ValueError: if shapes do not fit together.
        """
        if points.ndim != 3 or points.shape[2] != self.dimension:
            raise ValueError(
                f"Expected points (case, point, {self.dimension}) with the time in front but got {tuple(points.shape)}."
            )
        return scaled_parameters(self.parameter_ranges, len(points), parameters), self.point_ranges(points)


@recorded
class FFN(PointNetwork):
    """Fully connected network of points; ``(case, parameter)`` and ``(case, point, 1 + axes)`` to fields at the points.

    Parameters, time and coordinates are put side by side and go through hidden layers. The defaults are CFDBench's
    (Luo, Chen and Zhang, arXiv:2310.05963), whose activations are standardized over the features of each point.

    Args:
        parameter_ranges: lowest and highest value of each parameter of a case, which are brought to -1 ... 1; a range
            ``(-1, 1)`` leaves one as it is.
        point_ranges: likewise of the time and of each coordinate, in this order.
        field_ranges: likewise of each field at a point, which the network's -1 ... 1 is brought to.
        width: of the hidden layers.
        depth: number of hidden layers.
        activation: after each.
        standardization: over the ``"features"`` of a point before each activation, undone after it, or ``"none"``.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = FFN(parameter_ranges=[(0.1, 10.0)], point_ranges=[(0.0, 5.0), (0.0, 1.0), (0.0, 0.5)])
        >>> network(torch.ones(3, 1), torch.rand(3, 50, 3)).shape
        torch.Size([3, 50, 1])
    """

    def __init__(
        self,
        parameter_ranges: Sequence[tuple[float, float]],
        point_ranges: Sequence[tuple[float, float]],
        field_ranges: Sequence[tuple[float, float]] = ((-1.0, 1.0),),
        width: int = 100,
        depth: int = 8,
        activation: BlockActivation = "relu",
        standardization: Standardization = "features",
    ) -> None:
        check_positive(width=width, depth=depth)
        super().__init__(parameter_ranges, point_ranges, field_ranges)
        entering = len(self.parameter_ranges) + self.dimension
        self.network = Perceptron(
            (entering, *[width] * depth, self.fields), activation_of(activation, standardization, "features")
        )

    def forward(self, parameters: Tensor | None, points: Tensor) -> Tensor:
        """Fields ``(case, point, field)`` of each case at its points.

        Args:
            parameters: of the cases, ``(case, count)``, in the units of their ranges.
            points: ``(case, point, 1 + axes)``, the time in front, in the units of their ranges.

        Raises:
            ValueError: if shapes do not fit together.
        """
        numbers, places = self.scaled(parameters, points)
        together = torch.cat([numbers[:, None].expand(-1, places.shape[1], -1), places], dim=-1)
        return self.field_ranges.back(self.network(together))

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> FFN:
        """The authors' network with their constructor's keywords and released weights.

        Its points are frame number, column and row, as they are.

        Args:
            config: keywords of the authors' ``FfnModel`` but its loss.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or that we have no network for, and for weights that do not fit.
        """
        values = reference_values(config, _FFN_DEFAULTS, "FfnModel")
        require_alone(values, {"act_on_output": (False,), "act_name": REFERENCE_ACTIVATIONS}, "FfnModel")
        entering, *hidden, fields = values["widths"]
        if len(set(hidden)) != 1:
            raise ValueError(f"Expected hidden layers of one width but got widths {values['widths']}.")
        model = cls(
            identity_ranges(entering - 3),
            identity_ranges(3),
            identity_ranges(fields),
            width=hidden[0],
            depth=len(hidden),
            activation=REFERENCE_ACTIVATIONS[values["act_name"]],
            standardization="features" if values["act_norm"] else "none",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        count = len(self.parameter_ranges)
        # Theirs are row, column, time; ours are time, x, y.
        columns = [*range(count), *reversed(range(count, count + self.dimension))]
        return perceptron_translations("network", "ffn", self.network, columns)


@recorded
class DeepONet(PointNetwork):
    """Deep operator network; ``(case, parameter)`` and ``(case, point, 1 + axes)`` to fields at the points.

    A branch makes coefficients of the parameters and a trunk as many functions of time and place; a field is the sum of
    their products and a constant (Lu et al., arXiv:1910.03193). Several fields share the trunk. The defaults are
    CFDBench's (Luo, Chen and Zhang, arXiv:2310.05963); the trunk begins with a linear layer of the time and one of the
    coordinates, whose sum goes into the next without an activation.

    Departure: activations are standardized over the features of each point. Those of the authors' trunk are over all
    points of a case as well, so that a prediction depends on where else one is asked for, as with
    ``compat="reference"``.

    Args:
        parameter_ranges: see `FFN`; at least one.
        point_ranges: see `FFN`.
        field_ranges: see `FFN`.
        width: of all layers, and the number of products.
        branch_depth: linear layers of the branch.
        trunk_depth: linear layers of the trunk, the first of time and coordinates together counted as one.
        activation: between layers.
        standardization: see `FFN`.
        compat: ``"reference"`` for what the authors' code computes.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = DeepONet(parameter_ranges=[(0.1, 10.0)], point_ranges=[(0.0, 5.0), (0.0, 1.0), (0.0, 0.5)])
        >>> network(torch.ones(3, 1), torch.rand(3, 50, 3)).shape
        torch.Size([3, 50, 1])
    """

    def __init__(
        self,
        parameter_ranges: Sequence[tuple[float, float]],
        point_ranges: Sequence[tuple[float, float]],
        field_ranges: Sequence[tuple[float, float]] = ((-1.0, 1.0),),
        width: int = 100,
        branch_depth: int = 8,
        trunk_depth: int = 8,
        activation: BlockActivation = "relu",
        standardization: Standardization = "features",
        compat: Compat = "none",
    ) -> None:
        check_positive(width=width, branch_depth=branch_depth)
        if trunk_depth < 2:
            raise ValueError(f"Expected a trunk_depth of at least 2 but got {trunk_depth}.")
        if not parameter_ranges:
            raise ValueError("Expected parameter_ranges of at least one parameter: the branch reads nothing else.")
        check_kinds({"compat": _KINDS["compat"]}, compat=compat)
        super().__init__(parameter_ranges, point_ranges, field_ranges)
        over: Statistics = "sample" if compat == "reference" else "features"
        kind = activation_of(activation, standardization, over)
        count = len(self.parameter_ranges)
        self.branch = Perceptron((count, *[width] * (branch_depth - 1), self.fields * width), kind)
        self.of_time = nn.Linear(1, width)
        self.of_place = nn.Linear(self.dimension - 1, width)
        self.trunk = Perceptron([width] * trunk_depth, kind)
        self.bias = nn.Parameter(torch.zeros(self.fields))

    def forward(self, parameters: Tensor | None, points: Tensor) -> Tensor:
        """As `FFN.forward`."""
        numbers, places = self.scaled(parameters, points)
        lifted = self.of_time(places[..., :1]) + self.of_place(places[..., 1:])
        coefficients = self.branch(numbers).unflatten(-1, (self.fields, -1))
        products = torch.einsum("cfw,cpw->cpf", coefficients, self.trunk(lifted))
        return self.field_ranges.back(products + self.bias)

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> DeepONet:
        """The authors' network with their constructor's keywords and released weights; see `FFN.from_reference`.

        Args:
            config: keywords of the authors' ``DeepONet`` but its loss.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or that we have no network for, and for weights that do not fit.
        """
        values = reference_values(config, _DEEPONET_DEFAULTS, "DeepONet")
        require_alone(
            values, {"act_on_output": (False,), "act_name": REFERENCE_ACTIVATIONS, "trunk_dim": (3,)}, "DeepONet"
        )
        model = cls(
            identity_ranges(values["branch_dim"]),
            identity_ranges(3),
            width=values["width"],
            branch_depth=values["branch_depth"],
            trunk_depth=values["trunk_depth"],
            activation=REFERENCE_ACTIVATIONS[values["act_name"]],
            standardization="features" if values["act_norm"] else "none",
            compat="reference",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        places = list(reversed(range(self.dimension - 1)))
        return [
            *perceptron_translations("branch", "branch_net", self.branch),
            *linear_translations("of_time", "fc_trunk_t", self.of_time),
            *linear_translations("of_place", "fc_trunk_xy", self.of_place, places),
            *perceptron_translations("trunk", "trunk_net", self.trunk),
            Translation("bias", {"bias": (self.fields,)}, unchanged),
        ]


_FFN_DEFAULTS = {
    "widths": (8, *[100] * 8, 1),
    "act_name": "relu",
    "act_norm": True,
    "act_on_output": False,
    "num_label_samples": 1000,
}
_DEEPONET_DEFAULTS = {
    "branch_dim": 5,
    "trunk_dim": 3,
    "num_label_samples": 1000,
    "branch_depth": 4,
    "trunk_depth": 3,
    "width": 100,
    "act_name": "relu",
    "act_norm": False,
    "act_on_output": False,
}


def activation_of(activation: BlockActivation, standardization: Standardization, over: Statistics) -> nn.Module:
    """The activation between layers.

    Raises:
        ValueError: for words that are not known.
    """
    check_kinds(_KINDS, activation=activation, standardization=standardization)
    return Activation(activation) if standardization == "none" else StandardizedActivation(activation, over)


def perceptron_translations(
    ours: str, theirs: str, network: Perceptron, columns: Sequence[int] = ()
) -> list[Translation]:
    """Of a `Perceptron`; ``columns`` are those of the authors' first weight in our order, see `linear_translations`.

    Their layers and activations are numbered together.
    """
    found = []
    for number, layer in enumerate(network.layers):
        assert isinstance(layer, nn.Linear)
        names = f"{ours}.layers.{number}", f"{theirs}.layers.{2 * number}"
        found += linear_translations(*names, layer, columns if number == 0 else ())
    return found
