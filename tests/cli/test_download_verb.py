"""``pdesurrogate datasets download`` as a user meets it, with a host on this machine."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import socket
import sys
import zipfile
from types import SimpleNamespace

import pytest
from file_host import file_host

from pdesurrogate.cli import download as verb
from pdesurrogate.data.catalog import card
from pdesurrogate.data.downloads.checks import SPARE_BYTES
from pdesurrogate.data.downloads.hub import ask_hub

DATA = bytes(range(256)) * 64


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def zipped(name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, DATA)
    return stream.getvalue()


def run(*words):
    parser = argparse.ArgumentParser()
    verb.add_download(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["download", *map(str, words)])
    return arguments.verb(arguments)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_host() as host:
        yield host


@pytest.fixture
def flows(host, tmp_path, monkeypatch):
    """A published set of three files, ``my_flows``: a packed one, one of known digest, one of unknown."""
    packed = zipped("case0000/u.npy")
    entries = [
        {
            "path": "cavity.zip",
            "part": "cavity",
            "url": host.serve("/cavity.zip", packed),
            "bytes": len(packed),
            "sha256": sha256(packed),
            "unpack": "zip",
            "into": "cavity",
        },
        {
            "path": "tube.mat",
            "part": "tube",
            "url": host.serve("/tube.mat", DATA),
            "bytes": len(DATA),
            "sha256": sha256(DATA),
        },
        {"path": "dam.mat", "part": "dam", "url": host.serve("/dam.mat", DATA), "about_bytes": 16_000},
    ]
    directory = tmp_path / "datasets"
    for name, kind in (("my_flows", "published"), ("my_flows_tube", "generated"), ("by_hand", "published")):
        (directory / name).mkdir(parents=True)
        text = "# Text\n\n## How to get it\n\nFrom the authors.\n\n## Known faults\n\nNone.\n"
        front = f"---\nname: {name}\ntitle: T\nkind: {kind}\nsize: 1 MB\n---\n"
        (directory / name / "README.md").write_text(front + text)
    listing = directory / "my_flows" / "files.yaml"
    listing.write_text(json.dumps(entries))
    monkeypatch.setattr("pdesurrogate.data.downloads.registry.datasets_directory", lambda: directory)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(text):
    """Rows by file, or by their first words."""
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    return {row[1] if row[0].startswith("my_flows") else row[0]: " ".join(row) for row in rows}


def test_a_dry_run_shows_sizes_and_downloads_nothing(host, flows, capsys):
    before = sorted(flows.rglob("*"))
    assert run("my-flows", "--dry-run") == 0
    rows = table(capsys.readouterr().out)
    assert list(rows)[:4] == ["NAME", "cavity.zip", "tube.mat", "dam.mat"]
    assert rows["tube.mat"].split() == ["my_flows-tube", "tube.mat", "16.4", "kB", "sha256", "to", "download"]
    assert "not known" in rows["dam.mat"]
    assert "to download into my_flows" in list(rows.values())[-1]
    assert host.count("GET") == 0
    assert sorted(flows.rglob("*")) == before


def test_a_part_comes_unpacked_and_a_second_run_checks_it(host, flows, capsys):
    assert run("My_Flows_Cavity") == 0
    assert (flows / "my_flows/cavity/case0000/u.npy").read_bytes() == DATA
    out = capsys.readouterr().out
    assert "1 file in my_flows" in out
    assert "as they came" not in out
    assert run("my-flows-cavity") == 0
    assert "unpacked, to check" in capsys.readouterr().out
    assert host.count("GET") == 1
    (flows / "my_flows/cavity/case0000/u.npy").write_bytes(b"changed")
    with pytest.raises(ValueError, match="Move it away"):
        run("my-flows-cavity")


def test_files_of_unknown_digest_stop_everything_before_it_begins(host, flows, capsys):
    with pytest.raises(ValueError, match=r"check dam\.mat with .* --accept-unverified"):
        run("my-flows", "--out", "elsewhere")
    assert host.count("GET") == 0
    assert not (flows / "elsewhere").exists()
    assert run("my-flows", "--out", "elsewhere", "--accept-unverified") == 0
    assert (flows / "elsewhere/dam.mat").read_bytes() == DATA
    assert "no digest is known: dam.mat. They are recorded" in capsys.readouterr().out
    assert run("my-flows", "--out", "elsewhere", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "0 bytes to download" in out
    assert "sha256" in table(out)["dam.mat"]


def test_digests_of_the_user(flows):
    with pytest.raises(ValueError, match="by the user"):
        run("my-flows-dam", "--sha256", sha256(b"other"))
    assert run("my-flows-dam", "--sha256", sha256(DATA).upper()) == 0
    assert run("my-flows", "--sha256", f"dam.mat={sha256(DATA)}") == 0
    for text, words in (
        (sha256(DATA), "path among cavity.zip"),
        ("x.mat=1", "path among"),
        ("dam.mat=1", "64 hexadecimal"),
    ):
        with pytest.raises(ValueError, match=words):
            run("my-flows", "--sha256", text)


def test_more_than_a_gigabyte_is_asked_for(host, flows, capsys, monkeypatch):
    monkeypatch.setattr(verb, "UNASKED_BYTES", 1000)
    with pytest.raises(ValueError, match=r"--yes without a terminal: 16.4 kB"):
        run("my-flows-tube")
    monkeypatch.setattr(sys, "stderr", Terminal())
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert run("my-flows-tube") == 1
    assert host.count("GET") == 0
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run("my-flows-tube") == 0
    assert "Download 16.4 kB? [y/N]" in sys.stderr.getvalue()
    (flows / "my_flows/tube.mat").unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run("my-flows-tube", "--yes") == 0


def test_sizes_that_nobody_states_are_asked_for(host, flows):
    host.files["/dam.mat"].length = "none"
    listing = flows / "datasets/my_flows/files.yaml"
    listing.write_text(json.dumps([{"path": "dam.mat", "url": f"{host.address}/dam.mat"}]))
    with pytest.raises(ValueError, match="1 file of unknown size"):
        run("my-flows", "--accept-unverified")
    assert run("my-flows", "--accept-unverified", "--yes") == 0


def test_an_interrupt_leaves_the_beginning_and_says_how_to_go_on(host, flows, capsys, monkeypatch):
    data = DATA * 64
    listing = flows / "datasets/my_flows/files.yaml"
    listing.write_text(json.dumps([{"path": "a.mat", "url": host.serve("/a", data), "sha256": sha256(data)}]))

    def interrupted(*_, progress, **__):
        (flows / "my_flows/a.mat.part").write_bytes(data[:1000])
        progress(1000, None)
        progress(1000, len(data))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pdesurrogate.data.downloads.sets.fetch", interrupted)
        assert run("my-flows") == 130
    assert "the same command continues" in capsys.readouterr().err
    assert run("my-flows", "--dry-run") == 0
    assert "to go on with (1 kB there)" in capsys.readouterr().out
    assert run("my-flows") == 0
    assert (flows / "my_flows/a.mat").read_bytes() == data


def test_a_set_without_addresses_tells_how_to_get_it(flows, capsys):
    with pytest.raises(ValueError, match="there are none of by_hand"):
        run("by-hand")
    assert capsys.readouterr().out == "## How to get it\n\nFrom the authors.\n"


def test_a_name_that_our_own_set_has_too_is_told(flows, capsys):
    assert run("my-flows-tube") == 0
    assert "pdesurrogate generate my_flows_tube" in capsys.readouterr().err


def test_unknown_names(flows):
    with pytest.raises(ValueError, match="Did you mean my-flows-cavity"):
        run("my-flows-cavty")


@pytest.mark.parametrize("name", ["fno_navier_stokes", "filtered_channel", "gpme"])
def test_published_sets_without_addresses_say_how_to_get_them(name, capsys):
    with pytest.raises(ValueError, match="none of"):
        run(name)
    section = capsys.readouterr().out.strip()
    assert section.startswith("## How to get it\n")
    assert section in card(name).text


def test_a_dry_run_without_the_hubs_client_still_shows_what_is_known(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run("cfdbench-cylinder", "--dry-run") == 0
    captured = capsys.readouterr()
    assert captured.out.count("about") == captured.out.count("not asked for") == 3
    assert "12 GB to download" in captured.out
    assert captured.err.count("pip install") == 1
    with pytest.raises(ValueError, match="huggingface_hub"):
        run("cfdbench-cylinder", "--yes")


def test_a_dry_run_without_a_network_ends_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(
        "pdesurrogate.data.downloads.sets.ask_hub", lambda hub: ask_hub(hub, endpoint=address, timeout=1.0)
    )
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s"))
    assert run("cfdbench-cavity", "--dry-run") == 0
    captured = capsys.readouterr()
    assert "cfdbench-cavity  cavity.zip  about 786 MB  not asked for  to download" in captured.out
    assert "no digests could be asked for" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_all_files_have_to_fit_before_the_first_is_begun(host, flows, monkeypatch):
    listing = flows / "datasets/my_flows/files.yaml"
    entry = {"bytes": len(DATA), "sha256": sha256(DATA)}
    names = ("a.mat", "b.mat")
    listing.write_text(json.dumps([{"path": name, "url": host.serve(f"/{name}", DATA), **entry} for name in names]))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SPARE_BYTES + 2 * len(DATA) - 1))
    with pytest.raises(ValueError, match="free space"):
        run("my-flows")
    assert host.asked == []
    assert not (flows / "my_flows").exists()


def test_unknown_sizes_are_counted_and_the_card_is_quoted(host, flows, capsys):
    host.files["/dam.mat"].length = "none"
    listing = flows / "datasets/my_flows/files.yaml"
    listing.write_text(json.dumps([{"path": "dam.mat", "url": f"{host.address}/dam.mat"}]))
    assert run("my-flows", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "Not all sizes are known; the card of my_flows says: 1 MB." in out
    assert "\n1 file of unknown size to download into my_flows" in out
