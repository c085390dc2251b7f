"""Downloads from a host on this machine: resuming, refusing, digests, records of earlier ones, the Hub."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import zipfile
from io import BytesIO
from types import SimpleNamespace

import pytest
import requests
from file_host import file_host

from pdesurrogate.data.catalog import datasets_directory
from pdesurrogate.data.downloads import hub as hub_module
from pdesurrogate.data.downloads.checks import require_space
from pdesurrogate.data.downloads.fetch import Patience, fetch, stated_size
from pdesurrogate.data.downloads.hub import ask_hub
from pdesurrogate.data.downloads.ledger import LEDGER, Ledger
from pdesurrogate.data.downloads.registry import (
    Digest,
    DownloadError,
    HubFile,
    OutOfReachError,
    PublishedFile,
    find,
    read_registry,
)
from pdesurrogate.data.downloads.sets import Terms, download, plan

# Some chunks of what is read at once.
DATA = bytes(range(256)) * 4096
OTHER = DATA[::-1]
CUT = 700_000


@pytest.fixture(autouse=True)
def _straight(monkeypatch):
    """Nothing stands between this process and the host."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def server():
    with file_host() as host:
        yield host


@pytest.fixture
def host(server):
    server.files.clear()
    server.asked.clear()
    return server


@pytest.fixture
def waited():
    return []


@pytest.fixture
def patience(waited):
    return Patience(attempts=4, timeout=5.0, sleep=waited.append)


def sha256(data, by="the registry"):
    return Digest("sha256", hashlib.sha256(data).hexdigest(), by)


def zipped(members):
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# One file.


def test_a_file_comes_whole_and_nothing_is_left_beside_it(host, tmp_path, patience):
    told = []
    url = host.serve("/flow.mat", DATA)
    md5 = Digest("md5", hashlib.md5(DATA, usedforsecurity=False).hexdigest(), "the registry")
    target = tmp_path / "deep" / "flow.mat"
    fetch(
        url, target, size=len(DATA), digests=[sha256(DATA), md5], patience=patience, progress=lambda *x: told.append(x)
    )
    assert target.read_bytes() == DATA
    assert left(target.parent) == ["flow.mat"]
    assert told == sorted(told)
    assert told[-1] == (len(DATA), len(DATA))
    assert stated_size(url) == len(DATA)


def test_a_wrong_digest_exposes_nothing_and_says_who_stated_it(host, tmp_path, patience):
    url = host.serve("/flow.mat", DATA)
    with pytest.raises(DownloadError, match=r"by the authors, but got .* Nothing was kept") as error:
        fetch(url, tmp_path / "flow.mat", digests=[sha256(DATA), sha256(OTHER, "the authors")], patience=patience)
    assert all(digest.value in str(error.value) for digest in (sha256(DATA), sha256(OTHER)))
    assert left(tmp_path) == []


def test_the_name_appears_only_after_the_digest_is_checked(host, tmp_path, patience, monkeypatch):
    target, seen = tmp_path / "flow.mat", []
    url = host.serve("/flow.mat", DATA)
    check = fetch.__globals__["require_digests"]

    def watched(*arguments):
        seen.append(left(tmp_path))
        check(*arguments)

    monkeypatch.setitem(fetch.__globals__, "require_digests", watched)
    fetch(url, target, digests=[sha256(DATA)], patience=patience)
    assert seen == [["flow.mat.part", "flow.mat.part.json"]]


def test_a_broken_line_is_taken_up_where_it_broke(host, tmp_path, patience, waited):
    url = host.serve("/flow.mat", DATA, faults=[("cut", CUT), ("cut", 300_000)])
    fetch(url, tmp_path / "flow.mat", digests=[sha256(DATA)], patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == DATA
    first, *others = host.ranges()
    starts = [int(other.removeprefix("bytes=").removesuffix("-")) for other in others]
    assert first is None
    assert 0 < starts[0] <= CUT < starts[1] <= starts[0] + 300_000
    assert waited == [1.0, 2.0]


def interrupted(url, target, patience):
    """A download that is stopped by the user after its first bytes."""

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, target, patience=patience, progress=stop)
    assert left(target.parent) == [f"{target.name}.part", f"{target.name}.part.json"]
    return target.with_name(f"{target.name}.part").stat().st_size


@pytest.mark.parametrize("by", [{"etag": '"a"'}, {"etag": None, "modified": "Sat, 21 Nov 2026 10:00:00 GMT"}])
def test_an_interrupted_download_goes_on(host, tmp_path, patience, by):
    url = host.serve("/flow.mat", DATA, **by)
    have = interrupted(url, tmp_path / "flow.mat", patience)
    fetch(url, tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == DATA
    assert host.ranges() == [None, f"bytes={have}-"]


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        pytest.param({}, {"ranges": "never"}, True, id="ranges are ignored"),
        pytest.param({}, {"etag": '"two"'}, True, id="the tag changed"),
        pytest.param(
            {"etag": None, "modified": "a day"}, {"etag": None, "modified": "a day later"}, True, id="the date"
        ),
        pytest.param({"etag": None}, {"etag": None}, False, id="nothing to tell by"),
        pytest.param({"etag": 'W/"weak"'}, {"etag": 'W/"weak"'}, False, id="a weak tag"),
    ],
)
def test_another_version_is_begun_afresh(host, tmp_path, patience, before, after, asked, waited):
    url = host.serve("/flow.mat", DATA, **before)
    have = interrupted(url, tmp_path / "flow.mat", patience)
    host.serve("/flow.mat", OTHER, **after)
    fetch(url, tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == OTHER
    assert host.ranges() == [None, f"bytes={have}-" if asked else None]
    assert waited == []


def test_a_host_that_heeds_ranges_alone_cannot_join_two_versions(host, tmp_path, patience):
    url = host.serve("/flow.mat", DATA)
    interrupted(url, tmp_path / "flow.mat", patience)
    host.serve("/flow.mat", OTHER, etag='"two"', ranges="blindly")
    fetch(url, tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == OTHER


def test_another_range_than_was_asked_for_is_not_joined(host, tmp_path, patience):
    url = host.serve("/flow.mat", DATA)
    interrupted(url, tmp_path / "flow.mat", patience)
    host.serve("/flow.mat", DATA, ranges="wrongly")
    fetch(url, tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == DATA


def test_bytes_beyond_the_file_are_begun_afresh(host, tmp_path, patience):
    url = host.serve("/flow.mat", DATA)
    interrupted(url, tmp_path / "flow.mat", patience)
    host.serve("/flow.mat", DATA[:1000])
    fetch(url, tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == DATA[:1000]


def test_the_bytes_of_another_address_are_not_gone_on_with(host, tmp_path, patience):
    interrupted(host.serve("/flow.mat", DATA), tmp_path / "flow.mat", patience)
    fetch(host.serve("/moved.mat", OTHER), tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_bytes() == OTHER


def test_a_whole_file_that_was_not_checked_is_not_downloaded_again(host, tmp_path, patience):
    (tmp_path / "flow.mat.part").write_bytes(DATA)
    url = host.serve("/flow.mat", DATA)
    fetch(url, tmp_path / "flow.mat", size=len(DATA), digests=[sha256(DATA)], patience=patience)
    assert left(tmp_path) == ["flow.mat"]
    assert host.asked == []
    # Nothing would tell that these are the right bytes.
    (tmp_path / "other.mat.part").write_bytes(OTHER)
    fetch(url, tmp_path / "other.mat", size=len(DATA), patience=patience)
    assert (tmp_path / "other.mat").read_bytes() == DATA


def test_an_empty_file(host, tmp_path, patience):
    fetch(host.serve("/empty"), tmp_path / "empty", size=0, digests=[sha256(b"")], patience=patience)
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<p>Please log in</p>", "text/html; charset=utf-8"),
        (b"\xef\xbb\xbf \n<!DOCTYPE HTML><title>Quota</title>", "application/octet-stream"),
        (b"<html lang='en'>", "application/x-hdf5"),
    ],
)
def test_a_web_page_is_no_file(host, tmp_path, patience, data, kind):
    url = host.serve("/flow.h5", data, kind=kind)
    with pytest.raises(DownloadError, match="got a web page"):
        fetch(url, tmp_path / "flow.h5", patience=patience)
    assert left(tmp_path) == []


@pytest.mark.parametrize(("status", "words"), [(401, "account"), (403, "everyone"), (404, "no longer"), (418, "later")])
def test_a_refusal_is_explained_and_not_repeated(host, tmp_path, patience, status, words):
    url = host.serve("/flow.mat", b"", status=status)
    with pytest.raises(DownloadError, match=rf"status {status} .*{words}"):
        fetch(url, tmp_path / "flow.mat", patience=patience)
    assert host.count() == 1
    assert left(tmp_path) == []


def test_a_busy_host_is_asked_again_when_it_says(host, tmp_path, waited):
    told = []
    patience = Patience(sleep=waited.append, tell=told.append)
    faults = [("status", 503), ("status", 429)]
    fetch(host.serve("/a", DATA, faults=faults, headers={"Retry-After": "7"}), tmp_path / "a", patience=patience)
    assert waited == [7.0, 7.0]
    assert "status 503" in told[0]
    fetch(
        host.serve("/b", DATA, faults=[("status", 500)], headers={"Retry-After": "900"}),
        tmp_path / "b",
        patience=patience,
    )
    assert waited[2:] == [patience.longest_wait]
    fetch(
        host.serve("/c", DATA, faults=[("status", 502)], headers={"Retry-After": "now"}),
        tmp_path / "c",
        patience=patience,
    )
    assert waited[3:] == [1.0]


def test_it_is_given_up_after_all_attempts(host, tmp_path, patience, waited):
    url = host.serve("/flow.mat", status=503)
    with pytest.raises(DownloadError, match=r"last of 4 attempts .* 503 .* same command continues"):
        fetch(url, tmp_path / "flow.mat", patience=patience)
    assert (host.count(), waited) == (4, [1.0, 2.0, 4.0])


def test_attempts_are_counted_anew_while_bytes_come(host, tmp_path, waited):
    data = DATA * 4
    url = host.serve("/flow.mat", data, faults=[("cut", 1_500_000)] * 2)
    fetch(url, tmp_path / "flow.mat", digests=[sha256(data)], patience=Patience(attempts=2, sleep=waited.append))
    assert waited == [1.0, 1.0]


def test_nobody_there(tmp_path, patience):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="last of 4 attempts"):
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x", patience=patience)
    with pytest.raises(OutOfReachError, match=r"127\.0\.0\.1 to answer but no sizes"):
        stated_size(f"http://127.0.0.1:{port}/x")


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("ranges", ["always", "never"])
def test_a_host_that_refuses_head_is_asked_for_one_byte(host, status, ranges):
    assert stated_size(host.serve("/flow.mat", DATA, head_status=status, ranges=ranges)) == len(DATA)
    assert [(method, asked) for method, _, asked in host.asked] == [("HEAD", None), ("GET", "bytes=0-0")]


@pytest.mark.parametrize("how", [{"status": 403}, {"status": 404}, {"kind": "text/html"}, {"length": "none"}])
def test_sizes_that_a_host_does_not_state(host, how):
    assert stated_size(host.serve("/flow.mat", DATA, **how)) is None


def test_redirects(host, tmp_path, patience):
    host.serve("/flow.mat", DATA)
    fetch(
        host.serve("/latest", status=302, headers={"Location": "/flow.mat"}), tmp_path / "flow.mat", patience=patience
    )
    assert (tmp_path / "flow.mat").read_bytes() == DATA
    for path, location, words in (("/round", "/round", "in circles"), ("/out", "file:///etc/hostname", "elsewhere")):
        with pytest.raises(DownloadError, match=words):
            fetch(host.serve(path, status=302, headers={"Location": location}), tmp_path / "x", patience=patience)
    assert left(tmp_path) == ["flow.mat"]


def test_a_secure_address_may_not_lead_to_an_open_one(tmp_path, patience, monkeypatch):
    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 200, "http://host.org/flow.mat", BytesIO(DATA)
    answer.history = [SimpleNamespace(url="https://host.org/flow.mat")]
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: answer)
    with pytest.raises(DownloadError, match="stay with https"):
        fetch("https://host.org/flow.mat", tmp_path / "flow.mat", patience=patience)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host.org/x", "host.org/x", "http:///x", "hf://a/b"])
def test_other_schemes_are_refused(url, tmp_path):
    for attempt in (lambda: fetch(url, tmp_path / "x"), lambda: stated_size(url), lambda: PublishedFile("x", url=url)):
        with pytest.raises(ValueError, match="starts with http"):
            attempt()


def test_the_size_is_held_against_what_is_known(host, tmp_path, patience):
    url = host.serve("/flow.mat", DATA)
    with pytest.raises(DownloadError, match=rf"Expected 12 bytes .* has {len(DATA)}"):
        fetch(url, tmp_path / "flow.mat", size=12, patience=patience)
    assert host.count() == 1
    endless = host.serve("/endless", DATA, length="none", etag=None)
    with pytest.raises(DownloadError, match="at most 300000 bytes"):
        fetch(endless, tmp_path / "flow.mat", size=300_000, patience=patience)
    with pytest.raises(DownloadError, match=rf"ended after {len(DATA)} of {len(DATA) + 1} bytes"):
        fetch(endless, tmp_path / "flow.mat", size=len(DATA) + 1, patience=patience)
    assert not (tmp_path / "flow.mat").exists()


def test_a_file_of_unstated_length_comes_whole(host, tmp_path, patience):
    told = []
    url = host.serve("/flow.mat", DATA, length="none")
    fetch(url, tmp_path / "flow.mat", patience=patience, progress=lambda *x: told.append(x))
    assert (tmp_path / "flow.mat").read_bytes() == DATA
    assert told[-1] == (len(DATA), None)


def test_what_does_not_fit_is_not_begun(host, tmp_path, patience, monkeypatch):
    url = host.serve("/flow.mat", DATA)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(1 << 26) + 500_000))
    with pytest.raises(DownloadError, match="free space"):
        fetch(url, tmp_path / "flow.mat", patience=patience)
    assert not (tmp_path / "flow.mat.part").exists()
    with pytest.raises(DownloadError, match="at most 500000 bytes"):
        fetch(host.serve("/endless", DATA, length="none"), tmp_path / "flow.mat", patience=patience)
    with pytest.raises(DownloadError, match="make room"):
        require_space(tmp_path / "not" / "there", 600_000)


def test_packed_bytes_are_refused(host, tmp_path, patience):
    url = host.serve("/flow.mat", DATA, headers={"Content-Encoding": "gzip"})
    with pytest.raises(DownloadError, match=r"packs them \(gzip\)"):
        fetch(url, tmp_path / "flow.mat", patience=patience)


def test_nothing_is_overwritten(host, tmp_path, patience):
    (tmp_path / "flow.mat").write_text("mine")
    with pytest.raises(DownloadError, match="Expected nothing at"):
        fetch(host.serve("/flow.mat", DATA), tmp_path / "flow.mat", patience=patience)
    assert (tmp_path / "flow.mat").read_text() == "mine"


# Sets of files.


def get(files, folder, **terms):
    terms = Terms(**terms)
    return [path for planned in plan(files, folder, terms) for path in download(planned, folder, terms)]


def states(files, folder):
    return [planned.state for planned in plan(files, folder, Terms())]


def test_a_file_without_digest_is_taken_on_request_and_its_own_kept(host, tmp_path):
    file = PublishedFile("flow.mat", url=host.serve("/flow.mat", DATA))
    with pytest.raises(DownloadError, match=r"none is known.* --sha256 flow.mat=DIGEST .*--accept-unverified"):
        get([file], tmp_path)
    assert (left(tmp_path), host.count()) == ([], 0)
    assert get([file], tmp_path, unverified="record") == [tmp_path / "flow.mat"]
    entry = Ledger(tmp_path).entries["flow.mat"]
    assert (entry.sha256, entry.bytes, entry.checked_by, entry.url) == (sha256(DATA).value, len(DATA), [], file.url)
    # It is known from now on: nothing is fetched, and what is there is checked.
    assert get([file], tmp_path) == [tmp_path / "flow.mat"]
    assert host.count() == 1
    (tmp_path / "flow.mat").write_bytes(OTHER)
    with pytest.raises(DownloadError, match=r"earlier download .* Move it away"):
        get([file], tmp_path)
    # The host has another file by now.
    (tmp_path / "flow.mat").unlink()
    host.serve("/flow.mat", OTHER)
    with pytest.raises(DownloadError, match=r"record of an earlier download .* changed by its host"):
        get([file], tmp_path, unverified="record")
    assert left(tmp_path) == [LEDGER]


def test_the_digest_of_the_user_counts(host, tmp_path):
    file = PublishedFile("flow.mat", url=host.serve("/flow.mat", DATA))
    with pytest.raises(DownloadError, match="by the user"):
        get([file], tmp_path, given={"flow.mat": sha256(OTHER).value})
    get([file], tmp_path, given={"flow.mat": sha256(DATA).value})
    assert Ledger(tmp_path).entries["flow.mat"].checked_by == ["the user"]


def test_a_file_that_was_put_there_by_hand_is_checked_and_kept(host, tmp_path):
    known = PublishedFile("known.mat", url=f"{host.address}/known.mat", sha256=sha256(DATA).value)
    unknown = PublishedFile("unknown.mat", url=f"{host.address}/unknown.mat")
    for file in (known, unknown):
        (tmp_path / file.path).write_bytes(DATA)
    get([known], tmp_path)
    with pytest.raises(DownloadError, match="none is known"):
        get([unknown], tmp_path)
    get([unknown], tmp_path, unverified="record")
    assert host.asked == []


def test_plans_say_what_is_there_and_how_much_is_left(host, tmp_path):
    url = host.serve("/flow.mat", DATA)
    exact = PublishedFile("a", url=url, bytes=len(DATA), sha256=sha256(DATA).value)
    rounded = PublishedFile("b", url=f"{host.address}/b", about_bytes=1000)
    asked = PublishedFile("c", url=url)
    unknown = PublishedFile("d", url=f"{host.address}/d")
    (tmp_path / "a.part").write_bytes(DATA[:24])
    plans = plan([exact, rounded, asked, unknown], tmp_path, Terms())
    assert [planned.state for planned in plans] == ["partial", "missing", "missing", "missing"]
    assert [planned.left for planned in plans] == [len(DATA) - 24, 1000, len(DATA), None]
    assert (host.count("GET"), host.count("HEAD")) == (0, 3)
    assert left(tmp_path) == ["a.part"]


def test_a_host_out_of_reach_is_asked_once_for_all_files(tmp_path):
    with socket.socket() as silent:
        # Connections are taken and never answered.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        files = [PublishedFile(name, url=f"{address}/{name}", about_bytes=7) for name in ("a", "b", "c")]
        with pytest.MonkeyPatch.context() as patch:
            asked = []
            patch.setattr(
                "pdesurrogate.data.downloads.sets.stated_size",
                lambda url: asked.append(url) or stated_size(url, timeout=0.2),
            )
            plans = plan(files, tmp_path, Terms())
    assert asked == [f"{address}/a"]
    assert [planned.left for planned in plans] == [7, 7, 7]
    assert all("no sizes could be asked for" in planned.trouble for planned in plans)


def test_an_archive_becomes_its_files_which_are_checked_later(host, tmp_path):
    members = {"cavity/bc/case0000/u.npy": DATA, "cavity/geo/case0001/u.npy": OTHER}
    packed = zipped(members)
    url = host.serve("/cavity.zip", packed)
    file = PublishedFile("cavity.zip", url=url, sha256=sha256(packed).value, unpack="zip", into="cavity")
    paths = get([file], tmp_path)
    assert paths == [tmp_path / name for name in members]
    assert [path.read_bytes() for path in paths] == [DATA, OTHER]
    assert left(tmp_path) == [LEDGER, "cavity"]
    assert states([file], tmp_path) == ["unpacked"]
    assert get([file], tmp_path) == paths
    assert host.count() == 1
    with pytest.raises(DownloadError, match=r"by the user, but what was unpacked .* came from"):
        get([file], tmp_path, given={"cavity.zip": sha256(OTHER).value})
    paths[0].write_bytes(OTHER)
    with pytest.raises(DownloadError, match=r"u.npy, by the record .* Move it away"):
        get([file], tmp_path)
    paths[0].unlink()
    assert states([file], tmp_path) == ["incomplete"]
    assert get([file], tmp_path) == paths
    assert (paths[0].read_bytes(), host.count()) == (DATA, 2)


def test_a_call_cut_off_while_unpacking_goes_on_from_the_archive(host, tmp_path, monkeypatch):
    packed = zipped({"bc/case0000/u.npy": DATA})
    url = host.serve("/cavity.zip", packed)
    file = PublishedFile("cavity.zip", url=url, sha256=sha256(packed).value, unpack="zip", into="cavity")
    with monkeypatch.context() as patch:
        patch.setattr("pdesurrogate.data.downloads.sets.unpack", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get([file], tmp_path)
    assert states([file], tmp_path) == ["there"]
    assert get([file], tmp_path) == [tmp_path / "cavity/bc/case0000/u.npy"]
    assert host.count() == 1


def test_one_process_at_a_time(host, tmp_path):
    file = PublishedFile("flow.mat", url=host.serve("/flow.mat", DATA), sha256=sha256(DATA).value)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process"):
            get([file], tmp_path)
    finally:
        os.close(handle)
    get([file], tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 2, "files": {}}', '{"version": 1, "files": {"a": {}}}', "\x00"]
)
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / LEDGER).write_text(text)
    with pytest.raises(DownloadError, match="Remove it to forget them"):
        Ledger(tmp_path)


# The Hub.

COMMIT = "c" * 40


@pytest.fixture
def hub(host, monkeypatch):
    """The Hub's part that is asked, at our host; a function that puts a file there."""
    real = hub_module.ask_hub
    asked = lambda *arguments, **options: real(*arguments, **options, endpoint=host.address)  # noqa: E731
    monkeypatch.setattr("pdesurrogate.data.downloads.sets.ask_hub", asked)

    def serve(name, data, etag=None, **how):
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{sha256(data).value if etag is None else etag}"',
            "X-Linked-Size": str(len(data)),
        }
        for revision in ("main", COMMIT):
            host.serve(f"/datasets/owner/set/resolve/{revision}/{name}", data, headers=headers, **how)
        return PublishedFile(name, hub=HubFile("owner/set", name))

    return serve


def test_the_hub_states_size_digest_and_commit(hub, host, tmp_path):
    file = hub("flow.pt", DATA)
    (planned,) = plan([file], tmp_path, Terms())
    assert (planned.bytes, planned.left, planned.state) == (len(DATA), len(DATA), "missing")
    assert planned.digests == (sha256(DATA, f"the Hub at {COMMIT}"),)
    assert planned.url == f"{host.address}/datasets/owner/set/resolve/{COMMIT}/flow.pt"
    assert host.count() == 0
    get([file], tmp_path)
    assert (tmp_path / "flow.pt").read_bytes() == DATA
    entry = Ledger(tmp_path).entries["flow.pt"]
    assert (entry.url, entry.checked_by) == (planned.url, [f"the Hub at {COMMIT}"])
    host.asked.clear()
    get([file], tmp_path)
    assert host.asked == []


def test_a_file_that_differs_from_what_the_hub_stated_is_refused(hub, tmp_path):
    with pytest.raises(DownloadError, match="by the Hub at"):
        get([hub("flow.pt", DATA, etag=sha256(OTHER).value)], tmp_path)
    assert left(tmp_path) == []


def test_a_file_that_was_put_there_by_hand_is_held_against_what_the_hub_states(hub, host, tmp_path):
    file = hub("flow.pt", DATA)
    (tmp_path / "flow.pt").write_bytes(OTHER)
    with pytest.raises(DownloadError, match=r"by the Hub at .* Move it away"):
        get([file], tmp_path)
    (tmp_path / "flow.pt").write_bytes(DATA)
    assert get([file], tmp_path) == [tmp_path / "flow.pt"]
    assert host.count() == 0


def test_small_files_of_the_hub_have_no_digest(hub, tmp_path):
    with pytest.raises(DownloadError, match="none is known"):
        get([hub("notes.txt", b"few words", etag="d" * 40)], tmp_path)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "EntryNotFound", "has none there"),
        (401, "RepoNotFound", "has none there"),
        (403, "GatedRepo", "asks for an account"),
        (400, "", "no digests could be asked for"),
    ],
)
def test_what_the_hub_does_not_have_is_told(host, status, code, words):
    host.serve("/datasets/owner/set/resolve/main/flow.pt", status=status, headers={"X-Error-Code": code})
    with pytest.raises(DownloadError, match=words):
        ask_hub(HubFile("owner/set", "flow.pt"), endpoint=host.address)
    assert host.count("HEAD") == 1


def test_the_hub_out_of_reach_is_asked_once_for_all_files(hub, host, tmp_path):
    files = [hub(name, DATA, status=503) for name in ("a.pt", "b.pt")]
    plans = plan(files, tmp_path, Terms())
    assert host.count("HEAD") == 1
    assert [planned.left for planned in plans] == [None, None]
    for planned in plans:
        with pytest.raises(DownloadError, match="no digests could be asked for"):
            download(planned, tmp_path, Terms())


def test_without_the_hubs_client_the_cure_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"pip install 'pdesurrogate\[hub\]'"):
        ask_hub(HubFile("owner/set", "flow.pt"))


# Registries.


def write_set(directory, name, files=None, kind="published"):
    folder = directory / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nname: {name}\ntitle: T\nkind: {kind}\nsize: 1 MB\n---\n# Text\n")
    if files is not None:
        (folder / "files.yaml").write_text(json.dumps(files))


def test_names_of_sets_and_parts(tmp_path):
    parts = ["cavity", "cylinder-bc", "cylinder_geo", None]
    entries = [
        {"path": f"{number}.zip", "url": "https://host.org/x", "part": part} for number, part in enumerate(parts)
    ]
    write_set(tmp_path, "my_flows", entries)
    write_set(tmp_path, "my_flows_cavity", kind="generated")
    write_set(tmp_path, "by_hand")

    def paths(name):
        return [file.path for file in find(name, tmp_path).files]

    assert paths("my_flows") == paths("My-Flows") == ["0.zip", "1.zip", "2.zip", "3.zip"]
    assert paths("my-flows-cylinder") == ["1.zip", "2.zip"]
    assert paths("my_flows_cylinder_geo") == ["2.zip"]
    assert paths("by-hand") == []
    assert find("my-flows-cavity", tmp_path).namesake == "my_flows_cavity"
    for name, words in (
        ("my-flows-cylindr", "Did you mean my-flows-cylinder"),
        ("zzz", "There are: by-hand, my-flows"),
    ):
        with pytest.raises(ValueError, match=words):
            find(name, tmp_path)
    write_set(tmp_path, "ours", kind="generated")
    with pytest.raises(ValueError, match="pdesurrogate generate ours --out DIR"):
        find("ours", tmp_path)


GOOD = {"path": "a.zip", "url": "https://host.org/a.zip"}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "list of files"),
        ([], "list of files"),
        (["a.zip"], "list of files"),
        ([{"url": "https://host.org/a"}], "Expected `path`"),
        ([{**GOOD, "size": 3}], "other keys among"),
        ([{**GOOD, "path": 3}], "Expected text"),
        ([{**GOOD, "path": "../a.zip"}], "within the folder"),
        ([{**GOOD, "path": "/a.zip"}], "within the folder"),
        ([{**GOOD, "into": "a/../.."}], "within the folder"),
        ([{**GOOD, "hub": {"repo": "a/b", "file": "c"}}], "either `url` or `hub`"),
        ([{"path": "a"}], "either `url` or `hub`"),
        ([{"path": "a", "hub": {"repo": "a/b", "name": "c"}}], "unexpected keyword"),
        ([{**GOOD, "url": "ftp://host.org/a"}], "starts with http"),
        ([{**GOOD, "bytes": 1.5}], "number of bytes"),
        ([{**GOOD, "about_bytes": -1}], "number of bytes"),
        ([{**GOOD, "sha256": "A" * 64}], "64 hexadecimal digits"),
        ([{**GOOD, "md5": "a" * 64}], "32 hexadecimal digits"),
        ([{**GOOD, "unpack": "tar"}], "`unpack: zip`, or none"),
        ([GOOD, GOOD], r"a\.zip more than once"),
    ],
)
def test_bad_registries_are_refused(tmp_path, entries, words):
    write_set(tmp_path, "flows", entries)
    with pytest.raises(ValueError, match=words):
        read_registry(tmp_path / "flows" / "files.yaml")


@pytest.mark.parametrize("name", [path.parent.name for path in sorted(datasets_directory().glob("*/files.yaml"))])
def test_our_registries_are_read_and_every_part_has_its_files(name):
    described, _, files, _ = find(name)
    assert described.kind == "published"
    assert all(file.part is not None for file in files)
    parts = {file.part for file in files}
    for part in parts:
        assert {file.part for file in files if file.belongs_to(part)} == {part}
    # What tells files apart is in their addresses; a line that was copied and not changed shows here.
    for values in ([file.url or file.hub for file in files], [file.md5 for file in files if file.md5 is not None]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", ["cfdbench", "torch_cfd_navier_stokes"])
def test_our_registries_of_the_hub_name_what_their_cards_name(name):
    described, _, files, _ = find(name)
    for file in files:
        assert file.hub.repo in described.text
        assert file.path in described.text.replace("{bc,geo,prop}", file.path.split("/")[-1].removesuffix(".zip"))
        # No digest was stated anywhere that we know of; whoever adds one says in the file where it is from.
        assert file.digests == ()


@pytest.mark.parametrize("name", ["pdebench_1d", "pdebench_compressible", "pdebench_shallow_water"])
def test_our_registries_of_darus_have_the_digests_of_the_authors(name):
    for file in find(name).files:
        assert file.url.startswith("https://darus.uni-stuttgart.de/api/access/datafile/")
        assert [digest.algorithm for digest in file.digests] == ["md5"]
