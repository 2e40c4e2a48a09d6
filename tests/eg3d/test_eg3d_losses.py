"""Training losses against reference numbers: three settings, four phases, every parameter's gradient; and schedules."""

import math

import numpy as np
import pytest
import torch
from eg3d.discriminator import DualDiscriminator, resize
from eg3d.generator import GeneratorConfig, Rendering, Synthesis, TriPlaneGenerator
from eg3d.losses import (
    Pair,
    Schedule,
    Step,
    blur,
    density_difference,
    density_regularization,
    discriminator_loss,
    discriminator_main,
    discriminator_r1,
    ema_decay,
    fake_pair,
    generate,
    generator_loss,
    generator_main,
    lazy_adam,
    r1_penalty,
    real_pair,
    swap_labels,
)
from eg3d.rendering.renderer import RenderingConfig
from eg3d.rendering.sampling import half_uniforms
from parity import Case, load_state, seeded
from torch.nn import functional as F

CASE = Case("eg3d_loss")
SETTINGS = ("plain", "blur", "nocond")
# Scores are images of a whole generator, judged; gradients run through all of it.
SCORES, GRADIENTS, TOTAL = 5e-4, 2e-3, 1e-4


def step_of(setting):
    values = CASE.config[setting]
    schedule = Schedule(
        resolution=values["neural_rendering_resolution_initial"],
        final_resolution=values.get("neural_rendering_resolution_final"),
        resolution_kimg=values.get("neural_rendering_resolution_fade_kimg", 0),
        blur_sigma=values["blur_init_sigma"],
        blur_kimg=values["blur_fade_kimg"],
        swap_probability=values["gpc_reg_prob"],
        swap_kimg=values.get("gpc_reg_fade_kimg", 0),
    )
    return schedule.at(values["cur_nimg"])


def make_generator():
    values = CASE.config["generator"]
    options = values["rendering_kwargs"]
    rendering = {name: options[name] for name in ("ray_start", "ray_end", "box_warp")}
    rendering |= {name: options[name] for name in ("depth_resolution", "depth_resolution_importance")}
    net = TriPlaneGenerator(
        GeneratorConfig(
            z_dim=values["z_dim"],
            w_dim=values["w_dim"],
            channel_base=values["channel_base"],
            channel_max=values["channel_max"],
            image_resolution=values["img_resolution"],
            superresolution="2X",
            rendering=RenderingConfig(**rendering),
        )
    )
    load_state(net, CASE.state("generator"))
    return net.train()


def make_discriminator():
    values = CASE.config["discriminator"]
    names = ("c_dim", "channel_base", "channel_max", "num_fp16_res", "conv_clamp")
    net = DualDiscriminator(values["img_resolution"], **{name: values[name] for name in names})
    load_state(net, CASE.state("discriminator"), "D.")
    return net.train()


def synthesize(net, step, **options):
    rendering = net.config.rendering
    sizes = rendering.depth_resolution, rendering.depth_resolution_importance
    return generate(
        net,
        CASE.input("z"),
        CASE.input("gen_c"),
        step,
        swap=torch.full((4, 1), 0.5),
        uniforms=half_uniforms(4, step.resolution**2, *sizes),
        noise_mode="none",
        **options,
    )


def check_gradients(net, phase, gain, loss):
    """Backward as the released loop does, then every parameter's gradient norm and that of all together."""
    (loss.mean() * gain).backward()
    norms = CASE.config[f"{phase}.grad_norms"]
    got = {name: float(p.grad.norm()) for name, p in net.named_parameters() if p.grad is not None}
    # With the noise left out its strength has no gradient; the reference has one that is zero.
    assert set(got) | {n for n in norms if n.endswith("noise_strength")} == set(norms)
    largest = max(norms.values())
    for name, norm in norms.items():
        assert got.get(name, 0.0) == pytest.approx(norm, rel=GRADIENTS, abs=1e-6 * largest), name
    total = torch.tensor([math.sqrt(sum(norm**2 for norm in got.values()))])
    CASE.check(f"{phase}.total_grad_norm", total, TOTAL)


def check_scores(phase, judgement):
    for kind in ("fake", "real"):
        logits = getattr(judgement, kind)
        assert (logits is not None) == (f"out/{phase}.Loss_scores_{kind}" in CASE.data)
        if logits is not None:
            CASE.check(f"{phase}.Loss_scores_{kind}", logits.flatten(), SCORES)
            CASE.check(f"{phase}.Loss_signs_{kind}", logits.flatten().sign(), 0)


@pytest.mark.parametrize("setting", SETTINGS)
def test_generator_phase_equals_reference(setting):
    step, net, phase = step_of(setting), make_generator(), f"{setting}.Gmain"
    judgement = generator_main(make_discriminator(), synthesize(net, step), CASE.input("gen_c"), step)
    check_scores(phase, judgement)
    CASE.check(f"{phase}.Loss_G_loss", judgement.loss.flatten(), SCORES)
    check_gradients(net, phase, CASE.config[setting]["gains"]["Gmain"], judgement.loss)


@pytest.mark.parametrize("setting", SETTINGS)
def test_density_phase_equals_reference(setting):
    net, phase = make_generator(), f"{setting}.Greg"
    options = CASE.config["generator"]["rendering_kwargs"]
    normal = torch.distributions.Normal(0.0, 1.0)
    loss = density_regularization(
        net,
        CASE.input("z"),
        CASE.input("gen_c"),
        step_of(setting),
        swap=torch.tensor(0.5),
        points=2 * normal.cdf(seeded("eg3d_loss/coords", [4, 1000, 3])) - 1,
        offsets=seeded("eg3d_loss/randn_like", [4, 1000, 3]) * options["density_reg_p_dist"],
        weight=options["density_reg"],
        noise_mode="none",
    )
    check_gradients(net, phase, CASE.config[setting]["gains"]["Greg"], loss)


@pytest.mark.parametrize("setting", SETTINGS)
def test_discriminator_phase_equals_reference(setting):
    step, net, phase = step_of(setting), make_discriminator(), f"{setting}.Dmain"
    generator = make_generator()
    with torch.no_grad():
        synthesis = synthesize(generator, step, update_w_avg=True)
    judgement = discriminator_main(net, synthesis, CASE.input("gen_c"), CASE.input("real"), CASE.input("real_c"), step)
    check_scores(phase, judgement)
    CASE.check(f"{phase}.Loss_D_loss", judgement.loss.flatten(), SCORES)
    CASE.check(f"{phase}.w_avg_after", generator.w_avg, 1e-5)
    check_gradients(net, phase, CASE.config[setting]["gains"]["Dmain"], judgement.loss)


@pytest.mark.parametrize("setting", SETTINGS)
def test_r1_phase_equals_reference(setting):
    net, phase, gamma = make_discriminator(), f"{setting}.Dreg", CASE.config[setting]["r1_gamma"]
    judgement = discriminator_r1(net, CASE.input("real"), CASE.input("real_c"), step_of(setting), gamma=gamma)
    check_scores(phase, judgement)
    CASE.check(f"{phase}.Loss_r1_penalty", judgement.loss.flatten() * 2 / gamma, SCORES)
    CASE.check(f"{phase}.Loss_D_reg", judgement.loss.flatten(), SCORES)
    check_gradients(net, phase, CASE.config[setting]["gains"]["Dreg"], judgement.loss)


def made_up_synthesis():
    """Images that stand in for generated ones and tell whether a gradient reached them."""
    image = seeded("losses/image", [4, 3, 128, 128]).requires_grad_()
    image_raw = seeded("losses/image_raw", [4, 3, 8, 8]).requires_grad_()
    nothing = torch.zeros(4, 1, 8, 8)
    return Synthesis(image, image_raw, nothing, nothing, Rendering(image_raw, image_raw, nothing, nothing))


def test_only_the_generator_phase_reaches_generated_images():
    net, synthesis, c, step = make_discriminator(), made_up_synthesis(), CASE.input("gen_c"), Step(8, 1.0, 0.5)
    discriminator_main(net, synthesis, c, CASE.input("real"), CASE.input("real_c"), step).loss.mean().backward()
    assert synthesis.image.grad is None and synthesis.image_raw.grad is None
    generator_main(net, synthesis, c, step).loss.mean().backward()
    assert synthesis.image.grad.abs().sum() > 0 and synthesis.image_raw.grad.abs().sum() > 0


def test_adversarial_losses():
    fake, real = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [-1.0]])
    assert torch.allclose(generator_loss(fake), torch.tensor([[math.log(2)], [math.log(1 + math.exp(-2))]]))
    expected = torch.tensor([[2 * math.log(2)], [math.log(1 + math.exp(2)) + math.log(1 + math.exp(1))]])
    assert torch.allclose(discriminator_loss(fake, real), expected)


def test_r1_of_a_known_function():
    """For logit = sum a x^2 / 2 + sum b y the penalty is |a x|^2 + |b|^2 and its gradient 2 a^2 x."""
    x, y = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 2, 2, requires_grad=True)
    logits = (1.5 * x.square()).sum(dim=(1, 2, 3))[:, None] + 2 * y.sum(dim=(1, 2, 3))[:, None]
    penalty = r1_penalty(logits, Pair(x, y))
    assert torch.allclose(penalty, 9 * x.square().sum(dim=(1, 2, 3)) + 4 * 12)
    (slope,) = torch.autograd.grad(penalty.sum(), x)
    assert torch.allclose(slope, 18 * x)


def test_density_difference_of_a_linear_field():
    class Linear:
        def sample(self, planes, points):
            return points, points[..., :1] * 3

    points, offsets = torch.rand(2, 10, 3), torch.randn(2, 10, 3)
    found = density_difference(Linear(), torch.zeros(2, 3, 1, 4, 4), points, offsets)
    assert found.item() == pytest.approx(3 * offsets[..., 0].abs().mean().item(), rel=1e-5)


def test_blur_equals_a_direct_sum():
    sigma, image = 1.2, torch.randn(1, 2, 9, 7)
    taps = np.exp2(-((np.arange(-3, 4) / sigma) ** 2))
    kernel = torch.tensor(np.outer(taps, taps) / taps.sum() ** 2, dtype=torch.float32)
    expected = F.conv2d(image.transpose(0, 1), kernel[None, None], padding=3).transpose(0, 1)
    assert torch.allclose(blur(image, sigma), expected, atol=1e-6)
    assert blur(image, 0.33) is image
    assert blur(image, 4.0).shape == image.shape


def test_blur_reaches_final_images_and_the_real_raw_image_only():
    step, synthesis = Step(8, 1.0, None), made_up_synthesis()
    image = synthesis.image.detach()
    real, fake = real_pair(image, step), fake_pair(synthesis, step)
    assert torch.equal(real.image, blur(image, 1.0)) and torch.equal(fake.image, real.image)
    assert torch.equal(real.image_raw, blur(resize(image, 8), 1.0))
    assert fake.image_raw is synthesis.image_raw


def test_swapped_labels():
    c = torch.arange(4.0)[:, None].expand(4, 25)
    assert torch.equal(swap_labels(c, None, torch.rand(4, 1)), torch.zeros(4, 25))
    assert torch.equal(swap_labels(c, 0.0, torch.rand(4, 1)), c)
    draw = torch.tensor([[0.4], [0.6], [0.4], [0.5]])
    assert swap_labels(c, 0.5, draw)[:, 0].tolist() == [3, 1, 1, 3]
    assert swap_labels(c, 0.5, torch.tensor(0.4))[:, 0].tolist() == [3, 0, 1, 2]


def test_schedule():
    schedule = Schedule(final_resolution=128, swap_probability=0.5)
    assert schedule.at(0) == Step(64, 10.0, 1.0)
    assert schedule.at(100_000) == (70, 5.0, pytest.approx(0.95))
    assert schedule.at(500_000) == Step(96, 0.0, 0.75)
    assert schedule.at(25_000_000) == Step(128, 0.0, 0.5)
    resumed = Schedule(blur_kimg=0, swap_kimg=0, swap_probability=0.8)
    assert resumed.at(0) == Step(64, 0.0, 0.8)
    assert Schedule(swap_probability=None).at(10).swap_probability is None


@pytest.mark.parametrize(
    "options", [{"swap_probability": 1.5}, {"blur_kimg": -1}, {"resolution": 0}, {"r1_interval": 0}]
)
def test_schedule_refuses(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Schedule(**options)


def test_released_optimiser_settings():
    lr, (_, beta) = lazy_adam(0.0025, (0.0, 0.99), 4)
    assert (lr, beta) == (pytest.approx(0.002), pytest.approx(0.991992, abs=1e-6))
    lr, (_, beta) = lazy_adam(0.002, (0.0, 0.99), 16)
    assert (lr, beta) == (pytest.approx(0.00188235, abs=1e-8), pytest.approx(0.990585, abs=1e-6))


def test_average_decay():
    assert ema_decay(32, 10_000_000) == pytest.approx(0.5 ** (32 / 10_000))
    assert ema_decay(32, 20_000) == pytest.approx(0.5 ** (32 / 1_000))
    assert ema_decay(32, 0) == 0
    assert ema_decay(32, 0, ramp=None) == pytest.approx(0.5 ** (32 / 10_000))
    assert ema_decay(8, 10_000_000, kimg=1.0) == pytest.approx(0.5 ** (8 / 1_000))
