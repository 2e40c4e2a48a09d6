"""Grids, curves and the report page."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from goae.viz.curves import curves_png, series
from goae.viz.grid import depth_picture, grid, to_uint8
from goae.viz.report import Section, picture, table, write_report


def test_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 5).expand(3, 1, 5)
    assert to_uint8(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_grid_goes_row_by_row() -> None:
    images = torch.stack([torch.full((3, 4, 4), v) for v in (-1.0, 1.0, 0.0)])
    sheet = grid(images, columns=2, gap=1)
    assert sheet.shape == (9, 9, 3)
    assert sheet[0, 0, 0] == 0 and sheet[0, 5, 0] == 255 and sheet[5, 0, 0] == 128 and sheet[8, 8, 0] == 255


def test_near_is_white() -> None:
    shown = depth_picture(torch.tensor([2.0, 3.0, 4.0]).view(1, 1, 1, 3), near=2.0, far=4.0)
    assert shown.shape == (1, 3, 1, 3)
    assert shown[0, 0, 0].tolist() == [1.0, 0.0, -1.0]


def test_curves_are_a_picture() -> None:
    rows = [{"step": s, "seconds": 1.0, "e/l2": 1.0 / (s + 1)} for s in range(30)] + [{"step": 5, "val/mse": 0.1}]
    assert set(series(rows)) == {"e/l2", "val/mse"}
    pixels = np.array(Image.open(io.BytesIO(curves_png(rows, "stage"))))
    assert pixels.std() > 1


def test_report_is_one_self_contained_escaped_page(tmp_path: Path) -> None:
    body = table(["a", "b"], [["<x>", "1"]], "note") + picture(b"png", "caption")
    write_report(tmp_path / "r.html", "Title", "intro", [Section("Part", body)])
    page = (tmp_path / "r.html").read_text()
    assert "&lt;x&gt;" in page and "data:image/png;base64,cG5n" in page and 'src="http' not in page
    assert not list(tmp_path.glob("*.partial"))
