"""Kernels that are compared with their definition once, and refused where they differ."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from eg3d.nn.decoder import Decoder
from eg3d.ops import bias_act, build, conv3x3, first_use, modulated_layer, setup_filter, upfirdn2d
from eg3d.rendering.renderer import Renderer, RenderingConfig
from eg3d.rendering.sampling import midpoint_uniforms
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
CPU = torch.device("cpu")
# operator -> a kernel that its values come from, and one of its gradients; calls of the kernel are counted
KERNELS = {
    "bias_act": ("bias_act", "bias_act"),
    "upfirdn2d": ("upfirdn2d", "upfirdn2d"),
    "conv3x3": ("conv3x3", "conv3x3_gradient"),
    "modulated_layer": ("conv3x3", "conv3x3_weights"),
    "render": ("render", "render_backward"),
}
SHARED = ("conv3x3", "modulated_layer")  # two operators of the same kernels
DAMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "one wrong number": lambda t: t.index_fill(-1, torch.tensor([t.shape[-1] - 1]), 0.3),
    "a thousandth more": lambda t: t * 1.001,
    "nan": lambda t: torch.full_like(t, math.nan),
}


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that has compared nothing, with a library in an empty folder; where its verdicts will be."""
    build.resolve("cpu", CPU)
    library = tmp_path / "library.so"
    library.write_bytes(b"a library")
    monkeypatch.setitem(build._libraries, "cpu", library)
    forget(monkeypatch)
    build._warn_of_refusal.cache_clear()
    return tmp_path / first_use.FILE


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a new process."""
    monkeypatch.setattr(first_use, "_known", {})


def use(operator: str, impl: str = "auto") -> Tensor:
    """An operator with inputs of its own."""
    x, weight = torch.linspace(-1, 1, 16 * 36).reshape(1, 16, 6, 6), torch.linspace(-1, 1, 16 * 16 * 9)
    weight = weight.reshape(16, 16, 3, 3)
    if operator == "bias_act":
        return bias_act(x, act="lrelu", impl=impl)
    if operator == "upfirdn2d":
        return upfirdn2d(x, setup_filter([1, 2, 1]), impl=impl)
    if operator == "conv3x3":
        return conv3x3(x, weight, impl=impl)
    if operator == "modulated_layer":
        return modulated_layer(x, weight, torch.ones(1, 16), torch.zeros(16), impl=impl)
    torch.manual_seed(0)
    renderer = Renderer(RenderingConfig(depth_resolution=6, depth_resolution_importance=5), impl)
    rays = torch.tensor([0.0, 0.0, 2.7]).expand(1, 4, 3), torch.tensor([0.0, 0.0, -1.0]).expand(1, 4, 3)
    planes = torch.linspace(-1, 1, 3 * 32 * 16).reshape(1, 3, 32, 4, 4)
    return renderer(planes, Decoder(32), *rays, midpoint_uniforms(1, 4, 6, 5)).features


def plant(monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Tensor], Tensor], *, skip: int = 0) -> None:
    """Let a kernel's first floating-point result be damaged, after `skip` good calls of it."""
    kernel, calls = build.kernel, []

    def wrong(backend: str, asked: str) -> Any:
        function = kernel(backend, asked)
        if asked != name:
            return function

        def run(*arguments: Any) -> Any:
            calls.append(asked)
            found = function(*arguments)
            if len(calls) <= skip:
                return found
            if isinstance(found, Tensor):
                return damage(found)
            return type(found)([damage(found[0]), *found[1:]])

        return run

    monkeypatch.setattr(build, "kernel", wrong)


@pytest.mark.parametrize("operator", first_use.CASES)
def test_a_good_kernel_passes_once_and_for_all(operator: str, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.random.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build.resolve("auto", CPU, operator) == "cpu"
    assert torch.equal(torch.random.get_rng_state(), state)
    (stored,) = json.loads(beside.read_text()).values()
    assert stored == {operator: ""}
    forget(monkeypatch)
    monkeypatch.setattr(first_use, "compare", lambda *_: pytest.fail("compared again"))
    assert build.resolve("cpu", CPU, operator) == "cpu"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("of", ["values", "gradients"])
@pytest.mark.parametrize("operator", first_use.CASES)
def test_a_wrong_kernel_is_refused_by_name_and_replaced_loudly(
    operator: str, of: str, damage: str, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = use(operator, "ref")
    value, gradient = KERNELS[operator]
    skip = 1 if of == "gradients" and value == gradient else 0
    plant(monkeypatch, value if of == "values" else gradient, DAMAGES[damage], skip=skip)
    with pytest.warns(
        RuntimeWarning, match=f"cpu kernel of {operator} does not compute.*(differs by|not finite)"
    ) as caught:
        assert torch.equal(use(operator), expected)
        use(operator)
    assert len(caught) == 1
    assert str(beside) in str(caught[0].message)
    if of == "gradients":
        assert "gradient of" in str(caught[0].message)
    with pytest.raises(RuntimeError, match=f"{operator} does not compute.*impl='auto' or 'ref' to go on"):
        build.resolve("cpu", CPU, operator)
    others = set(first_use.CASES) - {operator, *(SHARED if operator in SHARED else ())}
    assert {build.resolve("auto", CPU, name) for name in others} == {"cpu"}  # the fall-back is of this one alone


def test_a_kernel_that_raises_is_refused(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(t: Tensor) -> Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    plant(monkeypatch, "upfirdn2d", fail)
    with pytest.warns(RuntimeWarning, match="it raised RuntimeError: an illegal memory access"):
        assert build.resolve("auto", CPU, "upfirdn2d") == "ref"


def test_a_kernel_that_ends_the_process_is_refused_by_the_next_one(beside: Path) -> None:
    code = (
        "import sys, os, pathlib, torch; from eg3d.ops import build, first_use; cpu = torch.device('cpu');"
        "build.resolve('cpu', cpu); build._libraries['cpu'] = pathlib.Path(sys.argv[1]);"
        "build.kernel = lambda backend, name: lambda *a: os._exit(9);"
        "build.resolve('auto', cpu, 'bias_act')"
    )
    command = [sys.executable, "-c", code, str(beside.with_name("library.so"))]
    assert subprocess.run(command, check=False).returncode == 9
    with pytest.warns(RuntimeWarning, match="begun and never ended"):
        assert build.resolve("auto", CPU, "bias_act") == "ref"


def test_an_interrupted_comparison_is_made_again(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as first:
        first.setattr(first_use, "compare", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build.resolve("auto", CPU, "bias_act")
    assert build.resolve("cpu", CPU, "bias_act") == "cpu"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cpu": 1}', '{"cpu": {"bias_act": 1}}', "\x00\x01", None])
def test_a_damaged_file_of_verdicts_is_made_again(
    text: str | None, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        beside.write_text(text.replace('"cpu"', json.dumps(first_use.identify(CPU, beside.with_name("library.so")))))
    assert build.resolve("cpu", CPU, "bias_act") == "cpu"
    assert [*json.loads(beside.read_text()).values()] == [{"bias_act": ""}]


def test_verdicts_are_of_one_library_and_keep_the_others(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.resolve("cpu", CPU, "bias_act")
    other = beside.with_name("other.so")
    other.write_bytes(b"another library")
    monkeypatch.setitem(build._libraries, "cpu", other)
    forget(monkeypatch)
    plant(monkeypatch, "bias_act", DAMAGES["nan"])
    with pytest.warns(RuntimeWarning, match="y has numbers that are not finite"):
        assert build.resolve("auto", CPU, "bias_act") == "ref"
    found = [row["bias_act"] for row in json.loads(beside.read_text()).values()]
    assert found[0] == "" and "not finite" in found[1]


def test_the_definition_compares_nothing(beside: Path) -> None:
    assert build.resolve("ref", CPU, "bias_act") == build.resolve("auto", torch.device("meta"), "bias_act") == "ref"
    assert not beside.exists() and first_use._known == {}


def test_a_comparison_sees_nothing_of_where_it_is_made(beside: Path) -> None:
    """Counted operations, and tensors that checkpointing keeps account of."""
    with FlopCounterMode(display=False) as counted:
        assert build.resolve("cpu", CPU, "modulated_layer") == "cpu"
    assert counted.get_total_flops() == 0
    x = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2).requires_grad_()
    checkpoint(lambda x: bias_act(x, act="swish", impl="cpu"), x, use_reentrant=False).sum().backward()
    assert x.grad is not None and "bias_act" in beside.read_text()


def test_words_for_a_log(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.describe("ref", CPU) == "plain PyTorch"
    assert build.describe("auto", CPU) == "cpu kernels"
    assert set(next(iter(json.loads(beside.read_text()).values()))) == set(first_use.CASES)
    forget(monkeypatch)
    beside.unlink()
    plant(monkeypatch, "upfirdn2d", DAMAGES["nan"])
    with pytest.warns(RuntimeWarning, match="upfirdn2d"):
        assert build.describe("auto", CPU) == "cpu kernels, but plain PyTorch for upfirdn2d"


@pytest.mark.cuda
@pytest.mark.parametrize("operator", first_use.CASES)
def test_cuda_kernels(operator: str) -> None:
    if build.backend_has("cuda", operator):
        build.resolve("cuda", torch.device("cuda"))
        assert first_use.compare(operator, torch.device("cuda")) == ""


def test_processes_that_start_together_compare_once(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads, each with a lock of its own on the file."""
    compare, compared = first_use.compare, []
    monkeypatch.setattr(first_use, "compare", lambda *a: (compared.append(a), compare(*a))[1])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: first_use._judge("bias_act", CPU, beside.with_name("library.so")), range(4)))
    assert found == [""] * 4 and len(compared) == 1
