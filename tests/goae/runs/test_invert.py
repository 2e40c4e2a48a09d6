"""Inverting photos of every kind: what fails is listed, and nothing is lost, mixed up or written elsewhere."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from eg3d import checkpoint
from eg3d.cameras import canonical_label
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_goae

from goae.config import InvertConfig
from goae.data.decoding import find_faults, photo_fault
from goae.loading import save_encoder, save_refiner
from goae.runs.invert import MADE, MADE_FROM, find_folders, find_images, invert
from scripts import run_script

Run = Callable[..., Path]
CAMERA = ",".join(map(str, canonical_label()[0].tolist()))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, goae = tmp_path_factory.mktemp("weights"), tiny_goae()
    paths = {f"{name}_path": folder / f"{name}.safetensors" for name in ("generator", "encoder", "refiner")}
    checkpoint.save(goae.generator, paths["generator_path"])
    save_encoder(goae.encoder, paths["encoder_path"])
    save_refiner(goae.afa, goae.config, paths["refiner_path"])
    return paths


@pytest.fixture
def run(weights: dict[str, Path], tmp_path: Path) -> Run:
    """Invert `input` into the folder `out`, by the tiny weights unless others are given."""

    def call(given: Path, output: Path = tmp_path / "out", **others: str) -> Path:
        files = {name: str(path) for name, path in weights.items()} | others
        return invert(InvertConfig(input=str(given), camera=CAMERA, output=str(output), device="cpu", **files))

    return call


def photo(seed: int = 0, side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def heads(*names: str) -> set[str]:
    return {f"{name}/{file}" for name in names for file in MADE}


def test_what_fails_is_listed_and_the_rest_is_inverted(
    run: Run, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo(0).save(photos / "good.png")
    photo(1).convert("L").save(photos / "grey.png")
    photo(2).resize((32, 16)).save(photos / "wide.png")
    photo(3).save(photos / "cut.png")
    (photos / "cut.png").write_bytes((photos / "cut.png").read_bytes()[:-60])
    (photos / "text.png").write_text("hello")
    files = [f"{name}={path}" for name, path in weights.items()]
    assert run_script("invert", f"input={photos}", f"camera=[{CAMERA}]", f"output={tmp_path / 'script'}", *files) == 1
    assert "error: 3 of 5 images could not be inverted" in capsys.readouterr().err
    assert contents(tmp_path / "script") == heads("good", "grey")
    with pytest.raises(ValueError, match=r"\A3 of 5 images could not be inverted; the others are in .*out:\n") as told:
        run(photos)
    lines = str(told.value).splitlines()[1:]
    for line, name, why in zip(lines, ("cut", "text", "wide"), ("cannot be read", "no PNG", "32 x 16"), strict=True):
        assert line.startswith(f"{name}.png in {photos} ") and why in line and "BytesIO" not in line
    assert contents(tmp_path / "out") == heads("good", "grey")


def test_what_can_be_known_is_told_before_the_networks_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\Aa\.png in .* is empty"):
        run(tmp_path / "a.png", encoder_path="none.safetensors")
    photo().save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"output=.*b\.png is a file"):
        run(tmp_path / "b.png", tmp_path / "b.png", encoder_path="none.safetensors")
    with pytest.raises(FileNotFoundError, match="none"):
        run(tmp_path / "b.png", encoder_path="none.safetensors")


def test_a_photo_is_turned_as_viewers_show_it(run: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    (tmp_path / "photos").mkdir()
    photo().save(tmp_path / "photos" / "turned.png", exif=exif)
    photo().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photos" / "straight.png")
    out = run(tmp_path / "photos")
    assert (out / "turned" / "views.png").read_bytes() == (out / "straight" / "views.png").read_bytes()


def test_images_of_one_stem_have_folders_of_their_own(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for i, name in enumerate(("x/a.png", "x/a.jpg", "y/a.png", "y/A.webp", "con.png")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        photo(i).save(photos / name, "png")
    out = run(photos)
    assert contents(out) == heads("x/a.png", "x/a.jpg", "y/a.png", "y/A.webp", "con")
    assert contents(tmp_path) == contents(photos.parent)
    for name in ("x/a.png", "x/a.jpg"):
        assert json.loads((out / name / MADE_FROM).read_text())["input"] == str(photos / name)


def test_a_name_of_dots_is_no_way_out(run: Run, tmp_path: Path) -> None:
    for name in ("...png", "..png"):
        assert find_folders([name], tmp_path / "out") == [tmp_path / "out" / name]
    photo().save(tmp_path / "...png", "png")
    assert contents(run(tmp_path / "...png")) == heads("...png")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "A.png"], "a.png and A.png would be written to one folder"),
        (["é.png", "e\u0301.png"], "would be written to one folder"),
        (["a.png", "a.jpg", "a.jpg.png"], "would be written to one folder"),
        (["../x.png"], "outside of output="),
        (["/tmp/x.png"], "outside of output="),
        (["a/../../x.png"], "outside of output="),
        (["link/x.png"], "outside of output="),
    ],
)
def test_unsafe_names_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=message):
        find_folders(names, tmp_path / "out")


@pytest.mark.parametrize("name", ["../../x.png", "/x.png", "a/../../x.png"])
def test_no_member_of_a_zip_is_written_outside(name: str, run: Run, tmp_path: Path) -> None:
    photo().save(tmp_path / "x.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "x.png", "a.png")
        archive.writestr(zipfile.ZipInfo(name), (tmp_path / "x.png").read_bytes())
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"photos\.zip|outside of output="):
        run(tmp_path / "photos.zip", tmp_path / "deep" / "down" / "out")
    assert contents(tmp_path) == before


def test_a_folder_keeps_nothing_of_another_image(run: Run, tmp_path: Path) -> None:
    for i, person in enumerate(("alice", "bob")):
        (tmp_path / person).mkdir()
        photo(i).save(tmp_path / person / "face.png")
    out = run(tmp_path / "alice")
    kept = (out / "face" / "views.png").read_bytes()
    with pytest.raises(
        ValueError, match=r"face holds the head of another image, .*alice/face\.png; give another output"
    ):
        run(tmp_path / "bob")
    assert (out / "face" / "views.png").read_bytes() == kept
    (out / "face" / "edit-Age.png").write_bytes(b"of an earlier run")
    run(tmp_path / "alice")
    assert contents(out) == heads("face") and (out / "face" / "views.png").read_bytes() == kept
    photo(2).save(tmp_path / "alice" / "face.png")  # the same photo, mended
    run(tmp_path / "alice")
    assert (out / "face" / "views.png").read_bytes() != kept
    (tmp_path / "alice" / "face.png").write_bytes(b"broken now")
    photo(2).save(tmp_path / "alice" / "other.png")
    with pytest.raises(ValueError, match="1 of 2 images could not be inverted"):
        run(tmp_path / "alice")
    assert contents(out) == heads("other")


def test_weights_that_are_no_numbers_leave_no_picture(run: Run, weights: dict[str, Path], tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    broken = tmp_path / "refiner.safetensors"
    state = load_file(weights["refiner_path"]).items()
    save_file({n: t * float("nan") if t.is_floating_point() else t for n, t in state}, broken)
    broken.with_suffix(".json").write_text(weights["refiner_path"].with_suffix(".json").read_text())
    with pytest.raises(ValueError, match=r"\Aa\.png in .* cannot be inverted: the inversion is not finite"):
        run(tmp_path / "a.png", refiner_path=str(broken))
    assert not contents(tmp_path / "out")


def test_a_picture_opens_as_a_photo(tmp_path: Path) -> None:
    photo().convert("RGBA").save(tmp_path / "a.png")
    (picture,) = find_images(tmp_path / "a.png")
    assert picture.open().mode == "RGB" and picture.open().size == (32, 32)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png in .* cannot be read"):
        picture.open()
    assert "cannot be read" in find_faults(picture.source, ["a.png"], photo_fault)[0]


def test_heads_among_the_photos_are_no_photos(run: Run, tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    run(tmp_path, tmp_path)
    before = contents(tmp_path)
    run(tmp_path, tmp_path)
    assert contents(tmp_path) == before == heads("a") | {"a.png"}
