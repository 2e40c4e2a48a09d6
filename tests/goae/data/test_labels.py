"""Camera labels out of files: what is read, what is refused and how, and what is left out aloud."""

import io
import json
import logging
import os
import random
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eg3d.cameras import canonical_label, join_label, split_label
from mutations import bounded, mutations, on_file, survives
from PIL import Image

from goae.data.datasets import PosedImages
from goae.data.labels import read_cameras, read_labels
from goae.data.mini import drawn_split, read_manifest
from goae.data.sources import open_source, warn_of_left_out
from goae.data.subsets import Download
from goae.runs.invert import find_images

C = canonical_label()[0].tolist()
NUMBERS = json.dumps(C)
DEEP = b'{"labels": ' + b"[" * 100_000
NFC, NFD = (unicodedata.normalize(form, "josé.png") for form in ("NFC", "NFD"))


def labels(*entries: Any) -> bytes:
    return json.dumps({"labels": [*entries]}).encode()


def folder(path: Path, data: bytes, *names: str) -> Path:
    """A data set whose images are empty, since labels are read first."""
    for name in names or ("a.png",):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    (path / "dataset.json").write_bytes(data)
    return path


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def table(path: Path) -> list[list[float]]:
    return list(Download(path).labels.values())


def readers(path: Path, download: bool) -> list[Callable[[], Any]]:
    """The doors that labels come in by: a data set, the command line, and a download to draw from."""
    file = str(path / "dataset.json")
    cameras = [lambda: read_cameras(file, ["a.png"]), lambda: read_cameras(str(path), ["a.png"])]
    return [lambda: PosedImages(path, 8), *cameras, *([lambda: Download(path)] if download else [])]


GOOD = {
    "byte-order mark": b"\xef\xbb\xbf" + labels(["a.png", C]),
    "UTF-16": labels(["a.png", C]).decode().encode("utf-16"),
    "integers": labels(["a.png", [int(x) if x == int(x) else x for x in C]]),
    "twice the same": labels(["a.png", C], ["a.png", C]),
    "backslashes": labels([".\\a.png", C]),
    "a label of another image": labels(["a.png", C], ["b.png", "nonsense"]),
}


@pytest.mark.parametrize("case", GOOD)
def test_harmless_forms_are_read(case: str, tmp_path: Path) -> None:
    path = folder(tmp_path, GOOD[case])
    assert table(path) == [C]
    assert torch.equal(read_cameras(str(path), ["a.png"])[0], canonical_label()[0])


BAD = {
    "empty": (b"", "cannot be read as JSON"),
    "no text": (b"\x89PNG\xff", "cannot be read as JSON"),
    "empty object": (b"{}", r'no list "labels": its keys are \[\]'),
    "null": (b'{"labels": null}', "it is null, which EG3D's dataset tool writes"),
    "a list": (b"[[1, 2]]", r'no list "labels": it holds \[\[1, 2\]\]'),
    "an object of labels": (b'{"labels": {"a.png": %s}}' % NUMBERS.encode(), r"it is \{'a.png': "),
    "one-item entry": (labels(["a.png"]), r'entry 0 of "labels" in .* is \[\'a.png\'\]; expected \[file name'),
    "entry of three": (labels(["a.png", C], ["b.png", C, 1]), 'entry 1 of "labels"'),
    "entry that is null": (labels(None), "entry 0 .* is None"),
    "name that is none": (labels([7, C]), "entry 0"),
    "null label": (labels(["a.png", None]), r"a\.png has no label in .* but null: its pose was not found"),
    "numbers as strings": (labels(["a.png", [str(x) for x in C]]), r"a\.png .* quotes around numbers: write them wit"),
    "two matrices": (labels(["a.png", [C[:16], C[16:]]]), r"a\.png .* is nested: write one flat list"),
    "rows of matrices": (labels(["a.png", [C[4 * i : 4 * i + 4] for i in range(4)] + C[16:]]), "is nested"),
    "class number": (labels(["a.png", 3]), "is not a list of numbers, but 3"),
    "true": (labels(["a.png", [True, *C[1:]]]), "is not a list of numbers"),
    "null among numbers": (labels(["a.png", [None, *C[1:]]]), "is not a list of numbers"),
    "too few": (labels(["a.png", C[:24]]), r"a\.png .* has 24 numbers, expected 25 numbers: cam2world 4x4"),
    "NaN": (labels(["a.png", [float("nan"), *C[1:]]]), r"a\.png .* not finite"),
    "infinity": (labels(["a.png", [float("-inf"), *C[1:]]]), r"a\.png .* not finite"),
    "1e400": (b'{"labels": [["a.png", [1e400%s]]]}' % (b", 1" * 24), r"a\.png .* not finite"),
    "10^400": (b'{"labels": [["a.png", [1%s%s]]]}' % (b"0" * 400, b", 1" * 24), "an integer of 401 digits"),
    "10^29": (b'{"labels": [["a.png", [1%s%s]]]}' % (b"0" * 29, b", 1" * 24), "is no camera"),
    "1e39": (labels(["a.png", [1e39, *C[1:]]]), "not finite"),
    "deep": (DEEP, "nested more than"),
    "deep label": (labels(["a.png", json.loads("[" * 90 + "]" * 90)]), "is nested: write"),
    "two different labels": (labels(["a.png", C], ["a.png", [2.0, *C[1:]]]), r"a\.png has two different labels"),
    "key twice": (b'{"labels": [], "labels": [["a.png", %s]]}' % NUMBERS.encode(), "the key 'labels' twice"),
    "other names": (labels(["00/img1.png", C]), r"a\.png has no label in .*; it has e\.g\. 00/img1\.png"),
    "an empty name": (labels(["", C]), r"a\.png has no label in .*; it has e\.g\. "),
    "no names": (labels(), r"a\.png has no label in .*; it has none at all"),
    "world to camera": (
        labels(["a.png", [0.8, 0, -0.6, 0, 0, -1, 0, 0, -0.6, 0, -0.8, 2.7, 0, 0, 0, 1, *C[16:]]]),
        r"the label of a\.png in .* is no camera: a camera .* world-to-camera matrices: give the inverse",
    ),
}
ABOUT_CAMERAS = ("10^29", "1e39", "world to camera")  # what is drawn from is checked when it is written


@pytest.mark.parametrize("case", BAD)
def test_every_reader_says_the_same(case: str, tmp_path: Path) -> None:
    data, message = BAD[case]
    for reader in readers(folder(tmp_path, data), case not in ABOUT_CAMERAS):
        with pytest.raises(ValueError, match=message) as caught:
            reader()
        assert "dataset.json" in str(caught.value) and str(tmp_path) in str(caught.value)
        assert len(str(caught.value)) < 700


def test_world_to_camera_labels_of_a_set_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    images = PosedImages(tiny_data, 32, radius=2.7)
    cam2world, intrinsics = split_label(images.labels)
    inverse = join_label(torch.linalg.inv(cam2world), intrinsics).tolist()
    path = folder(tmp_path, labels(*zip(images.names, inverse, strict=True)), *images.names)
    with pytest.raises(ValueError, match=r"png in .* is no camera.* world-to-camera matrices: give the inverse; "):
        PosedImages(path, 32, radius=2.7)


def test_names_are_matched_as_systems_write_them(tmp_path: Path) -> None:
    path = folder(tmp_path / "one", labels([NFC, C], ["b\\c.png", C]), NFD, "b/c.png")
    assert list(Download(path).labels) == sorted([NFD, "b/c.png"])
    other = [*C[:11], 2.69, *C[12:]]
    path = folder(tmp_path / "two", labels(["x/b.png", C], ["x\\b.png", other]), "x/b.png")
    assert table(path) == [C]  # its own name comes first
    path = folder(tmp_path / "three", labels([".\\b.png", other], ["./b.png", C]), "b.png")
    with pytest.raises(ValueError, match=r"several labels of files that are called as b\.png, e\.g\. \.\\b\.png and"):
        Download(path)


def test_one_warning_counts_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    litter = ("__MACOSX/._a.png", "._a.png", ".DS_Store", ".hidden/b.png", "Thumbs.db", "people.npz", "LICENSE.txt")
    data = labels(["a.png", C], ["real.png", C], ["gone.png", C], ["far.png", C])
    path = folder(tmp_path / "set", data, "a.png", "b.tif", "c.HEIC", *litter)
    (path / "dangling.png").symlink_to("nowhere.png")
    (path / "linked").symlink_to(tmp_path, target_is_directory=True)
    (path / "loop.png").symlink_to("loop.png")
    (path / "real.png").symlink_to("a.png")
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            assert list(Download(path).labels) == ["a.png", "real.png"]
    [text] = caplog.messages
    for part in ("2 files of other formats", "e.g. b.tif", "3 links to folders or to nothing, e.g. dangling.png"):
        assert part in text
    assert "2 labels without an image, e.g. gone.png" in text
    assert [picture.name for picture in find_images(path)] == ["a.png", "real.png"]
    warn_of_left_out(path, ())
    assert len(caplog.messages) == 2  # photos have no labels, so theirs is another one


def test_a_folder_of_other_formats_is_told(tmp_path: Path) -> None:
    path = folder(tmp_path, labels(["a.tif", C]), "a.tif")
    with pytest.raises(FileNotFoundError, match=r"no images .*; it holds 1 files of other formats .* a\.tif"):
        PosedImages(path, 8)


def test_a_dataset_json_deeper_inside_is_told(tmp_path: Path) -> None:
    members = {"ffhq/a.png": b"", "ffhq/dataset.json": labels(["a.png", C]), "__MACOSX/ffhq/dataset.json": b""}
    path = zipped(tmp_path / "a.zip", members)  # as macOS zips a folder; a zip's folder cannot be given
    with pytest.raises(FileNotFoundError, match=r"\(there is ffhq/dataset\.json; zip the files in its folder, without"):
        PosedImages(path, 8)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"\(there is ffhq/dataset\.json; give its folder\)"):
        PosedImages(tmp_path / "a", 8)


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a folder nor a readable zip"):
        open_source(tmp_path / "pipe")
    assert table(folder(tmp_path, labels(["a.png", C]))) == [C]
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "pipe").rename(tmp_path / "dataset.json")
    with pytest.raises(FileNotFoundError, match=r"no dataset\.json"):
        Download(tmp_path)


MEMBERS = {"a.png": b"", "dataset.json": labels(["a.png", C])}


@pytest.mark.parametrize("name", ["../../x.png", "/x.png", "C:/x.png", "..\\x.png", "x/../../y.png"])
def test_unsafe_members_are_refused(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", MEMBERS | {name: b""})
    for reader in (Download, find_images, lambda p: PosedImages(p, 8), lambda p: read_cameras(str(p), ["a.png"])):
        with pytest.raises(ValueError, match=r"a\.zip .* unsafe name"):
            reader(path)


def test_names_that_differ_in_case_are_told_apart(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": b"", "A.png": b"", "dataset.json": labels(["a.png", C], ["A.png", C])})
    assert list(Download(path).labels) == ["A.png", "a.png"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for name in ("a.png", *MEMBERS):
            archive.writestr(name, MEMBERS[name])
    zipped(tmp_path / "lzma.zip", MEMBERS, zipfile.ZIP_LZMA)
    data = bytearray(zipped(tmp_path / "locked.zip", MEMBERS).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    for name, message in {"twice": "same name", "lzma": "neither stored nor deflated", "locked": "encrypted"}.items():
        with pytest.raises(ValueError, match=rf"{name}\.zip .*{message}"):
            Download(tmp_path / f"{name}.zip")


def test_a_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    """3 MB that unpack to 3 GB, and JSON of many small values."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", b"")
        with archive.open("dataset.json", "w") as file:
            file.write(bytes(200 << 20))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    (tmp_path / "b.json").write_bytes(b'{"labels": [' + b"[]," * (20 << 20))

    def work() -> None:
        with pytest.raises(ValueError, match=r"dataset\.json' unpacks from"):
            Download(tmp_path / "a.zip")
        with pytest.raises(ValueError, match="is larger than"):
            read_labels(tmp_path / "b.json", "b.json")

    assert len(data) < 2 << 20
    bounded(work, memory=300 << 20, seconds=20)


ODD = (*(None, True, 0, -1, 1e400, float("nan"), 10**400, 10**29, "", "a.png", "0.5", "\\", "../a.png", "\ud800"), C)
ODD += ([], {}, {"labels": C}, json.loads("[" * 99 + "]" * 99), [C[:16], C[16:]])


def odd_values(whole: bytes, num: int, seed: int) -> Iterator[bytes]:
    """Put odd values into places of a JSON file, or beside them."""
    rng = random.Random(seed)

    def change(value: Any, chance: float) -> Any:
        if rng.random() < chance:
            return rng.choice((rng.choice(ODD), [value], [value, value], {"labels": value}, str(value)))
        if isinstance(value, dict):
            return {
                rng.choice(("", key)) if rng.random() < chance else key: change(v, chance) for key, v in value.items()
            }
        if isinstance(value, list):
            changed = [change(v, chance) for v in value if rng.random() > chance]
            return changed + changed[:1] if rng.random() < chance else changed
        return value

    for _ in range(num):
        text = json.dumps(change(json.loads(whole), rng.choice((0.003, 0.03))))
        yield text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32")))


def members(whole: bytes, num: int, seed: int) -> Iterator[bytes]:
    """Damage members of a zip before they are packed, their names or their bytes."""
    rng = random.Random(seed)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for damaged in range(num):
        chosen, buffer = rng.choice(list(content)), io.BytesIO()
        with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, data in content.items():
                data = next(mutations(data, 1, rng.randrange(1 << 30) + damaged)) if name == chosen else data
                archive.writestr(name if rng.random() < 0.95 else rng.choice(ODD_NAMES), data)
        yield buffer.getvalue()


ODD_NAMES = ("a.png", "../a.png", "x/", "dataset.json", "people.npz", "\\", "__MACOSX/._a.png", "é.png", " ", "a" * 300)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutated_data_sets(tmp_path: Path) -> None:
    logging.getLogger("goae.data.sources").setLevel(logging.ERROR)
    picture, rows, maps = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")
    np.savez(rows, person=np.arange(3), factors=np.ones((3, 4), np.float32))
    np.savez_compressed(maps, depth=np.ones((8, 8), np.uint16), parts=np.ones((8, 8), np.uint8))
    names = [f"{i}.png" for i in range(3)]
    whole = {name: picture.getvalue() for name in names} | {f"{i}.npz": maps.getvalue() for i in range(3)}
    whole |= {"dataset.json": labels(*([name, C] for name in names)), "people.npz": rows.getvalue()}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    file, packed = tmp_path / "dataset.json", tmp_path / "a.zip"

    def load(path: Path) -> None:
        images = PosedImages(path, None, ("depth", "parts", "person", "factors"))
        for i in range(len(images)):
            images[i]

    def everything(path: Path) -> None:
        for reader in (load, Download, lambda p: drawn_split(open_source(p)), read_manifest, lambda p: cameras(p)):
            try:
                reader(path)
            except (ValueError, FileNotFoundError):
                continue

    def cameras(path: Path) -> None:
        read_cameras(str(path), ["1.png"])

    for mutate in (mutations, odd_values):
        survives(on_file(file, cameras), [whole["dataset.json"]], mutate=mutate)
        survives(on_file(file, lambda _: load(tmp_path)), [whole["dataset.json"]], mutate=mutate)
    archives = [zipped(packed, whole, m).read_bytes() for m in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    for mutate in (mutations, members):
        survives(on_file(packed, everything), archives, mutate=mutate)
