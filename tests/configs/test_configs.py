"""Every experiment composes; the paper's settings stand where they should; wrong keys fail while composing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import CONFIGS, composed, composed_as, composed_by_hydra
from eg3d.generator import GeneratorConfig
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from goae.build import mask_of
from goae.config import (
    METHODS,
    RANDOM,
    CameraConfig,
    EvaluateConfig,
    InvertConfig,
    PriorConfig,
    ProtocolConfig,
    TrainConfig,
    claim_run,
    load_run,
    to_plain,
)
from goae.models.afa import AFAConfig
from goae.models.encoder import EncoderConfig
from goae.models.goae import preset
from goae.models.pyramid_encoder import RivalConfig
from goae.training import checkpoint
from goae.training.changes import read_changes


def config(*overrides: str) -> TrainConfig:
    return composed_as(TrainConfig, *overrides)


EXPERIMENTS = sorted(p.stem for p in (CONFIGS / "experiment").glob("*.yaml"))
PRIORS = [name for name in EXPERIMENTS if name.endswith("prior")]  # of scripts/train_prior.py
CAMERAS = [name for name in EXPERIMENTS if name.endswith("camera")]  # of scripts/train_camera.py


def test_the_tests_compose_as_hydra_does() -> None:
    """Keys before and after groups and twice, lists, and a string that looks like a number."""
    keys = ["seed=3", "stages.encoder.fit.steps=7", "paths.runs='0'", "goae.mix.planes=xy", "perception.lpips=vgg"]
    keys += ["stages.encoder.stage_steps=[1,2]", "stages.encoder.bg=1e-3", "generator.superresolution_channels=[8]"]
    given = ["seed=2", "experiment=mini", *keys, "preset=official", "run=again", "run=last"]
    assert composed(*given) == composed_by_hydra(*given)
    assert composed("experiment=mini") == composed_by_hydra("experiment=mini")  # what was changed was a copy
    with pytest.raises(ConfigCompositionException, match="stepz"):
        composed("stages.encoder.fit.stepz=3")


@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - {*PRIORS, *CAMERAS}))
@pytest.mark.parametrize("preset_name", ["paper", "official"])
def test_every_experiment_composes(experiment: str, preset_name: str) -> None:
    made = config(f"experiment={experiment}", f"preset={preset_name}")
    assert made.run == f"{experiment}-seed0"
    assert made.paths.generator and (made.paths.generator == RANDOM) == (experiment == "tiny")
    assert made.afa.variant == preset_name
    if not experiment.startswith("mini"):  # whose masks have sizes of their own
        assert made.goae == preset(preset_name)


@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - {*PRIORS, *CAMERAS, "tiny"}))
def test_all_rows_are_trained_for_three_quarters_of_stage_1(experiment: str) -> None:
    """Whatever the experiment's length: GOAE's last level and e4e's last delta come in its first quarter."""
    made = config(f"experiment={experiment}")
    steps, num_ws = made.stages.encoder.fit.steps, {64: 10, 512: 14}[made.generator.image_resolution]
    last_delta = made.rival.unlock_start + (num_ws - 2) * made.rival.unlock_every
    assert 0 < made.stages.encoder.stage_steps[-1] <= steps / 4
    assert 0 < last_delta <= steps / 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - {*PRIORS, *CAMERAS}))
def test_every_method_composes_with_every_experiment(experiment: str, method: str) -> None:
    """R37: the same weights; L_BG and the canonical discriminator belong to GOAE alone."""
    ours, made = config(f"experiment={experiment}"), config(f"experiment={experiment}", f"method={method}")
    assert (ours.method, made.method) == ("goae", method)
    assert made.run == (f"{experiment}-seed0" if method == "goae" else f"{experiment}-{method}-seed0")
    stage = made.stages.encoder
    assert stage.weights == ours.stages.encoder.weights and stage.fit == ours.stages.encoder.fit
    weights = {"goae": (0.05, 5.0, 0.001), "e4e": (0.05, 0.0, 0.001)}.get(method, (0.0, 0.0, 0.0))
    assert (stage.adv, stage.bg, stage.dw) == weights
    assert stage.adversary.real_pose == ("images" if method == "e4e" else "canonical")
    if method == "goae":
        assert made == ours


def test_ffhq_has_the_papers_settings() -> None:
    """R9, R12-R14, R19, R32, R33."""
    made = config("experiment=ffhq")
    first, second = made.stages.encoder, made.stages.refiner
    assert (first.fit.steps, first.fit.batch_size) == (1_000_000, 3)
    assert (second.fit.steps, second.fit.batch_size) == (800_000, 2)
    assert (first.optimizer.name, first.optimizer.lr) == ("ranger", 1e-4)
    assert (second.optimizer.name, second.optimizer.lr) == ("adam", 2.5e-5)
    assert (first.adversary.optimizer.name, first.adversary.optimizer.lr) == ("adam", 2e-5)
    assert first.weights.as_dict() == second.weights.as_dict() == {"l2": 1.0, "lpips": 0.8, "id": 0.25}
    assert (first.adv, first.bg, first.dw, second.bg, second.df) == (0.05, 5.0, 0.001, 5.0, 0.0001)
    assert first.adversary.gamma == 10.0
    assert first.stage_steps == [10_000, 20_000, 30_000]
    assert (made.perception.lpips, made.perception.identity, made.perception.background) == (
        "alex",
        "arcface",
        "parser",
    )
    assert (made.generator.image_resolution, made.data.resolution, made.data.loss_resolution) == (512, 512, 256)
    assert made.canonical.num_samples == 100_000


@pytest.mark.parametrize("experiment", ["ffhq", "afhq_cat"])
def test_recipes_have_the_sizes_of_published_files(experiment: str) -> None:
    """Those of the defaults, held to the files' names and shapes in tests/goae/models/test_published.py and others."""
    made = config(f"experiment={experiment}")
    assert replace(made.generator, avg_camera_pivot=[0.0, 0.0, 0.2]) == GeneratorConfig()  # cats have their own
    assert (made.encoder, made.afa, made.rival) == (EncoderConfig(), AFAConfig(), RivalConfig())


def test_cats_name_their_mask_rule_and_identity_network() -> None:
    """R34 and the choices for cats."""
    made = config("experiment=afhq_cat")
    assert (made.stages.encoder.fit.steps, made.stages.refiner.fit.steps) == (200_000, 150_000)
    assert (made.perception.background, made.perception.identity) == ("segmenter", "none")
    assert made.perception.background_subject == "animal"
    assert made.stages.encoder.weights.id == made.stages.refiner.weights.id == 0.0
    assert made.generator.avg_camera_pivot == [0.0, 0.0, -0.06]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("stages.encoder.fit.stepz=3", "stepz"),
        ("stages.encoder.fit.steps=many", "steps"),
        ("goae.mix.plains=xy", "plains"),
        ("seed=first", "seed"),
    ],
)
def test_unknown_keys_and_wrong_types_fail_while_composing(override: str, named: str) -> None:
    with pytest.raises((ConfigCompositionException, ValueError)) as error:
        composed_by_hydra("experiment=mini", override)
    assert named in str(error.value) + str(error.value.__cause__)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("stage=third", "stage"),
        ("precision=16-mixed", "precision"),
        ("run=a/b", "run"),
        ("goae.mix.planes=xz", "mix.planes"),
        ("stages.encoder.background.loss=l1", "background.loss"),
        ("stages.encoder.stage_steps=[3,2,1]", "stage_steps"),
        ("logging.wandb=maybe", "logging.wandb"),
        ("data.loss_resolution=100", "data.loss_resolution"),
        ("rival.units=[1,2,3]", "rival.units"),
    ],
)
def test_wrong_values_are_named(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config("experiment=mini", override)


@pytest.mark.parametrize("experiment", PRIORS)
def test_every_prior_composes(experiment: str) -> None:
    made = composed_as(PriorConfig, f"experiment={experiment}", name="train_prior")
    assert made.run == f"{experiment}-seed0"
    assert made.adversarial.schedule.resolution == made.generator.neural_rendering_resolution


@pytest.mark.parametrize("experiment", CAMERAS)
def test_every_camera_regressor_composes(experiment: str) -> None:
    made = composed_as(CameraConfig, f"experiment={experiment}", name="train_camera")
    assert made.run == f"{experiment}-seed0"
    assert made.regressor.sphere.pivot == made.generator.avg_camera_pivot
    assert made.regressor.resolution <= made.generator.image_resolution == made.data.resolution
    assert (made.paths.generator == RANDOM) == experiment.startswith("tiny")


def test_the_mini_prior_is_the_default_and_goes_over_a_bridge() -> None:
    made = composed_as(PriorConfig, name="train_prior")
    assert (made.run, made.stage) == ("mini_prior-seed0", "all")
    assert set(made.data.extras) == {"factors", "depth", "parts"}
    bridge = made.adversarial.bridge
    assert bridge.supervised and min(bridge.discriminator_steps, bridge.fade_steps, bridge.release_steps) > 0
    assert made.adversarial.fit.batch_size == 16 and made.adversarial.schedule.at(0).swap_probability == 0.5


def test_a_prior_from_scratch_has_eg3ds_values() -> None:
    """EG3D, ffhq512-64."""
    made = composed_as(PriorConfig, "experiment=prior", "data.train=photos", name="train_prior")
    recipe = made.adversarial
    assert made.stage == "adversarial" and not made.data.extras and not recipe.bridge.supervised
    assert recipe.bridge.shares(0) == (1.0, 0.0)
    assert (recipe.gamma, recipe.density, recipe.generator_lr, recipe.discriminator_lr) == (1.0, 0.25, 0.0025, 0.002)
    assert (recipe.fit.batch_size, recipe.fit.steps * recipe.fit.batch_size) == (32, 25_000_000)
    assert (recipe.schedule.resolution, recipe.schedule.swap_probability, recipe.schedule.blur_sigma) == (64, 0.5, 10.0)


def test_supervised_losses_name_the_data_they_lack() -> None:
    for given, told in (
        (["data.extras=[factors,depth]"], "also need parts"),
        (["data.extras=[factors,depth]", "stage=adversarial"], "also need parts"),
        (["data.extras=[]", "stage=adversarial", "warm_start.parts=0"], "also need factors, which"),
    ):
        with pytest.raises(ValueError, match=told):
            composed_as(PriorConfig, "experiment=mini_prior", *given, name="train_prior")
    less = ["data.extras=[factors]", "stage=adversarial", "warm_start.parts=0"]
    assert composed_as(PriorConfig, "experiment=mini_prior", *less, name="train_prior").data.extras == ["factors"]


def test_three_files_may_stand_for_a_run() -> None:
    files = [f"{name}_path={name}.safetensors" for name in ("generator", "encoder", "refiner")]
    made = composed_as(InvertConfig, "input=a.png", "camera=c.json", "preset_name=paper", *files, name="invert")
    assert (made.generator_path, made.preset_name) == ("generator.safetensors", "paper")
    for given in (files[:2], ["run=any", files[1]]):
        with pytest.raises(ValueError, match=r"give either run=NAME .* or all of"):
            composed_as(InvertConfig, "input=a.png", "camera=c.json", *given, name="invert")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "bench",
            "check_gpu",
            "check_meters",
            "eval_celebahq",
            "eval_mead",
            "evaluate",
            "figures",
            "invert",
            "invert_heads",
        ),
        *("prior_metrics", "sweep_report", "tables", "train_directions"),
    ],
)
def test_keys_that_are_no_groups_can_be_set(name: str) -> None:
    """Hydra takes KEY=VALUE for the choice of a group; sections may have a group's name, since their fields are set."""
    groups, more = {path.name for path in CONFIGS.iterdir() if path.is_dir()}, ["table=1"] if name == "tables" else []
    made = composed(*more, name=name)
    assert not {key for key in groups & made.keys() if not isinstance(made[key], DictConfig)}


def test_evaluate_wants_a_run() -> None:
    with pytest.raises(ValueError, match="run is empty"):
        composed_as(EvaluateConfig, name="evaluate")


def claimed(tmp_path: Path, *overrides: str) -> TrainConfig:
    """A run that has trained."""
    made = config("experiment=tiny", f"paths.runs={tmp_path}", *overrides)
    claim_run(made)
    (made.run_dir / "encoder.safetensors").touch()
    return made


def test_a_run_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    made = claimed(tmp_path)
    assert to_plain(load_run(made.run_dir, TrainConfig)) == to_plain(made)


def test_a_run_from_before_there_were_rivals_goes_on(tmp_path: Path) -> None:
    """Its file has none of the keys that came with them; other values of a rival's sizes do not matter to it."""
    made = claimed(tmp_path)
    path = made.run_dir / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["method"], stored["rival"], stored["stages"]["encoder"]["adversary"]["real_pose"]
    path.write_text(yaml.safe_dump(stored))
    claimed(tmp_path)
    claimed(tmp_path, "rival.squeeze=2")
    claimed(tmp_path, "method=psp", "run=rival")
    with pytest.raises(ValueError, match=r"rival\.squeeze: 4 in the run, 2 now"):
        claimed(tmp_path, "method=psp", "run=rival", "rival.squeeze=2")


def test_a_changed_configuration_stops_with_the_difference(tmp_path: Path) -> None:
    claimed(tmp_path)
    with pytest.raises(ValueError, match=r"stages\.encoder\.bg: 5\.0 in the run, 1\.0 now.*run=NAME"):
        claimed(tmp_path, "stages.encoder.bg=1.0")


@pytest.mark.parametrize(
    "free",
    [
        *("stages.encoder.fit.steps=9", "device=auto", "logging.wandb=offline", "stage=encoder", "data.workers=1"),
        *("paths.canonical_stats=b.safetensors", "perception.identity_path=b.pth", "data.train=b.zip"),
    ],
)
def test_steps_logging_device_and_places_may_change(tmp_path: Path, free: str) -> None:
    claimed(tmp_path)
    claimed(tmp_path, free)


def test_what_moves_the_numbers_is_noted_with_its_step(tmp_path: Path) -> None:
    made = claimed(tmp_path)
    for stage, step in (("encoder", 4), ("refiner", 2)):
        checkpoint.save({}, made.run_dir / "checkpoints" / stage, step)
    claimed(tmp_path, "precision=bf16-mixed")
    claimed(tmp_path, "precision=bf16-mixed", "stages.refiner.fit.clip_grad_norm=1")
    claimed(tmp_path, "precision=bf16-mixed", "stages.refiner.fit.clip_grad_norm=2")
    claimed(
        tmp_path,
        "precision=bf16-mixed",
        "stages.refiner.fit.clip_grad_norm=2",
        "force_fp32=true",
        "deterministic=false",
    )
    precision = {"key": "precision", "before": "32-true", "after": "bf16-mixed"}
    fast = {"key": "deterministic", "before": True, "after": False}
    forced = {"key": "force_fp32", "before": False, "after": True}
    clipping = {"key": "stages.refiner.fit.clip_grad_norm", "before": 0.0, "after": 2.0}
    assert read_changes(made.run_dir, "encoder") == [change | {"step": 4} for change in (precision, fast, forced)]
    noted = (precision, clipping, fast, forced)
    assert read_changes(made.run_dir, "refiner") == [change | {"step": 2} for change in noted]
    claimed(tmp_path, "precision=bf16-mixed")
    assert read_changes(made.run_dir, "refiner") == [precision | {"step": 2}]  # taken back before a step was trained


def test_runs_from_before_the_segmenter_had_a_subject_keep_their_mask(tmp_path: Path) -> None:
    """With the rule by depth the subject is not used; with the segmenter it was the cat."""

    def started(*overrides: str) -> TrainConfig:
        made = claimed(tmp_path, "experiment=afhq_cat", *overrides)
        path = made.run_dir / "config.yaml"
        stored = yaml.safe_load(path.read_text())
        del stored["perception"]["background_subject"]
        path.write_text(yaml.safe_dump(stored))
        return made

    by_depth, cat = "perception.background=depth", "perception.background_subject=cat"
    assert mask_of(started(by_depth)) == "depth beyond 3, shrunk by 1"
    claimed(tmp_path, "experiment=afhq_cat", by_depth)
    assert mask_of(started(cat, "run=cat")) == "segmenter, shrunk by 1"
    claimed(tmp_path, "experiment=afhq_cat", cat, "run=cat")
    with pytest.raises(ValueError, match="background_subject: 'cat' in the run, 'animal' now"):
        claimed(tmp_path, "experiment=afhq_cat", "run=cat")
    assert mask_of(config("experiment=afhq_cat")) == "segmenter of animal, shrunk by 1"


def test_files_may_move_but_not_come_or_go(tmp_path: Path) -> None:
    claimed(tmp_path, "paths.generator=a.pkl")
    made = claimed(tmp_path, "paths.generator=b.pkl")
    assert load_run(made.run_dir, TrainConfig).paths.generator == "b.pkl"
    refused = {"paths.generator=random": "'b.pkl' in the run, 'random' now", "paths.backbone=c": "'random' in the run"}
    for given, told in refused.items():
        with pytest.raises(ValueError, match=told):
            claimed(tmp_path, "paths.generator=b.pkl", given)


def test_a_run_from_before_random_weights_were_named_goes_on_with_them(tmp_path: Path) -> None:
    claimed(tmp_path, "paths.backbone=")
    made = claimed(tmp_path, "paths.backbone=random")
    assert load_run(made.run_dir, TrainConfig).paths.backbone == "random"
    with pytest.raises(ValueError, match=r"paths\.backbone: 'random' in the run, 'published' now"):
        claimed(tmp_path, "paths.backbone=published")


def test_a_start_that_left_nothing_trained_does_not_claim_the_name(tmp_path: Path) -> None:
    """Nor do the weights of step 0; a checkpoint does."""
    first = config("experiment=tiny", f"paths.runs={tmp_path}")
    claim_run(first)
    (first.run_dir / "encoder-best.safetensors").touch()
    other = config("experiment=tiny", f"paths.runs={tmp_path}", "stages.encoder.bg=1.0")
    claim_run(other)
    assert load_run(first.run_dir, TrainConfig).stages.encoder.bg == 1.0
    (first.run_dir / "checkpoints/encoder").mkdir(parents=True)
    (first.run_dir / "checkpoints/encoder/step-000000002.pt").touch()
    with pytest.raises(ValueError, match=r"stages\.encoder\.bg"):
        claim_run(first)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        load_run(tmp_path, TrainConfig)
    (tmp_path / "config.yaml").write_text("stepz: 3\n")
    with pytest.raises(ValueError, match="does not fit this version"):
        load_run(tmp_path, TrainConfig)


def plain_values(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain_values(v) for k, v in value.items())
    if isinstance(value, list):
        return all(plain_values(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)


def test_the_stored_configuration_is_plain() -> None:
    assert plain_values(to_plain(config("experiment=ffhq")))


@pytest.mark.parametrize("world", ["mini", "full"])
@pytest.mark.parametrize(("script", "protocol"), [("eval_celebahq", "input_view"), ("eval_mead", "novel_view")])
def test_protocols_compose_in_both_worlds(script: str, protocol: str, world: str) -> None:
    made = composed_as(ProtocolConfig, f"world={world}", name=script)
    assert (made.protocol, made.world_name) == (protocol, world)
    assert made.folder == Path("runs") / made.run / protocol
    sizes = {"mini": (64, 64), "full": (512, 256)}
    assert (made.resolution, made.metric_resolution) == sizes[world]
    assert made.metrics.identity == {"mini": "mini", "full": "arcface"}[world]  # what the training loss uses
    assert made.metrics.identity_independent != made.metrics.identity


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("run=", "give run=NAME"),
        ("encoder_path=a", "give all, or none"),
        ("metric_resolution=100", "must divide"),
        ("methods=[full,full]", "each once"),
        ("protocol=both", "expected one of input_view, novel_view"),
        ("metrics.geometry_sign=near", "metrics.geometry_sign"),
    ],
)
def test_wrong_values_of_a_protocol_are_named(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        composed_as(ProtocolConfig, override, name="eval_celebahq")


def test_results_of_files_need_a_folder() -> None:
    files = [f"{name}_path={name}.safetensors" for name in ("generator", "encoder", "refiner")]
    with pytest.raises(ValueError, match="output is empty"):
        composed_as(ProtocolConfig, *files, name="eval_mead")
    assert composed_as(ProtocolConfig, *files, "output=here", name="eval_mead").folder == Path("here")
