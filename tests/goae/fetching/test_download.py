"""Downloads against a server on this machine: resumed, restarted, refused."""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from goae.fetching.download import HashMismatch, download
from goae.fetching.index import PipSettings, opener

CONTENT = bytes(range(256)) * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at every path; the flags make it misbehave."""

    content, etag = CONTENT, '"one"'
    ranges = True  # answer Range requests
    cut = 0  # break the connection after so many bytes, once
    status = 0  # answer with this error, `errors` times
    errors = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.errors:
            self.server.errors -= 1
            self.send_error(self.server.status)
            return
        start, body = 0, self.server.content
        fresh = self.headers.get("If-Range") == self.server.etag
        if asked and self.server.ranges and fresh and (match := re.fullmatch(r"bytes=(\d+)-", asked)):
            start = int(match.group(1))
        if start and start >= len(body):
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        cut, self.server.cut = self.server.cut, 0
        self.wfile.write(body[start : start + cut] if cut else body[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _get(server: Server, target: Path, *, tries: int = 1, sha256: str | None = SHA, **more: object) -> str:
    client = opener(PipSettings((), ()))
    return download(server.url, target, client=client, sha256=sha256, tries=tries, pause=0.0, **more)  # type: ignore[arg-type]


def test_a_file_arrives_whole_and_leaves_no_traces(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "file.bin"
    assert _get(server, target, progress=lambda have, total: seen.append((have, total))) == SHA
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(p.name for p in target.parent.iterdir()) == ["file.bin", "file.bin.lock"]


def test_an_interrupted_download_is_resumed_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    server.cut = 100_000
    with pytest.raises(OSError, match="run again to resume"):
        _get(server, target)
    assert not target.exists() and (tmp_path / "file.bin.part").stat().st_size == 100_000
    assert _get(server, target) == SHA
    assert server.asked == [None, "bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_one_call_survives_a_broken_connection_and_a_busy_server(server: Server, tmp_path: Path) -> None:
    server.cut, target = 5_000, tmp_path / "file.bin"
    assert _get(server, target, tries=2) == SHA
    assert server.asked == [None, "bytes=5000-"]
    target.unlink()
    server.status, server.errors = 503, 1
    assert _get(server, target, tries=2) == SHA


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut, target = False, 100_000, tmp_path / "file.bin"
    with pytest.raises(OSError, match="run again to resume"):
        _get(server, target)
    assert _get(server, target) == SHA and target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_patched_together(server: Server, tmp_path: Path) -> None:
    server.cut, target = 100_000, tmp_path / "file.bin"
    with pytest.raises(OSError):
        _get(server, target)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert _get(server, target, sha256=hashlib.sha256(CONTENT[::-1]).hexdigest())
    assert target.read_bytes() == CONTENT[::-1]


def test_a_part_of_another_address_is_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"something else")
    note = {"url": "http://127.0.0.1:1/other", "validator": server.etag}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(note))
    assert _get(server, tmp_path / "file.bin") == SHA
    assert server.asked == [None]


def test_a_part_that_is_already_whole_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    (tmp_path / "file.bin.part.json").write_text(json.dumps({"url": server.url, "validator": server.etag}))
    assert _get(server, tmp_path / "file.bin") == SHA
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("expected", [{"sha256": "0" * 64}, {"sha256_prefix": "ffff"}, {"size": 17}])
def test_a_wrong_file_is_refused_and_removed(server: Server, tmp_path: Path, expected: dict[str, object]) -> None:
    with pytest.raises(HashMismatch, match="is not the expected file and was removed"):
        _get(server, tmp_path / "file.bin", **{"sha256": None, **expected})  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin.lock"]


def test_a_missing_file_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    server.status, server.errors = 404, 9
    with pytest.raises(OSError, match="404"):
        _get(server, tmp_path / "file.bin", tries=4)
    assert len(server.asked) == 1


def test_what_another_process_fetched_meanwhile_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert _get(server, tmp_path / "file.bin") == SHA
    assert server.asked == []


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="run again to resume"):
        download("http://127.0.0.1:9/x", tmp_path / "x", client=opener(), tries=2, pause=0.0)
