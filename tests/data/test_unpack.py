"""Archives of good and bad will: nothing lands outside the folder, nothing is overwritten, damage is named."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.data.downloads.registry import DownloadError, is_inside
from pdesurrogate.data.downloads.unpack import Bounds, unpack


def write_zip(path, members, kinds=None):
    """Members by name; ``kinds`` are file types as in `stat`, by name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo("placeholder")
            # The constructor mends names; those who do harm do not use it.
            info.filename = info.orig_filename = name
            info.external_attr = ((kinds or {}).get(name, stat.S_IFREG) | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of names that come twice
                archive.writestr(info, data)
    return path


def files(folder):
    """All that lies in a folder, with contents."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def refuses(archive, folder, words, **options):
    """The message fits, and the folder is as before."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DownloadError, match=words):
        unpack(archive, folder, **options)
    assert sorted(folder.rglob("*")) == before


def test_all_files_come_to_their_places(tmp_path):
    members = [("./bc/case0000/u.npy", b"one"), ("bc/case0000/case.json", b"{}"), ("geo/u.npy", b"")]
    archive = write_zip(tmp_path / "a", members)
    paths = unpack(archive, tmp_path, into="cavity")
    assert paths == [tmp_path / "cavity" / name for name, _ in members]
    assert [path.read_bytes() for path in paths] == [data for _, data in members]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "cavity"]


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["cylinder/bc/case0/u", "cylinder/bc/case1/u"], ["case0/u", "case1/u"]),
        (["bc/case0/u", "bc/case1/u"], ["case0/u", "case1/u"]),
        (["case0/u", "case1/u"], ["case0/u", "case1/u"]),
        (["bc/case0/u", "readme"], ["bc/case0/u", "readme"]),
        (["cylinder/case0/u"], ["cylinder/case0/u"]),
        (["__MACOSX/._u", "bc/u"], ["u"]),
    ],
)
def test_the_folders_own_name_is_not_repeated(tmp_path, names, places):
    archive = write_zip(tmp_path / "bc.zip", [(name, b"u") for name in names])
    assert unpack(archive, tmp_path, into="cylinder/bc") == [tmp_path / "cylinder/bc" / place for place in places]


def test_folders_are_members_too(tmp_path):
    folders = {"./": stat.S_IFDIR, "x/": stat.S_IFDIR}
    archive = write_zip(tmp_path / "a", [("./", b""), ("x/", b""), ("x/u", b"u")], folders)
    assert unpack(archive, tmp_path / "out") == [tmp_path / "out/x/u"]


BAD_NAMES = ["/etc/x", "../x", "a/../../x", "a/..", "C:/x", "C:x", "a\\..\\..\\x", "..", "//host/x"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_out_are_refused(tmp_path, name):
    archive = write_zip(tmp_path / "a", [("good", b"1"), (name, b"2")])
    refuses(archive, tmp_path, "leaves the folder")


@given(
    names=st.lists(
        st.lists(
            st.sampled_from(["a", "b", "..", ".", "", "C:", "\\", "a\0b", "é", " ", "~", "-"]), min_size=1, max_size=5
        ).map("/".join),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=60)
def test_whatever_the_names_nothing_lands_outside(names):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        inner = root / "in" / "to"
        inner.mkdir(parents=True)
        archive = inner / "archive"
        try:
            write_zip(archive, [(name, b"x") for name in names])
        except ValueError:  # no archive can hold that name
            return
        try:
            paths = unpack(archive, inner)
        except DownloadError:
            paths = []
            assert sorted(inner.iterdir()) == [archive]
        assert set(files(root)) == {"in/to/archive", *(path.relative_to(root).as_posix() for path in paths)}
        assert all(path.is_relative_to(inner) and ".." not in path.parts for path in paths)


@given(st.text(alphabet="ab./\\:C\0", min_size=0, max_size=12))
def test_paths_that_are_inside_stay_inside(name):
    if is_inside(name):
        joined = os.path.normpath(os.path.join("/folder/of/set", name))
        assert joined == "/folder/of/set" or joined.startswith("/folder/of/set/")


@pytest.mark.parametrize("target", ["inside", "/etc/passwd", "../../x"])
def test_links_are_refused(tmp_path, target):
    link = [("inside", b"1"), ("link", target.encode())]
    refuses(write_zip(tmp_path / "a", link, {"link": stat.S_IFLNK}), tmp_path, "link or a device")


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_are_refused(tmp_path, kind):
    refuses(write_zip(tmp_path / "a", [("device", b"")], {"device": kind}), tmp_path, "link or a device")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/u", "a/./u"], "twice"),
        (["a", "a/u"], "as a file and as a folder"),
        (["a/u/v", "a/u"], "as a file and as a folder"),
    ],
)
def test_members_that_contradict_each_other(tmp_path, names, words):
    refuses(write_zip(tmp_path / "a", [(name, b"1") for name in names]), tmp_path, words)


def test_bounds(tmp_path):
    archive = tmp_path / "archive"
    zeros = [("a/u.npy", bytes(4_000_000)), ("a/v.npy", bytes(4_000_000))]
    write_zip(archive, zeros)
    for bounds, words in (
        (Bounds(members=1), "more than 1 members"),
        (Bounds(bytes=5_000_000), "more than 5 MB"),
        (Bounds(ratio_from=7_000_000), "times its own size"),
    ):
        refuses(archive, tmp_path, words, bounds=bounds)
    # As small as this it may shrink by any factor.
    assert len(unpack(archive, tmp_path)) == 2


def test_what_does_not_fit_on_the_disk(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "a", [("u.npy", bytes(1_000_000))])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(1 << 26) + 999_999))
    refuses(archive, tmp_path, "free space")


def test_nothing_that_differs_is_overwritten(tmp_path):
    archive = write_zip(tmp_path / "a", [("new", b"new"), ("x/u", b"published")])
    (tmp_path / "x").mkdir()
    (tmp_path / "x/u").write_bytes(b"my own")
    refuses(archive, tmp_path, "differs from the one in the archive")
    assert files(tmp_path / "x") == {"u": b"my own"}
    (tmp_path / "x/u").write_bytes(b"published")
    assert unpack(archive, tmp_path) == [tmp_path / "new", tmp_path / "x/u"]


def test_a_link_in_the_way_is_not_followed(tmp_path):
    archive = write_zip(tmp_path / "a", [("u", b"published")])
    (tmp_path / "u").symlink_to(tmp_path / "elsewhere")
    refuses(archive, tmp_path, "differs")
    assert not (tmp_path / "elsewhere").exists()


def test_files_in_the_way_of_folders_and_folders_in_the_way_of_files(tmp_path):
    archive = write_zip(tmp_path / "archive", [("x/u", b"published")])
    (tmp_path / "x").write_bytes(b"mine")
    refuses(archive, tmp_path, "Expected nothing else at .*/x but")
    (tmp_path / "x").unlink()
    (tmp_path / "x" / "u").mkdir(parents=True)
    refuses(archive, tmp_path, "Expected nothing else at .*/x/u but")


def test_names_that_no_disk_takes(tmp_path):
    refuses(write_zip(tmp_path / "a", [("x" * 300, b"1")]), tmp_path, "may be damaged")


def test_encrypted_archives_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a", [("u", b"data")])
    packed = bytearray(archive.read_bytes())
    packed[packed.index(b"PK\x03\x04") + 6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(packed)
    refuses(archive, tmp_path, "anyone can read but .* encrypted")


def test_a_member_longer_than_declared_is_cut_and_refused(tmp_path):
    archive = write_zip(tmp_path / "a", [("u", bytes(100_000))])
    packed = bytearray(archive.read_bytes())
    place = packed.index(b"PK\x01\x02")
    packed[place + 24 : place + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(packed)
    refuses(archive, tmp_path, "may be damaged")


@pytest.mark.parametrize("data", [b"", b"PK nothing", b"x" * 2000])
def test_what_is_no_archive(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    refuses(tmp_path / "a", tmp_path, "may be damaged. Remove it")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    members = [(f"case{number}/u.npy", bytes(range(256)) * 3) for number in range(3)]
    return write_zip(tmp_path_factory.mktemp("packed") / "a", members).read_bytes()


@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=50)
def test_damage_ends_in_a_message_or_in_files_within_the_folder(packed, flips, kept):
    data = bytearray(packed)
    for place, change in flips:
        data[int(place * len(data))] ^= change
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        archive = root / "in" / "a"
        archive.write_bytes(data[: int(kept * len(data))])
        try:
            paths = unpack(archive, root / "in")
        except DownloadError:
            assert list(files(root)) == ["in/a"]
        else:
            assert set(files(root)) == {"in/a", *(path.relative_to(root).as_posix() for path in paths)}


def test_leftovers_of_a_call_that_was_killed_do_no_harm(tmp_path):
    archive = write_zip(tmp_path / "a.zip", [("u", b"new")])
    stale = tmp_path / ".a.zip.unpacking"
    stale.mkdir()
    (stale / "u").write_bytes(b"half")
    assert unpack(archive, tmp_path)[0].read_bytes() == b"new"
    assert not stale.exists()
