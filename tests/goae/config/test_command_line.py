"""Paths reach a job as the shell gives them; all other values mean what Hydra makes of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composing import CONFIGS, composed, composed_as, composed_by_hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from goae.config import (
    EditsConfig,
    FiguresConfig,
    InvertConfig,
    TablesConfig,
    TrainConfig,
    find_run,
    load_run,
    run_file,
    store_config,
)
from goae.config.command_line import _declared, _keys, as_given, explain
from goae.config.composing import SCHEMAS
from scripts import run_script

ODD = [
    *("/home/josé/a.png", "a (1).png", "a[1].png", "[a].png", "a=b.png", "a,b.png", "it's.png", 'a"b.png', "a#b.png"),
    *("a&b.png", "{a}.png", "a{b}.png", "a$b.png", "${a}.png", "a${b", "$HOME", "a;b.png", "a!b.png", "a%b.png"),
    *("a@b.png", "图片.png", "C:\\Users\\josé\\a.png", "C:\\dir\\", "\\\\server\\${a}", "a\\${b}", "1.png", "007"),
    *("1e3", "true", "a  b.png", " a.png ", "a:b", "a|b", "-a", "--a", "a\tb", "choice(a,b)", "???a", "a\\", "*?"),
    *("a'", 'a"', "'", "!", "#", "{", "[1,2", "a\nb", "e\u0301", "~no-such-user/a", "a~", "${runs", "\\${runs}"),
]
ALL = "jösé (1) [2] {3} =,'\"#&~$;!%@\\图 ${z}"  # every one of them in one name


def passed(argument: str, schema: type = InvertConfig) -> Any:
    """What the key of an argument holds when Hydra has read it."""
    (given,) = as_given([argument], schema)
    assert as_given([given], schema) == [given]  # as for processes that are started with the same arguments
    override = OverridesParser.create().parse_override(given)
    config = OmegaConf.structured(schema)
    OmegaConf.update(config, override.key_or_group, override.value())
    return OmegaConf.select(config, override.key_or_group)


@pytest.mark.parametrize("path", ODD)
def test_an_odd_path_arrives_unchanged(path: str) -> None:
    for key in ("input", "camera", "++output"):
        assert passed(f"{key}={path}") == path


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@example("\\\\'${a}\\'")
def test_any_path_arrives_unchanged(path: str) -> None:
    if path[0] not in "'\"~" and path not in ("null", "???"):
        assert passed(f"input={path}") == path


@pytest.mark.parametrize(
    "argument",
    [
        *("input=", "input=null", "input='a b.png'", 'input="a,b"', "paths.generator='a','b'", "camera=[1,0,0]", "-m"),
        *("seed=1,2", "method=psp,e4e", "run=a,b", "~run", "experiment=mini", "hydra/launcher=joblib", "nothing=é"),
        *('hydra.sweeper.params.seed="0,1"', "stages.encoder.optimizer.lr=1e-3", "run=${experiment_name}-x", "é"),
        *("data.extras=[factors,depth]", "hydra.sweeper.params={seed: '0'}", "logging.wandb=offline"),
    ],
)
def test_what_hydra_reads_is_left_to_it(argument: str) -> None:
    assert as_given([argument], InvertConfig if argument.startswith(("input", "camera")) else TrainConfig) == [argument]


def test_home_and_references_lead_where_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/josé")
    assert passed("input=~/a b.png") == "/home/josé/a b.png"
    assert passed("input=${runs}/a b.png") == "runs/a b.png" and passed("input=${oc.env:HOME}/é") == "/home/josé/é"
    given = as_given(["++paths.encoder=${paths.runs}/é/~"], TrainConfig)
    assert composed_as(TrainConfig, "experiment=tiny", *given).paths.encoder == "runs/é/~"
    edits = "edits=[{label: Smile, direction: ~/s.npy, alpha: 1.0}]"  # Hydra has no ~ in a list
    made = composed_as(EditsConfig, *as_given([edits], EditsConfig), name="eval_edits")
    assert made.edits[0].direction == "/home/josé/s.npy"
    assert composed_as(TrainConfig, "experiment=tiny", "paths.runs='~/r'").paths.runs == "/home/josé/r"


def test_text_and_lists_that_hydra_cannot_read() -> None:
    assert passed("run=José (1)") == "José (1)" and passed("run=007") == "007" and passed("run=1e3") == "1e3"
    assert passed("metrics.geometry=true", TablesConfig) == "true"
    assert passed("compared.Ours=josé", FiguresConfig) == "josé"
    assert passed("rows.full=[josé-seed0, a (1), 'b,c']", TablesConfig) == ["josé-seed0", "a (1)", "b,c"]
    edits = passed("edits=[{label: Ünhappy, direction: /é (1)/s.npy, alpha: -1}]", EditsConfig)
    assert [dict(edit) for edit in edits] == [{"label": "Ünhappy", "direction": "/é (1)/s.npy", "alpha": -1.0}]


def values(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a composed configuration by their dotted keys, without those in lists."""
    for key, value in config.items_ex(resolve=False):
        if OmegaConf.is_dict(value):
            yield from values(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield prefix + key, value


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        *(("train", (f"experiment={name}",)) for name in ("ffhq", "afhq_cat", "mini_long", "tiny")),
        *(("train_prior", ()), ("train_camera", ()), ("invert_heads", ()), ("eval_mead", ("world=full",))),
        *(("figures", (f"pictures={name}",)) for name in ("mini", "full", "cats")),
        *(("tables", ()), ("check_meters", ()), ("eval_edits", ()), ("train_directions", ())),
    ],
)
def test_every_value_that_looks_like_a_path_is_declared_as_one(name: str, groups: tuple[str, ...]) -> None:
    """In the files of configs/."""
    config = composed(*groups, name=name)
    schema = OmegaConf.get_type(config)
    assert schema in SCHEMAS
    ends = (".zip", ".pkl", ".npy", ".json", ".safetensors")
    found = {key for key, value in values(config) if "/" in value or value.endswith(ends)}
    assert found and all(_declared(schema, key)[1] for key in found), found


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_key_that_is_named_like_a_path_is_declared_as_one(schema: type) -> None:
    named = [key for key in _keys(schema) if key.split(".")[-1].endswith(("_path", "runs", "output", "direction"))]
    texts = [key for key in named if _declared(schema, key)[0] is str]
    assert texts and all(_declared(schema, key)[1] for key in texts), texts


def test_a_stored_path_is_the_one_that_was_given(tmp_path: Path) -> None:
    given = as_given([f"paths.runs={tmp_path}/{ALL}", f"data.train={ALL}", "run=José (1)"], TrainConfig)
    config = composed_as(TrainConfig, "experiment=tiny", *given)
    store_config(config)
    (folder,) = tmp_path.iterdir()
    assert folder.name == ALL and config.data.train == ALL
    assert load_run(folder / "José (1)", TrainConfig) == config


@pytest.mark.parametrize(
    ("name", "argument", "told"),
    [
        (
            "train",
            "stages.encoder.fit.stepz=3",
            "no key stages.encoder.fit.stepz; did you mean stages.encoder.fit.step",
        ),
        ("invert", "ouput=x", "there is no key ouput; did you mean output?"),
        ("invert", "ouput=José (1)", "there is no key ouput; did you mean output?"),
        ("train", "experiment=José (1)", "'experiment=José .1.' cannot be read"),
        ("invert", "data=a.zip", "there is no key data; "),  # a group of other scripts
        ("invert", "photo.png", "'photo.png' is no KEY=VALUE; for example input=photo.png"),
        ("invert", "", "'' is no KEY=VALUE"),
        ("train", "seed=first", "seed=first does not fit: Value 'first' of type 'str' could not be converted to Int"),
        ("train", "run=null", "run=null does not fit: field 'run' is not Optional"),
        ("train", "experiment=minii", r"Could not find 'experiment/minii' Available options .* mini_long"),
        ("train", "method=psp,e4e", r"Ambiguous value for argument 'method=psp,e4e'.* add --multirun"),
        ("train", "stages.encoder.stage_steps=[1,2", "cannot be read .*; put the value into quotes of its own"),
    ],
)
def test_what_hydra_refuses_is_one_line(name: str, argument: str, told: str) -> None:
    schema = TrainConfig if name == "train" else InvertConfig
    with pytest.raises(HydraException) as caught:
        composed_by_hydra(argument, name=name)
    text = explain(caught.value, schema)
    assert re.search(told, text) and "\n" not in text and "hydra.cc" not in text, text


def test_a_script_takes_such_paths_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped run, its generator, a regressor and a direction lie beside the package, and nothing here."""
    monkeypatch.chdir(tmp_path)
    Path(ALL).mkdir()
    Image.new("RGB", (64, 64), "tan").save(f"{ALL}/{ALL}.png")
    shipped = ["run=mini_long-seed0", "regressor_path=goae/assets/mini/camera.safetensors"]
    edit = "edits=[{label: Ält, direction: goae/assets/mini/directions/age.npy, alpha: 1.0}]"
    code = run_script("invert", f"input={ALL}/{ALL}.png", f"output={ALL}", *shipped, edit)
    assert code == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [ALL]
    assert list(tmp_path.rglob("edit-Ält.png"))


def test_shipped_files_are_those_of_the_package_unless_the_folder_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "goae/assets/mini/generator.safetensors"
    monkeypatch.chdir(tmp_path)
    made = composed_as(FiguresConfig, name="figures")
    assert made.generator_path == str(CONFIGS.parent / file) and Path(made.glasses).is_file()
    assert made.optimisers.regressor == str(CONFIGS.parent / "goae/assets/mini/camera.safetensors")
    assert made.metrics == "goae/assets/mini/metrics.json"  # which is written
    assert load_run(find_run("runs", "mini_long-seed0"), TrainConfig).paths.generator == made.generator_path
    assert run_file("elsewhere/mini_long-seed0/encoder.safetensors").is_file()
    own = tmp_path / file
    own.parent.mkdir(parents=True)
    own.touch()
    assert composed_as(FiguresConfig, name="figures").generator_path == file


@pytest.mark.parametrize("argument", ["+unknown=3", "++paths.unknown=3"])
def test_no_key_is_added(argument: str) -> None:
    with pytest.raises(ValueError, match=r"there is no key (\w+\.)?unknown"):
        composed_as(TrainConfig, "experiment=tiny", argument)
