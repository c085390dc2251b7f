import importlib.metadata
import json

import pytest

from pdesurrogate.cli import doctor

DECLARED = [
    "torch>=2.13",
    "jsonargparse[signatures]<5,>=4.53",
    "no-such-package>=1",
    "tensorboard; extra == 'tensorboard'",
    'torch-cfd==0.2.6; extra == "speed"',
]


def declare(monkeypatch, lines):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)


def test_this_environment_is_healthy(capsys):
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "All required packages are there." in out
    assert f"torch                {importlib.metadata.version('torch')}" in out


def test_json_agrees_with_the_declared_requirements(capsys):
    assert doctor.main(["--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    required = [line for line in importlib.metadata.requires("pdesurrogate") if "extra" not in line]
    assert len(findings["required"]) == len(required)
    for package in findings["required"]:
        assert package["version"] == importlib.metadata.version(package["name"])
    assert findings["torch"]["devices"][0] == "cpu"
    assert findings["torch"]["threads"] >= 1
    assert findings["free_disk_bytes"] > 0
    assert findings["resources"]["recipes"]["files"] >= 1


def test_a_missing_package_is_named_and_the_code_is_1(monkeypatch, capsys):
    declare(monkeypatch, DECLARED)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "no-such-package" in out
    assert "To repair: no-such-package" in out


def test_missing_extras_are_no_failure(monkeypatch):
    absent = ["torch>=2.13", "no-such-extra; extra == 'cloud'", "numpy; extra == 'local'"]
    declare(monkeypatch, absent)
    findings = doctor.examine()
    assert findings["healthy"]
    assert [package["name"] for package in findings["extras"]["cloud"]] == ["no-such-extra"]
    assert findings["extras"]["local"] == []


def test_a_version_outside_the_range_is_a_failure(monkeypatch, capsys):
    declare(monkeypatch, ["torch>=999"])
    assert doctor.main([]) == 1
    assert "outside the range, wanted >=999" in capsys.readouterr().out


def test_an_undeclared_installation_is_not_healthy(monkeypatch):
    declare(monkeypatch, None)
    assert not doctor.examine()["healthy"]


def test_lost_resources_are_reported(monkeypatch, capsys):
    def lost():
        raise ValueError("reinstall the package")

    monkeypatch.setattr("pdesurrogate.data.catalog.configs_directory", lost)
    assert doctor.main([]) == 0
    assert "configs: reinstall the package" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("2.13.0+cpu", ">=2.13", True),
        ("2.12.9", ">=2.13", False),
        ("4.53.0", ">=4.53,<5", True),
        ("5.0", ">=4.53,<5", False),
        ("10.0", ">=9.1", True),
        ("0.2.6", "==0.2.6", True),
        ("0.2.7", "==0.2.6", False),
        ("1.0", ">1.0", False),
        ("1.0", "<=1.0", True),
        ("2026.9.0", "", True),
    ],
)
def test_ranges_compare_numbers(version, wanted, expected):
    assert doctor.fits(version, wanted) is expected
