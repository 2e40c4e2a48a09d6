"""Who chooses an implementation: code, a block, the environment, the process."""

import pytest
import torch
from eg3d.discriminator import DualDiscriminator
from eg3d.nn.layers import FullyConnected
from eg3d.ops import build, choice
from eg3d.rendering.renderer import Renderer, RenderingConfig
from tiny import tiny_generator
from torch import nn

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nobody_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_process", {"impl": "auto", "renderer": "auto"})
    monkeypatch.delenv(choice.VARIABLE, raising=False)


def impls(module: nn.Module) -> set[str]:
    """Collect what the modules with operators say that they use."""
    return {m.impl for m in module.modules() if isinstance(getattr(m, "impl", None), str)}


def test_code_goes_over_a_block_over_the_environment_over_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice.chosen() == "auto"
    choice.choose("cpu")
    assert choice.chosen() == choice.configured("cpu") == "cpu"
    monkeypatch.setenv(choice.VARIABLE, "ref")
    assert choice.chosen() == choice.configured("cpu") == "ref"
    with choice.using("cuda"):
        assert choice.chosen() == "cuda"
        with choice.using("auto"):
            assert choice.chosen() == "cuda"
        assert choice.chosen("cpu") == "cpu"
    assert choice.chosen() == "ref"


def test_every_module_takes_the_choice_at_its_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    with choice.using("cpu"):
        assert impls(tiny_generator()) == impls(DualDiscriminator(32, channel_base=256)) == {"cpu"}
    choice.choose("ref", "plain")
    generator = tiny_generator()
    assert impls(generator) == {"ref"} and generator.renderer.mode == "plain"
    assert FullyConnected(2, 3, impl="auto").impl == "ref"
    assert build.resolve("auto", CPU) == "ref"
    monkeypatch.setenv(choice.VARIABLE, "cpu")
    assert build.resolve("auto", CPU) == "cpu" and impls(tiny_generator()) == {"cpu"}


def test_wrong_names_are_told_where_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="impl is 'gpu', expected one of auto, ref, cpu, cuda"):
        choice.choose("gpu")
    with pytest.raises(ValueError, match="renderer is 'fast', expected one of auto, fused, plain, half"):
        Renderer(RenderingConfig(), mode="fast")
    monkeypatch.setenv(choice.VARIABLE, "none")
    with pytest.raises(ValueError, match="the environment variable EG3D_IMPL is 'none'"):
        tiny_generator()
