"""CFDBench's networks from a field to the next, point by point: fully connected ones and deep operator networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.conv_blocks import BlockActivation
from pdesurrogate.layers.frames import check_kinds, check_positive, fold_history
from pdesurrogate.layers.standardized_activation import Perceptron, Statistics
from pdesurrogate.models.cfdbench import (
    CaseNetwork,
    Compat,
    Gives,
    case_channels,
    identity_ranges,
    module_translations,
    reference_values,
    require_alone,
)
from pdesurrogate.models.deeponet import (
    REFERENCE_ACTIVATIONS,
    Standardization,
    activation_of,
    perceptron_translations,
)
from pdesurrogate.models.reference_weights import Translation, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded

Predicted = Literal["all", "first"]

# Of the convolutional branch: channels, points along each axis, and times that it halves the grid.
_BRANCH_CHANNELS = 32
_BRANCH_KERNEL = 5
_BRANCH_HALVINGS = 4
# Width of the trunk in front of its last layer.
_CNN_WIDTH = 100


class PointwiseStep(CaseNetwork):
    """A network that gives, at each point of a fixed grid, what the next frame adds to the latest one.

    The whole field, the parameters of the case and a point go in. The latest frame is added to the result.

    Departures from the authors' code (Luo, Chen and Zhang, *CFDBench*, arXiv:2310.05963), whose function
    ``compat="reference"`` gives: a point is told by its place between -1 and 1 along each axis rather than by its
    number, or that less 50 over 100, and solid cells keep what the latest frame has there. The authors read and predict
    the first channel alone, ``predicted="first"``: in their rollouts the others are lost, here they stay as they are.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        grid: points along x and y.
        parameter_ranges: see `CaseNetwork`.
        predicted: ``"all"`` channels, or the ``"first"``.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        channels: int,
        history_frames: int,
        target_frames: int,
        grid: Sequence[int],
        parameter_ranges: Sequence[tuple[float, float]],
        predicted: Predicted,
        gives: Gives,
        compat: Compat,
    ) -> None:
        check_positive(channels=channels, history_frames=history_frames, target_frames=target_frames)
        check_kinds({"predicted": ("all", "first")}, predicted=predicted)
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(f"Expected a grid with points along x and y but got {tuple(grid)}.")
        super().__init__(channels, history_frames, target_frames, parameter_ranges, gives, compat)
        self.grid = tuple(grid)
        self.predicted = predicted
        self.channels_read = channels if predicted == "all" else 1

    @property
    def field_size(self) -> int:
        """Values of the given frames that are read."""
        return self.history_frames * self.channels_read * math.prod(self.grid)

    @property
    def outputs(self) -> int:
        """Values that are predicted at a point."""
        return self.target_frames * self.channels_read

    def check(self, history: Tensor) -> Tensor:
        """The frames as channels ``(batch, channel, x, y)``.

        Raises:
            ValueError: if frames, channels or axes do not fit.
        """
        folded = fold_history(history, self.history_frames, self.channels, 2)
        if tuple(folded.shape[2:]) != self.grid:
            raise ValueError(
                f"Expected a grid of {self.grid}, which the network was built for, but got {tuple(folded.shape[2:])}."
            )
        return folded

    def field(self, history: Tensor) -> Tensor:
        """All values that are read, ``(batch, value)``, x in front of y."""
        self.check(history)
        return history[:, :, : self.channels_read].flatten(1)

    def places(self, history: Tensor) -> Tensor:
        """Of all points, ``(point, 2)``: x in front of y, in both the rows and the columns."""
        numbers = [torch.arange(size, dtype=history.dtype, device=history.device) for size in self.grid]
        if self.compat == "reference":
            lines = [self.reference_place(each) for each in numbers]
        else:
            lines = [(2 * each + 1) / size - 1 for each, size in zip(numbers, self.grid, strict=True)]
        return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).flatten(0, 1)

    def reference_place(self, numbers: Tensor) -> Tensor:
        """Where the authors say that the point of a number is."""
        return (numbers - 50) / 100

    def stepped(self, change: Tensor, history: Tensor, volumes: Tensor | None) -> Tensor:
        """Frames from the ``change (batch, outputs, point)`` of the channels that are predicted."""
        change = change.unflatten(-1, self.grid).unflatten(1, (self.target_frames, self.channels_read))
        if self.channels_read < self.channels:
            others = change.new_zeros(*change.shape[:2], self.channels - self.channels_read, *self.grid)
            change = torch.cat([change, others], dim=2)
        fluid = self.fluid(history, volumes)
        if self.compat == "none":
            change = torch.where(fluid[:, None], change, change.new_zeros(()))
        return change + history[:, -1:] if self.gives == "state" else change


@recorded
class AutoFFN(PointwiseStep):
    """CFDBench's Auto-FFN; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    Field, parameters and place go side by side through a fully connected network, once for each point; see
    `PointwiseStep`.

    Departures: the field that meets a place is that of the own sample. The authors pair fields and places wrongly in
    batches of more than one, so that what a sample gives depends on the others; ``compat="reference"`` does so.

    Args:
        channels: see `PointwiseStep`.
        history_frames: see `PointwiseStep`.
        target_frames: see `PointwiseStep`.
        grid: see `PointwiseStep`.
        parameter_ranges: see `CaseNetwork`.
        predicted: see `PointwiseStep`.
        width: of the hidden layers.
        depth: number of hidden layers.
        activation: after each.
        standardization: see `pdesurrogate.models.deeponet.FFN`.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = AutoFFN(channels=2, grid=(9, 8), width=16, depth=2)
        >>> network(torch.zeros(3, 1, 2, 9, 8)).shape
        torch.Size([3, 1, 2, 9, 8])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        grid: tuple[int, int] = (64, 64),
        parameter_ranges: Sequence[tuple[float, float]] = (),
        predicted: Predicted = "all",
        width: int = 200,
        depth: int = 8,
        activation: BlockActivation = "relu",
        standardization: Standardization = "none",
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(width=width, depth=depth)
        super().__init__(channels, history_frames, target_frames, grid, parameter_ranges, predicted, gives, compat)
        entering = self.field_size + len(self.ranges) + 2
        self.network = Perceptron(
            (entering, *[width] * depth, self.outputs), activation_of(activation, standardization, "features")
        )

    def reference_place(self, numbers: Tensor) -> Tensor:
        """Points are told by their numbers."""
        return numbers

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, x, y)``.

        Args:
            history: frames.
            parameters: of the case, ``(batch, count)`` in the units of their ranges.
            volumes: of the fluid in each cell, ``(batch, x, y)`` or ``(x, y)``, zero in solid, in any unit; fluid
                everywhere if not given.

        Raises:
            ValueError: if frames, channels, grid, parameters or volumes do not fit.
        """
        case = torch.cat([self.field(history), self.scaled_parameters(history, parameters)], dim=1)
        first = self.network.layers[0]
        assert isinstance(first, nn.Linear)
        # The field is the same for all points: its part of the first layer is computed once.
        of_case, of_place = first.weight.split([case.shape[1], 2], dim=1)
        seen = functional.linear(case, of_case, first.bias)[:, None].expand(-1, math.prod(self.grid), -1)
        if self.compat == "reference":
            seen = seen[self._mixed(len(history), seen.device), 0]
        change = self.network.after_first(seen + functional.linear(self.places(history), of_place))
        return self.stepped(change.transpose(1, 2), history, volumes)

    def _mixed(self, batch: int, device: torch.device) -> Tensor:
        """Numbers ``(batch, point)`` of the samples whose fields the authors give to each point of a sample.

        They repeat fields as b1 ... bB, b1 ... and places as p1 ... pk, p1 ..., row by row of y.
        """
        x, y = self.grid
        return (torch.arange(batch * x * y, device=device) % batch).reshape(batch, y, x).transpose(1, 2).flatten(1)

    @classmethod
    def from_reference(
        cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None
    ) -> AutoFFN:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``AutoFfn`` but its loss.
            state_dict: under their names.
            grid: points along x and y; the square one, or the authors' of 65 by 66, if not given.

        Raises:
            ValueError: for keywords that are unknown or that we have no network for, for a number of points that
                leaves the grid open, and for weights that do not fit.
        """
        values = reference_values(config, _FFN_DEFAULTS, "AutoFfn")
        require_alone(values, {"query_dim": (2,), "act_name": REFERENCE_ACTIVATIONS}, "AutoFfn")
        model = cls(
            channels=2,
            grid=_grid_of(values["input_field_dim"], grid),
            parameter_ranges=identity_ranges(values["num_case_params"]),
            predicted="first",
            width=values["width"],
            depth=values["depth"],
            activation=REFERENCE_ACTIVATIONS[values["act_name"]],
            standardization="features" if values["act_norm"] else "none",
            compat="reference",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        count = self.field_size + len(self.ranges)
        columns = [*_field_columns(self.grid), *range(self.field_size, count), count + 1, count]
        return perceptron_translations("network", "ffn", self.network, columns)


class _ProductStep(PointwiseStep):
    """With a trunk: ``change = sum over features of coefficients (batch, feature) and functions of the place, + bias``.

    Subclasses make the coefficients. Several outputs share the trunk.
    """

    trunk: Perceptron
    bias: Tensor

    def product(self, coefficients: Tensor, history: Tensor) -> Tensor:
        """The change ``(batch, outputs, point)`` from coefficients ``(batch, outputs * width)``."""
        functions = self.trunk(self.places(history))
        change = torch.einsum("bow,pw->bop", coefficients.unflatten(-1, (self.outputs, -1)), functions)
        return change + self.bias[:, None]

    def reference_translations(self) -> list[Translation]:
        """Those of trunk and bias."""
        return [
            *perceptron_translations("trunk", "trunk_net", self.trunk, (1, 0)),
            Translation("bias", {"bias": tuple(self.bias.shape)}, unchanged),
        ]


@recorded
class AutoDeepONet(_ProductStep):
    """CFDBench's Auto-DeepONet; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    A branch reads field and parameters side by side, a trunk the place; see `PointwiseStep` and
    `pdesurrogate.models.deeponet.DeepONet`.

    Args:
        channels: see `PointwiseStep`.
        history_frames: see `PointwiseStep`.
        target_frames: see `PointwiseStep`.
        grid: see `PointwiseStep`.
        parameter_ranges: see `CaseNetwork`.
        predicted: see `PointwiseStep`.
        width: of all layers, and the number of products.
        branch_depth: linear layers of the branch.
        trunk_depth: linear layers of the trunk.
        activation: between layers.
        standardization: see `pdesurrogate.models.deeponet.FFN`.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = AutoDeepONet(channels=2, grid=(9, 8), parameter_ranges=[(0.1, 10.0)], width=16)
        >>> network(torch.zeros(3, 1, 2, 9, 8), parameters=torch.ones(3, 1)).shape
        torch.Size([3, 1, 2, 9, 8])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        grid: tuple[int, int] = (64, 64),
        parameter_ranges: Sequence[tuple[float, float]] = (),
        predicted: Predicted = "all",
        width: int = 100,
        branch_depth: int = 8,
        trunk_depth: int = 8,
        activation: BlockActivation = "relu",
        standardization: Standardization = "none",
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(width=width, branch_depth=branch_depth, trunk_depth=trunk_depth)
        super().__init__(channels, history_frames, target_frames, grid, parameter_ranges, predicted, gives, compat)
        kind = activation_of(activation, standardization, "features")
        hidden = [width] * (branch_depth - 1)
        self.branch = Perceptron((self.field_size + len(self.ranges), *hidden, self.outputs * width), kind)
        self.trunk = Perceptron((2, *[width] * trunk_depth), kind)
        self.bias = nn.Parameter(torch.zeros(self.outputs))

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """As `AutoFFN.forward`."""
        case = torch.cat([self.field(history), self.scaled_parameters(history, parameters)], dim=1)
        return self.stepped(self.product(self.branch(case), history), history, volumes)

    @classmethod
    def from_reference(
        cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None
    ) -> AutoDeepONet:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``AutoDeepONet`` but its loss. Their ``branch_dim`` counts points and
                parameters together.
            state_dict: under their names.
            grid: points along x and y; the authors' of 64 by 64 or 65 by 66 if not given.

        Raises:
            ValueError: as `AutoFFN.from_reference`.
        """
        values = reference_values(config, _DEEPONET_DEFAULTS, "AutoDeepONet")
        require_alone(
            values, {"trunk_dim": (2,), "act_on_output": (False,), "act_name": REFERENCE_ACTIVATIONS}, "AutoDeepONet"
        )
        entering = values["branch_dim"]
        if grid is None:
            largest = max((each for each in _GRIDS if math.prod(each) <= entering), key=math.prod, default=None)
            if largest is None:
                raise ValueError(f"Expected the grid of a network with branch_dim {entering}; give it as grid=(x, y).")
            grid = largest
        model = cls(
            channels=2,
            grid=grid,
            parameter_ranges=identity_ranges(entering - math.prod(grid)),
            **_reference_sizes(values),
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        columns = [*_field_columns(self.grid), *range(self.field_size, self.field_size + len(self.ranges))]
        return [
            *perceptron_translations("branch", "branch_net", self.branch, columns),
            *super().reference_translations(),
        ]


@recorded
class AutoEDeepONet(_ProductStep):
    """CFDBench's Auto-EDeepONet; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    One branch reads the field and another one the parameters; the coefficients are the products of what they give. See
    `AutoDeepONet`.

    Args:
        channels: see `PointwiseStep`.
        history_frames: see `PointwiseStep`.
        target_frames: see `PointwiseStep`.
        grid: see `PointwiseStep`.
        parameter_ranges: see `CaseNetwork`; at least one.
        predicted: see `PointwiseStep`.
        width: of all layers, and the number of products.
        branch_depth: linear layers of each branch.
        trunk_depth: linear layers of the trunk.
        activation: between layers.
        standardization: see `pdesurrogate.models.deeponet.FFN`.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = AutoEDeepONet(channels=2, grid=(9, 8), parameter_ranges=[(0.1, 10.0)], width=16)
        >>> network(torch.zeros(3, 1, 2, 9, 8), parameters=torch.ones(3, 1)).shape
        torch.Size([3, 1, 2, 9, 8])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        grid: tuple[int, int] = (64, 64),
        parameter_ranges: Sequence[tuple[float, float]] = (),
        predicted: Predicted = "all",
        width: int = 100,
        branch_depth: int = 8,
        trunk_depth: int = 8,
        activation: BlockActivation = "relu",
        standardization: Standardization = "none",
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(width=width, branch_depth=branch_depth, trunk_depth=trunk_depth)
        if not parameter_ranges:
            raise ValueError("Expected parameter_ranges of at least one parameter: a branch reads nothing else.")
        super().__init__(channels, history_frames, target_frames, grid, parameter_ranges, predicted, gives, compat)
        kind = activation_of(activation, standardization, "features")
        after = (*[width] * (branch_depth - 1), self.outputs * width)
        self.field_branch = Perceptron((self.field_size, *after), kind)
        self.case_branch = Perceptron((len(self.ranges), *after), kind)
        self.trunk = Perceptron((2, *[width] * trunk_depth), kind)
        self.bias = nn.Parameter(torch.zeros(self.outputs))

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """As `AutoFFN.forward`."""
        of_field = self.field_branch(self.field(history))
        of_case = self.case_branch(self.scaled_parameters(history, parameters))
        return self.stepped(self.product(of_field * of_case, history), history, volumes)

    @classmethod
    def from_reference(
        cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None
    ) -> AutoEDeepONet:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``AutoEDeepONet`` but its loss.
            state_dict: under their names.
            grid: see `AutoFFN.from_reference`.

        Raises:
            ValueError: as `AutoFFN.from_reference`.
        """
        values = reference_values(config, _EDEEPONET_DEFAULTS, "AutoEDeepONet")
        require_alone(
            values, {"trunk_dim": (2,), "act_on_output": (False,), "act_name": REFERENCE_ACTIVATIONS}, "AutoEDeepONet"
        )
        model = cls(
            channels=2,
            grid=_grid_of(values["dim_branch1"], grid),
            parameter_ranges=identity_ranges(values["dim_branch2"]),
            **_reference_sizes(values),
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        return [
            *perceptron_translations("field_branch", "branch1", self.field_branch, _field_columns(self.grid)),
            *perceptron_translations("case_branch", "branch2", self.case_branch),
            *super().reference_translations(),
        ]


@recorded
class AutoDeepONetCNN(PointwiseStep):
    """CFDBench's Auto-DeepONetCNN; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    A convolutional branch reads all channels, where the fluid is, and the parameters as constant channels, and halves
    the grid four times; what is left of it, 32 channels, is multiplied with as many functions of the place, and a
    fully connected network makes the change of the products. See `PointwiseStep`.

    Departure: the constant that the authors hold for the sum of products, and never add, is there with
    ``compat="reference"`` alone.

    Args:
        channels: see `PointwiseStep`.
        history_frames: see `PointwiseStep`.
        target_frames: see `PointwiseStep`.
        grid: see `PointwiseStep`; at least 16 points along each axis.
        parameter_ranges: see `CaseNetwork`.
        predicted: see `PointwiseStep`; all channels are read.
        trunk_depth: hidden layers of the trunk.
        activation: between linear layers.
        standardization: see `pdesurrogate.models.deeponet.FFN`.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`; statistics of activations in the last network are then over all points.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = AutoDeepONetCNN(channels=2, grid=(17, 16))
        >>> network(torch.zeros(3, 1, 2, 17, 16)).shape
        torch.Size([3, 1, 2, 17, 16])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        grid: tuple[int, int] = (64, 64),
        parameter_ranges: Sequence[tuple[float, float]] = (),
        predicted: Predicted = "all",
        trunk_depth: int = 4,
        activation: BlockActivation = "relu",
        standardization: Standardization = "none",
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(trunk_depth=trunk_depth)
        super().__init__(channels, history_frames, target_frames, grid, parameter_ranges, predicted, gives, compat)
        coarse = [size >> _BRANCH_HALVINGS for size in self.grid]
        if min(coarse) < 1:
            raise ValueError(
                f"Expected a grid of at least {1 << _BRANCH_HALVINGS} points along each axis, which is halved "
                f"{_BRANCH_HALVINGS} times, but got {self.grid}."
            )
        features = _BRANCH_CHANNELS * math.prod(coarse)
        over: Statistics = "sample" if compat == "reference" else "features"
        kind = activation_of(activation, standardization, over)
        # One channel says where the fluid is.
        entering = history_frames * channels + 1 + len(self.ranges)
        self.lifting = _convolution(entering)
        self.down = nn.ModuleList(_convolution(_BRANCH_CHANNELS) for _ in range(_BRANCH_HALVINGS))
        self.closing = _convolution(_BRANCH_CHANNELS)
        self.trunk = Perceptron((2, *[_CNN_WIDTH] * trunk_depth, features), kind)
        self.network = Perceptron((features, features, features, self.outputs), kind)
        self.unused_bias = nn.Parameter(torch.zeros(1)) if compat == "reference" else None

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """As `AutoFFN.forward`."""
        folded, fluid = self.check(history), self.fluid(history, volumes)
        values = self.lifting(case_channels(folded, fluid, numbers=self.scaled_parameters(history, parameters)))
        for convolution in self.down:
            values = functional.relu(functional.max_pool2d(convolution(values), 2))
        # In the order of the authors, whose arrays have y in front.
        coefficients = self.closing(values).transpose(-1, -2).flatten(1)
        change = self.network(coefficients[:, None] * self.trunk(self.places(history)))
        return self.stepped(change.transpose(1, 2), history, volumes)

    @classmethod
    def from_reference(
        cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None
    ) -> AutoDeepONetCNN:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``AutoDeepONetCnn`` but its loss; their ``in_chan`` counts the mask.
            state_dict: under their names.
            grid: points along x and y; those of ``width`` and ``height`` if not given.

        Raises:
            ValueError: as `AutoFFN.from_reference`.
        """
        values = reference_values(config, _CNN_DEFAULTS, "AutoDeepONetCnn")
        require_alone(
            values, {"query_dim": (2,), "act_on_output": (False,), "act_name": REFERENCE_ACTIVATIONS}, "AutoDeepONetCnn"
        )
        model = cls(
            channels=values["in_chan"] - 1,
            grid=(values["width"], values["height"]) if grid is None else grid,
            parameter_ranges=identity_ranges(values["num_case_params"]),
            predicted="first",
            trunk_depth=values["trunk_depth"],
            activation=REFERENCE_ACTIVATIONS[values["act_name"]],
            standardization="features" if values["act_norm"] else "none",
            compat="reference",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        modules = {"lifting": "branch_net.in_conv", "closing": "branch_net.out_conv"}
        modules |= {f"down.{level}": f"branch_net.blocks.{3 * level}" for level in range(_BRANCH_HALVINGS)}
        found = [
            *perceptron_translations("trunk", "trunk_net", self.trunk, (1, 0)),
            *perceptron_translations("network", "out_ffn", self.network),
            Translation("unused_bias", {"bias": (1,)}, unchanged),
        ]
        for ours, theirs in modules.items():
            found += module_translations(ours, theirs, self.get_submodule(ours))
        return found


# The authors' grids: the cavity's, and that of padded problems.
_GRIDS = ((64, 64), (65, 66))

_FFN_DEFAULTS = {
    "input_field_dim": 4096,
    "num_case_params": 5,
    "query_dim": 2,
    "num_label_samples": 1000,
    "depth": 8,
    "width": 100,
    "act_norm": False,
    "act_name": "relu",
}
_SIZES = {
    "trunk_dim": 2,
    "num_label_samples": 1000,
    "branch_depth": 4,
    "trunk_depth": 4,
    "width": 100,
    "act_name": "relu",
    "act_norm": False,
    "act_on_output": False,
}
_DEEPONET_DEFAULTS = {"branch_dim": 4101, **_SIZES}
_EDEEPONET_DEFAULTS = {"dim_branch1": 4096, "dim_branch2": 5, **_SIZES}
_CNN_DEFAULTS = {
    "in_chan": 3,
    "query_dim": 2,
    "height": 64,
    "width": 64,
    "num_case_params": 5,
    "trunk_depth": 4,
    "act_name": "relu",
    "act_norm": False,
    "act_on_output": False,
}


def _reference_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "predicted": "first",
        "width": values["width"],
        "branch_depth": values["branch_depth"],
        "trunk_depth": values["trunk_depth"],
        "activation": REFERENCE_ACTIVATIONS[values["act_name"]],
        "standardization": "features" if values["act_norm"] else "none",
        "compat": "reference",
    }


def _grid_of(points: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    if grid is not None:
        return grid
    known = {math.prod(each): each for each in _GRIDS} | {math.isqrt(points) ** 2: (math.isqrt(points),) * 2}
    if points not in known:
        raise ValueError(f"Expected the grid of a network with {points} points; give it as grid=(x, y).")
    return known[points]


def _field_columns(grid: tuple[int, ...]) -> list[int]:
    """Places in the authors' field, y in front of x, of the values of ours."""
    x, y = grid
    return torch.arange(x * y).reshape(y, x).T.flatten().tolist()


def _convolution(channels_in: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, _BRANCH_CHANNELS, _BRANCH_KERNEL, padding=_BRANCH_KERNEL // 2)
