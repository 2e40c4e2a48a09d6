"""The figures that show inversions, from tiny runs with random weights: what stands where, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from eg3d.cameras import canonical_label
from PIL import Image
from tiny import tiny_generator, tiny_goae, tiny_images, tiny_labels, tiny_rival

from goae.camera.level import level_label, yaw_of
from goae.config import FiguresConfig, TablesConfig, TrainConfig, claim_run
from goae.data.datasets import PosedImages
from goae.editing.directions import EditConfig
from goae.inversion import Inverter
from goae.loading import save_encoder, save_refiner
from goae.models.occlusion import seen_points
from goae.runs.diagram_figures import tree
from goae.runs.figures import draw_figure, list_figures
from goae.runs.inversion_figures import (
    CATS,
    Subject,
    available,
    chosen,
    compared_subjects,
    mix_views,
)
from goae.viz.diagram import Box, block_diagram
from scripts import run_script


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> list[str]:
    """Overrides of configs/figures.yaml that name runs with random weights."""
    folder = tmp_path_factory.mktemp("figures")
    checkpoint.save(tiny_generator(), folder / "generator.safetensors")
    for name, more in {
        "full": [],
        "conv": ["afa.variant=conv"],
        "plain": ["stage=encoder"],
        "psp": ["method=psp"],
    }.items():
        paths = [f"paths.runs={folder / 'runs'}", f"paths.generator={folder / 'generator.safetensors'}"]
        run = composed_as(TrainConfig, "experiment=tiny", f"run={name}", *paths, *more)
        claim_run(run)
        goae = tiny_goae(run.goae, variant=run.afa.variant)
        encoder = tiny_rival("psp").encoder if name == "psp" else goae.encoder
        save_encoder(encoder, run.run_dir / "encoder.safetensors")
        if name in ("full", "conv"):
            save_refiner(goae.afa, run.goae, run.run_dir / "refiner.safetensors")
    return [
        *(f"runs={folder / 'runs'}", f"generator_path={folder / 'generator.safetensors'}", f"images={tiny_data}"),
        *("device=cpu", "ours=full", "subjects=[1,3]", "multiview="),
    ]


def figures(given: list[str], folder: Path, *more: str) -> FiguresConfig:
    config = composed_as(FiguresConfig, *given, f"output={folder}", *more, name="figures")
    config.encoders = {"a": "plain", "b": "full"}  # a dictionary on the command line is merged with that of the file
    np.save(folder / "n.npy", np.linspace(-1, 1, 32, dtype=np.float32))
    config.edits = [EditConfig("Young", str(folder / "n.npy"), -1.0), EditConfig("Old", str(folder / "n.npy"))]
    config.refiners = {"w/ conv": "conv", "w/ AFA": "full"}
    config.compared = {"pSp-3D": "psp", "e4e-3D": "absent", "Pose Opt.": "pose_opt", "Ours": "full"}
    config.optimisers.regressor = "absent/camera.safetensors"
    return config


@pytest.mark.parametrize("figure", [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19])
def test_every_figure_is_drawn(given: list[str], figure: int, tmp_path: Path) -> None:
    path = draw_figure(figures(given, tmp_path, f"figure={figure}", f"cats={figure in CATS}"))
    picture = Image.open(path)
    assert path == tmp_path / f"figure-{figure}.png" and min(picture.size) > 100
    assert len(set(picture.convert("RGB").getdata())) > 20  # not an empty page


def test_methods_without_weights_are_named(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = figures(given, tmp_path, "figure=6")
    methods, missing = available(config, config.compared)
    assert list(methods) == ["pSp-3D", "Ours"] and missing == ["e4e-3D", "Pose Opt."]
    told = capsys.readouterr().out
    assert "e4e-3D is not shown" in told and "scripts/train_camera.py" in told
    with pytest.raises(FileNotFoundError, match="of e4e-3D no method has weights"):
        available(config, {"e4e-3D": "absent"})
    with pytest.raises(FileNotFoundError, match="is no run folder"):  # an ablation is not drawn in part
        config.encoders["c"] = "absent"
        config.figure = 7
        draw_figure(config)


def test_encoders_and_optimisation_part_in_figures_12_and_13() -> None:
    sources = {"pSp-3D": "psp", "PTI": "pti", "Ours": "full"}
    shown = {f: [label for label, source in sources.items() if chosen(f, label, source)] for f in (6, 12, 13)}
    assert shown == {6: ["pSp-3D", "PTI", "Ours"], 12: ["pSp-3D", "Ours"], 13: ["PTI", "Ours"]}


def test_figures_6_12_and_13_show_different_faces(given: list[str], tmp_path: Path) -> None:
    shown = {f: compared_subjects(figures(given, tmp_path, f"figure={f}")) for f in (6, 12, 13)}
    assert (shown[6], shown[12]) == ([1, 3], [4, 5])
    labels = PosedImages(next(x.removeprefix("images=") for x in given if x.startswith("images="))).labels
    yaws = [abs(yaw_of(c[None])) for c in labels]
    assert sorted(yaws)[-2:] == sorted(yaws[i] for i in shown[13])


def test_the_source_view_hides_nothing_from_itself_and_the_mix_changes_what_is_hidden() -> None:
    inverter = Inverter(tiny_goae())
    subject = Subject("a", tiny_images(1), tiny_labels(1))
    _, _, own = mix_views(inverter, subject, subject.c)
    plain, mixed, turned = mix_views(inverter, subject, level_label(inverter.goae.generator, 70.0, subject.c))
    assert float((own > 0).float().mean()) > 0.9 > float((turned > 0).float().mean())
    assert set(turned.unique().tolist()) == {-1.0, 1.0} and not torch.equal(plain, mixed)


def test_a_point_is_seen_at_its_depth_inside_the_image() -> None:
    c, depth = canonical_label(), torch.full((1, 1, 8, 8), 2.7)
    points = torch.tensor([[[0.0, 0, 0], [0, 0, 0.01], [0, 0, -0.05], [0, 0, 0.05], [5.0, 0, 0], [0, 0, 5.4]]])
    assert seen_points(points, depth, c).tolist() == [[True, True, False, False, False, False]]
    left = torch.cat([torch.full((1, 1, 8, 4), 2.7), torch.full((1, 1, 8, 4), 2.0)], dim=-1)
    aside = torch.tensor([[[-0.2, 0, 0], [0.2, 0, 0]]])  # +x is right in the image of the front camera
    assert seen_points(aside, left, c).tolist() == [[True, False]]


def test_the_full_world_is_a_choice() -> None:
    """Its runs are those of configs/rows/full.yaml; cats have figures of their own."""
    faces, cats = (composed_as(FiguresConfig, f"pictures={name}", name="figures") for name in ("full", "cats"))
    rows = composed_as(TablesConfig, "world=full", "table=1", name="tables").rows
    assert list(faces.encoders.values()) == [*rows.no_adv_no_bg, *rows.no_adv, *rows.no_bg, *rows.adv_bg]
    assert list(faces.refiners.values()) == [*rows.conv, *rows.afa]
    assert list(faces.compared.values()) == [*rows.ide3d, *rows.psp, *rows.e4e, "pti", "pose_opt", *rows.full]
    assert faces.ours == rows.full[0] and not faces.cats and len(faces.edits) == 3
    assert cats.cats and not cats.edits and cats.ours == "afhq_cat-seed0"
    trained = composed_as(TrainConfig, "experiment=afhq_cat").perception
    assert cats.networks.background == trained.background
    assert cats.networks.background_subject == trained.background_subject


def test_what_cannot_be_drawn_is_refused(given: list[str], tmp_path: Path) -> None:
    for more, told in (
        (["figure=16"], "needs the full world"),
        (["figure=19"], "needs the full world"),
        (["figure=9", "subjects=[12]"], r"subjects is \[12\]"),
        (["figure=15", "subjects=[1]"], "at least two"),
        (["figure=14", "yaws=[0,10]"], "at least five"),
        (["figure=18", "subjects=[1]"], "at least two"),
    ):
        with pytest.raises(ValueError, match=told):
            draw_figure(figures(given, tmp_path, *more))
    assert [p.name for p in tmp_path.iterdir()] == ["n.npy"]
    config = figures(given, tmp_path, "figure=10")
    config.edits = []
    with pytest.raises(ValueError, match="edits is empty"):
        draw_figure(config)


def test_without_a_figure_all_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "figure-9.png").write_bytes(b"")
    assert run_script("figures", f"output={tmp_path}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 19
        and lines == list_figures(composed_as(FiguresConfig, f"output={tmp_path}", name="figures")).splitlines()
    )
    assert f"drawn: {tmp_path / 'figure-9.png'}" in lines[8] and "not drawn yet" in lines[2]
    assert "needs the full world" in lines[15]
    assert "Fig. 10, 17 and 18" in lines[9] and "full world" not in lines[6]


def test_the_tree_of_an_encoder_has_all_of_its_parameters() -> None:
    encoder = tiny_goae().encoder
    lines = tree(encoder, depth=1)
    total, parts = float(lines[0].split()[-1]), [float(line.split()[-1]) for line in lines[1:]]
    assert total == pytest.approx(sum(p.numel() for p in encoder.parameters()) / 1000, abs=0.01)
    assert sum(parts) == pytest.approx(total, abs=0.01 * len(parts))
    assert lines[1].startswith("  swin_model: SwinPyramid")


def test_an_arrow_of_a_box_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        block_diagram({"a": Box(0, 0, "a")}, [("a", "b")], caption="")
