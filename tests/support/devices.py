"""A GPU's rules on a machine without one: where the host would wait for the device, and what the device would run.

`Waits` watches code on `device="meta"`, whose tensors have shapes and no values. It answers each read with a made-up
number and notes who asked, so that one run finds all of them. `imagined_cuda` gives tensors that are on `cuda` by name:
every branch that asks for the device takes the GPU's way, and operators refuse tensors of different devices.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch
from eg3d.ops import build
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from goae.training.phases import Draw

ROOT = Path(__file__).parents[2]
HOMES = (str(ROOT / "goae"), str(ROOT / "third_party"))
META = torch.device("meta")


class HostDraw(Draw):
    """Draws on the host alone: neither device has generators of its own."""

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        return super().generator(purpose)


class Waits(TorchDispatchMode):
    """Inside, `found` lists (file, function, what) of each time that the host has to wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.lists = _Lists(self._note)

    def __enter__(self) -> Self:
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.lists.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # there, operators that are made of others arrive in one piece
            with self, torch._C.DisableTorchFunction():
                if (whole := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return whole
        name, first = func.overloadpacket.__name__, args[0] if args else None
        if name == "_local_scalar_dense" and first.device == META:
            self._note("a number is read")
            return first.dtype.is_floating_point or first.dtype == torch.bool or 1
        if name == "nonzero" and first.device == META:
            self._note("positions are counted")
            return first.new_empty(1, first.ndim, dtype=torch.long)
        if name == "_linalg_check_errors" and first.device == META:
            self._note("an error of linear algebra is looked for")
            return None
        if name in ("index", "index_put", "index_put_") and self._counts(first, args[1]):
            return first.new_empty(1, *first.shape[args[1][0].ndim :]) if name == "index" else first
        if name in ("_to_copy", "copy_"):
            return self._copied(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _copied(self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        source = args[1] if name == "copy_" else args[0]
        target = args[0].device if name == "copy_" else kwargs.get("device") or source.device
        late = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if target != source.device and not late:
            self._note(f"a tensor is copied from {source.device} to {target}")
        if source.device == META and target.type == "cpu":
            made = torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return args[0].copy_(made) if name == "copy_" else made
        return func(*args, **kwargs)

    def _counts(self, x: Tensor, indices: Sequence[Tensor | None]) -> bool:
        """Check whether an index is a mask, whose entries have to be counted."""
        given = [i for i in indices if i is not None]
        if any(i.device != x.device for i in given):
            self._note(f"an index on {given[0].device} is copied to {x.device}")
        masked = x.device == META and any(i.dtype == torch.bool for i in given)
        if masked:
            self._note("a mask is counted")
        return masked

    def _note(self, what: str) -> None:
        frame = sys._getframe(1)
        while frame.f_back and not frame.f_code.co_filename.startswith(HOMES):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        self.found.append((inside, frame.f_code.co_name, what))


class _Lists(TorchFunctionMode):
    """Notes numbers of Python that are made a tensor of the device: they are copied from the host."""

    MAKERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = args[1 if func is Tensor.new_tensor else 0] if func in self.MAKERS else None
        if func in self.MAKERS and made.device == META and not isinstance(given, Tensor):
            self.note("numbers of a list are copied to the device")
        return made


@contextmanager
def imagined_cuda() -> Iterator[FakeTensorMode]:
    """Inside, tensors have a device, `cuda` among them, and no values; our operators take the GPU's backend."""
    operators = _operators()
    with (
        patch.object(build, "resolve", lambda impl, device, operator="": "cuda" if device.type == "cuda" else "ref"),
        patch.object(build, "kernel", lambda backend, name: getattr(operators, name)),
        patch.object(Tensor, "pin_memory", lambda x: x),  # it has no imagined form
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        yield mode


def imagine(module: nn.Module, mode: FakeTensorMode, device: str) -> nn.Module:
    """Put a module's tensors on an imagined device, in place."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    made = mode.from_tensor(tensor.detach()).to(device)
                    wrapped = nn.Parameter(made, tensor.requires_grad) if tensors is part._parameters else made
                    tensors[name] = wrapped
    return module


class Seen(TorchDispatchMode):
    """Notes what is run inside.

    `mixed`: operators that combine floating types; `convolutions`: type, and whether channels come last, of each
    input; `ours`: names of our operators.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []
        self.convolutions: list[tuple[torch.dtype, bool]] = []
        self.ours: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = func.overloadpacket.__name__
        given = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)]
        dtypes = {x.dtype for x in given if x.ndim and x.is_floating_point()}
        if func.namespace == "eg3d_imagined":
            self.ours.add(name)
        elif len(dtypes) > 1 and name != "copy_":
            self.mixed.append(f"{name} of {sorted(map(str, dtypes))}")
        if name == "convolution":
            self.convolutions.append((given[0].dtype, given[0].is_contiguous(memory_format=torch.channels_last)))
        return func(*args, **(kwargs or {}))


@cache
def _operators() -> Any:
    """Our CUDA operators by their schemas, with results of the right shape, and the checks of csrc/."""
    code = (build.SOURCES / "library.cpp").read_text()
    code = re.sub(r"#ifndef EG3D_CUDA.*?#endif", "", code, flags=re.S)
    library = torch.library.Library("eg3d_imagined", "FRAGMENT")
    for texts in re.findall(r'module\.def\((?:\s*//[^\n]*)?((?:\s*"[^"]*")+)', code):
        library.define("".join(re.findall(r'"([^"]*)"', texts)))
    for name, made in (("bias_act", _bias_act), ("upfirdn2d", _upfirdn2d), ("render", _render)):
        torch.library.register_fake(f"eg3d_imagined::{name}", made, lib=library)
    _operators.library = library  # type: ignore[attr-defined]  # which takes its operators with it when it goes
    return torch.ops.eg3d_imagined


def _check(x: Tensor | None, like: Tensor, dtype: torch.dtype) -> None:
    if x is not None and (x.dtype, x.device) != (dtype, like.device):
        raise RuntimeError(f"{x.dtype} on {x.device}, expected {dtype} on {like.device}")


def _bias_act(x: Tensor, b: Tensor | None, t: Tensor | None, *settings: Any) -> Tensor:
    for other in (b, t):
        _check(other, x, x.dtype)
    return torch.empty_like(x)


def _upfirdn2d(x: Tensor, f: Tensor, up: Any, down: Any, pad: Any, size: Any, flip: bool, gain: float) -> Tensor:
    _check(f, x, torch.float32)
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    made = x.new_empty(*x.shape[:2], size[1], size[0])
    return made.contiguous(memory_format=torch.channels_last) if last else made


def _render(planes: Tensor, origins: Tensor, directions: Tensor, coarse: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    numbers, with_features = (origins, directions, coarse, *rest[:5]), rest[8]
    for x in numbers:
        _check(x, planes, torch.float32)
        assert x.is_contiguous()
    rays, colors = coarse.shape[:2], rest[3].shape[0] - 1
    assert planes.shape[1] == 3 and planes.shape[-1] == 32 and colors <= 32
    return tuple(coarse.new_empty(*rays, n) for n in (colors if with_features else 0, 1, 1, 2))
