"""The command that fills the cache, against an index and a server on this machine."""

import hashlib
import http.server
import io
import json
import pickle
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from goae.fetching import catalogue, fetch, index
from goae.fetching.catalogue import Address, Asset, ByUser, IndexFile
from goae.fetching.convert import ALEX, alex_trunk
from goae.weights import FILES, locate

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_weights.py"
WIDTHS = [3, 64, 192, 384, 256, 256]
SIDES = [11, 5, 3, 3, 3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A source archive with a random AlexNet and a setup step that must not run."""
    rng = np.random.default_rng(0)
    convs = {
        f"Conv_{i}": {
            "kernel": rng.standard_normal((SIDES[i], SIDES[i], WIDTHS[i], WIDTHS[i + 1])).astype("f4"),
            "bias": np.zeros(WIDTHS[i + 1], "f4"),
        }
        for i in range(5)
    }
    members = {"net-1/setup.py": b"open('ran', 'w')", "net-1/alex.ckpt": pickle.dumps({"AlexNet_0": convs})}
    path = tmp_path / "index" / "net-1.tar.gz"
    (path.parent / "net").mkdir(parents=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _assets(archive: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Asset]:
    """A catalogue whose `alex` comes from an index beside the archive."""
    sha = hashlib.sha256(archive.read_bytes()).hexdigest()
    (archive.parent / "net" / "index.html").write_text(f'<a href="../net-1.tar.gz#sha256={sha}">net</a>')
    settings = index.PipSettings((archive.parent.as_uri(),), ())
    monkeypatch.setattr(index, "pip_settings", lambda: settings)
    source = IndexFile("net", "net-1.tar.gz", sha, archive.stat().st_size, "net-1/alex.ckpt", alex_trunk)
    return {"alex": Asset("a trunk", "BSD", source)}


def test_a_file_of_the_index_is_checked_converted_and_noted(
    archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assets = _assets(archive, monkeypatch)
    [path] = fetch.fetch(["alex"], assets=assets)
    assert path == locate("alex") and load_file(path).keys() == {
        f"net.{n}.{what}" for n in ALEX for what in ("weight", "bias")
    }
    note = json.loads((cache / (FILES["alex"] + ".json")).read_text())
    assert note["licence"] == "BSD" and note["source"]["member"] == "net-1/alex.ckpt"
    assert note["source"]["archive_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert note["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and note["size"] == path.stat().st_size
    assert not (tmp_path / "ran").exists()
    assert not list((cache / "downloads").glob("*.gz"))


def test_what_is_there_is_checked_and_left_alone(archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = _assets(archive, monkeypatch)
    [path] = fetch.fetch(["alex"], assets=assets)
    archive.unlink()
    before = path.stat().st_mtime_ns
    assert fetch.fetch(["alex"], assets=assets) == [path] and path.stat().st_mtime_ns == before
    assert fetch.status("alex") == "there"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"is not the file that was fetched on .* Delete it"):
        fetch.fetch(["alex"], assets=assets)
    path.write_bytes(b"short")
    assert fetch.status("alex") == "damaged"


def test_an_archive_with_another_hash_leaves_nothing(
    archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = _assets(archive, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is not the expected file and was removed"):
        fetch.fetch(["alex"], assets=assets)
    assert fetch.status("alex") == "missing" and not list((cache / "downloads").glob("*.part"))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/x.pkl"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_licence_is_accepted_before_anything_is_fetched(address: str, cache: Path) -> None:
    assets = {"ffhq512-128": Asset("a generator", "non-commercial", Address(address), restricted=True)}
    with pytest.raises(fetch.LicenceNotAccepted, match=r"non-commercial.*--accept-licence"):
        fetch.fetch(["ffhq512-128"], assets=assets)
    assert not cache.exists()
    [path] = fetch.fetch(["ffhq512-128"], assets=assets, accept_licence=True)
    note = json.loads(path.with_name(path.name + ".json").read_text())
    assert path.read_bytes() == b"data" and note["size"] == 4 and note["source"] == {"url": address}
    assert note["sha256"] == hashlib.sha256(b"data").hexdigest()


def test_a_wrong_hash_prefix_is_refused(address: str) -> None:
    assets = {"inception": Asset("a net", "Apache-2.0", Address(address, sha256_prefix="0000"))}
    with pytest.raises(ValueError, match=r"instead of 0000\.\.\."):
        fetch.fetch(["inception"], assets=assets)
    assert fetch.status("inception") == "missing"


def test_files_without_an_address_say_where_to_get_them_and_which_key_takes_them(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model_ir_se50.pth.*perception\.identity_path"):
        fetch.fetch(["arcface"])
    cache.mkdir()
    (cache / FILES["arcface"]).write_bytes(b"mine")
    assert fetch.status("arcface") == "unrecorded" and fetch.fetch(["arcface"]) == [locate("arcface")]


def test_the_catalogue_is_consistent() -> None:
    for name, asset in catalogue.ASSETS.items():
        assert asset.what and asset.licence, name
        if isinstance(asset.source, IndexFile):
            assert len(asset.source.sha256) == 64 and not asset.restricted
        elif isinstance(asset.source, Address):
            assert asset.source.url.startswith("https://")
        else:
            assert isinstance(asset.source, ByUser) and asset.source.key


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *args], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_command_lists_and_explains() -> None:
    listed = _run("--list")
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in FILES) and "missing  alex" in listed.stdout
    for args, message in [
        (("arcface",), "perception.identity_path"),
        (("ffhq512-128",), "--accept-licence"),
        (("alexnet",), "no pretrained file is called 'alexnet'"),
    ]:
        done = _run(*args)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert _run().returncode == 2
