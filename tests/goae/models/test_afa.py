"""Feature alignment: released numbers in full size; start, sign, modes and shapes in a small one."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from parity import Case, load_state, seeded
from torch import Tensor

from goae.models import published
from goae.models.afa import AFA, AFAConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "afa"
TOLERANCE = 3e-5  # of a network's largest value; other kernels of the released code differ by 1e-6


def configured(name: str, **changes: object) -> AFAConfig:
    """The values of a file under configs/afa, checked against the schema."""
    merged = OmegaConf.merge(OmegaConf.structured(AFAConfig), OmegaConf.load(CONFIGS / f"{name}.yaml"))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, AFAConfig)
    return dataclasses.replace(config, **changes)


def small(variant: str, **changes: object) -> AFA:
    torch.manual_seed(0)
    return AFA(configured("tiny", variant=variant, **changes)).eval()


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Image, W+ reconstruction, F."""
    image, image_w = seeded("afa/image", [2, 3, 32, 32]), seeded("afa/image_w", [2, 3, 32, 32])
    return image, image_w, seeded("afa/features", [2, 16, 8, 8])


def reference_image(key: str) -> Tensor:
    return torch.tanh(F.interpolate(seeded(key, [1, 3, 32, 32]), (512, 512), mode="bilinear", align_corners=False))


@pytest.mark.slow
@torch.no_grad()
def test_official_variant_matches_released_numbers() -> None:
    case = Case("goae_afa")
    afa = AFA(AFAConfig(variant="official")).eval()
    load_state(afa, published.afa_from_official(case.state("afa", equalized=False)))
    assert sum(p.numel() for p in afa.parameters()) == 12_099_904
    image, image_w = reference_image(case.config["image_key"]), reference_image(case.config["rec_image_key"])
    x = afa.input_layer(image_w - image)
    case.check("input_layer", x, TOLERANCE)
    for index, unit in enumerate(afa.body):
        x = unit(x)
        case.check(f"body{index}", x, TOLERANCE)
    case.check("output_layer", afa.output_layer(x), TOLERANCE)
    out = afa(image, image_w, case.input("feature_map"))
    case.check("gamma", out.gamma, TOLERANCE)
    case.check("beta", out.beta, TOLERANCE)
    case.check("feature_map_adain", out.features, TOLERANCE)


@pytest.mark.parametrize("variant", ["paper", "conv"])
def test_training_starts_at_unchanged_features(variant: str, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    afa = small(variant).train()
    out = afa(*inputs)
    assert torch.equal(out.features, inputs[2])
    assert torch.equal(out.gamma, torch.ones_like(inputs[2])) and torch.equal(out.beta, torch.zeros_like(inputs[2]))
    out.features.square().sum().backward()
    assert afa.modulation.conv_gamma.weight.grad.abs().sum() > 0


def wake(afa: AFA) -> AFA:
    """Move the modulations off their start, so that everything before them matters."""
    for name, p in afa.modulation.named_parameters():
        if name.startswith("conv_"):
            torch.nn.init.normal_(p, std=0.1)
    return afa


@pytest.mark.parametrize("variant", ["paper", "official", "conv"])
def test_everything_is_trained(variant: str, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    afa = wake(small(variant)).train()
    out = afa(*inputs)
    assert out.features.shape == out.gamma.shape == out.beta.shape == inputs[2].shape
    torch.testing.assert_close(out.features, out.gamma * inputs[2] + out.beta)
    (out.features * seeded("afa/grad", out.features.shape)).sum().backward()
    for name, p in afa.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_residual_sign_is_bound_to_the_variant(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    image, image_w, features = inputs
    for variant, sign in (("paper", 1), ("conv", 1), ("official", -1)):
        afa, seen = wake(small(variant)), []
        afa.input_layer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        afa(image, image_w, features)
        assert torch.equal(seen[0], sign * (image - image_w)), variant


def test_residual_sign_can_be_chosen(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    image, image_w, features = inputs
    released, reversed_ = small("official"), small("official", residual="img_minus_rec")
    reversed_.load_state_dict(released.state_dict())
    assert torch.equal(reversed_(image_w, image, features).gamma, released(image, image_w, features).gamma)
    assert not torch.equal(reversed_(image, image_w, features).gamma, released(image, image_w, features).gamma)
    assert configured("tiny", residual="rec_minus_img").subtracts_image


def test_alignment_attends_everywhere_and_convolution_does_not(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    image, _, features = inputs
    image_w = image.clone()
    image_w[:, :, :2, :2] += 3.0  # a residual in one corner
    changed = {}
    for variant in ("paper", "conv"):
        afa = wake(small(variant))
        for unit in afa.body:  # squeeze-and-excitation looks everywhere; take it out of the comparison
            torch.nn.init.zeros_(unit.res_layer[5].fc2.weight)
        gamma, same = afa(image, image_w, features).gamma, afa(image, image, features).gamma
        changed[variant] = ((gamma - same).abs().amax(1) > 1e-7).float()
    assert changed["paper"].mean() == 1
    assert changed["conv"][:, :3, :3].mean() > 0.5 and changed["conv"][:, -1, -1].sum() == 0


def test_batch_norm_sees_its_micro_batch_or_its_statistics(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    learning, fixed = small("official", dropout=0.0).train(), small("official", dropout=0.0, bn_eval=True).train()
    fixed.load_state_dict(learning.state_dict())
    before = learning.input_layer[1].running_mean.clone()
    first = [tensor[:1] for tensor in inputs]
    assert not torch.allclose(learning(*inputs).gamma[:1], learning(*first).gamma, atol=1e-4)
    torch.testing.assert_close(fixed(*inputs).gamma[:1], fixed(*first).gamma, rtol=0, atol=1e-5)
    assert not torch.equal(learning.input_layer[1].running_mean, before)
    assert torch.equal(fixed.input_layer[1].running_mean, before)
    assert fixed.training and fixed.modulation.training
    assert all(p.requires_grad for p in fixed.parameters())


def test_dropout_acts_in_training_mode_only(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    afa = wake(small("paper", bn_eval=True))
    assert torch.equal(afa(*inputs).gamma, afa(*inputs).gamma)
    afa.train()
    assert not torch.equal(afa(*inputs).gamma, afa(*inputs).gamma)


def test_refuses_other_shapes(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    image, image_w, features = inputs
    afa = small("paper")
    for wrong in (
        (image[:, :, 1:], image_w, features),
        (image, image_w[:, :1], features),
        (image, image_w, features[1:, 1:]),
    ):
        with pytest.raises(ValueError, match=r"afa\.image_resolution"):
            afa(*wrong)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"variant": "best"}, "variant"),
        ({"residual": "plus"}, "residual"),
        ({"units": [3]}, "units"),
        ({"squeeze": 5}, "squeeze"),
        ({"attention_heads": 3}, "attention_heads"),
        ({"dropout": -0.1}, "dropout"),
        ({"image_resolution": 48}, "image_resolution"),
        ({"image_resolution": 1024}, "image_resolution"),
    ],
)
def test_config_names_the_wrong_key(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"afa\.{named}"):
        configured("tiny", **change)


def test_configured_sizes(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    assert configured("ffhq512") == AFAConfig()
    assert AFAConfig().strides == [2, 2, 2]
    for name, side in (("ffhq512", 64), ("mini", 32), ("tiny", 16)):
        config = configured(name)
        assert config.token_ratio * config.feature_resolution == side
        assert config.image_resolution / 2 ** config.strides.count(2) == side
    assert small("paper").body(small("paper").input_layer(inputs[0])).shape == (2, 12, 16, 16)
