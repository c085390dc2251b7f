import hashlib
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch

from pdesurrogate.evaluation.checks import (
    check_checkpoint,
    check_coverage,
    check_first_frame,
    check_gradients,
    failed_checks,
    verify_checkpoint,
)
from pdesurrogate.evaluation.provenance import (
    checkpoint_record,
    device_description,
    file_sha256,
    git_commit,
    package_versions,
)


def test_checkpoint_hash(tmp_path):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"weights" * 1000)
    record = checkpoint_record(file)
    assert record == {"file": "last.ckpt", "sha256": hashlib.sha256(b"weights" * 1000).hexdigest()}
    assert checkpoint_record(file, "checkpoints/last.ckpt")["file"] == "checkpoints/last.ckpt"
    assert check_checkpoint(record, file).passed
    file.write_bytes(b"weights")
    altered = check_checkpoint(record, file)
    assert not altered.passed
    assert file_sha256(file)[:12] in altered.reason
    assert record["sha256"][:12] in altered.reason
    assert not check_checkpoint(record, tmp_path / "none.ckpt").passed
    assert check_checkpoint(None, None).passed
    with pytest.raises(ValueError, match="does not exist"):
        checkpoint_record(tmp_path / "none.ckpt")


def test_a_report_can_be_verified_against_a_file(tmp_path):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"weights")
    report = SimpleNamespace(attributes={"model": {"checkpoint": checkpoint_record(file)}})
    assert verify_checkpoint(report, file).passed
    file.write_bytes(b"other")
    assert not verify_checkpoint(report, file).passed


def test_findings_in_words():
    assert check_gradients([]).passed
    unused = check_gradients(["a", "b", "c", "d"])
    assert not unused.passed
    assert unused.reason == "4 parameters had no gradient: a, b, c, ..."
    assert check_coverage(3, 3).passed
    assert not check_coverage(3, 4).passed
    assert check_first_frame([], "surrogate").passed
    assert check_first_frame([0], "baseline").passed
    assert not check_first_frame([2, 5], "solver").passed


def test_failed_checks_lists_the_failed_ones():
    checks = [check.to_dict() for check in (check_coverage(3, 4), check_gradients([]), check_gradients(["a"]))]
    failed = failed_checks(SimpleNamespace(attributes={"checks": checks}))
    assert failed == [
        "all_trajectories: 3 of 4 trajectories of the split were evaluated",
        "parameters_trained: 1 parameters had no gradient: a",
    ]


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_commit_states_changes_and_ignores_foreign_repositories(tmp_path):
    assert git_commit(tmp_path) is None
    git(tmp_path, "init")
    assert git_commit(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == f"{commit}+changes"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert git_commit(inside) is None


def test_versions_and_device():
    versions = package_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "numpy", "xarray"} <= set(versions)
    assert device_description("cpu").startswith("cpu (")
    assert device_description("meta") == "meta"
