"""The methods under test, by the names that scripts/eval_celebahq.py, eval_mead.py and tables.py take."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator

from goae.baselines.encoder_only import EncoderOnly, load_rival
from goae.baselines.floors import AverageCode
from goae.build.baselines import build_pose_opt, build_pti, build_w, build_w_plus_opt, codes_of
from goae.build.networks import build_parts
from goae.camera.regressor import load_regressor
from goae.config import BaselinesConfig
from goae.evaluation.results import module_hash
from goae.evaluation.runner import Method
from goae.evaluation.timing import Steps, encoder_steps, goae_steps
from goae.extractors.lpips import LPIPS
from goae.inversion import Inverter
from goae.loading import load_encoder, load_inverter, read_generator
from goae.models.goae import GOAE, GOAEConfig
from goae.models.latent_inverter import LatentInverter
from goae.models.storage import read_model


@dataclass(frozen=True)
class Tested:
    """A method under test: what its numbers depend on, and its parts for the timing where it tells them apart."""

    method: Method[Any]
    settings: dict[str, Any]
    steps: Steps | None = None
    iterations: dict[str, int] | None = None  # of one inversion, at most; None: a method that does not optimise
    one_by_one: bool = False  # whether it works on one image after the other, so that batches would save nothing
    defaults: dict[str, Any] = field(default_factory=dict)  # of groups in `settings`: see `completed`

    @property
    def optimises(self) -> bool:
        """Whether an inversion takes iterations."""
        return self.iterations is not None


@dataclass(frozen=True)
class Weights:
    """Files that methods are built from; empty where there is none, which is told by the method that needs it."""

    generator: str
    encoder: str = ""
    refiner: str = ""
    preset: str = ""  # see `load_inverter`
    rivals: dict[str, str] | None = None  # psp, e4e, ide3d -> encoder file
    parts: str = ""  # weights of the network of part labels behind ide3d; empty: the shipped or cached file
    force_fp32: bool = False  # see `load_inverter`


class Given:
    """The weights that methods under test are built from, loaded when a method first asks for them."""

    def __init__(
        self, weights: Weights, baselines: BaselinesConfig, *, lpips: str, lpips_path: str, device: torch.device
    ) -> None:
        """`lpips` and its path: the perceptual network of the methods that optimise."""
        self.weights, self.baselines, self.device = weights, baselines, device
        self.perceptual = lpips, lpips_path

    @cached_property
    def generator(self) -> TriPlaneGenerator:
        """The frozen generator, which all methods share."""
        generator = read_generator(self.weights.generator, force_fp32=self.weights.force_fp32)
        return generator.to(self.device).eval().requires_grad_(False)

    @cached_property
    def generator_hash(self) -> str:
        """Of its weights."""
        return generator_hash(self.generator)

    @cached_property
    def inverter(self) -> Inverter:
        """GOAE in full. Raises: ValueError if its files were not given."""
        files = self.weights
        if not files.refiner:
            raise ValueError(
                "full and no_mix need GOAE's encoder and refiner: give run=NAME of a run of method=goae that has "
                "finished both stages, or generator_path=, encoder_path= and refiner_path="
            )
        return load_inverter(
            generator=self.generator,
            encoder=files.encoder,
            refiner=files.refiner,
            preset=files.preset or None,
            device=self.device,
        )

    @cached_property
    def encoder(self) -> LatentInverter:
        """GOAE's encoder before the generator; its second stage may be missing.

        Raises: ValueError if its file was not given.
        """
        if self.weights.refiner:
            return self.inverter.goae
        if not self.weights.encoder:
            raise ValueError("w_plus and pose_opt need GOAE's encoder: give run=NAME of a run of method=goae")
        encoder = load_encoder(self.weights.encoder, self.generator)
        return LatentInverter(self.generator, encoder).to(self.device).eval()

    @cached_property
    def lpips(self) -> LPIPS:
        """The perceptual network of the methods that optimise."""
        name, path = self.perceptual
        return LPIPS(name, path or None).to(self.device)


def _w_avg(given: Given) -> Tested:
    return Tested(AverageCode(given.generator), {"generator": given.generator_hash})


def _w_plus(given: Given) -> Tested:
    goae = given.encoder
    settings = {"generator": given.generator_hash, "encoder": module_hash(goae.encoder)}
    return Tested(EncoderOnly(goae), settings, partial(encoder_steps, goae))


def _full(given: Given) -> Tested:
    return _refined(given, given.inverter)


def _no_mix(given: Given) -> Tested:
    """The same weights, refined planes everywhere."""
    goae = given.inverter.goae
    config = replace(goae.config, mix=replace(goae.config.mix, planes="none"))
    return _refined(given, Inverter(GOAE(goae.generator, goae.encoder, goae.afa, config).to(given.device)))


def _refined(given: Given, inverter: Inverter) -> Tested:
    goae = inverter.goae
    settings = {
        "generator": given.generator_hash,
        "encoder": module_hash(goae.encoder),
        "refiner": module_hash(goae.afa),
        "goae": asdict(goae.config),
    }
    return Tested(inverter, settings, partial(goae_steps, goae), defaults={"goae": asdict(GOAEConfig())})


def _rival(name: str, given: Given) -> Tested:
    path = (given.weights.rivals or {}).get(name, "")
    if not path:
        raise ValueError(
            f"methods has {name}, but rivals.{name} is empty; give the folder of its run, or its encoder.safetensors"
        )
    stored = read_model(path)
    if stored.name != RIVALS[name]:
        raise ValueError(f"rivals.{name} is {path}, which holds a {stored.name}; expected a {RIVALS[name]}")
    parser = build_parts(stored.config["parts"], given.weights.parts, given.device) if name == "ide3d" else None
    method = load_rival(generator=given.generator, encoder=path, parser=parser, device=given.device)
    settings = {"generator": given.generator_hash, "encoder": module_hash(method.goae.encoder)}
    if parser is not None:
        settings |= {"parts": stored.config["parts"], "parts_sha256": module_hash(parser.logits.__self__)}  # type: ignore[attr-defined]
    return Tested(method, settings, partial(encoder_steps, method.goae))


def _w(given: Given) -> Tested:
    config = given.baselines.w
    return _optimising(given, build_w(given.baselines, given.generator, given.lpips), config, {"code": config.steps})


def _w_plus_opt(given: Given) -> Tested:
    config, method = given.baselines.w_plus, build_w_plus_opt(given.baselines, given.generator, given.lpips)
    return _optimising(given, method, config, {"code": config.steps})


def _pti(given: Given) -> Tested:
    config = given.baselines.pti
    method = build_pti(given.baselines, given.generator, given.lpips)
    steps = {"code": config.pivot.steps, "generator": config.tuning.steps}
    return replace(_optimising(given, method, config, steps), one_by_one=True)


def _pose_opt(given: Given) -> Tested:
    """From the camera of the regressor and the code of GOAE's encoder."""
    config, goae = given.baselines.pose_opt, given.encoder
    method = build_pose_opt(given.baselines, given.generator, given.lpips, encode=codes_of(goae))
    steps = {"code and camera": config.pivot.steps, "generator": config.tuning.steps}
    tested = _optimising(given, method, config, steps)
    starts = {
        "encoder": module_hash(goae.encoder),
        "regressor": module_hash(load_regressor(given.baselines.regressor)),
    }
    return replace(tested, settings=tested.settings | starts, one_by_one=True)


def _optimising(given: Given, method: Method[Any], config: Any, iterations: dict[str, int]) -> Tested:
    settings = {
        "generator": given.generator_hash,
        "perceptual": module_hash(given.lpips),
        "optimisation": asdict(config),
    }
    return Tested(method, settings, iterations=iterations, defaults={"optimisation": asdict(type(config)())})


RIVALS = {"psp": "PSPEncoder", "e4e": "E4EEncoder", "ide3d": "IDE3DEncoder"}  # the class that a file must hold

# Methods that the protocols can measure; a further one is one entry.
METHODS: dict[str, Callable[[Given], Tested]] = {
    "w_avg": _w_avg,
    "w_plus": _w_plus,
    "full": _full,
    "no_mix": _no_mix,
    **{name: partial(_rival, name) for name in RIVALS},
    "w": _w,
    "w_plus_opt": _w_plus_opt,
    "pti": _pti,
    "pose_opt": _pose_opt,
}


def build_method(name: str, given: Given) -> Tested:
    """A method under test."""
    if name not in METHODS:
        raise ValueError(f"methods has {name!r}; expected some of {', '.join(METHODS)}")
    tested = METHODS[name](given)
    forced: dict[str, Any] = {"force_fp32": True} if given.weights.force_fp32 else {}
    if given.generator.renderer.mode == "half":
        forced["renderer"] = "half"
    return replace(tested, settings=tested.settings | forced)
