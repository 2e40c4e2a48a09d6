"""What the input camera saw of a sphere, and errors of views that are known."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from eg3d.cameras import canonical_label, join_label, pose_from_angles, split_label
from eg3d.rendering.rays import rays
from tiny import tiny_goae, tiny_images, tiny_labels
from torch import Tensor

from goae.config import FiguresConfig
from goae.data.mini import SplitConfig, write_split
from goae.evaluation.protocols import Task
from goae.runs.inversion_figures import measure_mix
from goae.runs.occlusion_study import inverted_masks, occlusion_record, region_errors, region_masks, true_masks

RADIUS = 0.25


def label(yaw: float) -> Tensor:
    c = canonical_label()
    return join_label(pose_from_angles(yaw, 0.0), split_label(c)[1])


def sphere(yaw: float, side: int) -> dict[str, Any]:
    """Depth along the rays and part labels of a sphere around the origin."""
    c = label(yaw)
    origins, directions = rays(*split_label(c), side)
    along = -(origins * directions).sum(-1)
    square = RADIUS**2 - (origins.square().sum(-1) - along.square())
    depth = torch.where(square > 0, along - square.clamp(min=0).sqrt(), 3.5).view(1, side, side)
    parts = (square > 0).to(torch.uint8).view(1, side, side)
    return {"c": c[0], "depth": depth, "parts": parts, "name": f"{yaw}.png"}


def together(*views: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.stack([view[name] for view in views]) for name in ("c", "depth", "parts")}


def test_a_quarter_turn_hides_half_of_a_sphere() -> None:
    source, turned = sphere(0.0, 64), sphere(math.pi / 2, 64)
    seen, hidden, background = region_masks(together(source), together(source, turned)).transpose(0, 1)
    head = torch.stack([source["parts"][0], turned["parts"][0]]).float()
    assert torch.equal(seen + hidden, head) and torch.equal(background, 1 - head)
    assert float(seen[0].sum() / head[0].sum()) > 0.95  # but for the rim
    assert 0.25 < float(seen[1].sum() / head[1].sum()) < 0.5  # grazing rays are left out
    left, right = seen[1, :, :28].sum(), seen[1, :, 36:].sum()
    assert min(left, right) < 5 and max(left, right) > 500  # the half that faces the source


def test_errors_are_those_of_the_views_in_their_regions() -> None:
    """Targets are the views of the mixed planes but for a known error at the places that were seen."""
    goae, image = tiny_goae(), tiny_images(1)
    views = [sphere(yaw, 32) for yaw in (0.0, 0.5, -0.5)]
    with torch.inference_mode():
        out = goae(image, views[0]["c"][None])
        for view in views:
            shown = goae.render(out.planes_mix, out.ws, view["c"][None]).image[0].clamp(-1, 1)
            seen = region_masks(together(views[0]), together(view))[0, :1]
            view["image"] = shown + 0.1 * seen
    views[0]["image"] = image[0]
    tasks = [Task(0, (1, 2), person=person) for person in (0, 1)]
    errors, pixels = region_errors(goae, views, tasks[0])
    assert errors[2].tolist() == pytest.approx([0.01, 0, 0], abs=1e-6) and float(pixels.sum()) == 2 * 32**2
    assert (errors[:2, 1] > 1e-6).all()  # other planes show something else
    record = occlusion_record(goae, views, tasks)
    assert record["mix_seen"] == pytest.approx(0.01, abs=1e-6) and record["num_persons"] == 2
    assert record["mix_minus_no_mix_hidden"] == pytest.approx(-float(errors[1, 1]), rel=1e-3)
    assert record["share_seen"] + record["share_hidden"] + record["share_background"] == pytest.approx(1)


def test_inputs_from_the_side_are_spread_over_all_persons(tmp_path: Path) -> None:
    """Two persons with five frames from five views: 20 inputs from ±60°."""
    path = tmp_path / "multiview.zip"
    write_split(SplitConfig("multiview", 50, 0, 32), path, workers=1, progress=lambda done: None)
    config = FiguresConfig(multiview=str(path), num_sides=4)
    record = measure_mix(config, tiny_goae())
    assert (record["num_inputs"], record["num_persons"]) == (4, 2)
    assert 0 < record["share_seen"] < 1 and record["mix_hidden"] > 0


def test_masks_of_few_rays_are_compared_with_the_dense_one() -> None:
    rows = true_masks(1, tiny_goae().generator.config.rendering, 64)
    coarse, *found = rows
    assert [row["jump"] for row in rows] == ["coarse", 1.0, 2.0, 4.0, 8.0, None]
    assert coarse["rays"] == found[-1]["rays"] == 1 / 16
    shares, worst = [row["rays"] for row in found], [min(row["iou_worst"]) for row in found]
    assert shares == sorted(shares, reverse=True) and worst == sorted(worst, reverse=True)
    assert worst[0] > 0.95 > 0.8 > worst[-1] and "psnr" not in coarse  # a sharp head must not be bridged
    assert found[0]["iou"] == found[0]["iou_worst"] and found[0]["rays"] == found[0]["rays_most"]  # one input


def test_inversions_say_what_few_rays_change_in_views() -> None:
    inputs = list(zip(tiny_images().split(1), tiny_labels().split(1), strict=True))
    coarse, *found = inverted_masks(tiny_goae(), inputs, 32)
    assert found[0]["psnr"] > coarse["psnr"] > coarse["psnr_worst"] > 10
    assert min(found[0]["iou_worst"]) > 0.9
