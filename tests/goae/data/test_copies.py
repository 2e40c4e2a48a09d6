"""Copies in sets that are renamed and incomplete, and where different faces share a label."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from eg3d.cameras import intrinsics_from_focal, join_label, mirror_label, pose_from_angles
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from standins import crop, write_crops, zip_crops

from goae.data.copies import Copies, count_label_twins, find_copies, warn_of_mirrored_copies
from goae.data.datasets import PosedImages
from goae.data.subsets import afhq_entries

SIDE = 64


class Memory:
    """Files in memory, with a count of what was read."""

    path = Path("memory")

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.num_read = 0

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        self.num_read += 1
        return self.files[name]


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "png", compress_level=0)
    return content.getvalue()


def label(yaw: float, pitch: float = 0.1) -> torch.Tensor:
    return join_label(pose_from_angles(torch.tensor(yaw).double(), pitch), intrinsics_from_focal())[0].double()


def random_set(seed: int) -> tuple[Memory, list[str], np.ndarray, list[int]]:
    """A set with copies: files, names, labels and the face of each image, as EG3D's tools write them.

    A third of the faces look straight ahead, so that their label is its own mirror; some of these share it with other
    faces, or miss it by a rounding error. Every image is there up to 16 times, mirrored as often; then a tenth of all
    files is deleted. Labels are rounded to a random number of digits, and copies miss them by up to 2e-5.
    """
    rng = np.random.RandomState(seed)
    shown: list[tuple[int, bytes, torch.Tensor]] = []
    for face in range(30):
        yaw = rng.choice([0.0, 1e-5, -2e-5]) if face % 3 == 0 else rng.uniform(-0.8, 0.8)
        pitch = rng.choice([0.0, 0.1]) if face % 3 == 0 else rng.uniform(-0.3, 0.3)
        image, c = crop(seed * 100 + face, SIDE)[0], label(float(yaw), float(pitch))
        for copy in range(rng.choice([1, 1, 1, 2, 2, 4, 8, 16])):
            for mirrored in (False, True):
                noise = torch.from_numpy(rng.uniform(-2e-5, 2e-5, 25)) if copy else 0.0
                content = png(ImageOps.mirror(image) if mirrored else image)
                shown.append((face, content, (mirror_label(c) if mirrored else c) + noise))
    kept = [shown[i] for i in np.flatnonzero(rng.rand(len(shown)) > 0.1)]
    if rng.rand() < 0.5:  # copies are neighbours as a rule, but not where somebody has shuffled them
        rng.shuffle(kept)  # type: ignore[arg-type]
    memory, digits = Memory(), rng.choice([4, 6, 17])
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(len(kept))]
    memory.files = dict(zip(names, [content for _, content, _ in kept], strict=True))
    return memory, names, np.stack([c.numpy() for *_, c in kept]).round(digits), [face for face, *_ in kept]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_no_copy_crosses_a_split(seed: int) -> None:
    memory, names, labels, faces = random_set(seed)
    copies = find_copies(memory, names, labels, progress=False)
    face = dict(zip(names, faces, strict=True))
    assert sorted(sorted({face[n] for n in group}) for group in copies.groups) == [[k] for k in sorted(set(faces))]
    assert len(copies.mirrored) + len(copies.replicas) + len(copies.groups) == len(names)
    splits, counts = afhq_entries(copies, seed=seed)
    shown = {split: {face[entry.name] for entry in entries} for split, entries in splits.items()}
    assert sum(map(len, shown.values())) == len(set(faces)) == counts["originals"]
    assert all(len(splits[split]) == len(shown[split]) for split in ("val", "test"))
    dropped = counts["mirrored_copies_dropped"] + counts["replicas_dropped"]
    assert sum(map(len, splits.values())) + dropped == len(names)


def saved(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "jpeg", quality=quality)
    return Image.open(content).convert("RGB")


@pytest.mark.parametrize("change", ["jpeg", "resized"])
def test_copies_that_were_changed_after_the_mirror_are_found(change: str) -> None:
    memory, labels = Memory(), []
    for number in range(6):
        image, c = crop(number, 192)
        for mirrored in (False, True):
            shown = ImageOps.mirror(image) if mirrored else image
            shown = saved(shown, 75) if change == "jpeg" else shown.resize((128, 128), Image.Resampling.LANCZOS)
            memory.files[f"{2 * number + mirrored:02d}.png"] = png(shown)
            labels.append((mirror_label(c) if mirrored else c).tolist())
    copies = find_copies(memory, memory.names(), np.array(labels), progress=False)
    assert copies.groups == [[f"{k:02d}.png", f"{k + 1:02d}.png"] for k in range(0, 12, 2)]
    assert (len(copies.mirrored), len(copies.replicas), copies.recognised) == (6, 0, 12)


def test_faces_that_share_a_frontal_label_are_told_apart() -> None:
    """Among 200 frontal faces one is there three times; and of them, one is mirrored."""
    memory = Memory()
    for number in range(200):
        memory.files[f"{number:03d}.png"] = png(crop(number, SIDE)[0])
    memory.files["250.png"], memory.files["260.png"] = memory.files["007.png"], png(ImageOps.mirror(crop(7, SIDE)[0]))
    copies = find_copies(memory, memory.names(), label(0.0).expand(202, 25), progress=False)
    assert [group for group in copies.groups if len(group) > 1] == [["007.png", "250.png", "260.png"]]
    assert (copies.mirrored, copies.replicas) == ({"260.png"}, {"250.png"})
    assert (copies.candidates, copies.recognised) == (202, 3)


def test_what_labels_exclude_is_not_read() -> None:
    memory = Memory()
    memory.files = {f"{i}.png": png(crop(i, SIDE)[0]) for i in range(20)} | {"3_mirror.png": png(crop(3, SIDE)[0])}
    labels = torch.stack([label(0.02 * i - 0.2, 0.01 * i) for i in range(21)])
    plain = [name for name in memory.names() if name != "3_mirror.png"]
    copies = find_copies(memory, plain, labels[:20], progress=False)
    assert memory.num_read == 0 and copies.originals == sorted(plain) and copies.candidates == 0
    find_copies(memory, memory.names(), labels, progress=False)  # the name makes these two candidates
    assert memory.num_read == 2


def test_modes() -> None:
    memory, names, labels, _ = random_set(0)
    assert find_copies(memory, names, labels, mode="none") == Copies([[name] for name in names])
    by_labels = find_copies(memory, names, labels, mode="labels")
    assert memory.num_read == 0
    for group in find_copies(memory, names, labels, progress=False).groups:  # which never split what pixels join
        assert any(set(group) <= set(other) for other in by_labels.groups)
    with pytest.raises(ValueError, match="auto, labels, none, not by 'names'"):
        find_copies(memory, names, labels, mode="names")
    memory.files[names[0]] = b"damaged"
    with pytest.raises(ValueError, match=r"img00000000\.png in memory cannot be read as an image"):
        find_copies(memory, names, labels, progress=False)


def test_a_border_between_cells_hides_no_pair() -> None:
    """Twins that miss each other by 0.9 of the tolerance, in steps that are no divisor of a cell."""
    yaws = torch.linspace(0.1, 0.103, 301).double()
    for yaw in yaws:
        assert count_label_twins(torch.stack([label(float(yaw)), label(-float(yaw) - 9e-5), label(0.5)])) == 2
    assert count_label_twins(torch.stack([label(0.1), label(-0.11), label(0.0), label(0.1)])) == 0
    assert count_label_twins(label(0.3)[None]) == 0


def test_training_on_mirrored_copies_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{i}{end}.png" for i in range(6) for end in ("", "_mirror")]
    path = zip_crops(write_crops(tmp_path / "crops", names, side=16), tmp_path / "crops.zip")
    with caplog.at_level(logging.WARNING):
        warn_of_mirrored_copies(PosedImages(path))  # by labels
    assert "about 6 of its 12 images are mirrored copies" in caplog.text and "data.mirror=false" in caplog.text
    caplog.clear()
    manifest = tmp_path / "crops" / "manifest.json"
    for num in (0, 2):  # the manifest knows better
        manifest.write_text(json.dumps({"mirrored_copies_in_train": num}))
        warn_of_mirrored_copies(PosedImages(tmp_path / "crops"))
        assert ("about 2 of its 12 images" in caplog.text) == (num == 2)
    caplog.clear()
    plain = write_crops(tmp_path / "plain", names[::2], side=16)
    warn_of_mirrored_copies(PosedImages(plain))
    assert not caplog.text
