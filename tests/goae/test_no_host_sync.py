"""Nothing in training, inversion, rendering and measuring lets the host wait for a GPU or mixes devices."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from devices import META, ROOT, HostDraw, Seen, Waits, imagine, imagined_cuda
from eg3d.discriminator import DualDiscriminator
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from eg3d.losses import Schedule
from host_patterns import suspicions
from tiny import seeded_weights, tiny_generator, tiny_goae, tiny_images, tiny_labels, tiny_values
from torch import Tensor

from goae.camera.regressor import CameraRegressor, RegressorConfig
from goae.evaluation.geometry import TrueDepth
from goae.evaluation.measuring import Measures, Networks
from goae.extractors import face_resnet
from goae.extractors.lpips import build as build_lpips
from goae.extractors.mini import MiniPerception
from goae.extractors.parsing import _Parser
from goae.inversion import Inverter
from goae.losses import image as image_losses
from goae.losses.image import ImageLosses, ImageWeights
from goae.models.discriminator import LatentDiscriminator, LatentDiscriminatorConfig
from goae.models.encoder import stage_at
from goae.models.goae import preset
from goae.models.storage import restore
from goae.training import loop
from goae.training.adversarial import AdversarialConfig, AdversarialStage
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.camera_stage import CameraStage, CameraStageConfig
from goae.training.canonical import CanonicalStats
from goae.training.ema import WeightAverage
from goae.training.encoder_stage import EncoderStage, EncoderStageConfig, LatentAdversaryConfig
from goae.training.loop import FitConfig
from goae.training.nonfinite import Watch
from goae.training.phases import Batch, Stage
from goae.training.prior import WarmStartConfig, WarmStartStage
from goae.training.refiner_stage import RefinerStage, RefinerStageConfig

FABRIC: Any = SimpleNamespace(device=META, world_size=1, autocast=nullcontext, backward=lambda loss: loss.backward())
COUNT_OF_RAYS = ("goae/models/occlusion.py", "silhouette_depth", "a tensor is copied from meta to cpu")
WEIGHTS_OF_SCALES = ("goae/evaluation/image_metrics.py", "ms_ssim", "numbers of a list are copied to the device")
FIT = FitConfig(batch_size=4, ema=0.9, clip_grad_norm=1.0)


class Perceived:
    """The frozen networks of the losses on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mini = device, MiniPerception().to(device)
        self.lpips_net = build_lpips("alex").eval().requires_grad_(False).to(device)

    def lpips(self, a: Tensor, b: Tensor) -> Tensor:
        return self.lpips_net(a, b).flatten()

    def background(self, image: Tensor, depth: Tensor) -> Tensor:
        return self.mini.background(image)


@pytest.fixture(scope="module")
def perceived() -> Perceived:
    return Perceived(META)


def batch(device: torch.device = META) -> Batch:
    factors = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    made = {"image": tiny_images(4), "c": tiny_labels(4), "factors": factors}
    return {name: value.to(device) for name, value in made.items()}


def losses_of(perceived: Perceived, goae: Any) -> tuple[ImageLosses, BackgroundDepth]:
    stats = CanonicalStats(torch.tensor(2.9), torch.full((1, 1, 16, 16), 2.9), torch.zeros(32), 1, "", "")
    image = ImageLosses(ImageWeights(), resolution=32, lpips=perceived.lpips, embed=perceived.mini.embed)
    return image, BackgroundDepth(goae.generator, perceived.background, stats, BackgroundConfig(davg="map"))


def encoder_stage(perceived: Perceived, **adversary: Any) -> EncoderStage:
    goae = tiny_goae(generator=half_generator()).to(perceived.device)
    settings = LatentAdversaryConfig(r1_every=1, **adversary)
    config = EncoderStageConfig(fit=FIT, stage_steps=[0, 0, 0], adversary=settings)
    discriminator = LatentDiscriminator(LatentDiscriminatorConfig(w_dim=32)).to(perceived.device)
    schedule = partial(stage_at, thresholds=config.stage_steps)
    stage = EncoderStage(goae, discriminator, *losses_of(perceived, goae), config, schedule)
    for pool in stage.pools[0]:
        pool.load_state_dict(
            {"codes": torch.zeros(config.adversary.pool, 32)}
        )  # full, and on the host, as when resumed
    return stage


def refiner_stage(perceived: Perceived, name: str) -> RefinerStage:
    goae = tiny_goae(preset(name), variant=name, generator=half_generator()).to(perceived.device)
    return RefinerStage(goae, *losses_of(perceived, goae), RefinerStageConfig(fit=FIT))


def adversarial_stage(perceived: Perceived) -> AdversarialStage:
    discriminator = DualDiscriminator(32, channel_base=128, channel_max=8, mapping_layers=2).to(META)
    schedule = Schedule(resolution=16, blur_sigma=1.0, blur_kimg=1.0, density_interval=1, r1_interval=1)
    config = AdversarialConfig(fit=FIT, schedule=schedule)
    return AdversarialStage(tiny_generator().to(META), discriminator, tiny_labels(9), None, config)


def camera_stage(perceived: Perceived) -> CameraStage:
    regressor = CameraRegressor(RegressorConfig(resolution=32, channels=[8, 8], hidden=8)).to(META)
    stage = CameraStage(regressor, tiny_generator(), tiny_labels(9), CameraStageConfig(fit=FIT))
    stage.generator.to(META)
    return stage


def warm_start_stage(perceived: Perceived) -> WarmStartStage:
    return WarmStartStage(tiny_generator().to(META), perceived.lpips, WarmStartConfig(lpips_resolution=32))


# Stage, how many bad steps may be undone, and what a step waits for
STAGES: dict[str, tuple[Callable[[Perceived], Stage], int, list[Any]]] = {
    "encoder": (partial(encoder_stage, rows="random_row", pool=2), 1, []),
    "refiner": (partial(refiner_stage, name="official"), 0, []),
    "refiner, silhouettes": (partial(refiner_stage, name="paper"), 0, [COUNT_OF_RAYS]),
    "adversarial": (adversarial_stage, 0, []),
    "camera": (camera_stage, 0, []),
    "warm start": (warm_start_stage, 0, []),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_step_of_training_waits_for_nothing(name: str, perceived: Perceived, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, backward passes, clipping, optimisers, averages, and checks of what may have to be undone."""
    monkeypatch.setattr(loop, "Draw", HostDraw)
    make, most, expected = STAGES[name]
    stage, given = make(perceived), batch()
    average = WeightAverage(stage.modules[stage.main])
    options: dict[str, Any] = {"seed": 0, "num_slots": 1, "trace": None, "on_first": lambda action: None}
    watch = Watch(stage, average, Path(), most=most, **options)
    with Waits() as waits:
        stage.begin(0)
        shown = stage.batch(HostDraw(0, 0, 0), 4) if isinstance(stage, CameraStage) else given
        loop.train_step(stage, average, watch, [shown], [0], 0, FIT, FABRIC)
        watch.settle()
    assert waits.found == expected


@pytest.mark.parametrize(("name", "expected"), [("official", []), ("paper", [COUNT_OF_RAYS])])
def test_inversion_and_rendering_wait_for_their_result_alone(name: str, expected: list[Any]) -> None:
    """The last thing of each call is to look for NaN in what it returns."""
    inverter = Inverter(tiny_goae(preset(name), variant=name))
    inverter.goae.to(META)
    judged, shown = (("goae/inversion.py", name, "a number is read") for name in ("_finite", "_finite_view"))
    with Waits() as waits:
        inversion = inverter.invert(tiny_images(), tiny_labels())
        inverter.reconstruct(inversion)
        view = inverter.render(inversion, tiny_labels()[0])
        edited = inverter.edit(inversion, torch.zeros(inversion.ws.shape[1:]))
    assert waits.found == [*expected, judged, shown, shown, *expected, judged]
    assert view.image.device == edited.planes.device == META


def test_rays_that_miss_the_box_wait_for_nothing() -> None:
    generator = tiny_generator()
    rendering = generator.config.rendering
    rendering.ray_start = rendering.ray_end = None
    generator.to(META)
    ws, c = torch.zeros(2, generator.num_ws, 32, device=META), tiny_labels().to(META)
    with Waits() as waits:
        generator.synthesis(ws, c)
    assert not waits.found


def test_measuring_waits_for_nothing_up_to_the_numbers_of_each_image(perceived: Perceived) -> None:
    embed = perceived.mini.embed
    networks = Networks(perceived.lpips, embed, embed, perceived.mini.features, embed, TrueDepth(), true_depth=True)
    measures = Measures(networks, resolution=32, grid=8)
    depth, parts = torch.zeros(2, 2, 1, 32, 32, device=META)
    target = {"image": tiny_images().to(META), "c": tiny_labels().to(META), "depth": depth, "parts": parts}
    view: Any = SimpleNamespace(image=tiny_images().to(META), image_depth=depth[..., ::2, ::2])
    with Waits() as waits:
        values = measures(view, target)
        features = measures.features(view.image)
    assert waits.found == [WEIGHTS_OF_SCALES]
    assert all(value.shape == (2,) and value.device == META for value in values.values()) and len(features) == 2


def test_pictures_are_prepared_for_frozen_networks_without_waiting() -> None:
    image, parser = tiny_images().to(META), _Parser(64).to(META)
    assert not parser.state_dict()
    with Waits() as waits:
        assert parser.normalised(image).shape == (2, 3, 64, 64)
        assert face_resnet.align(image, torch.tensor([face_resnet.CHIP] * 2)).shape == (2, 3, 150, 150)
    assert not waits.found


HOT = [
    *[f"goae/{name}/*.py" for name in ("models", "losses", "extractors", "training")],
    *[f"goae/evaluation/{name}.py" for name in ("image_metrics", "measuring", "geometry")],
    *[f"goae/{name}.py" for name in ("inversion", "ir_se", "resize", "camera/sphere", "camera/regressor")],
    *["goae/data/synthetic.py", "third_party/eg3d/nn/*.py", "third_party/eg3d/rendering/*.py"],
    *["third_party/eg3d/ops/*.py", "third_party/eg3d/transfer.py"],
    *[f"third_party/eg3d/{name}.py" for name in ("cameras", "discriminator", "generator", "losses")],
]
COLD = [  # reads and writes files, trains something else, or runs once on a device
    *[
        f"goae/{name}.py"
        for name in ("models/published", "models/storage", "training/canonical", "training/perception")
    ],
    *[f"third_party/eg3d/ops/{name}.py" for name in ("cases", "first_use")],
    *[f"third_party/eg3d/rendering/{name}.py" for name in ("cases", "timing")],
]
DOOR = "checks or describes labels of the user, on the host"
DRAWN = "draws or lists numbers on the host; what takes them sends them"
EXCUSED = {  # file: function -> why it may
    "goae/models/occlusion.py: silhouette_depth": "counts rays at jumps, which decides what is launched: once a batch",
    "goae/models/occlusion.py: draw_sigmas": DRAWN,
    "goae/extractors/face_resnet.py: align": "the geometry is found on the host, since it decides a size",
    "goae/training/camera_stage.py: uniform_labels": DRAWN,
    "goae/training/camera_stage.py: __call__": "validation's four numbers",
    "goae/training/resume.py: on_host": "for a checkpoint",
    "goae/training/loop.py: move": "the batch, from pinned memory",
    "goae/training/nonfinite.py: read": "a step's numbers, after the next step was asked for",
    "goae/training/nonfinite.py: check_finite": "once a device, for a checkpoint",
    "goae/training/prior.py: codes": DRAWN,
    "goae/training/prior.py: part_error": "off by default; labels that are not there must not round the mean otherwise",
    "goae/evaluation/geometry.py: __call__": "depth maps of files",
    "goae/evaluation/geometry.py: _read": "depth maps of files",
    "goae/inversion.py: save": "for a file",
    **dict.fromkeys([f"goae/inversion.py: {name}" for name in ("_labels", "_numbers")], DOOR),
    **dict.fromkeys([f"goae/inversion.py: {name}" for name in ("_finite", "_finite_view")], "the last thing of a call"),
    "third_party/eg3d/rendering/planes.py: axes_from_matrix": "while a checkpoint is read",
    "third_party/eg3d/ops/modulated_layer.py: _taps": "for the kernels of the CPU alone",
    "third_party/eg3d/ops/upfirdn2d.py: setup_filter": "for constructors",
    "third_party/eg3d/transfer.py: send": "what everything else sends by",
    **dict.fromkeys([f"third_party/eg3d/cameras.py: {name}" for name in ("orbit", "_angles", "_pose")], DRAWN),
    **dict.fromkeys(
        [f"third_party/eg3d/cameras.py: {name}" for name in ("intrinsics_from_focal", "canonical_label")], DRAWN
    ),
    **dict.fromkeys(
        [
            f"third_party/eg3d/cameras.py: {name}"
            for name in ("_refuse", "_check_rows", "_check_intrinsics", "_check_rotation", "message", "_explain_view")
        ],
        DOOR,
    ),
}


def test_suspicious_code_has_an_excuse() -> None:
    found = {}
    for path in (path for pattern in HOT for path in sorted(ROOT.glob(pattern))):
        name = path.relative_to(ROOT).as_posix()
        if name not in COLD:
            found |= {f"{name}: {one.function}": one.pattern for one in suspicions(path.read_text())}
    assert not {place: pattern for place, pattern in found.items() if place not in EXCUSED}
    assert not EXCUSED.keys() - found.keys(), "excuses that nothing needs any more"


PLANTED = """
def mean_squared(image, target):
    difference = (image - target).square().mean()
    return difference * difference.detach(){read}
"""


@pytest.mark.parametrize("read", [".item()", ".tolist()", ".cpu().to(image.device)"])
def test_a_planted_read_is_found_by_a_run_and_by_its_looks(
    read: str, perceived: Perceived, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = PLANTED.format(read=read)
    assert {one.function for one in suspicions(code)} == {"mean_squared"}
    assert not suspicions(code.replace(read, ""))
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    monkeypatch.setattr(image_losses, "mean_squared", namespace["mean_squared"])
    losses = image_losses.ImageLosses(ImageWeights(lpips=0, id=0), resolution=32, lpips=None, embed=None)
    images = batch()["image"].split(2)
    with Waits() as waits:
        losses(*images)
    assert {place[:2] for place in waits.found} == {("goae/losses/image.py", "__call__")}


@pytest.mark.parametrize(
    "code",
    [
        "x[x > 0]",
        "torch.linalg.inv(x)",
        "torch.tensor([1.0, 2.0])",
        "x.new_tensor([1.0])",
        "torch.arange(3).to(x)",
        "float(x.norm())",
        "1 if x.any() else 0",
        "x.nonzero()",
        "F.one_hot(x)",
        "x.to(y, non_blocking=True)",
    ],
)
def test_patterns(code: str) -> None:
    assert len(suspicions(f"def f(x, y):\n    return {code}")) == 1
    assert not suspicions(f"class A:\n    def __init__(self, x, y):\n        self.z = {code}")


def half_generator() -> TriPlaneGenerator:
    """The tiny one, with the half precision of the published models."""
    generator = TriPlaneGenerator(restore(GeneratorConfig, tiny_values("generator") | {"sr_num_fp16_res": 4}))
    seeded_weights(generator, equalized=True)
    return generator


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [leaf for item in value for leaf in leaves(item)]


@torch.no_grad()
def test_the_whole_method_takes_the_ways_of_a_gpu() -> None:
    """Half-precision super-resolution, the fused renderer; results as on the CPU, but for the device."""
    goae = tiny_goae(preset("official"), variant="official", generator=half_generator())
    image, c, sigmas = tiny_images(), tiny_labels(), torch.full((2, 2), 1.5)
    expected = leaves(goae(image, c, sigmas=sigmas))
    with imagined_cuda() as mode, Seen() as seen:
        imagine(goae, mode, "cuda")
        out = goae(image.to("cuda"), c.to("cuda"), sigmas=sigmas)
    assert [(x.shape, x.dtype) for x in leaves(out)] == [(x.shape, x.dtype) for x in expected]
    assert {x.device.type for x in leaves(out)} == {"cuda"}
    assert not seen.mixed and seen.ours == {"bias_act", "upfirdn2d", "render"}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_super_resolution_stays_in_half_precision(channels_last: bool, training: bool) -> None:
    network = half_generator().superresolution.train(training)
    network.channels_last = channels_last
    with imagined_cuda() as mode, Seen() as seen, torch.set_grad_enabled(training):
        imagine(network, mode, "cuda")
        raw, features, ws = (torch.zeros(size, device="cuda") for size in ((2, 3, 16, 16), (2, 32, 16, 16), (2, 8, 32)))
        image = network(raw, features, ws)
    assert (image.shape, image.dtype, image.device.type) == ((2, 3, 32, 32), torch.float32, "cuda")
    assert not seen.mixed and {dtype for dtype, _ in seen.convolutions} == {torch.float16}
    assert {last for _, last in seen.convolutions} == {channels_last}


def test_losses_of_both_stages_take_the_ways_of_a_gpu() -> None:
    cpu = torch.device("cpu")
    perceived, given = Perceived(cpu), batch(cpu)
    stages: list[Stage] = [encoder_stage(perceived, pool=0), refiner_stage(perceived, "official")]
    with imagined_cuda() as mode, Seen() as seen:
        for module in (perceived.mini, perceived.lpips_net):
            imagine(module, mode, "cuda")
        on_device = {name: value.to("cuda") for name, value in given.items()}
        terms: list[Tensor] = []
        for stage in stages:
            for module in (stage.goae, *stage.modules.values()):  # type: ignore[attr-defined]
                imagine(module, mode, "cuda")
            stage.begin(0)
            forward = [
                phase for phase in stage.phases if phase.name != "r1"
            ]  # which goes backward, as no imagined GPU can
            terms += [x for phase in forward for x in phase.losses(on_device, HostDraw(0, 0, 0)).values()]
    assert {(x.device.type, x.dtype, x.ndim) for x in terms} == {("cuda", torch.float32, 0)}
    assert not seen.mixed and seen.ours == {"bias_act", "upfirdn2d", "render"}


def test_an_imagined_gpu_refuses_a_tensor_of_the_host() -> None:
    generator = tiny_generator()
    with imagined_cuda() as mode, pytest.raises(RuntimeError, match=r"on cpu, expected .* on cuda"):
        imagine(generator, mode, "cuda").render(torch.zeros(1, 3, 8, 32, 32, device="cuda"), tiny_labels(1))
