"""Single precision without TF32, in jobs for good, in the library as long as a call takes; force_fp32; algorithms."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from eg3d.generator import TriPlaneGenerator
from tiny import tiny_generator, tiny_goae, tiny_images, tiny_labels

from goae import build, load_inverter
from goae.baselines.encoder_only import EncoderOnly
from goae.benchmark.original import plain_generator
from goae.config import BaselinesConfig, InvertConfig, PriorConfig, TrainConfig
from goae.inversion import Inverter
from goae.loading import save_encoder, save_refiner
from goae.models.sampling import with_samples
from goae.precision import BACKENDS, uses_tf32, without_tf32
from goae.runs.invert import open_inverter
from goae.runs.prior import start
from goae.runs.setup import device_of, launch


@pytest.fixture(autouse=True)
def as_pytorch_has_it() -> Iterator[None]:
    """TF32 in convolutions, not in matrix products; at the end nowhere, as the other tests' jobs leave it."""
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_launched_job_has_no_tf32(precision: str) -> None:
    assert uses_tf32()
    torch.backends.cuda.matmul.allow_tf32 = True
    launch(TrainConfig(device="cpu", precision=precision))
    assert not uses_tf32()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_a_job_that_takes_its_device_has_no_tf32() -> None:
    device_of(InvertConfig(input="photo.png", camera="labels.json", run="any", device="cpu"))
    assert not uses_tf32()


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_launched_job_takes_the_algorithms_asked_for(deterministic: bool) -> None:
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = deterministic
    launch(TrainConfig(device="cpu"), deterministic=deterministic)
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.are_deterministic_algorithms_enabled() == (deterministic and torch.cuda.is_available())
    device_of(InvertConfig(input="photo.png", camera="labels.json", run="any", device="cpu"))
    assert torch.backends.cudnn.deterministic


@pytest.mark.parametrize("deterministic", [True, False])
def test_only_the_fast_mode_keeps_channels_together(deterministic: bool) -> None:
    config = composed_as(TrainConfig, "experiment=tiny", f"deterministic={deterministic}")
    frozen = tiny_generator()
    training = build.for_training(config, frozen)
    assert training.superresolution.channels_last is not deterministic and not frozen.superresolution.channels_last


@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
def test_the_callers_choice_comes_back(matmul: str) -> None:
    torch.set_float32_matmul_precision(matmul)
    before = [backend.fp32_precision for backend in BACKENDS]
    with pytest.raises(KeyError), without_tf32():
        assert not uses_tf32()
        with without_tf32():
            pass
        assert not uses_tf32()
        raise KeyError
    assert [backend.fp32_precision for backend in BACKENDS] == before
    assert torch.get_float32_matmul_precision() == matmul and torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")


def test_inversion_has_no_tf32_and_leaves_the_flags_alone() -> None:
    goae = tiny_goae()
    seen: list[bool] = []
    goae.generator.superresolution.block0.register_forward_hook(lambda *_: seen.append(uses_tf32()))
    for method in (Inverter(goae), EncoderOnly(goae)):
        state = method.invert(tiny_images(), tiny_labels())
        method.render(state, tiny_labels())  # type: ignore[arg-type]
        assert uses_tf32()
    assert len(seen) >= 4 and not any(seen)


def half(*, force_fp32: bool = False) -> TriPlaneGenerator:
    """The tiny generator, but with half precision on CUDA as the published ones have it."""
    plain = tiny_generator()
    generator = TriPlaneGenerator(replace(plain.config, sr_num_fp16_res=4), force_fp32=force_fp32)
    generator.load_state_dict(plain.state_dict())
    return generator.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, goae = tmp_path_factory.mktemp("weights"), tiny_goae(generator=half())
    paths = {name: folder / f"{name}.safetensors" for name in ("generator", "encoder", "refiner")}
    checkpoint.save(goae.generator, paths["generator"])
    save_encoder(goae.encoder, paths["encoder"])
    save_refiner(goae.afa, goae.config, paths["refiner"])
    return paths


@pytest.mark.parametrize("forced", [False, True])
def test_float32_is_forced_everywhere(files: dict[str, Path], forced: bool) -> None:
    loaded = load_inverter(**files, force_fp32=forced).goae.generator
    given = {f"{name}_path": str(path) for name, path in files.items()}
    asked = InvertConfig(input="photo.png", camera="labels.json", device="cpu", force_fp32=forced, **given)  # type: ignore[arg-type]
    weights = build.Weights(*map(str, files.values()), force_fp32=forced)
    config = composed_as(
        TrainConfig, "experiment=tiny", f"force_fp32={forced}", f"paths.generator={files['generator']}"
    )
    prior = composed_as(
        PriorConfig, "experiment=tiny_prior", f"force_fp32={forced}", "generator.sr_num_fp16_res=4", name="train_prior"
    )
    methods = build.Given(weights, BaselinesConfig(), lpips="alex", lpips_path="", device=torch.device("cpu"))
    trained = build.build_generator(config)
    generators = [
        *(loaded, open_inverter(asked).goae.generator, methods.generator, trained, start(prior, "")),
        *(build.for_training(config, trained), with_samples(loaded, 4), plain_generator(loaded)),
    ]
    for generator in generators:
        assert generator.superresolution.block0.use_fp16 == generator.superresolution.block1.use_fp16 == (not forced)
    assert ("force_fp32" in build.build_method("w_plus", methods).settings) == forced


@pytest.mark.cuda
def test_a_forced_generator_is_the_same_on_cuda_as_on_the_cpu() -> None:
    """Within the rounding of single precision, far below that of half precision or TF32."""
    expected = tiny_generator()
    z, c = torch.randn(2, expected.config.z_dim), tiny_labels()
    with without_tf32(), torch.no_grad():
        image = expected(z, c)
        errors = [
            float((half(force_fp32=forced).cuda()(z.cuda(), c.cuda()).cpu() - image).abs().max() / image.abs().max())
            for forced in (True, False)
        ]
    assert errors[0] < 1e-4 < errors[1]
