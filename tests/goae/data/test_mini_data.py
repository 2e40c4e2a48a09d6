"""The mini data: splits, determinism, resuming."""

import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from goae.data import heads, mini
from goae.data.datasets import PosedImages
from goae.data.head_render import FAR, render_heads
from goae.data.heads import HeadParams, Part
from goae.data.mini import SplitConfig, draw_chunk, drawn_split, read_manifest, write_split
from goae.data.sources import open_source

EXTRAS = ("depth", "parts", "factors", "identity", "attributes", "person", "expression", "view")


def quiet(done: int) -> None:
    """No progress is shown."""


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mini") / "train.zip"
    assert write_split(SplitConfig("train", 4, resolution=16), path, workers=1, progress=quiet)
    return path


def test_what_is_read_is_what_the_factors_render(train: Path) -> None:
    images = PosedImages(train, 16, EXTRAS, radius=2.7)
    assert len(images) == 4
    item = images[2]
    view = render_heads(HeadParams(item["factors"][None]), item["c"][None], resolution=16)
    # half of a step of 8 bits; labels are stored with eight digits
    assert (item["image"] - view.image[0]).abs().max() < 0.5 / 127.5 + 1e-3
    assert (item["depth"] - view.depth[0]).abs().max() < 1e-4 and torch.equal(item["parts"], view.parts[0])
    background = item["parts"] == Part.BACKGROUND
    torch.testing.assert_close(item["depth"][background], torch.full((int(background.sum()),), FAR))


def test_the_number_of_workers_does_not_change_the_file(train: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    write_split(SplitConfig("train", 4, resolution=16), again, workers=2, progress=quiet)
    assert again.read_bytes() == train.read_bytes()


def test_longer_splits_begin_with_the_shorter_ones() -> None:
    short, long = (draw_chunk(SplitConfig("train", num), 0) for num in (4, 4000))
    assert torch.equal(short.params.latents, long.params.latents[:4]) and torch.equal(short.c, long.c[:4])


def test_splits_and_seeds_have_people_of_their_own() -> None:
    people = [draw_chunk(SplitConfig(s, 25, seed), 0) for s in mini.SPLITS for seed in (0, 1)]
    for i, one in enumerate(people):
        for two in people[i + 1 :]:
            assert not (one.params.latents[:, None] == two.params.latents[None]).all(-1).any()
    numbers = [set(draw_chunk(SplitConfig(s, 25), 0).person.tolist()) for s in mini.SPLITS]
    assert sum(map(len, numbers)) == len(set().union(*numbers))


def test_multiview_shows_one_person_with_all_expressions_from_all_yaws() -> None:
    chunk = draw_chunk(SplitConfig("multiview", 50), 1)
    assert len(chunk.params) == mini.VIEWS == 25 and len(chunk.person.unique()) == 1
    assert len(heads.identity(chunk.params).unique(dim=0)) == 1
    assert len(heads.factors(chunk.params).unique(dim=0)) == 5
    pairs = {(e, v) for e, v in zip(chunk.expression.tolist(), chunk.view.tolist(), strict=True)}
    assert len(pairs) == 25
    for e in range(5):  # the views of one frame differ by the camera alone
        assert len(chunk.params.latents[chunk.expression == e].unique(dim=0)) == 1


def test_a_complete_split_is_kept_and_other_settings_are_refused(train: Path) -> None:
    before = train.stat().st_mtime_ns
    assert not write_split(SplitConfig("train", 4, resolution=16), train, workers=1, progress=quiet)
    assert train.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"num_images 4 \(asked: 5\), seed 0 \(asked: 7\)"):
        write_split(SplitConfig("train", 5, seed=7, resolution=16), train, workers=1, progress=quiet)


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match="no split of the mini data"):
        write_split(SplitConfig("train", 4), path, workers=1, progress=quiet)
    assert path.read_bytes() == b"precious"


def test_an_interruption_leaves_nothing_half_written(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_split(SplitConfig("train", 2, resolution=16), tmp_path / "train.zip", workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_original_readers_see_only_images_and_labels(train: Path) -> None:
    with zipfile.ZipFile(train) as archive:
        pictures = [info for info in archive.infolist() if info.filename.endswith(".png")]
        assert len(pictures) == 4 and all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    assert read_manifest(train)["sha256"]


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="'extra' is not one of"):
        SplitConfig("extra", 3)
    with pytest.raises(ValueError, match="multiple of 25"):
        SplitConfig("multiview", 30)


def test_a_split_knows_what_it_was_drawn_from(train: Path, tmp_path: Path) -> None:
    assert drawn_split(open_source(train)) == asdict(SplitConfig("train", 4, resolution=16))
    (tmp_path / "a.png").touch()
    assert drawn_split(open_source(tmp_path)) is None
    for theirs in ('{"split": "train", "seed": 0}', "[]", "no JSON"):  # in somebody else's data
        (tmp_path / "manifest.json").write_text(theirs)
        assert drawn_split(open_source(tmp_path)) is None
