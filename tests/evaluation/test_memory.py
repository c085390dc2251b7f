import pytest
import torch
from torch import nn

from pdesurrogate.evaluation.memory import module_bytes, peak_memory
from pdesurrogate.layers.spectral_conv import SpectralConv
from pdesurrogate.models.fno import FNO
from pdesurrogate.simulators.navier_stokes import NavierStokes2d

MEGABYTE = 2**20


def ones(megabytes=1):
    return torch.ones(megabytes * MEGABYTE // 4)


def test_what_is_let_go_of_makes_room():
    given = ones()

    def chain():
        values = given
        for _ in range(10):
            values = values + 1  # the one before lives on while the next is made
        return values

    assert peak_memory(chain, "cpu") == 2 * MEGABYTE


def test_what_is_kept_adds_up():
    given = ones()
    assert peak_memory(lambda: [given * n for n in range(7)], "cpu") == 7 * MEGABYTE


def test_the_peak_is_not_the_end():
    given = ones()
    assert peak_memory(lambda: torch.cat([given] * 5).sum(), "cpu") == 5 * MEGABYTE + 4


def test_views_and_changes_in_place_take_nothing():
    given = ones()

    def reshaped():
        view = given.view(2, -1).T.expand(3, -1, -1)[1:]
        given.mul_(1.0)
        return view

    assert peak_memory(reshaped, "cpu") == 0


def test_views_keep_what_they_look_at():
    given = ones()

    def first_of_each():
        return [(given + n)[:1] for n in range(4)]

    assert peak_memory(first_of_each, "cpu") == 4 * MEGABYTE


def test_results_written_into_a_given_tensor_take_nothing():
    given, out = ones(), ones()
    assert peak_memory(lambda: torch.add(given, 1, out=out), "cpu") == 0


def test_what_a_first_call_keeps_is_not_counted():
    cache = []

    def lazy():
        if not cache:
            cache.append(ones(16))
        return cache[0] + 1

    assert peak_memory(lazy, "cpu") == 16 * MEGABYTE


def test_backward_needs_what_forward_made():
    weight = ones().requires_grad_()
    with torch.no_grad():
        without = peak_memory(lambda: weight.exp().exp().exp(), "cpu")
    with_graph = peak_memory(lambda: weight.exp().exp().exp(), "cpu")
    assert (without, with_graph) == (2 * MEGABYTE, 3 * MEGABYTE)


def test_a_spectral_convolution_by_hand():
    batch, width, size, modes = 4, 16, 64, 8
    layer = SpectralConv(width, width, modes=(modes, modes))
    values = torch.randn(batch, width, size, size)
    with torch.no_grad():
        peak = peak_memory(lambda: layer(values), "cpu")
    columns = batch * width * size * (modes // 2 + 1) * 8
    waves = columns * modes // size
    # At the end: the result; columns padded with zeros, transformed, and in order; waves before and after mixing.
    assert peak == pytest.approx(values.nbytes + 3 * columns + 2 * waves, rel=1e-3)


def test_a_fourier_neural_operator_needs_the_same_for_every_further_sample():
    model = FNO(1, modes=(8, 8), width=16, layers=3).eval()
    values = torch.randn(8, 1, 1, 64, 64)
    with torch.no_grad():
        two, four, eight = (peak_memory(lambda n=n: model(values[:n]), "cpu") for n in (2, 4, 8))
    assert eight - four == 2 * (four - two)
    # Four fields of the width: in the projection twice as many channels, and what they come from.
    assert eight > 3 * 8 * 16 * 64 * 64 * 4


def test_a_solver_holds_as_much_for_one_step_as_for_many():
    solvers = [NavierStokes2d(64, 1e-3, 0.25, steps) for steps in (1, 8)]
    values = torch.randn(4, 1, 1, 64, 64)
    peaks = [peak_memory(lambda solver=solver: solver.step(values, solver.context(4)), "cpu") for solver in solvers]
    assert peaks[1] <= 1.1 * peaks[0]
    # Four tendencies and the stages of one step, each a spectrum of two thirds of the columns.
    spectrum = 4 * 22 * 64 * 8
    assert 8 * spectrum < peaks[0] < 24 * spectrum


def test_the_result_is_the_same_every_time():
    model = FNO(1, modes=(4, 4), width=8, layers=2).eval()
    values = torch.randn(2, 1, 1, 16, 16)
    with torch.no_grad():
        assert len({peak_memory(lambda: model(values), "cpu") for _ in range(3)}) == 1


def test_errors_of_the_function_pass_through():
    def broken():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        peak_memory(broken, "cpu")
    assert torch.ones(2).sum() == 2


def test_other_devices_have_no_number():
    assert peak_memory(lambda: None, "meta") is None


def test_module_bytes_count_every_storage_once():
    layer = nn.Linear(100, 100, bias=False)
    layer.register_buffer("table", torch.zeros(50, dtype=torch.float64), persistent=False)
    tied = nn.Sequential(layer, layer)
    tied.register_buffer("view", layer.table[:10])
    tied.register_buffer("expanded", torch.zeros(1).expand(1000))
    assert module_bytes(tied) == 100 * 100 * 4 + 50 * 8 + 4


def test_what_is_no_module_holds_nothing():
    assert module_bytes(object()) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_allocator_says_the_same():
    given = ones().cuda()
    assert peak_memory(lambda: (given + 1) * 2, "cuda") == pytest.approx(2 * MEGABYTE, rel=0.01)
    assert peak_memory(lambda: [given * n for n in range(7)], "cuda") == pytest.approx(7 * MEGABYTE, rel=0.01)
