"""The data scripts on stand-ins: what is drawn, what is written, and what is missing."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from standins import write_crops, zip_crops

from goae.data.copies import Copies, count_mirrored
from goae.data.datasets import PosedImages
from goae.data.subsets import Download, Entry, afhq_entries, celebahq_test, draw, ffhq_entries, mead_entries, write_set
from goae.evaluation.protocols import People, novel_view_tasks
from scripts import run_script

Run = Callable[..., str]
SIDE = 16
VIEWS = ("left_60", "left_30", "front", "right_30", "right_60")
PATTERN = r"(?P<person>[^/]+)/(?P<view>[^/]+)/(?P<frame>.+)\.[a-z]+"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script: its stdout, or the one paragraph on stderr of one that must fail."""

    def call(script: str, *arguments: object, fails: bool = False) -> str:
        code = run_script(script, *arguments, "--resolution", SIDE)
        out, err = capsys.readouterr()
        assert code == int(fails), err
        return err if fails else out

    return call


@pytest.fixture
def celeba(tmp_path: Path) -> list[str]:
    """Six images and their mirrored copies: 1, 2, 3 and 5 are tests, and pose estimation failed on 5."""
    names = [f"{i}{end}.png" for i in range(6) for end in ("", "_mirror")]
    crops = write_crops(tmp_path / "crops", names, side=SIDE, unposed=["5.png", "5_mirror.png"])
    files = [f"{100 + i:06d}.jpg" for i in range(6)]
    mapping = ["idx  orig_idx  orig_file"] + [f"{i}  {99 + i}  {file}" for i, file in enumerate(files)]
    (tmp_path / "mapping.txt").write_text("\n".join(mapping) + "\n")
    parts = [0, 2, 2, 2, 1, 2]
    (tmp_path / "partition.txt").write_text("".join(f"{f} {p}\n" for f, p in zip(files, parts, strict=True)))
    (tmp_path / "identities.txt").write_text("".join(f"{f} {7 + i // 2}\n" for i, f in enumerate(files)))
    lists = ["--mapping", str(tmp_path / "mapping.txt"), "--partition", str(tmp_path / "partition.txt")]
    return ["--images", str(crops), *lists, "--out", str(tmp_path / "out" / "test.zip")]


def test_celebahq(tmp_path: Path, celeba: list[str], run: Run) -> None:
    arguments = [*celeba, "--identities", tmp_path / "identities.txt", "--num", 2]
    assert "2 images, written" in run("prepare_celebahq", *arguments)
    found = PosedImages(tmp_path / "out" / "test.zip", SIDE, extras=("person",), radius=2.7)
    assert len(found) == 2 and set(found.names) <= {"1.png", "2.png", "3.png"}
    assert found.rows["person"].tolist() == [7 + int(name[0]) // 2 for name in found.names]
    source = PosedImages(tmp_path / "out" / "test.zip", SIDE)
    manifest = json.loads((tmp_path / "out" / "test.manifest.json").read_text())
    assert (manifest["seed"], manifest["in_list"], manifest["with_label"]) == (0, 4, 3)
    for entry, name in zip(manifest["files"], source.names, strict=True):
        content = (tmp_path / "crops" / entry["source"]).read_bytes()
        assert entry["name"] == name and entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert source.source.read(name) == content
    assert str(tmp_path) not in json.dumps(manifest)
    assert "complete already" in run("prepare_celebahq", *arguments)
    changed = run("prepare_celebahq", *celeba, "--num", 3, fails=True)
    assert "test.manifest.json lists another choice: num_images is 2 there, 3 now" in changed


def test_a_published_manifest_pins_the_images(tmp_path: Path, celeba: list[str], run: Run) -> None:
    run("prepare_celebahq", *celeba, "--num", 3)
    (tmp_path / "out" / "test.zip").unlink()
    write_crops(tmp_path / "crops", ["1.png", "0.png"], side=SIDE)  # other pixels, and labels for these alone
    text = run("prepare_celebahq", *celeba, "--num", 1, fails=True)
    assert "lists another choice" in text and not (tmp_path / "out" / "test.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--num", 4], "4 images of the test list were asked for, but 3 are there with a camera label"),
        (["--mapping", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--images", "nowhere"], "there is no data set at nowhere"),
        (["--radius", 3, "--num", 1], "radius"),
    ],
)
def test_what_celebahq_lacks_is_named(
    celeba: list[str], tmp_path: Path, arguments: list[object], named: str, run: Run
) -> None:
    assert named in run("prepare_celebahq", *celeba, *arguments, fails=True)
    assert not list((tmp_path / "out").glob("*"))


def test_a_test_list_may_be_given(tmp_path: Path, celeba: list[str], run: Run) -> None:
    (tmp_path / "list.txt").write_text("4.jpg\n0.jpg\n")
    run("prepare_celebahq", *celeba, "--list", tmp_path / "list.txt", "--num", 2)
    assert PosedImages(tmp_path / "out" / "test.zip", SIDE).names == ["0.png", "4.png"]


def test_celebas_files_are_checked() -> None:
    assert celebahq_test("idx orig_idx orig_file\n0 4 a.jpg\n1 5 b.jpg\n", "a.jpg 0\nb.jpg 2\n") == {1: "b.jpg"}
    with pytest.raises(ValueError, match=r"the partition lacks b\.jpg"):
        celebahq_test("head\n0 4 a.jpg\n1 5 b.jpg\n", "a.jpg 2\n")
    with pytest.raises(ValueError, match="lines of 3 words"):
        celebahq_test("head\n0 4\n", "a.jpg 2\n")
    with pytest.raises(ValueError, match="no image of the mapping is in the test partition"):
        celebahq_test("head\n0 4 a.jpg\n", "a.jpg 1\n")


def test_mead(tmp_path: Path, run: Run) -> None:
    """Two persons with three moments, one of which lacks a view; copies beside all of them."""
    ends = [f"{k}{end}" for k in range(3) for end in ("", "_mirror")]
    names = [f"{p}/{v}/happy/{end}.png" for p in ("M003", "W009") for v in VIEWS for end in ends]
    crops = write_crops(tmp_path / "crops", names, side=SIDE, unposed=["M003/front/happy/1.png"])
    out = tmp_path / "test.zip"
    arguments = ["--images", crops, "--out", out, "--persons", 2]
    assert "20 images, written" in run("prepare_mead", *arguments, "--frames", 2)
    found = PosedImages(out, SIDE, extras=("person", "expression", "view"))
    tasks = novel_view_tasks(People(*(found.rows[n] for n in found.extras)), (-60.0, -30.0, 0.0, 30.0, 60.0))
    assert len(tasks) == 12
    manifest = json.loads((tmp_path / "test.manifest.json").read_text())
    sources = {entry["name"]: entry["source"] for entry in manifest["files"]}
    assert not any("M003" in source and source.endswith("/1.png") for source in sources.values())
    assert not any("_mirror" in source for source in sources.values()) and manifest["copies_left_out"] == 30
    for task in tasks:
        origins = [sources[found.names[i]].split("/") for i in (task.source, *task.targets)]
        assert len({(person, frame) for person, _, _, frame in origins}) == 1  # one moment
        assert {view for _, view, _, _ in origins} == set(VIEWS)
        assert origins[0][1] == {-60.0: "left_60", 0.0: "front", 60.0: "right_60"}[task.yaw]
    text = run("prepare_mead", *arguments[:3], tmp_path / "other.zip", "--persons", 2, "--frames", 3, fails=True)
    assert "2 persons with 3 frames" in text and "but 1 of 2 persons have them" in text


def test_mead_says_how_many_names_fit() -> None:
    with pytest.raises(ValueError, match="1 of 1 posed images do not fit the pattern"):
        mead_entries(["a.png"], pattern=PATTERN, views=VIEWS, persons=1, frames=1, seed=0)


def test_the_papers_numbers_of_mead() -> None:
    names = [f"p{p}/{v}/{k}.png" for p in range(50) for v in VIEWS for k in range(9)]
    entries, counts = mead_entries(names, pattern=PATTERN, views=VIEWS, persons=43, frames=5, seed=1)
    assert len(entries) == 1075 and counts["persons_with_enough_frames"] == 50
    again, _ = mead_entries(names[::-1], pattern=PATTERN, views=VIEWS, persons=43, frames=5, seed=1)
    assert entries == again
    assert entries != mead_entries(names, pattern=PATTERN, views=VIEWS, persons=43, frames=5, seed=2)[0]


def twins(name: str) -> int:
    """The number of the image that an entry shows, where the preparation wrote every image and then its copy."""
    return int(name.removesuffix(".png")[-8:]) // 2


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """Forty images and their mirrored copies, with the names that the data set tool gives."""
    names = [f"{i:02d}{end}.png" for i in range(40) for end in ("", "_mirror")]
    return zip_crops(write_crops(tmp_path / "crops", names, side=SIDE), tmp_path / "crops.zip")


def test_afhq_keeps_renamed_copies_out_of_the_tests(tmp_path: Path, renamed: Path, run: Run) -> None:
    text = run("prepare_afhq", "--images", renamed, "--out", tmp_path / "cats")
    assert "80 images, 40 without copies; 40 mirrored copies and 0 replicas" in text
    assert "32 go to train with their images, and 8 of held-out images are left out" in text
    splits = {s: PosedImages(tmp_path / "cats" / f"{s}.zip", SIDE).names for s in ("train", "val", "test")}
    assert {s: len(names) for s, names in splits.items()} == {"train": 64, "val": 4, "test": 4}
    shown = {s: {twins(name) for name in names} for s, names in splits.items()}
    assert set.union(*shown.values()) == set(range(40)) and sum(map(len, shown.values())) == 40
    assert all(int(name[-5]) % 2 == 0 for name in (*splits["val"], *splits["test"]))  # the images, not their copies
    manifest = json.loads((tmp_path / "cats" / "val.manifest.json").read_text())
    assert (manifest["mirrored_copies_dropped"], manifest["mirrored_copies_in_train"]) == (8, 32)
    with pytest.raises(ValueError, match="cannot be split"):
        afhq_entries(Copies([["a.png"], ["b.png"]]), seed=0)


def test_ffhq_holds_images_out_by_the_seed(tmp_path: Path, renamed: Path, run: Run) -> None:
    arguments = ["--images", renamed, "--out", tmp_path / "ffhq", "--num", 3]
    run("prepare_ffhq", *arguments)
    train, val = (PosedImages(tmp_path / "ffhq" / f"{split}.zip", SIDE).names for split in ("train", "val"))
    assert (len(train), len(val)) == (74, 3)
    assert not {twins(name) for name in train} & {twins(name) for name in val}
    manifest = json.loads((tmp_path / "ffhq" / "val.manifest.json").read_text())
    assert (manifest["set"], manifest["num_images"], manifest["mirrored_copies_dropped"]) == ("ffhq", 3, 3)
    assert "complete already" in run("prepare_ffhq", *arguments)
    assert "seed is 0 there, 1 now" in run("prepare_ffhq", *arguments, "--seed", 1, fails=True)
    with pytest.raises(ValueError, match="2 of 2 images with a camera label cannot be held out"):
        ffhq_entries(Copies([["a.png"], ["b.png"]]), num=2, seed=0)


def test_rebalanced_ffhq_keeps_replicas_together(tmp_path: Path, run: Run) -> None:
    ends = ["", *(f"_{k:02d}" for k in range(1, 8))]
    names = [f"img{i}{mirror}{end}.png" for i in range(8) for mirror in ("", "_mirror") for end in ends[: 1 + i]]
    crops = write_crops(tmp_path / "crops", names, side=SIDE)
    source = zip_crops(crops, tmp_path / "crops.zip")
    text = run("prepare_ffhq", "--images", source, "--out", tmp_path / "ffhq", "--num", 3)
    assert "72 images, 8 without copies; 36 mirrored copies and 28 replicas" in text
    shown = [name.split("_")[0].removesuffix(".png") for name in sorted(names)]
    train, val = (PosedImages(tmp_path / "ffhq" / f"{split}.zip", SIDE).names for split in ("train", "val"))
    people = [{shown[int(name.removesuffix(".png")[-8:])] for name in part} for part in (train, val)]
    assert len(val) == len(people[1]) == 3 and len(people[0]) == 5 and not people[0] & people[1]
    assert count_mirrored(PosedImages(tmp_path / "ffhq" / "train.zip", SIDE)) == len(train) // 2
    assert count_mirrored(PosedImages(tmp_path / "ffhq" / "val.zip", SIDE)) == 0


def test_names_of_the_preparation_give_the_draw_of_before(tmp_path: Path, run: Run) -> None:
    """Manifests that were written when copies were known by `_mirror` alone stay good."""
    names = [f"00000/img{i:08d}{end}.png" for i in range(8) for end in ("", "_mirror")]
    crops = write_crops(tmp_path / "crops", names, side=SIDE)
    arguments = ["--images", crops, "--out", tmp_path / "ffhq", "--num", 3]
    run("prepare_ffhq", *arguments)
    path = tmp_path / "ffhq" / "val.manifest.json"
    manifest = json.loads(path.read_text())
    assert [entry["name"] for entry in manifest["files"]] == [f"00000/img{i:08d}.png" for i in (1, 2, 6)]
    for key in ("replicas_dropped", "mirrored_copies_in_train", "replicas_in_train"):
        del manifest[key]  # which were not told then
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    assert "val.zip: 3 images, complete already" in run("prepare_ffhq", *arguments)
    manifest["files"][0]["sha256"] = "0"
    path.write_text(json.dumps(manifest))
    assert "lists another choice" in run("prepare_ffhq", *arguments, fails=True)


def test_twins_by_label_that_differ_in_pixels_are_refused(tmp_path: Path, renamed: Path, run: Run) -> None:
    crops = tmp_path / "crops"
    content = json.loads((crops / "dataset.json").read_text())
    content["labels"] = [[f"{i}.png", label] for i, (_, label) in enumerate(content["labels"])]
    strangers = write_crops(tmp_path / "strangers", [name for name, _ in content["labels"]], side=SIDE)
    (strangers / "dataset.json").write_text(json.dumps(content))
    arguments = ["--images", strangers, "--out", tmp_path / "cats"]
    text = run("prepare_afhq", *arguments, fails=True)
    assert "80 of 80 images" in text and "no two of them agree" in text and "--copies none" in text
    assert not (tmp_path / "cats").exists()
    assert "80 images, 80 without copies" in run("prepare_afhq", *arguments, "--copies", "none")
    arguments[-1] = tmp_path / "others"
    assert "80 images, 40 without copies" in run("prepare_afhq", *arguments, "--copies", "labels")


def test_protocols_take_no_copy_of_another_name(tmp_path: Path, run: Run) -> None:
    """Renamed copies are found by pixels, and two different images of one name are named."""
    names = [f"{i}{end}.png" for i in range(4) for end in ("", "_mirror")]
    crops = write_crops(tmp_path / "crops", names, side=SIDE)
    content = (crops / "dataset.json").read_text()
    for i in range(4):
        (crops / f"{i}_mirror.png").rename(crops / f"{i}-flip.png")
    (crops / "dataset.json").write_text(content.replace("_mirror", "-flip"))
    (tmp_path / "list.txt").write_text("\n".join(f"{i}{end}.png" for i in range(4) for end in ("", "-flip")))
    arguments = ["--images", crops, "--list", tmp_path / "list.txt", "--out", tmp_path / "test.zip"]
    assert "4 images of the test list" not in run("prepare_celebahq", *arguments, "--num", 4)
    assert PosedImages(tmp_path / "test.zip", SIDE).names == [f"{i}.png" for i in range(4)]
    crops = write_crops(tmp_path / "both", ["a/0.png", "b/0.png", "1.png"], side=SIDE)
    text = run("prepare_celebahq", "--images", crops, *arguments[2:], "--num", 1, fails=True)
    assert "a/0.png and b/0.png are two different images of one name" in text


def test_the_mirror_suffix_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("prepare_afhq", "--images", tmp_path, "--mirror-suffix", "_mirror") == 2
    assert "--mirror-suffix: it was removed" in capsys.readouterr().err
    assert run_script("prepare_ffhq", "--help") == 0
    assert "removed: --copies finds copies" in " ".join(capsys.readouterr().out.split())


def test_draws_depend_on_the_seed_alone() -> None:
    names = [f"{i:03d}" for i in range(100)]
    assert draw(names, 10, 3, "names") == draw(names[::-1], 10, 3, "names") != draw(names, 10, 4, "names")
    assert draw(names, 5, 0, "names") == ["002", "026", "055", "075", "086"]  # manifests that are published stay


def test_what_cannot_be_used_is_named_as_it_was_given(tmp_path: Path, celeba: list[str], run: Run) -> None:
    crops, arguments = tmp_path / "crops", [*celeba, "--num", 3]
    whole = {name: (crops / name).read_bytes() for name in ("1.png", "3.png")}
    for name, content in whole.items():
        (crops / name).write_bytes(content[:20])
    assert f"2 of 3 images cannot be used:\n1.png in {crops} cannot be read" in run(
        "prepare_celebahq", *arguments, fails=True
    )
    for name, content in whole.items():
        (crops / name).write_bytes(content[:-30])
    text = run("prepare_celebahq", *arguments, fails=True)
    assert f"error: 1.png in {crops} cannot be read as an image" in text
    for name, content in whole.items():
        (crops / name).write_bytes(content)
    assert f"dataset.json in {crops} is no camera" in run("prepare_celebahq", *arguments, "--radius", 1, fails=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_crops_without_labels_are_named(tmp_path: Path, run: Run) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.png").touch()
    text = run("prepare_afhq", "--images", tmp_path / "crops", "--out", tmp_path / "cats", fails=True)
    assert "there is no dataset.json in" in text


def test_errors_name_what_was_given_and_not_what_is_being_written(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", ["old.png"], side=SIDE)
    entries, out = [Entry("new.png", "old.png", {})], tmp_path / "val.zip"

    def written(side: int, radius: float) -> str:
        with pytest.raises(ValueError) as caught:
            write_set(Download(crops), entries, out, settings={}, resolution=side, radius=radius)
        return str(caught.value)

    text = written(SIDE, 1.0)
    assert text.startswith(f"the label of old.png in dataset.json in {crops} is no camera: a camera stands 2.7")
    assert written(2 * SIDE, 2.7).startswith(f"old.png in {crops} is {SIDE}x{SIDE}, expected")
    (tmp_path / "val.manifest.json").write_text('{"files": 3}')
    assert written(SIDE, 2.7).startswith(f'{tmp_path / "val.manifest.json"} is no manifest: it has no list "files"')
