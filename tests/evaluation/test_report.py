import copy
import json

import numpy as np
import pytest
import xarray

from pdesurrogate.evaluation.report import Report


def attributes():
    return {
        "schema_version": 2,
        "model": {
            "name": "FNO",
            "kind": "surrogate",
            "class_path": "package.Network",
            "config": {"width": 32},
            "parameters": 1200,
            "parameters_without_gradient": [],
            "checkpoint": {"file": "last.ckpt", "sha256": "0" * 64},
            "training": {"seed": 0, "steps": 10, "epochs": 2, "wall_time_s": 1.5, "device": "cpu"},
        },
        "data": {
            "name": "decay",
            "split": "test",
            "content_hash": "",
            "channels": ["vorticity"],
            "shape": [16, 16],
            "periods": [6.25, None],
            "frame_interval": 0.1,
            "trajectories": 2,
            "trajectories_declared": 2,
            "start_frame": 1,
            "frames": 3,
            "recipe": None,
        },
        "run": {
            "command": "evaluate",
            "seed": None,
            "versions": {"torch": "2.13.0"},
            "git_commit": None,
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
            "processes": 1,
            "wall_time_s": 0.5,
            "seconds_per_frame": 0.01,
            "metric_seconds_per_frame": 0.001,
            "batch_size": 16,
            "created": "2026-01-02T03:04:05+00:00",
        },
        "cost": None,
        "scores": {
            "relative_l2": {
                "value": None,
                "spread": None,
                "interval": None,
                "units": "1",
                "higher_is_better": False,
                "description": "mean",
            }
        },
        "checks": [{"name": "coverage", "passed": True, "reason": "2 of 2"}],
    }


def curves():
    labels = {"units": "1", "long_name": "something"}
    error = np.array([[[0.1], [0.2], [np.nan]], [[0.3], [0.4], [0.5]]])
    return xarray.Dataset(
        {
            "relative_l2": (("trajectory", "lead_time", "channel"), error, labels),
            "finite": (("trajectory", "lead_time"), np.isfinite(error[..., 0]).astype(np.int8), labels),
            "blow_up_time": (("trajectory",), np.array([0.3, np.nan]), {**labels, "units": "s"}),
        },
        coords={
            "lead_time": ("lead_time", [0.1, 0.2, 0.3], {"units": "s", "long_name": "lead time"}),
            "channel": ["vorticity"],
            "trajectory": [0, 1],
        },
    )


def test_round_trip(tmp_path):
    report = Report(attributes(), curves())
    directory = report.save(tmp_path / "deep" / "folder")
    assert sorted(path.name for path in directory.iterdir()) == ["report.json", "report.nc"]
    loaded = Report.load(directory)
    assert loaded.attributes == report.attributes
    # Times in seconds stay numbers.
    assert loaded.curves.identical(report.curves)
    assert loaded.curves["blow_up_time"].dtype == np.float64


def test_saving_again_replaces_the_older_report(tmp_path):
    Report(attributes(), curves()).save(tmp_path)
    other = attributes()
    other["model"]["name"] = "SFNO"
    Report(other, curves().isel(trajectory=[1])).save(tmp_path)
    loaded = Report.load(tmp_path)
    assert loaded.attributes["model"]["name"] == "SFNO"
    assert loaded.curves.sizes["trajectory"] == 1


def changed(path, value):
    result = copy.deepcopy(attributes())
    place = result
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


VIOLATIONS = [
    (("model", "kind"), "magic", "model/kind: 'magic' is not one of"),
    (("model", "parameters"), -1, "model/parameters"),
    (("model", "checkpoint"), {"file": "a"}, "model/checkpoint"),
    (("model", "nickname"), "x", "nickname"),
    (("data", "shape"), [16.5], "data/shape/0"),
    (("data", "start_frame"), 0, "data/start_frame"),
    (("data", "split"), KeyError, "'split' is a required property"),
    (("run", "created"), "yesterday", "run/created"),
    (("scores", "relative_l2", "value"), "small", "scores/relative_l2/value"),
    (("scores", "relative_l2", "interval"), [0.1], "scores/relative_l2/interval"),
    (("cost",), {"seconds_per_frame": 1.0}, "cost"),
    (("checks", 0, "passed"), "yes", "checks/0/passed"),
    (("schema_version",), 1, "Expected schema_version 2"),
]


@pytest.mark.parametrize(("path", "value", "message"), VIOLATIONS)
def test_what_does_not_fit_the_schema_is_neither_written_nor_read(tmp_path, path, value, message):
    with pytest.raises(ValueError, match=message):
        Report(changed(path, value), curves()).save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    directory = Report(attributes(), curves()).save(tmp_path / "old")
    stored = json.loads((directory / "report.json").read_text())
    (directory / "report.json").write_text(
        json.dumps({**changed(path, value), "curves_sha256": stored["curves_sha256"]})
    )
    with pytest.raises(ValueError, match=message):
        Report.load(directory)


@pytest.mark.parametrize("name", ["report.json", "report.nc"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path, name, kept):
    directory = Report(attributes(), curves()).save(tmp_path)
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"[Ee]valuate again"):
        Report.load(directory)


def test_curves_of_another_run_are_refused(tmp_path):
    one = Report(attributes(), curves()).save(tmp_path / "one")
    other = Report(attributes(), curves().isel(trajectory=[0])).save(tmp_path / "other")
    (one / "report.nc").replace(other / "report.nc")
    with pytest.raises(ValueError, match="SHA-256"):
        Report.load(other)


@pytest.mark.parametrize("name", ["report.json", "report.nc"])
def test_a_missing_file_is_refused(tmp_path, name):
    directory = Report(attributes(), curves()).save(tmp_path)
    (directory / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Report.load(directory)


def test_json_that_is_no_report_is_refused(tmp_path):
    directory = Report(attributes(), curves()).save(tmp_path)
    for text in ("[1, 2]", '{"schema_version": NaN}', "{}"):
        (directory / "report.json").write_text(text)
        with pytest.raises(ValueError, match="evaluate again"):
            Report.load(directory)


def test_unlabelled_curves_are_refused(tmp_path):
    bare = curves()
    del bare["relative_l2"].attrs["units"]
    with pytest.raises(ValueError, match="'relative_l2' in the report to state its units"):
        Report(attributes(), bare).save(tmp_path)
    with pytest.raises(ValueError, match="Expected curves relative_l2 and finite"):
        Report(attributes(), curves().drop_vars("finite")).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}])
def test_values_that_json_does_not_know_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="use null"):
        Report(changed(("model", "config"), {"width": bad}), curves()).save(tmp_path)
    assert not (tmp_path / "report.json").exists()
