"""Shards: written by the webdataset package, local and by URL, and hostile ones."""

from __future__ import annotations

import functools
import http.server
import io
import json
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onetrunk.data.pixels import BadImage, Pixels
from onetrunk.data.sources import webdataset
from onetrunk.errors import BadInput, Failed, Missing
from tests.helpers.errors import raises


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder, with ranges if its class attribute is set."""

    ranges = True
    seen: list[str]

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not requested or not self.ranges or not path.is_file():
            super().do_GET()
            return
        first, last = (int(n) for n in requested.removeprefix("bytes=").split("-"))
        data = path.read_bytes()
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serve the test's folder on the loopback interface, and return its address."""
    servers = []

    def start(ranges: bool = True) -> str:
        handler = type("Handler", (Server,), {"ranges": ranges})
        made = functools.partial(handler, directory=str(tmp_path))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """A tar of these members by the standard library."""

    def write(members: dict[str, bytes], name: str = "s.tar", mode: Any = "w") -> Path:
        with tarfile.open(tmp_path / name, mode) as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return tmp_path / name

    return write


def test_shards_of_the_package(built: Any, opened: Any) -> None:
    source = opened(built("webdataset"))
    items = list(source.items())
    assert [i.split for i in items] == ["train"] * 6 + ["val"] * 3
    assert items[0].key == "shop-train-0000.tar/0000"
    assert [i.labels["classify"] for i in items[:3]] == ["0", "1", "0"]
    by_stars = opened("webdataset:shards/shop-*.tar")
    assert [i.key for i in by_stars.items()] == [i.key for i in items]


def test_labels_of_the_json(built: Any, opened: Any) -> None:
    tasks = {"material": "classify", "tags": "multilabel"}
    labels = [dict(i.labels) for i in opened(built("webdataset"), tasks).items()]
    assert labels[0] == {"material": "felt", "tags": ()}
    assert labels[2] == {"material": "wool", "tags": ("a", "b")}


def test_text_numbers_and_two_images(shard: Any, opened: Any, encoded: Any) -> None:
    shard(
        {
            "a/1.left.png": encoded(1),
            "a/1.right.png": encoded(2),
            "a/1.txt": b"hat\n",
            "a/1.json": b'{"x": 1, "y": 2.5}',
        }
    )
    tasks = {
        "what": {"kind": "classify", "column": "txt"},
        "at": {"kind": "regress", "column": "x,y"},
    }
    source = opened("webdataset:s.tar", tasks, image="left.png")
    (item,) = source.items()
    assert item.labels == {"what": "hat", "at": (1.0, 2.5)}
    assert item.key == "s.tar/a/1"
    assert source.image(item.where) == encoded(1)
    with raises(BadInput, try_='image = "left.png"'):
        list(opened("webdataset:s.tar", tasks).items())


def test_by_url_as_from_disk(built: Any, opened: Any, serve: Any) -> None:
    name = built("webdataset")
    local = opened(name)
    remote = opened(f"webdataset:{serve()}/{name.partition(':')[2]}")
    ours, theirs = list(local.items()), list(remote.items())
    assert [(i.key, i.split, i.labels) for i in ours] == [
        (i.key, i.split, i.labels) for i in theirs
    ]
    for a, b in zip(ours, theirs, strict=True):
        assert local.image(a.where) == remote.image(b.where)


def test_a_server_without_ranges_is_refused_at_once(built: Any, opened: Any, serve: Any) -> None:
    name = built("webdataset").partition(":")[2]
    with raises(BadInput, "ranges", got="status 200", try_="download the shards"):
        list(opened(f"webdataset:{serve(ranges=False)}/{name}").items())


def test_a_missing_shard_at_a_url(opened: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(Failed, "none.tar", "404"):
        opened(f"webdataset:{serve()}/none.tar")
    monkeypatch.setattr(webdataset, "TRIES", 1)
    with raises(Failed, "http://127.0.0.1:9/none.tar", "refused"):
        opened("webdataset:http://127.0.0.1:9/none.tar")


def test_a_shard_that_has_changed_is_refused(
    built: Any, opened: Any, serve: Any, tmp_path: Path
) -> None:
    built("webdataset")
    source = opened(f"webdataset:{serve()}/shards/shop-val-0000.tar")
    item = next(iter(source.items()))
    path = tmp_path / "shards/shop-val-0000.tar"
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAX"))
    with raises(Failed, "shop-val-0000.tar", try_="start again"):
        source.image(item.where)


def test_a_sample_without_an_image_is_bad(shard: Any, opened: Any, encoded: Any) -> None:
    shard({"1.png": encoded(), "1.cls": b"0", "2.cls": b"1", "3.png": b"text", "3.cls": b"0"})
    source = opened("webdataset:s.tar")
    items = list(source.items())
    assert [i.key for i in items] == ["s.tar/1", "s.tar/2", "s.tar/3"]
    for item in items[1:]:
        with pytest.raises(BadImage):
            Pixels((4, 4)).read(source.image(item.where))


@pytest.mark.parametrize("ending", ["pyd", "pickle", "pkl", "pth", "labels.pyd"])
def test_pickles_are_refused(ending: str, shard: Any, opened: Any, encoded: Any) -> None:
    shard({"1.png": encoded(), "1.cls": b"0", f"2.{ending}": b"\x80\x04."})
    with raises(BadInput, f"2.{ending}", "pickle"):
        list(opened("webdataset:s.tar").items())


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("pipe:cat x.tar", "commands"),
        ("PIPE:cat x.tar", "commands"),
        ("s3://bucket/x.tar", "'s3'"),
        ("file:///x.tar", "'file'"),
        ("none-{0..3}.tar", "'none-0.tar'"),
        ("*.tar", "'*.tar'"),
        ("x-{0..99999999}.tar", "at most 100000"),
        ("", "commands"),
    ],
)
def test_invalid_names_of_shards_are_refused(name: str, fact: str, opened: Any) -> None:
    with raises(BadInput, f"webdataset:{name}: ", fact):
        opened(f"webdataset:{name}")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_tars_are_refused(kind: str, shard: Any, opened: Any, encoded: Any) -> None:
    for name in (f"s.tar.{kind}", "s.tar"):
        shard({"1.png": encoded(), "1.cls": b"0"}, name, f"w:{kind}")
        with raises(BadInput, name, try_="decompress"):
            opened(f"webdataset:{name}")


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "FIFOTYPE"])
def test_links_and_devices_are_refused(kind: str, shard: Any, opened: Any, encoded: Any) -> None:
    path = shard({"1.png": encoded(), "1.cls": b"0"})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("2.png")
        info.type, info.linkname = getattr(tarfile, kind), "/etc/passwd"
        tar.addfile(info)
    with raises(BadInput, "s.tar", "regular file", try_="write the shard again"):
        list(opened("webdataset:s.tar").items())


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [2000, 10**9, 2**62])
@pytest.mark.parametrize("name", ["2.png", "2.json"])
def test_absurd_sizes_are_refused(
    size: int, name: str, shard: Any, opened: Any, encoded: Any
) -> None:
    path = shard({"1.png": encoded(), "1.cls": b"0"})
    intact = path.read_bytes().rstrip(b"\0")
    intact += b"\0" * (-len(intact) % 512)
    path.write_bytes(intact + header(name, size) + b"\0" * 1024)
    with pytest.raises(BadInput) as caught:
        list(opened("webdataset:s.tar").items())
    assert "\n" not in str(caught.value)


def test_a_tar_cut_short_is_not_read_as_a_smaller_one(
    shard: Any, opened: Any, encoded: Any
) -> None:
    members = {
        f"{i}.{e}": encoded(i) if e == "png" else b"0" for i in range(9) for e in ("png", "cls")
    }
    path = shard(members)
    intact = path.read_bytes()
    end = len(intact.rstrip(b"\0")) // 512 * 512 + 512
    for cut in (0, 100, 512, 700, 3000, end):
        path.write_bytes(intact[:cut])
        with pytest.raises(BadInput):
            list(opened("webdataset:s.tar").items())


def test_a_damaged_header_is_not_the_end(shard: Any, opened: Any, encoded: Any) -> None:
    path = shard({"1.png": encoded(1), "1.cls": b"0", "2.png": encoded(2), "2.cls": b"0"})
    with tarfile.open(path) as tar:
        at = tar.getmember("2.png").offset
    intact = path.read_bytes()
    path.write_bytes(intact[:at] + b"\x07" * 512 + intact[at + 512 :])
    with raises(BadInput, "s.tar", got=f"no header at byte {at}"):
        list(opened("webdataset:s.tar").items())


def test_a_sample_that_occurs_twice_is_refused(shard: Any, opened: Any, encoded: Any) -> None:
    shard({"1.png": encoded(), "1.cls": b"0", "2.png": encoded(), "1.jpg": encoded()})
    with raises(BadInput, "s.tar", "sample 1", got="jpg"):
        list(opened("webdataset:s.tar").items())


def test_hostile_documents(shard: Any, opened: Any, encoded: Any) -> None:
    for text, fact in ((b"[" * 50_000, "JSON"), (b"[1]", "object")):
        shard({"1.png": encoded(), "1.json": text})
        with raises(BadInput, "s.tar: 1.json", fact):
            opened("webdataset:s.tar")
    shard({"1.png": encoded(), "1.json": json.dumps({"colour": "red"}).encode()})
    with raises(BadInput, available=["colour"]):
        opened("webdataset:s.tar")


def test_without_the_package(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "braceexpand", None)
    with raises(Missing, try_="onetrunk[webdataset]"):
        opened("webdataset:x-{0..3}.tar")
