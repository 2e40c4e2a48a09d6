"""InterFaceGAN: the known normal is found, extremes are told apart, and directions can be made to spare others."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eg3d.cameras import canonical_label
from tiny import tiny_generator

from goae.editing.interfacegan import InterFaceGANConfig, draw_heads, extremes, fit_direction, front_images, orthogonal
from goae.editing.scores import read_codes, read_scores, write_codes, write_pictures

CONFIG = InterFaceGANConfig(num_samples=4000, extremes=400)


def gaussian_codes(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of 16 dimensions with one deviation, far from the origin, and a unit normal."""
    rng = torch.Generator().manual_seed(seed)
    normal = torch.nn.functional.normalize(torch.randn(16, generator=rng), dim=0)
    return 5 + 3 * torch.randn(4000, 16, generator=rng), normal


def test_the_normal_of_a_linear_attribute_is_found() -> None:
    codes, normal = gaussian_codes()
    found = fit_direction(codes, codes @ normal, CONFIG)
    assert float(found.normal @ normal) > 0.98 and float(found.normal.norm()) == pytest.approx(1)
    assert found.accuracy > 0.99
    low, high = extremes(codes @ normal, 400)
    apart = float((codes[high] - codes[low]).mean(0) @ normal)
    assert found.step == pytest.approx(apart, rel=0.03)  # a step of 1 turns a low head into a high one
    flipped = fit_direction(codes, -(codes @ normal), CONFIG)
    assert float(flipped.normal @ found.normal) < -0.98


def test_chance_is_told_as_chance() -> None:
    codes, _ = gaussian_codes()
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    assert 0.4 < fit_direction(codes, noise, CONFIG).accuracy < 0.6


def test_extremes_are_the_lowest_and_the_highest() -> None:
    low, high = extremes(torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), 2)
    assert set(low.tolist()) == {1, 2} and set(high.tolist()) == {3, 4}
    with pytest.raises(ValueError, match="overlap at 1"):
        extremes(torch.tensor([1.0, 1.0, 1.0, 1.0]), 2)
    with pytest.raises(ValueError, match="1 of 3 scores are no finite numbers"):
        extremes(torch.tensor([1.0, float("nan"), 1.0]), 1)
    with pytest.raises(ValueError, match=r"half of sampling\.num_samples"):
        replace(CONFIG, extremes=2001)


def test_an_orthogonal_direction_spares_the_others_and_keeps_the_rest() -> None:
    n, a, b = torch.eye(4)[:3]
    mixed = torch.nn.functional.normalize(n + a + b, dim=0)
    found = orthogonal(mixed, [a, b])
    assert torch.allclose(found, n, atol=1e-6)
    with pytest.raises(ValueError, match="lies within"):
        orthogonal(mixed, [n, a, b])


def test_heads_depend_on_the_seed_and_have_the_canonical_pose() -> None:
    generator = tiny_generator().eval()
    config = InterFaceGANConfig(num_samples=5, extremes=2, batch_size=2, seed=3)
    parts = list(draw_heads(generator, config))
    again = list(draw_heads(generator, replace(config, batch_size=5)))
    assert [len(w) for w, _ in parts] == [2, 2, 1]
    codes, images = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    torch.testing.assert_close(codes, again[0][0])
    torch.testing.assert_close(images, again[0][1], atol=1e-4, rtol=1e-3)
    z = torch.randn(2, generator.config.z_dim, generator=torch.Generator().manual_seed(3))
    c = canonical_label(generator.config.avg_camera_radius).expand(2, -1)
    with torch.inference_mode():
        ws = generator.mapping(z, c)
        torch.testing.assert_close(codes[:2], ws[:, 0])
        torch.testing.assert_close(images[:2], front_images(generator, ws))


def test_a_missing_library_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    codes, normal = gaussian_codes()
    with pytest.raises(ValueError, match=r"pip install -e '\.\[edit\]'"):
        fit_direction(codes, codes @ normal, CONFIG)


def test_scores_come_back_in_any_order_and_what_is_missing_is_named(tmp_path: Path) -> None:
    generator, codes = tiny_generator(), torch.randn(3, 32)
    write_pictures(torch.zeros(2, 3, 8, 8), 0, tmp_path)
    write_pictures(torch.ones(1, 3, 8, 8), 2, tmp_path)
    write_codes(codes, generator, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["000000.png", "000001.png", "000002.png"]
    assert torch.equal(read_codes(tmp_path, generator), codes)
    table = tmp_path / "scores.csv"
    table.write_text("name,smile,age\n000002.png,0.3,7\n000000.png,0.1,5\n000001,0.2,6\n")
    found = read_scores(table, ["age", "smile"], 3)
    assert found["age"].tolist() == [5, 6, 7] and found["smile"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    for text, told in (
        ("name,age\n000000.png,1\n", "lacks the columns smile"),
        ("name,smile,age\n000000.png,1,1\n", "no row for 2 of 3 pictures, the first is 000001.png"),
        ("name,smile,age\n" + "".join(f"00000{i}.png,a,1\n" for i in range(3)), "no number"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=told):
            read_scores(table, ["age", "smile"], 3)
    with pytest.raises(FileNotFoundError, match="columns name, age"):
        read_scores(tmp_path / "none.csv", ["age"], 3)
    with torch.no_grad():
        generator.w_avg.add_(1)
    with pytest.raises(ValueError, match="another generator"):
        read_codes(tmp_path, generator)
