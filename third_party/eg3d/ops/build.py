"""Choice of an implementation of the operators, and the compilation of their kernels.

Every operator takes `impl`:

- "ref": the plain PyTorch definition, on any device; differentiable any number of times.
- "cpu", "cuda": our own kernels from `csrc`, on tensors of that device; compiled when first used, never at import;
  differentiable twice. If they do not compile, the compiler's message is raised.
- "auto": what `eg3d.ops.choice` was told for the process, if anything; else the kernels of the tensors' device, or
  "ref" with one warning if they do not compile or differ from it at their first use (`eg3d.ops.first_use`); "ref" on
  other devices.

Compiled libraries are kept in $TORCH_EXTENSIONS_DIR, else in eg3d/ of the user's cache ($XDG_CACHE_HOME, ~/.cache), in
one folder for each version of PyTorch, of the sources, of the flags and, since CPU kernels use all that the CPU can
do, of its instruction set; processes that need the same one wait.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from eg3d.ops import first_use
from eg3d.ops.choice import chosen

SOURCES = Path(__file__).parent / "csrc"
FILES = {
    "cpu": (
        "library.cpp",
        "bias_act_cpu.cpp",
        "upfirdn2d_cpu.cpp",
        "render.cpp",
        "render_cpu.cpp",
        "render_backward_cpu.cpp",
        "layout_cpu.cpp",
        "layer.cpp",
        "render_lanes_cpu.cpp",
        "conv3x3_cpu.cpp",
        "conv3x3_weights_cpu.cpp",
        "layer_cpu.cpp",
    ),
    "cuda": ("library.cpp", "bias_act_cuda.cu", "upfirdn2d_cuda.cu", "render.cpp", "render_cuda.cu"),
}
CXX_FLAGS = {
    "cpu": [
        "-DEG3D_NAME=eg3d_cpu",
        "-O3",
        "-march=native",
        "-fopenmp",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wno-psabi",
    ],
    "cuda": ["-DEG3D_NAME=eg3d_cuda", "-O2", "-DEG3D_CUDA"],
}
LINK_FLAGS = {"cpu": ["-fopenmp"], "cuda": []}
NVCC_FLAGS = ["-O3"]

_lock = threading.Lock()
_failures: dict[str, str] = {}  # backend -> why it cannot be used, "" if it is loaded; what this process has tried
_libraries: dict[str, Path] = {}  # backend -> what was loaded


def resolve(impl: str, device: torch.device, operator: str = "") -> str:
    """The implementation that serves `impl` on tensors of `device`: "ref", "cpu" or "cuda", ready to be called.

    Args:
        operator: what is to be called, a name in `first_use.CASES`, which is compared with its definition if it was
            not yet on this device; empty: not compared.
    Raises: ValueError if `impl` has no such name, or is made for another device; RuntimeError if it was asked for by
        name and cannot be built (with the compiler's message) or computes something else.
    """
    impl = chosen(impl)
    if impl == "ref" or (impl == "auto" and device.type not in FILES):
        return "ref"
    if impl not in ("auto", device.type):
        raise ValueError(f"impl is {impl!r} but the tensor is on {device}; use impl='auto' or 'ref'")
    backend = device.type
    if message := failure(backend):
        if impl != "auto":
            raise RuntimeError(f"The kernels of impl={impl!r} cannot be built (impl='ref' needs none):\n{message}")
        _warn_once(backend, message)
        return "ref"
    if message := _refusal(backend, device, operator):
        if impl != "auto":
            raise RuntimeError(f"{message} It was asked for by impl={impl!r}; give impl='auto' or 'ref' to go on.")
        _warn_of_refusal(message)
        return "ref"
    return backend


def describe(impl: str, device: torch.device) -> str:
    """Say in words what serves `impl` on a device, after all its operators were compared. Raises: as `resolve`."""
    names = [name for name in first_use.CASES if backend_has(device.type, name)]
    plain = [name for name in names if resolve(impl, device, name) == "ref"]
    if len(plain) == len(names):
        return "plain PyTorch"
    return f"{device.type} kernels" + (f", but plain PyTorch for {', '.join(plain)}" if plain else "")


def backend_has(backend: str, operator: str) -> bool:
    """Check whether a backend has a kernel of an operator's own."""
    return backend == "cpu" or (backend == "cuda" and operator in ("bias_act", "upfirdn2d", "render"))


def _refusal(backend: str, device: torch.device, operator: str) -> str:
    """Why the kernel of an operator must not be used, and what to do about it; "" if it may."""
    library = _libraries.get(backend)
    if library is None or not operator or not backend_has(backend, operator):
        return ""
    reason = first_use.refusal(operator, device, library)
    if not reason:
        return ""
    report = "Please report it with what `python scripts/check_gpu.py` writes. " if backend == "cuda" else ""
    return (
        f"The {backend} kernel of {operator} does not compute what its plain PyTorch definition does: {reason}. "
        f"{report}Delete {library.with_name(first_use.FILE)} to compare it again."
    )


@functools.cache
def _warn_of_refusal(message: str) -> None:
    warnings.warn(f"eg3d runs an operator in plain PyTorch, which is slower. {message}", RuntimeWarning, stacklevel=2)


def kernel(backend: str, name: str) -> Callable[..., Any]:
    """The function `name` of a backend that `resolve` has returned."""
    return getattr(getattr(torch.ops, f"eg3d_{backend}"), name)


def failure(backend: str) -> str:
    """Build and load a backend, unless done before; the reason if that fails, "" if it succeeds."""
    if backend not in _failures:
        with _lock:
            if backend not in _failures:
                _failures[backend] = _build(backend)
    return _failures[backend]


@functools.cache
def _warn_once(backend: str, message: str) -> None:
    needed = {"cpu": "a C++ compiler", "cuda": f"a CUDA {torch.version.cuda} toolkit with nvcc"}[backend]
    warnings.warn(
        f"eg3d runs its plain PyTorch operators on {backend}, which are slower, since its kernels cannot be built. "
        f"Install {needed}, or silence this with impl='ref'. {message}",
        RuntimeWarning,
        stacklevel=2,
    )


def _build(backend: str) -> str:
    from filelock import FileLock  # comes with torch

    home = cuda_home() if backend == "cuda" else None
    if backend == "cuda" and home is None:
        return "nvcc was not found on PATH, in $CUDA_HOME or in /usr/local/cuda"
    try:
        folder = _folder(backend)
        folder.mkdir(parents=True, exist_ok=True)
        library, finished = folder / f"{folder.name}.so", folder / "finished"
        with FileLock(folder / "building"):
            if finished.exists():
                torch.ops.load_library(str(library))
            else:
                (folder / "lock").unlink(missing_ok=True)  # left by a killed process, it would block older PyTorch
                _compile(backend, folder, home)
                finished.touch()
        _libraries[backend] = library
    except subprocess.CalledProcessError as error:
        return f"{error}\n{(error.output or b'').decode(errors='replace')}"
    except (RuntimeError, OSError) as error:
        return str(error)
    return ""


def _compile(backend: str, folder: Path, home: Path | None) -> None:
    with _environment():
        from torch.utils import cpp_extension

        found = cpp_extension.CUDA_HOME
        try:
            if home is not None:  # PyTorch takes the folder above nvcc for it, which a wrapper script misleads
                cpp_extension.CUDA_HOME = str(home)
            cpp_extension.load(
                folder.name,  # PyTorch would rename what a process builds twice under one name
                [str(SOURCES / file) for file in FILES[backend]],
                extra_cflags=CXX_FLAGS[backend],
                extra_cuda_cflags=NVCC_FLAGS,
                extra_ldflags=LINK_FLAGS[backend],
                build_directory=str(folder),
                with_cuda=backend == "cuda",
                is_python_module=False,
            )
        finally:
            cpp_extension.CUDA_HOME = found


@contextmanager
def _environment() -> Iterator[None]:
    """The ninja of the Python package on PATH, also where the virtual environment is not activated."""
    import ninja

    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([path, ninja.BIN_DIR])
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _folder(backend: str) -> Path:
    """Where a backend is built: named by everything its binary depends on."""
    parts: list[Any] = [torch.__version__, platform.machine(), platform.python_version()]
    parts += [FILES[backend], CXX_FLAGS[backend], LINK_FLAGS[backend], NVCC_FLAGS, os.environ.get("CXX", "")]
    if backend == "cpu":
        parts.append(_instruction_set())
    if backend == "cuda":
        cards = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        parts += [torch.version.cuda, os.environ.get("TORCH_CUDA_ARCH_LIST", ""), sorted(cards)]
    digest = hashlib.sha256(repr(parts).encode())
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eg3d"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cache) / f"eg3d_{backend}_{digest.hexdigest()[:16]}"


def _instruction_set() -> str:
    """What the compiler makes of "-march=native" here: a home folder may be shared by machines of several kinds.

    Empty where there is no compiler, which the build itself will report.
    """
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = [*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def cuda_home() -> Path | None:
    """The CUDA toolkit: $CUDA_HOME, $CUDA_PATH, the one nvcc on PATH says it belongs to, or /usr/local/cuda."""
    if torch.version.cuda is None:
        return None
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), _home_of_nvcc(), "/usr/local/cuda"]
    return next((Path(c) for c in candidates if c and (Path(c) / "bin" / "nvcc").exists()), None)


def _home_of_nvcc() -> str | None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    shown = subprocess.run([nvcc, "--dryrun", "-c", "none.cu"], capture_output=True, text=True, check=False).stderr
    tops = [line.split("=", 1)[1] for line in shown.splitlines() if line.startswith("#$ TOP=")]
    return str(Path(tops[0]).resolve()) if tops else None


def compile_cuda_objects(folder: Path, capabilities: tuple[int, ...] = (80, 90)) -> list[Path]:
    """Compile every CUDA source, and what calls it, to objects in `folder`; needs a toolkit but no GPU.

    Raises: FileNotFoundError without a toolkit; RuntimeError with the compiler's message.
    """
    from torch.utils.cpp_extension import include_paths

    home = cuda_home()
    if home is None:
        raise FileNotFoundError("nvcc was not found on PATH, in $CUDA_HOME or in /usr/local/cuda")
    common = ["-std=c++20", "-c", f"-I{home / 'include'}"]
    common += [f"-I{path}" for path in include_paths()]
    targets = [flag for sm in capabilities for flag in ("-gencode", f"arch=compute_{sm},code=sm_{sm}")]
    compilers = {
        ".cu": [str(home / "bin" / "nvcc"), *NVCC_FLAGS, "-Xcompiler", "-fPIC", *targets],
        ".cpp": [*shlex.split(os.environ.get("CXX", "c++")), *CXX_FLAGS["cuda"], "-fPIC"],
    }
    commands = {
        folder / f"{file}.o": [*compilers[Path(file).suffix], *common, str(SOURCES / file)] for file in FILES["cuda"]
    }
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda output: _run([*commands[output], "-o", str(output)]), commands))
    return list(commands)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
