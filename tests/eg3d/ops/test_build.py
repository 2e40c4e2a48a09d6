"""Which implementation is chosen, and what happens when kernels cannot be built."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from eg3d.ops import bias_act, build, setup_filter, upfirdn2d

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has built nothing, with an empty cache; the folder of the cache."""
    monkeypatch.setattr(build, "_failures", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    build._warn_once.cache_clear()
    return tmp_path / "cache"


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def broken_compiler(path: Path) -> Path:
    """A compiler that tells its version, and then compiles nothing."""
    return executable(path, 'case "$1" in *v*) exec c++ "$@";; esac; echo "error: this compiler is broken" >&2; exit 1')


@pytest.fixture
def broken_toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / "cuda" / "bin" / "nvcc", "echo 'nvcc: the host compiler is too new' >&2; exit 1")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("CXX", str(broken_compiler(tmp_path / "compiler")))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")


def test_importing_and_ref_compile_nothing(untried: Path) -> None:
    upfirdn2d(bias_act(torch.ones(1, 2, 4, 4), act="lrelu", impl="ref"), setup_filter([1, 2, 1]), impl="ref")
    assert build._failures == {}
    assert not untried.exists()
    code = "import sys, eg3d.ops; print('torch.utils.cpp_extension' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_ref_serves_every_device() -> None:
    assert {build.resolve("ref", torch.device(name)) for name in ("cpu", "cuda", "meta")} == {"ref"}
    assert build.resolve("auto", torch.device("meta")) == "ref"


def test_a_kernel_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="impl is 'cuda' but the tensor is on cpu"):
        bias_act(torch.ones(1, 2), impl="cuda")
    with pytest.raises(ValueError, match="impl is 'cpu' but the tensor is on meta"):
        upfirdn2d(torch.ones(1, 2, 3, 3, device="meta"), None, impl="cpu")


@needs_compiler
def test_named_impl_raises_with_the_message_of_the_compiler(untried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(broken_compiler(untried.parent / "compiler")))
    with pytest.raises(RuntimeError, match=r"impl='ref' needs none(.|\n)*error: this compiler is broken"):
        bias_act(torch.ones(1, 2), impl="cpu")
    assert not list(untried.rglob("finished"))
    with pytest.warns(RuntimeWarning, match=r"plain PyTorch operators on cpu(.|\n)*a C\+\+ compiler"):
        assert bias_act(torch.ones(1, 2), act="lrelu", impl="auto").shape == (1, 2)


def test_named_impl_raises_where_the_compiler_does_not_start(untried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(RuntimeError, match="/bin/false"):
        bias_act(torch.ones(1, 2), impl="cpu")


def test_what_failed_is_not_tried_again(untried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    monkeypatch.setattr(build, "_build", lambda backend: tries.append(backend) or "no compiler")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no compiler"):
            build.resolve("cpu", CPU)
    assert tries == ["cpu"]


@needs_compiler
def test_auto_falls_back_on_the_gpu_with_one_warning(untried: Path, broken_toolkit: None) -> None:
    with pytest.warns(RuntimeWarning, match="plain PyTorch operators on cuda") as caught:
        assert [build.resolve("auto", CUDA) for _ in range(3)] == ["ref"] * 3
    messages = [str(w.message) for w in caught if w.category is RuntimeWarning]
    assert len(messages) == 1
    assert "nvcc: the host compiler is too new" in messages[0]
    with pytest.raises(RuntimeError, match="nvcc: the host compiler is too new"):
        build.resolve("cuda", CUDA)


def test_auto_says_when_there_is_no_nvcc(untried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cuda_home", lambda: None)
    with pytest.warns(RuntimeWarning, match="nvcc was not found"):
        assert build.resolve("auto", CUDA) == "ref"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build.resolve("auto", CUDA) == "ref"


def test_an_unwritable_cache_is_reported(untried: Path) -> None:
    untried.write_text("a file where the folder should be")
    with pytest.raises(RuntimeError, match=re.escape(str(untried))):
        build.resolve("cpu", CPU)


def test_the_folder_depends_on_compiler_and_place(untried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build._folder("cpu")
    assert folder.parent == untried / "eg3d"
    assert build._folder("cpu") == folder
    monkeypatch.setenv("CXX", "another")
    assert build._folder("cpu") != folder
    monkeypatch.delenv("CXX")
    with monkeypatch.context() as other_machine:
        other_machine.setattr(build, "_instruction_set", lambda: "#define __AVX9__ 1")
        assert build._folder("cpu") != folder
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(untried / "elsewhere"))
    assert build._folder("cpu").parent == untried / "elsewhere"


def test_the_environment_is_left_as_it_was(untried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    before = dict(os.environ)
    assert build.failure("cpu")
    assert dict(os.environ) == before


def test_cuda_home_comes_from_the_nvcc_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through a wrapper in some other folder, whose parent is no toolkit."""
    toolkit = tmp_path / "toolkit"
    executable(toolkit / "bin" / "nvcc", f"echo '#$ TOP={toolkit}/bin/..' >&2")
    executable(tmp_path / "wrappers" / "bin" / "nvcc", f'exec {toolkit}/bin/nvcc "$@"')
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "wrappers" / "bin"), prepend=os.pathsep)
    assert build.cuda_home() == toolkit
    monkeypatch.setattr(torch.version, "cuda", None)
    assert build.cuda_home() is None


@needs_compiler
def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    """Both load the library; one of them compiled it, slowly enough for the other to meet it there."""
    source, calls = tmp_path / "sources" / "small.cpp", tmp_path / "calls"
    source.parent.mkdir()
    source.write_text("int small() { return 1; }\n")
    slow = executable(tmp_path / "slow", f'case "$*" in *small.cpp*) echo >> {calls}; sleep 3;; esac; exec c++ "$@"')
    code = (
        "import sys, pathlib; from eg3d.ops import build; "
        "build.SOURCES, build.FILES = pathlib.Path(sys.argv[1]), {'cpu': ('small.cpp',)}; "
        "print(repr(build.failure('cpu')))"
    )
    command = [sys.executable, "-c", code, str(source.parent)]
    env = os.environ | {"TORCH_EXTENSIONS_DIR": str(tmp_path / "cache"), "CXX": str(slow)}
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=300)[0].strip() for process in started] == ["''"] * 2
    assert calls.read_text() == "\n"
    assert len(list(tmp_path.rglob("finished"))) == len(list(tmp_path.rglob("*.so"))) == 1
