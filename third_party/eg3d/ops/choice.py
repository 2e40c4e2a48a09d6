"""What a caller leaves open: the implementation of the operators, and how the renderer works.

An `impl` of "auto" means, in this order: the implementation of the `using` block in which a module is constructed, the
environment variable EG3D_IMPL, what `choose` was given for the process, and else what the tensors' device offers. A
caller that names an implementation gets that one. A renderer's mode of "auto" is what `choose` was given, else "fused".
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

IMPLS = ("auto", "ref", "cpu", "cuda")
RENDERERS = ("auto", "fused", "plain", "half")  # see `eg3d.rendering.renderer.Renderer`
VARIABLE = "EG3D_IMPL"

_process = {"impl": "auto", "renderer": "auto"}  # seen by all threads, also by those of the backward pass
_block: ContextVar[str] = ContextVar("impl", default="auto")


def chosen(impl: str = "auto") -> str:
    """Return the implementation that `impl` stands for; "auto" if nobody has chosen one.

    Raises: ValueError if there is no implementation of this name.
    """
    if impl != "auto":
        return checked(impl)
    if _block.get() != "auto":
        return _block.get()
    return configured(_process["impl"])


def configured(impl: str) -> str:
    """Return what a configuration key means, over which the environment variable goes. Raises: as `chosen`."""
    given = os.environ.get(VARIABLE)
    return checked(given, f"the environment variable {VARIABLE}") if given else checked(impl)


def chosen_renderer(mode: str = "auto") -> str:
    """Return the renderer's mode that `mode` stands for, never "auto". Raises: ValueError if there is none so named."""
    if checked(mode, "renderer", RENDERERS) == "auto":
        mode = _process["renderer"]
    return "fused" if mode == "auto" else mode


def choose(impl: str, renderer: str = "auto") -> None:
    """Take these in the whole process wherever "auto" is asked for. Raises: ValueError for another name."""
    _process.update(impl=checked(impl), renderer=checked(renderer, "renderer", RENDERERS))


@contextmanager
def using(impl: str) -> Iterator[None]:
    """Give the modules that are constructed within this implementation; "auto" changes nothing."""
    token = _block.set(_block.get() if impl == "auto" else checked(impl))
    try:
        yield
    finally:
        _block.reset(token)


def checked(name: str, source: str = "impl", known: tuple[str, ...] = IMPLS) -> str:
    """Return `name` if it is known. Raises: ValueError that names `source` otherwise."""
    if name not in known:
        raise ValueError(f"{source} is {name!r}, expected one of {', '.join(known)}")
    return name
