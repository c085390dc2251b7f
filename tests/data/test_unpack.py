"""Archives of good and bad will: nothing lands outside the folder, nothing is overwritten, damage is named."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
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


def write_tar(path, members, kinds=None, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = (kinds or {}).get(name, tarfile.REGTYPE)
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            info.linkname = data.decode() if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(data))
    return path


WRITERS = {"zip": write_zip, "tar": write_tar}
forms = pytest.mark.parametrize("form", ["zip", "tar"])


def files(folder):
    """All that lies in a folder, with contents."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def refuses(archive, folder, form, words, **options):
    """The message fits, and the folder is as before."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DownloadError, match=words):
        unpack(archive, folder, form, **options)
    assert sorted(folder.rglob("*")) == before


@forms
def test_all_files_come_to_their_places(tmp_path, form):
    members = [("./bc/case0000/u.npy", b"one"), ("bc/case0000/case.json", b"{}"), ("geo/u.npy", b"")]
    archive = WRITERS[form](tmp_path / "a", members)
    paths = unpack(archive, tmp_path, form, into="cavity")
    assert paths == [tmp_path / "cavity" / name for name, _ in members]
    assert [path.read_bytes() for path in paths] == [data for _, data in members]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "cavity"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_packed_tars(tmp_path, mode):
    archive = write_tar(tmp_path / "a.tar", [("x/u.npy", 1000 * b"u")], mode=mode)
    assert unpack(archive, tmp_path / "out", "tar") == [tmp_path / "out/x/u.npy"]


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
    assert unpack(archive, tmp_path, "zip", into="cylinder/bc") == [
        tmp_path / "cylinder/bc" / place for place in places
    ]


@forms
def test_folders_are_members_too(tmp_path, form):
    archive = tmp_path / "a"
    if form == "zip":
        write_zip(archive, [("./", b""), ("x/", b""), ("x/u", b"u")], {"./": stat.S_IFDIR, "x/": stat.S_IFDIR})
    else:
        write_tar(archive, [(".", b""), ("x", b""), ("x/u", b"u")], {".": tarfile.DIRTYPE, "x": tarfile.DIRTYPE})
    assert unpack(archive, tmp_path / "out", form) == [tmp_path / "out/x/u"]


BAD_NAMES = ["/etc/x", "../x", "a/../../x", "a/..", "C:/x", "C:x", "a\\..\\..\\x", "..", "//host/x"]


@forms
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_out_are_refused(tmp_path, form, name):
    archive = WRITERS[form](tmp_path / "a", [("good", b"1"), (name, b"2")])
    refuses(archive, tmp_path, form, "leaves the folder")


@given(
    names=st.lists(
        st.lists(
            st.sampled_from(["a", "b", "..", ".", "", "C:", "\\", "a\0b", "é", " ", "~", "-"]), min_size=1, max_size=5
        ).map("/".join),
        min_size=1,
        max_size=4,
    ),
    form=st.sampled_from(["zip", "tar"]),
)
@settings(max_examples=100)
def test_whatever_the_names_nothing_lands_outside(names, form):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        inner = root / "in" / "to"
        inner.mkdir(parents=True)
        archive = inner / "archive"
        try:
            WRITERS[form](archive, [(name, b"x") for name in names])
        except ValueError:  # no archive can hold that name
            return
        try:
            paths = unpack(archive, inner, form)
        except DownloadError:
            paths = []
            assert sorted(inner.iterdir()) == [archive]
        assert set(files(root)) == {"in/to/archive", *(path.relative_to(root).as_posix() for path in paths)}
        assert all(path.is_relative_to(inner) and ".." not in path.parts for path in paths)


@given(st.text(alphabet="ab./\\:C\0", min_size=0, max_size=12))
def test_paths_that_are_inside_stay_inside(name):
    if is_inside(name):
        joined = os.path.normpath(os.path.join("/root/of/set", name))
        assert joined == "/root/of/set" or joined.startswith("/root/of/set/")


@pytest.mark.parametrize("target", ["inside", "/etc/passwd", "../../x"])
def test_links_are_refused(tmp_path, target):
    link = [("inside", b"1"), ("link", target.encode())]
    refuses(write_zip(tmp_path / "a", link, {"link": stat.S_IFLNK}), tmp_path, "zip", "link or a device")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        refuses(write_tar(tmp_path / "a", link, {"link": kind}), tmp_path, "tar", "link or a device")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, kind):
    refuses(write_tar(tmp_path / "a", [("device", b"")], {"device": kind}), tmp_path, "tar", "link or a device")
    refuses(write_zip(tmp_path / "a", [("device", b"")], {"device": stat.S_IFIFO}), tmp_path, "zip", "link or a device")


@forms
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/u", "a/./u"], "twice"),
        (["a", "a/u"], "as a file and as a folder"),
        (["a/u/v", "a/u"], "as a file and as a folder"),
    ],
)
def test_members_that_contradict_each_other(tmp_path, form, names, words):
    refuses(WRITERS[form](tmp_path / "a", [(name, b"1") for name in names]), tmp_path, form, words)


@forms
def test_bounds(tmp_path, form):
    archive = tmp_path / "archive"
    zeros = [("a/u.npy", bytes(4_000_000)), ("a/v.npy", bytes(4_000_000))]
    if form == "zip":
        write_zip(archive, zeros)
    else:
        write_tar(archive, zeros, mode="w:gz")
    for bounds, words in (
        (Bounds(members=1), "more than 1 members"),
        (Bounds(bytes=5_000_000), "more than 5 MB"),
        (Bounds(ratio_from=7_000_000), "times its own size"),
    ):
        refuses(archive, tmp_path, form, words, bounds=bounds)
    # As small as this it may shrink by any factor.
    assert len(unpack(archive, tmp_path, form)) == 2


@forms
def test_what_does_not_fit_on_the_disk(tmp_path, form, monkeypatch):
    archive = WRITERS[form](tmp_path / "a", [("u.npy", bytes(1_000_000))])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(1 << 26) + 999_999))
    refuses(archive, tmp_path, form, "free space")


@forms
def test_nothing_that_differs_is_overwritten(tmp_path, form):
    archive = WRITERS[form](tmp_path / "a", [("new", b"new"), ("x/u", b"published")])
    (tmp_path / "x").mkdir()
    (tmp_path / "x/u").write_bytes(b"my own")
    refuses(archive, tmp_path, form, "differs from the one in the archive")
    assert files(tmp_path / "x") == {"u": b"my own"}
    (tmp_path / "x/u").write_bytes(b"published")
    assert unpack(archive, tmp_path, form) == [tmp_path / "new", tmp_path / "x/u"]


@forms
def test_a_link_in_the_way_is_not_followed(tmp_path, form):
    archive = WRITERS[form](tmp_path / "a", [("u", b"published")])
    (tmp_path / "u").symlink_to(tmp_path / "elsewhere")
    refuses(archive, tmp_path, form, "differs")
    assert not (tmp_path / "elsewhere").exists()


@forms
def test_files_in_the_way_of_folders_and_folders_in_the_way_of_files(tmp_path, form):
    archive = WRITERS[form](tmp_path / "archive", [("x/u", b"published")])
    (tmp_path / "x").write_bytes(b"mine")
    refuses(archive, tmp_path, form, "Expected nothing else at .*/x but")
    (tmp_path / "x").unlink()
    (tmp_path / "x" / "u").mkdir(parents=True)
    refuses(archive, tmp_path, form, "Expected nothing else at .*/x/u but")


def test_headers_of_a_tar_are_bounded(tmp_path):
    long = write_tar(tmp_path / "long", [("x" * 200 + "/" + "y" * 200, b"u")], mode="w:gz")
    assert len(unpack(long, tmp_path / "out", "tar")) == 1
    headers = {"comment": "c" * 100_000}
    with tarfile.open(tmp_path / "a", "w:gz", pax_headers=headers) as archive:
        archive.addfile(tarfile.TarInfo("u"))
    refuses(tmp_path / "a", tmp_path, "tar", "a header of 10")
    sparse = tarfile.TarInfo("u")
    sparse.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "b").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refuses(tmp_path / "b", tmp_path, "tar", "may be damaged")
    for version in ("0", "1"):
        sparse = tarfile.TarInfo("u")
        sparse.pax_headers = {"GNU.sparse.major": version, "GNU.sparse.minor": "0", "GNU.sparse.map": "0,1"}
        (tmp_path / "c").write_bytes(sparse.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
        refuses(tmp_path / "c", tmp_path, "tar", "may be damaged")


@forms
def test_names_that_no_disk_takes(tmp_path, form):
    refuses(WRITERS[form](tmp_path / "a", [("x" * 300, b"1")]), tmp_path, form, "may be damaged")


def test_encrypted_archives_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a", [("u", b"data")])
    packed = bytearray(archive.read_bytes())
    packed[packed.index(b"PK\x03\x04") + 6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(packed)
    refuses(archive, tmp_path, "zip", "anyone can read but .* encrypted")


def test_a_member_longer_than_declared_is_cut_and_refused(tmp_path):
    archive = write_zip(tmp_path / "a", [("u", bytes(100_000))])
    packed = bytearray(archive.read_bytes())
    place = packed.index(b"PK\x01\x02")
    packed[place + 24 : place + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(packed)
    refuses(archive, tmp_path, "zip", "may be damaged")


@pytest.mark.parametrize(("form", "data"), [("zip", b""), ("zip", b"PK nothing"), ("tar", b"x" * 2000), ("tar", b"")])
def test_what_is_no_archive(tmp_path, form, data):
    (tmp_path / "a").write_bytes(data)
    refuses(tmp_path / "a", tmp_path, form, "may be damaged. Remove it")


ARCHIVES = {}
for _form, _mode in (("zip", ""), ("tar", "w"), ("tar", "w:gz"), ("tar", "w:xz"), ("tar", "w:bz2")):
    with tempfile.TemporaryDirectory() as _folder:
        _members = [(f"case{number}/u.npy", bytes(range(256)) * 3) for number in range(3)]
        _path = Path(_folder) / "a"
        ARCHIVES[_form, _mode] = (
            write_zip(_path, _members) if _form == "zip" else write_tar(_path, _members, mode=_mode)
        ).read_bytes()


@given(
    which=st.sampled_from(sorted(ARCHIVES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=100)
def test_damage_ends_in_a_message_or_in_files_within_the_folder(which, flips, kept):
    data = bytearray(ARCHIVES[which])
    for place, change in flips:
        data[int(place * len(data))] ^= change
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        archive = root / "in" / "a"
        archive.write_bytes(data[: int(kept * len(data))])
        try:
            paths = unpack(archive, root / "in", which[0])
        except DownloadError:
            assert list(files(root)) == ["in/a"]
        else:
            assert set(files(root)) == {"in/a", *(path.relative_to(root).as_posix() for path in paths)}


def test_leftovers_of_a_call_that_was_killed_do_no_harm(tmp_path):
    archive = write_zip(tmp_path / "a.zip", [("u", b"new")])
    stale = tmp_path / ".a.zip.unpacking"
    stale.mkdir()
    (stale / "u").write_bytes(b"half")
    assert unpack(archive, tmp_path, "zip")[0].read_bytes() == b"new"
    assert not stale.exists()
