import hashlib
import re

import numpy as np
import pytest
import torch

from pdesurrogate.data.adapters.gpme import GpmeNpz
from pdesurrogate.data.catalog import card, datasets_directory
from pdesurrogate.data.point_data import PointSource
from pdesurrogate.physics.gpme import PorousMedium, Stefan

SETS = {
    "pme_test": (PorousMedium(), 150, [1.0] * 50 + [3.0] * 50 + [6.0] * 50),
    "pme_valid": (PorousMedium(), 100, None),
    "stefan_test": (Stefan(), 100, [0.5] * 50 + [0.6] * 50),
    "stefan_valid": (Stefan(), 100, None),
}


@pytest.fixture
def arrays():
    """Of a small, whole file."""
    t, x = np.meshgrid(np.array([0.2, 0.5], np.float32), np.array([0.1, 0.3, 0.9], np.float32), indexing="ij")
    points = np.stack([t, x], -1).reshape(1, 6, 2).repeat(4, 0)
    u = np.maximum(points[..., 0] - points[..., 1], 0)
    names = {"context_tx": points, "context_u": u, "target_tx": points[:, :5], "target_u": u[:, :5]}
    return names | {"degree_m": np.ones(4, np.float32), "x_scale": np.ones(4, np.float32)}


def saved(directory, arrays):
    path = directory / "set.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", SETS)
def test_published_values_are_those_of_the_closed_form(name):
    equation, functions, parameters = SETS[name]
    source = GpmeNpz(name)
    points = source.points()
    assert isinstance(source, PointSource)
    assert source.parameter_name == equation.parameter_name
    assert [tuple(leaf.shape) for leaf in points] == [(functions, 100, 2), (functions, 100, 1)] * 2 + [(functions, 1)]
    assert all(leaf.dtype == torch.float32 for leaf in points)
    for coordinates, values in (points[:2], points[2:4]):
        t, x = coordinates.double().unbind(-1)
        exact = equation.solution(t, x, points.parameters.double())
        torch.testing.assert_close(values[..., 0].double(), exact, rtol=0, atol=2e-7)
    if parameters is not None:
        assert torch.equal(points.parameters[:, 0], torch.tensor(parameters))
    else:
        low, high = equation.parameter_range
        assert (points.parameters > low).all()
        assert (points.parameters < high).all()


@pytest.mark.parametrize("name", SETS)
def test_published_points_lie_as_the_card_says(name):
    equation, functions, _ = SETS[name]
    context, _, target, _, _ = GpmeNpz(name).points()
    for points in (context, target):
        t, x = points.unflatten(1, (10, 10)).unbind(-1)
        assert t.diff(dim=2).eq(0).all()
        assert x.diff(dim=1).eq(0).all()
        assert (x.diff(dim=2) >= 0).all()
        assert (t.diff(dim=1) >= 0).all()
    strata = (context.unflatten(1, (10, 10))[:, :, 0, 0].double() / equation.time_range[1] * 10).floor()
    assert torch.equal(strata, torch.arange(10.0, dtype=torch.float64).expand(functions, 10))


def test_the_card_has_the_files_that_come_with_the_package():
    found = card("gpme")
    stated = dict(re.findall(r"^\| `(\w+\.npz)` \| \d.*`([0-9a-f]{64})` \|$", found.text, re.MULTILINE))
    files = {path.name: path for path in (datasets_directory() / "gpme").glob("*.npz")}
    assert stated == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert set(stated) == {f"{name}.npz" for name in SETS}
    assert float(found.size.split()[0]) == pytest.approx(
        sum(path.stat().st_size for path in files.values()) / 1e6, abs=0.005
    )
    for name, (_, functions, _) in SETS.items():
        assert f"| `{name}.npz` | {functions} |" in found.text


def test_a_file_anywhere_is_read(tmp_path, arrays):
    points = GpmeNpz(saved(tmp_path, arrays)).points()
    assert torch.equal(points.context_points, torch.from_numpy(arrays["context_tx"]))
    assert points.target_values.shape == (4, 5, 1)
    assert points.parameters.tolist() == [[1.0]] * 4


def test_arrays_that_are_not_needed_are_left_alone(tmp_path, arrays):
    arrays["notes"] = np.full(3, np.nan)
    del arrays["x_scale"]
    assert len(GpmeNpz(saved(tmp_path, arrays)).points().parameters) == 4


def broken(name, value):
    return lambda arrays: arrays.update({name: value(arrays[name])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("target_u"), "Expected the arrays .*target_u and either degree_m or u_star"),
        (lambda arrays: arrays.pop("degree_m"), "either degree_m or u_star"),
        (lambda arrays: arrays.update(u_star=arrays["degree_m"]), "either degree_m or u_star"),
        (broken("context_u", lambda u: u[:, :4]), r"real context_u \(4, 6\).*got \(4, 4\)"),
        (broken("context_u", lambda u: u[..., None]), r"real context_u \(4, 6\).*got \(4, 6, 1\)"),
        (broken("target_tx", lambda points: points[:3]), r"real target_tx \(4, 5, 2\).*got \(3, 5, 2\)"),
        (broken("target_tx", lambda points: points[0, 0]), r"real target_tx \(4, 2\).*got \(2,\)"),
        (broken("x_scale", lambda scale: scale[:2]), r"real x_scale \(4,\).*got \(2,\)"),
        (broken("degree_m", lambda degree: degree.astype(int)), "real degree_m .*int64"),
        (broken("context_u", lambda u: np.where(np.arange(4)[:, None] == 2, np.nan, u)), "context_u of function 2"),
        (broken("degree_m", lambda degree: 0 * degree), "Expected degree_m between 0 and inf"),
        (broken("x_scale", lambda scale: 2 * scale), "Expected x_scale 1"),
        (broken("context_tx", lambda points: points + 0.6), "times from 0 to 1 and places from 0 to 1 in context_tx"),
        (broken("target_tx", lambda points: -points), "in target_tx .* columns are t and x"),
    ],
)
def test_files_that_are_not_whole_are_refused(tmp_path, arrays, change, message):
    change(arrays)
    with pytest.raises(ValueError, match=message) as error:
        GpmeNpz(saved(tmp_path, arrays))
    assert "set.npz" in str(error.value)


def test_times_of_a_stefan_problem_end_at_a_tenth(tmp_path, arrays):
    arrays["u_star"] = 0.6 * arrays.pop("degree_m")
    with pytest.raises(ValueError, match=r"Expected times from 0 to 0\.1"):
        GpmeNpz(saved(tmp_path, arrays))
    for name in ("context_tx", "target_tx"):
        arrays[name] = arrays[name] * np.array([0.2, 1.0], np.float32)
    assert GpmeNpz(saved(tmp_path, arrays)).parameter_name == "threshold"
    arrays["u_star"] = arrays["u_star"] + 1
    with pytest.raises(ValueError, match="Expected u_star between 0 and 1"):
        GpmeNpz(saved(tmp_path, arrays))


def test_pickled_objects_and_damaged_files_are_refused(tmp_path, arrays):
    path = saved(tmp_path, arrays | {"degree_m": np.array([{"m": 1}], dtype=object)})
    with pytest.raises(ValueError, match=r"npz file of plain arrays but .* cannot be read"):
        GpmeNpz(path)
    path = saved(tmp_path, arrays)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        GpmeNpz(path)
    np.save(tmp_path / "one.npy", arrays["context_u"])
    with pytest.raises(ValueError, match="it is no zip archive of arrays"):
        GpmeNpz(tmp_path / "one.npy")


@pytest.mark.parametrize("path", ["nowhere.npz", "no/such_set"])
def test_missing_files_are_refused(path):
    with pytest.raises(ValueError, match=r"Expected a file but .* is not one"):
        GpmeNpz(path)


def test_unknown_names_list_those_that_there_are():
    with pytest.raises(ValueError, match="pme_test, pme_valid, stefan_test, stefan_valid, but got 'pme'"):
        GpmeNpz("pme")
