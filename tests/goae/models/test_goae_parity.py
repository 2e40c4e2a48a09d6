"""The whole method in the released sizes and with the kernels at hand, against the released code's numbers."""

import dataclasses

import pytest
import torch
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from eg3d.rendering.sampling import half_uniforms
from parity import Case, load_state, seeded
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from goae.models.afa import AFA, AFAConfig
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.goae import GOAE, preset
from goae.models.latent_inverter import View
from goae.models.published import afa_from_official, encoder_from_official

IMAGE, PLANES, NETWORK = 5e-4, 5e-4, 3e-5
UNIFORMS = half_uniforms(1, 128 * 128, 48, 48)
SIGMAS = torch.full((1, 2), 1.5)
# The mask truncates coordinates and thresholds a blur: a texel of mixed planes may flip, and with it the pixels it
# reaches through the super-resolution.
FLIPPED_TEXELS, FLIPPED_PIXELS = 1e-3, 5e-2


def released(case: Case) -> GOAE:
    generator = TriPlaneGenerator(GeneratorConfig())
    load_state(generator, case.state("generator"))
    encoder = Encoder(EncoderConfig(), 14, 512)
    load_state(encoder, encoder_from_official(case.state("encoder", equalized=False)))
    afa = AFA(AFAConfig(variant="official"))
    load_state(afa, afa_from_official(case.state("afa", equalized=False)))
    return GOAE(generator, encoder, afa, preset("official")).eval()


def check_view(case: Case, name: str, view: View, *, flips: float = 0.0) -> None:
    for part in ("image", "image_raw", "image_depth"):
        case.check(f"{name}.{part}", getattr(view, part), IMAGE, flips=flips)


def check_mask(case: Case, mask: Tensor) -> None:
    share = ((mask[:, 0] - case.output("mask")).abs() > 1e-3).double().mean()
    assert share <= FLIPPED_TEXELS
    assert (mask[:, 1:] == 1).all()


@pytest.mark.slow
def test_parity_goae_net() -> None:
    case = Case("goae_net")
    goae, c, novel = released(case), case.input("camera"), case.input("novel_camera")
    image = torch.tanh(interpolate(seeded(case.config["image_key"], [1, 3, 32, 32]), (512, 512), mode="bilinear"))
    with torch.no_grad():
        averaged = avg_pool2d(image, 2)  # what the numbers were made from; users' images go by PIL's bicubic filter
        code = goae.invert_w(image, c, encoder_image=averaged, uniforms=UNIFORMS)
        case.check("rec_ws", code.ws, NETWORK)
        case.check("F.x32", code.features.x, NETWORK)
        case.check("F.triplane32", code.features.skip, NETWORK)
        case.check("w.triplane", code.planes, PLANES)
        check_view(case, "w", code.view)

        aligned = goae.afa(image, code.view.image, code.features.x)
        for name, value in zip(("adain", "gamma", "beta"), aligned, strict=True):
            case.check(f"afa.{name}", value, IMAGE)  # they see the rendered image
        refined = goae.refine_planes(image, code)
        assert torch.equal(refined.features.x, aligned.features)
        case.check("rec.triplane", refined.planes, PLANES)
        check_view(case, "rec", goae.render(refined.planes, code.ws, c, uniforms=UNIFORMS))

        mixed = goae.mix(code.planes, refined.planes, c, sigmas=SIGMAS, uniforms=UNIFORMS)
        check_mask(case, mixed.visibility)
        case.check("mix_triplane", mixed.planes, PLANES, flips=FLIPPED_TEXELS)
        check_view(case, "novel", goae.render(mixed.planes, code.ws, novel, uniforms=UNIFORMS), flips=FLIPPED_PIXELS)

        ws = code.ws + 0.5 * seeded("goae/edit_direction", [1, 14, 512])
        coded, star = goae.edit_features(refined.features.x, code.ws, ws)
        planes_w, planes_f = goae.generator.planes(coded, ws), goae.generator.planes(star, code.ws)
        case.check("edit_w.image", goae.render(planes_w, ws, c, uniforms=UNIFORMS).image, IMAGE)
        mixed = goae.mix(planes_w, planes_f, c, sigmas=SIGMAS, uniforms=UNIFORMS)
        case.check("edit.mix_triplane", mixed.planes, PLANES, flips=FLIPPED_TEXELS)
        check_view(case, "edit", goae.render(mixed.planes, ws, c, uniforms=UNIFORMS), flips=FLIPPED_PIXELS)
        check_view(case, "edit_novel", goae.render(mixed.planes, ws, novel, uniforms=UNIFORMS), flips=FLIPPED_PIXELS)


def test_the_released_sizes_are_the_defaults() -> None:
    generator = Case("goae_net").config["generator"]
    rendering = generator["rendering_kwargs"]
    config = GeneratorConfig()
    assert config.image_resolution == generator["img_resolution"]
    assert config.mapping_layers == generator["mapping_kwargs"]["num_layers"]
    shared = ("depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp")
    assert {name: dataclasses.asdict(config.rendering)[name] for name in shared} == {n: rendering[n] for n in shared}
    assert config.sr_num_fp16_res == generator["sr_num_fp16_res"] and config.sr_antialias is rendering["sr_antialias"]
