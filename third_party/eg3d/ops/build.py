"""Choice of an implementation of the operators."""

import torch

IMPLS = ("auto", "ref", "cpu", "cuda")


def resolve(impl: str, device: torch.device) -> str:
    """The implementation that serves `impl` on tensors of `device`: "ref", "cpu" or "cuda".

    Raises: ValueError if `impl` has no such name or is made for another device; RuntimeError if it cannot be built.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl is {impl!r}, expected one of {', '.join(IMPLS)}")
    if impl in ("cpu", "cuda"):
        raise RuntimeError(f"impl={impl!r} is not built; use impl='ref'")
    return "ref"
