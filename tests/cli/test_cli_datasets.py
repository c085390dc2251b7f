import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pdesurrogate.__main__ import main as run
from pdesurrogate.cli.conversion import FORMATS
from pdesurrogate.cli.datasets import main
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.catalog import cards


@pytest.fixture
def torch_file(tmp_path):
    path = tmp_path / "published.pt"
    torch.save({"vorticity": torch.arange(5 * 3 * 4 * 4, dtype=torch.float32).reshape(5, 3, 4, 4)}, path)
    return path


def test_list_names_every_card(capsys):
    assert main(["list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "KIND", "SIZE", "TITLE"]
    assert [row.split()[:2] for row in rows] == [[card.name, card.kind] for card in cards()]


def test_show_prints_the_card(capsys):
    (first, *_) = cards()
    assert main(["show", first.name]) == 0
    assert first.text in capsys.readouterr().out


def test_show_of_an_unknown_name_lists_close_ones(capsys):
    assert run(["datasets", "show", "fno_navier_stoke"]) == 2
    captured = capsys.readouterr()
    assert "Did you mean fno_navier_stokes" in captured.err
    assert captured.out == ""


def test_convert_torch_file_bit_equal_and_repeatable(torch_file, tmp_path, capsys):
    out = tmp_path / "out"
    command = f"convert --format torch-cfd {torch_file} --length 1 --frame-interval 0.5 --val 1 --test 2 --out {out}"
    assert main(command.split()) == 0
    assert capsys.readouterr().out.split() == [str(out / f"{split}.nc") for split in ("train", "val", "test")]
    archive = Archive(out)
    read = torch.cat([member.read() for split in archive.splits for member in archive.trajectories(split)])
    assert torch.equal(read.flatten(), torch.arange(5 * 3 * 4 * 4, dtype=torch.float32))
    assert len(archive.metadata.attributes["content_hash"]) == 64
    before = (out / "train.nc").read_bytes()
    assert main(command.split()) == 0
    assert (out / "train.nc").read_bytes() == before
    with pytest.raises(ValueError, match="choose another output directory"):
        main([*command.split(), "--viscosity", "1e-3"])


def test_convert_fno_file_with_its_options(tmp_path):
    path, out = tmp_path / "ns.mat", tmp_path / "out"
    u = np.arange(4 * 2 * 2 * 3, dtype=np.float32).reshape(4, 2, 2, 3)
    savemat(path, {"a": -u[..., 0], "u": u, "t": np.arange(1.0, 4.0)[None]})
    command = f"convert --format fno-mat {path} --viscosity 1e-5 --train 3 --test 1 --initial-frame --out {out}"
    assert main(command.split()) == 0
    (trajectory,) = Archive(out).trajectories("test")
    assert trajectory.times.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert trajectory.context.parameters.tolist() == pytest.approx([1e-5])
    assert np.array_equal(trajectory.read(1)[:, 0].numpy(), u[3].transpose(2, 0, 1))


def test_a_class_path_is_a_format(torch_file, tmp_path):
    command = (
        f"convert --format {FORMATS['torch-cfd']} {torch_file} --length 1 --frame-interval 0.5 --out {tmp_path / 'out'}"
    )
    assert main(command.split()) == 0
    assert Archive(tmp_path / "out").splits == ("train",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--format fno-mat --field stream", "leave them out"),
        ("--format torch-cfd --frame-interval 1", "Expected --length"),
        ("--format hdf7", "Expected a format among channel-numpy, fno-mat, torch-cfd"),
        ("--format no.such.Adapter", "Expected a format among"),
        ("--format torch-cfd --length 1", "give frame_interval"),
        ("--format fno-mat", "neither signature"),
    ],
)
def test_wrong_options_and_files_end_with_a_sentence(torch_file, tmp_path, capsys, options, message):
    command = ["datasets", "convert", str(torch_file), "--out", str(tmp_path / "out"), *options.split()]
    assert run(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [[], ["convert", "file"], ["melt"]])
def test_incomplete_command_lines_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "usage: pdesurrogate datasets" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["datasets", "doctor"])
def test_help_imports_nothing_heavy(module):
    program = (
        f"import sys, pdesurrogate.cli.{module} as verb\n"
        "try:\n    verb.main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'h5py', 'yaml', 'lightning', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: pdesurrogate" in done.stdout


def test_any_option_of_an_adapter_can_be_set(torch_file, tmp_path):
    command = ["convert", str(torch_file), "--format", "torch-cfd", "--out", str(tmp_path / "out")]
    options = ["--set", "length=1", "--set", "frame_interval=0.5", "--set", "val=1", "--set", "test=2"]
    assert main([*command, *options]) == 0
    assert Archive(tmp_path / "out").metadata.frame_interval == 0.5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lenght=1", r"that torch-cfd has \(.*viscosity.*\) but got --set lenght=\.\.\.; leave them out"),
        ("length=long", "cannot be read as torch-cfd"),
    ],
)
def test_settings_that_do_not_fit_are_named(torch_file, tmp_path, setting, message):
    command = ["convert", str(torch_file), "--format", "torch-cfd", "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        main([*command, "--set", setting, "--set", "frame_interval=0.5"])


@pytest.mark.parametrize("setting", ["length", "=1", "length=[1"])
def test_settings_without_name_or_value_are_explained(torch_file, tmp_path, setting, capsys):
    with pytest.raises(SystemExit):
        main(["convert", str(torch_file), "--format", "torch-cfd", "--out", str(tmp_path), "--set", setting])
    assert "expected" in capsys.readouterr().err
