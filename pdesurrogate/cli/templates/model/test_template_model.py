"""What every network keeps: shapes, symmetry, that it is built again from its record, and that it learns."""

import pytest
import torch

from pdesurrogate.models.specification import build, specification_of

from .network import TemplateModel


@pytest.mark.parametrize("space", [(20,), (16, 12), (8, 6, 4)])
def test_frames_in_and_the_frames_that_follow_out(space: tuple[int, ...]) -> None:
    """On any grid of one to three axes."""
    network = TemplateModel(channels=3, history_frames=4, target_frames=2, width=8, dimension=len(space))
    assert network(torch.randn(5, 4, 3, *space)).shape == (5, 2, 3, *space)


def test_it_commutes_with_translations_of_a_periodic_box() -> None:
    """Shifted frames in, shifted frames out."""
    network = TemplateModel(channels=1, width=8).double()
    history = torch.randn(2, 1, 1, 16, 12, dtype=torch.float64)
    shifted = network(history.roll((3, -5), dims=(-2, -1)))
    torch.testing.assert_close(shifted, network(history).roll((3, -5), dims=(-2, -1)))


def test_a_checkpoint_builds_it_again() -> None:
    """From class path, plain arguments and weights."""
    network = TemplateModel(channels=2, width=8, padding="zeros")
    again = build(specification_of(network))
    again.load_state_dict(network.state_dict())
    history = torch.randn(1, 1, 2, 8, 8)
    assert torch.equal(again(history), network(history))


def test_it_learns_to_shift_a_wave() -> None:
    """A hundred steps on one batch make the error ten times smaller; every parameter has a part in it."""
    torch.manual_seed(0)
    network = TemplateModel(channels=1, width=8, layers=2)
    phases = torch.rand(8, 1, 1, 1, 1) + torch.arange(16)[:, None] / 16
    history = torch.sin(2 * torch.pi * phases).expand(-1, -1, -1, -1, 4)
    target = history.roll(1, dims=-2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for _ in range(100):
        optimizer.zero_grad()
        error = (network(history) - target).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_what_does_not_fit_is_refused() -> None:
    """With what was expected and what was found."""
    with pytest.raises(ValueError, match="of at least 1"):
        TemplateModel(channels=1, width=0)
    with pytest.raises(ValueError, match="dimension 1, 2 or 3 but got 4"):
        TemplateModel(channels=1, dimension=4)
    with pytest.raises(ValueError, match=r"Expected \(batch, 1, 2, \*space\)"):
        TemplateModel(channels=2, width=8)(torch.zeros(1, 1, 3, 8, 8))
