import dataclasses
import math

import pytest
import torch

from pdesurrogate.data.adapters.torch_cfd import TorchCfd
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert, file_hash, provenance
from pdesurrogate.fields.trajectory import Context


@pytest.fixture
def values():
    return torch.randn(7, 4, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def adapter(tmp_path, values):
    path = tmp_path / "published.pt"
    torch.save({"vorticity": values}, path)
    return TorchCfd(path, 2 * math.pi, frame_interval=0.25, start_time=4.5, viscosity=1e-3, val=2, test=2)


class Edited:
    """An adapter whose trajectories are changed one by one."""

    def __init__(self, adapter, edit):
        self.metadata, self.splits = adapter.metadata, adapter.splits
        self._adapter, self._edit = adapter, edit

    def trajectories(self, split):
        return [self._edit(number, member) for number, member in enumerate(self._adapter.trajectories(split))]


def test_the_archive_holds_the_bits_of_the_file(adapter, values, tmp_path):
    files = convert(adapter, tmp_path / "out")
    archive = Archive(tmp_path / "out")
    assert [file.name for file in files] == ["train.nc", "val.nc", "test.nc"]
    read = torch.stack([member.read() for split in archive.splits for member in archive.trajectories(split)])
    assert torch.equal(read[:, :, 0], values)
    first = archive.trajectories("test")[0]
    assert first.times.tolist() == [4.5, 4.75, 5.0, 5.25]
    assert first.context.parameters.tolist() == pytest.approx([1e-3])
    ours = adapter.trajectories("test")[0].context.coordinates
    assert all(torch.equal(found, given) for found, given in zip(first.context.coordinates, ours, strict=True))
    assert dataclasses.replace(archive.metadata, attributes={}) == adapter.metadata


def test_equal_input_gives_equal_bytes(adapter, tmp_path):
    first, second = (convert(adapter, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_block_size_does_not_matter(adapter, tmp_path, monkeypatch):
    whole = convert(adapter, tmp_path / "whole")
    monkeypatch.setattr("pdesurrogate.data.convert._BLOCK_BYTES", 2 * 4 * 4 * 6 * 6)
    pieces = convert(adapter, tmp_path / "pieces")
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in pieces]


def test_an_interrupted_conversion_continues_where_it_stopped(adapter, tmp_path, monkeypatch):
    whole = convert(adapter, tmp_path / "whole")
    monkeypatch.setattr("pdesurrogate.data.convert._BLOCK_BYTES", 1)
    read = []

    def fails_at_the_second(number, member):
        def read_into(start, out):
            read.append(number)
            if broken and number == 1:
                raise KeyboardInterrupt
            member.read_into(start, out)

        return dataclasses.replace(member, read_into=read_into)

    broken = True
    with pytest.raises(KeyboardInterrupt):
        convert(Edited(adapter, fails_at_the_second), tmp_path / "out")
    assert (tmp_path / "out" / "train.nc.part").exists()
    assert not (tmp_path / "out" / "train.nc").exists()
    broken = False
    read.clear()
    again = convert(Edited(adapter, fails_at_the_second), tmp_path / "out")
    assert read == [1, 2, 0, 1, 0, 1]  # trajectory 0 of train is not read again
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in again]


def test_finished_splits_are_kept(adapter, tmp_path):
    files = convert(adapter, tmp_path / "out")
    before = [path.stat().st_mtime_ns for path in files]
    seen = []
    convert(adapter, tmp_path / "out", progress=lambda *report: seen.append(report))
    assert [path.stat().st_mtime_ns for path in files] == before
    assert seen == [(3, 7), (5, 7), (7, 7)]


def test_another_set_in_the_directory_is_refused(adapter, tmp_path):
    convert(adapter, tmp_path / "out", attributes={"content_hash": "one"})
    with pytest.raises(ValueError, match="choose another output directory"):
        convert(adapter, tmp_path / "out", attributes={"content_hash": "two"})
    smaller = TorchCfd(adapter.path, 2 * math.pi, frame_interval=0.25, viscosity=1e-3, train=2, test=2)
    with pytest.raises(ValueError, match="choose another output directory"):
        convert(smaller, tmp_path / "out", attributes={"content_hash": "one"})
    slower = TorchCfd(adapter.path, 2 * math.pi, frame_interval=0.5, val=2, test=2)
    with pytest.raises(ValueError, match=r"0\.5"):
        convert(slower, tmp_path / "out", attributes={"content_hash": "one"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda member: {"times": member.times + 1}, "one set of times", id="times"),
        pytest.param(lambda member: {"shape": (3, *member.shape[1:])}, "one shape", id="shape"),
        pytest.param(
            lambda member: {"context": Context(tuple(2 * axis for axis in member.context.coordinates))},
            "on one grid",
            id="coordinates",
        ),
        pytest.param(
            lambda member: {"context": member.context._replace(mask=torch.ones(6, 6, dtype=torch.bool))},
            "do not store",
            id="mask",
        ),
    ],
)
def test_what_an_archive_cannot_hold_is_refused_before_anything_is_written(adapter, tmp_path, change, message):
    def edit(number, member):
        return dataclasses.replace(member, **change(member)) if number == 1 else member

    with pytest.raises(ValueError, match=message):
        convert(Edited(adapter, edit), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_provenance_changes_with_bytes_and_options(tmp_path):
    file = tmp_path / "set.pt"
    file.write_bytes(b"one")
    first = provenance(file, "adapters.Some", {"length": 1.0})
    assert first == provenance(file, "adapters.Some", {"length": 1.0})
    other_option = provenance(file, "adapters.Some", {"length": 2.0})
    before = file_hash(file)
    file.write_bytes(b"two")
    other_bytes = provenance(file, "adapters.Some", {"length": 1.0})
    assert file_hash(file) != before
    assert len({item["content_hash"] for item in (first, other_option, other_bytes)}) == 3
