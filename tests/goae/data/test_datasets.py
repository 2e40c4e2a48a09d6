"""PosedImages: folders and zips in EG3D's format, and what is said about broken ones."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eg3d.cameras import canonical_label
from PIL import Image

from goae.data.datasets import DEPTH_UNIT, PosedImages

SIZE = 8
NAMES = ("00000/img00000001.png", "00000/img00000000.png", "img2.png")


def png(seed: int, size: tuple[int, int] = (SIZE, SIZE), mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "png")
    return buffer.getvalue()


def label(x: float = 0.0, z: float = 2.7) -> list[float]:
    c = canonical_label()[0].tolist()
    c[3], c[11] = x, z
    return c


def files() -> dict[str, bytes]:
    """Three images, labels in another order than the files."""
    labels = [[name, label(0.01 * i)] for i, name in enumerate(NAMES)]
    content = {name: png(i) for i, name in enumerate(NAMES)}
    return content | {"dataset.json": json.dumps({"labels": labels}).encode()}


def write_folder(content: dict[str, bytes], path: Path) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(content: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in reversed(content.items()):
            archive.writestr(name, data)
    return path


def relabelled(name: str, value: Any) -> dict[str, bytes]:
    content = files()
    labels = json.loads(content["dataset.json"])["labels"]
    return content | {
        "dataset.json": json.dumps({"labels": [[n, value if n == name else c] for n, c in labels]}).encode()
    }


def test_images_are_sorted_and_labels_matched_by_name(tmp_path: Path) -> None:
    images = PosedImages(write_folder(files(), tmp_path), SIZE, radius=2.7)
    assert [images[i]["name"] for i in range(len(images))] == sorted(NAMES)
    for item in (images[i] for i in range(3)):
        number = NAMES.index(item["name"])
        expected = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        np.testing.assert_allclose(item["image"].permute(1, 2, 0), expected / 127.5 - 1.0, atol=1e-6)
        assert item["c"][3] == pytest.approx(0.01 * number) and item["c"].dtype == torch.float32


def test_a_zip_gives_what_its_folder_gives_also_after_pickling(tmp_path: Path) -> None:
    folder = PosedImages(write_folder(files(), tmp_path / "folder"))
    packed = PosedImages(write_zip(files(), tmp_path / "packed.zip"))
    packed[0]
    for images in (packed, pickle.loads(pickle.dumps(packed))):
        for i in range(len(folder)):
            assert torch.equal(folder[i]["image"], images[i]["image"])
            assert torch.equal(folder[i]["c"], images[i]["c"]) and folder[i]["name"] == images[i]["name"]


def test_the_official_layout_of_faces_is_read(tmp_path: Path) -> None:
    """Five-digit folders, mirrored copies, labels of images that were dropped, other files beside."""
    names = ["00000/img00000000.png", "00000/img00000000_mirror.png", "00001/img00001000.png"]
    labels = [[name, label()] for name in [*names, "00069/img00069999.png"]]
    content = {name: png(i) for i, name in enumerate(names)}
    content |= {"dataset.json": json.dumps({"labels": labels}).encode(), "LICENSE.txt": b"text"}
    assert PosedImages(write_zip(content, tmp_path / "FFHQ_512.zip"), SIZE).names == names


def test_resizing_is_asked_for_and_lanczos(tmp_path: Path) -> None:
    path = write_folder(files(), tmp_path)
    with pytest.raises(ValueError, match=r"is 8x8, expected 4x4; set the resolution \(data\.resolution or"):
        PosedImages(path, 4)[0]
    small = PosedImages(path, 4, resize=True)[0]
    source = Image.open(path / sorted(NAMES)[0]).resize((4, 4), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(small["image"].permute(1, 2, 0), np.asarray(source) / 127.5 - 1.0, atol=1e-6)


def test_extras_stand_beside_the_images(tmp_path: Path) -> None:
    content = files()
    depth = np.full((SIZE, SIZE), 27000, dtype=np.uint16)
    maps, people = io.BytesIO(), io.BytesIO()
    np.savez_compressed(maps, depth=depth, parts=np.ones((SIZE, SIZE), dtype=np.uint8))
    np.savez_compressed(people, factors=np.arange(6.0, dtype=np.float32).reshape(3, 2), person=np.arange(3))
    content |= {name.replace(".png", ".npz"): maps.getvalue() for name in NAMES} | {"people.npz": people.getvalue()}
    path = write_folder(content, tmp_path)
    item = PosedImages(path, SIZE, ("depth", "factors", "person"))[1]
    torch.testing.assert_close(item["depth"], torch.full((1, SIZE, SIZE), 27000 * DEPTH_UNIT))
    assert item["factors"].tolist() == [2.0, 3.0] and item["person"] == 1 and "parts" not in item
    with pytest.raises(ValueError, match=r"attributes.*people\.npz"):
        PosedImages(path, SIZE, ("attributes",))
    with pytest.raises(ValueError, match="cannot be resized"):
        PosedImages(path, 4, ("depth",), resize=True)
    with pytest.raises(ValueError, match=r"unknown extras \['normals'\]"):
        PosedImages(path, SIZE, ("normals",))


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in files().items() if key != name}


BAD = {
    "no dataset.json": (without("dataset.json"), FileNotFoundError, r"no dataset\.json in"),
    "no JSON": (files() | {"dataset.json": b"{"}, ValueError, r"dataset\.json in .* cannot be read as JSON"),
    "no list": (files() | {"dataset.json": b"[]"}, ValueError, 'no list "labels"'),
    "null labels": (files() | {"dataset.json": b'{"labels": null}'}, ValueError, 'no list "labels"'),
    "missing label": (files() | {"img3.png": png(3)}, ValueError, r"img3\.png has no label"),
    "short label": (relabelled("img2.png", [1.0] * 24), ValueError, r"img2\.png .* has 24 numbers, expected 25"),
    "words": (relabelled("img2.png", ["a"] * 25), ValueError, r"img2\.png .* not a list of numbers"),
    "integer": (relabelled("img2.png", 3), ValueError, r"img2\.png .* not a list of numbers"),
    "not finite": (relabelled("img2.png", [float("nan"), *label()[1:]]), ValueError, r"img2\.png"),
    "wrong radius": (relabelled("img2.png", label(z=3.0)), ValueError, r"img2\.png .* expected 2\.7"),
    "no images": ({"dataset.json": b'{"labels": []}'}, FileNotFoundError, "no images"),
}


@pytest.mark.parametrize("case", BAD)
def test_broken_data_sets_are_refused_by_name(case: str, tmp_path: Path) -> None:
    content, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        PosedImages(write_zip(content, tmp_path / "data.zip"), SIZE, radius=2.7)


BAD_IMAGES = {
    "grey": (png(0, mode="L"), r"img2\.png .* has mode L, expected RGB"),
    "alpha": (png(0, mode="RGBA"), "has mode RGBA"),
    "palette": (png(0, mode="P"), "has mode P"),
    "not square": (png(0, (SIZE, SIZE + 2)), "is 10x8, expected a square"),
    "cut off": (png(0)[:60], "cannot be read as an image"),
    "not an image": (b"hello", "cannot be read as an image"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_broken_images_are_refused_by_name(case: str, tmp_path: Path) -> None:
    content, message = BAD_IMAGES[case]
    path = write_folder(files() | {"img2.png": content}, tmp_path)
    with pytest.raises(ValueError, match=message):
        PosedImages(path, SIZE).check_pixels()
    if case != "cut off":  # the others are found in the headers
        with pytest.raises(ValueError, match=rf"\A2 of 3 images cannot be used:\n{NAMES[0]} .*\n.*{message}"):
            PosedImages(write_folder({NAMES[0]: content}, path), SIZE)


def test_pixels_are_checked_when_asked(tmp_path: Path) -> None:
    images = PosedImages(write_zip(files() | {"img2.png": png(0)[:100], NAMES[0]: png(1)[:100]}, tmp_path / "a.zip"))
    assert images[0]["image"].shape == (3, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"(?s)2 of 3 images cannot be used:\n00000/img00000001.*\nimg2\.png"):
        images.check_pixels()


def test_headers_are_read_once_in_a_process(tmp_path: Path) -> None:
    path = write_zip(files(), tmp_path / "data.zip")
    PosedImages(path, SIZE)
    stat, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b"\x89PNG", b"\x89GNP"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    PosedImages(path, SIZE)
    path.touch()
    with pytest.raises(ValueError, match=rf"\A3 of 3 images .*\n{NAMES[1]} in {path} is damaged"):
        PosedImages(path, SIZE)


def test_paths_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data set at .*nowhere"):
        PosedImages(tmp_path / "nowhere", SIZE)
    (tmp_path / "file.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="neither a folder nor a readable zip"):
        PosedImages(tmp_path / "file.zip", SIZE)


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    path = write_zip(files(), tmp_path / "data.zip")
    data = path.read_bytes()
    at = data.index(b"img2.png\x89PNG") + 40  # inside of the stored picture
    path.write_bytes(data[:at] + b"\0\1\2\3" + data[at + 4 :])
    with pytest.raises(ValueError, match=r"img2\.png in .* damaged"):
        PosedImages(path, SIZE)[2]


def test_indices_outside_are_refused(tmp_path: Path) -> None:
    images = PosedImages(write_folder(files(), tmp_path), SIZE)
    with pytest.raises(IndexError, match="index 3 of 3"):
        images[3]
