"""Package indexes in the forms pip reads them, on this machine only."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from goae.fetching import index
from goae.fetching.index import PipSettings, find, pip_settings, request, without_credentials

SHA = "a" * 64


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "CERT", "PROXY", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setattr(index, "_configured", lambda: index._parse_config((tmp_path / "list").read_text()))
    (tmp_path / "list").write_text("")


def _page(folder: Path, project: str, href: str) -> str:
    (folder / project).mkdir(parents=True)
    (folder / project / "index.html").write_text(f'<html><body><a href="{href}">x</a></body></html>')
    return folder.as_uri()


def test_settings_follow_files_and_then_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pip_settings() == PipSettings((index.PUBLIC_INDEX,), ())
    (tmp_path / "list").write_text(
        "global.index-url='https://a.invalid/simple'\nglobal.extra-index-url='file:///b file:///c'\n"
        "install.find-links='/wheels'\nglobal.cert='/ca.pem'\n:env:.find-links='/ignored'\n"
    )
    expected = PipSettings(("https://a.invalid/simple", "file:///b", "file:///c"), ("/wheels",), "/ca.pem")
    assert pip_settings() == expected
    monkeypatch.setenv("PIP_INDEX_URL", "https://d.invalid/simple")
    assert pip_settings().indexes[0] == "https://d.invalid/simple"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_settings().indexes == () and pip_settings().find_links == ("/wheels",)


def test_local_indexes_and_folders_are_read(tmp_path: Path) -> None:
    simple = _page(tmp_path / "simple", "my-net", f"../../files/my_net-1.0.tar.gz#sha256={SHA}")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "my_net-1.0.tar.gz").write_bytes(b"")
    settings = PipSettings((simple + "/",), (str(tmp_path / "wheels"),))
    links = find("My_Net", "my_net-1.0.tar.gz", settings, sha256=SHA)
    assert [link.url for link in links] == [
        (tmp_path / "files" / "my_net-1.0.tar.gz").as_uri(),
        (tmp_path / "wheels" / "my_net-1.0.tar.gz").as_uri(),
    ]
    assert [link.sha256 for link in links] == [SHA, None]


def test_a_file_with_another_hash_is_not_offered(tmp_path: Path) -> None:
    simple = _page(tmp_path, "my-net", f"my_net-1.0.tar.gz#sha256={SHA}")
    with pytest.raises(FileNotFoundError, match=r"has it with another hash.*pip config list"):
        find("my-net", "my_net-1.0.tar.gz", PipSettings((simple,), ()), sha256="b" * 64)


def test_what_no_index_has_names_all_that_were_asked(tmp_path: Path) -> None:
    simple = _page(tmp_path, "my-net", "my_net-2.0.tar.gz")
    settings = PipSettings((simple, (tmp_path / "none").as_uri()), ())
    with pytest.raises(FileNotFoundError, match=r"does not have it; file://.*none/my-net/: .*No such file"):
        find("my-net", "my_net-1.0.tar.gz", settings, sha256=SHA)
    with pytest.raises(FileNotFoundError, match="no-index is set"):
        find("my-net", "my_net-1.0.tar.gz", PipSettings((), ()), sha256=SHA)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        authorized = self.headers.get("Authorization") == "Basic dXNlcjpwYXNz"
        if self.path == "/json/my-net/" and authorized:
            body = {"files": [{"filename": "f.whl", "url": "/files/f.whl", "hashes": {"sha256": SHA}}]}
            self._answer(json.dumps(body).encode(), "application/vnd.pypi.simple.v1+json")
        elif self.path == "/html/my-net/":
            self._answer(f'<a data-x="1" href="f.whl#sha256={SHA}">f</a>'.encode(), "text/html")
        else:
            self.send_error(404)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_both_forms_of_the_simple_api_are_read(address: str) -> None:
    indexes = (f"http://user:pass@{address}/json", f"http://{address}/html", f"http://{address}/empty")
    links = find("my.net", "f.whl", PipSettings(indexes, ()), sha256=SHA)
    assert [link.url for link in links] == [
        f"http://user:pass@{address}/files/f.whl",
        f"http://{address}/html/my-net/f.whl",
    ]


def test_credentials_are_sent_but_not_shown() -> None:
    made = request("https://user:p%40ss@host.invalid/x", {"Range": "bytes=1-"})
    assert made.full_url == "https://host.invalid/x" == without_credentials("https://user:p%40ss@host.invalid/x")
    assert made.get_header("Authorization") == "Basic dXNlcjpwQHNz" and made.get_header("Range") == "bytes=1-"
    assert "Authorization" not in made.headers  # these would follow a redirect to another host
