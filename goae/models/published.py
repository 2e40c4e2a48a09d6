"""Published encoder and feature-alignment weights <-> our modules: naming, strict loading, export.

Released files are plain state dicts, sometimes nested under a key or with every name behind a wrapper's prefix. Two
things differ from our naming: timm merges patches at the start of a stage where the released backbone does it at the
end, so the index of a stage's `downsample` is one higher here; and buffers that follow from the sizes are stored there
and computed here. Feature alignment keeps its attention blocks in `modulation`, since they depend on the variant.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from eg3d.integrity import save_object, save_tensors
from torch import Tensor, nn

from goae import weights
from goae.ir_se import Trunk
from goae.models.afa import AFA
from goae.models.encoder import Encoder
from goae.models.swin import SwinPyramid
from goae.states import shortened

log = logging.getLogger(__name__)

State = dict[str, Tensor]

DERIVED = ("relative_coords_table", "relative_position_index", "attn_mask")  # buffers that follow from the sizes
_NESTS = ("state_dict", "encoder", "afa")  # keys under which a file may hold the state
_WRAPPERS = ("module.", "encoder.", "afa.")  # prefixes that wrappers leave on every name
_DOWNSAMPLE = re.compile(r"^((?:swin_model\.)?layers\.)(\d+)(\.downsample\.)")


def read_state(path: str | Path) -> State:
    """Read the state dict of a released file. Arguments and errors: as `goae.weights.read_state`.

    Nesting under `state_dict`, `encoder` or `afa` and leading `module.`, `encoder.` or `afa.` are stripped.
    """
    return weights.read_state(path, nests=_NESTS, wrappers=_WRAPPERS)


def _shift_downsample(name: str, by: int) -> str:
    return _DOWNSAMPLE.sub(lambda found: f"{found[1]}{int(found[2]) + by}{found[3]}", name)


def encoder_from_official(state: State) -> State:
    """Released names -> names of `Encoder`; derived buffers are dropped."""
    kept = {name: tensor for name, tensor in state.items() if name.rsplit(".", 1)[-1] not in DERIVED}
    return {_shift_downsample(name, +1): tensor for name, tensor in kept.items()}


def encoder_to_official(encoder: Encoder) -> State:
    """State of the encoder under the released names, derived buffers included: 545 entries in the released sizes."""
    buffers = {name: tensor for name, tensor in encoder.named_buffers() if name.rsplit(".", 1)[-1] in DERIVED}
    state = {**encoder.state_dict(), **buffers}
    return {_shift_downsample(name, -1): tensor.detach() for name, tensor in state.items()}


def afa_from_official(state: State) -> State:
    """Released names -> names of `AFA(variant="official")`."""
    return {f"modulation.{name}" if name.startswith("cross_att_") else name: tensor for name, tensor in state.items()}


def afa_to_official(afa: AFA) -> State:
    """State under the released names: 174 entries in the released sizes. Raises: ValueError for another variant."""
    if afa.config.variant != "official":
        raise ValueError(f"only afa.variant=official has a released naming, this module is {afa.config.variant!r}")
    return {name.removeprefix("modulation."): tensor.detach() for name, tensor in afa.state_dict().items()}


def load_encoder(encoder: Encoder, path: str | Path, *, allow_unexpected: bool = False) -> None:
    """Load released encoder weights in place.

    Args:
        allow_unexpected: ignore, with a warning that lists them, names that the encoder does not have. The released cat
            encoder is reported to hold some; nothing may be missing in either case.
    Raises: ValueError with the first names that are missing, unexpected or of another shape; as `read_state`.
    """
    state = encoder_from_official(read_state(path))
    _load(encoder, state, path, allow_unexpected, back=lambda n: _shift_downsample(n, -1))


def load_afa(afa: AFA, path: str | Path, *, allow_unexpected: bool = False) -> None:
    """Load released feature-alignment weights in place; arguments and errors as for `load_encoder`."""
    if afa.config.variant != "official":
        raise ValueError(f"released weights need afa.variant=official, this module is {afa.config.variant!r}")
    state = afa_from_official(read_state(path))
    _load(afa, state, path, allow_unexpected, back=lambda n: n.removeprefix("modulation."))


def _load(
    module: nn.Module, state: State, path: str | Path, allow_unexpected: bool, back: Callable[[str], str]
) -> None:
    """Strict loading that reports in the file's own names."""
    own = module.state_dict()
    missing = sorted(back(n) for n in own.keys() - state.keys())
    unexpected = sorted(back(n) for n in state.keys() - own.keys())
    shapes = [
        f"{back(n)} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own.keys() & state.keys()
        if state[n].shape != own[n].shape
    ]
    problems = [("missing", missing), ("of another shape", sorted(shapes))]
    if not allow_unexpected:
        problems.append(("unexpected", unexpected))
    if any(names for _, names in problems):
        told = "; ".join(f"{what}: {shortened(names)}" for what, names in problems if names)
        hint = "" if allow_unexpected or not unexpected else " (allow_unexpected=True ignores the unexpected ones)"
        if Path(path).suffix == ".safetensors":
            hint += f". It was read as a released file, since {Path(path).with_suffix('.json').name} is not beside it"
        raise ValueError(f"{path} does not fit the {type(module).__name__}: {told}{hint}")
    if unexpected:
        log.warning("%s: ignored unexpected %s", path, ", ".join(unexpected))
    module.load_state_dict({n: state[n] for n in own}, strict=True)


def export_encoder(encoder: Encoder, path: str | Path) -> None:
    """Write the encoder under the released names: `.safetensors`, or else a file of `torch.save`."""
    _write(encoder_to_official(encoder), Path(path))


def export_afa(afa: AFA, path: str | Path) -> None:
    """Write feature alignment under the released names: `.safetensors`, or else a file of `torch.save`."""
    _write(afa_to_official(afa), Path(path))


def _write(state: State, path: Path) -> None:
    state = {name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        save_tensors(state, path)
    else:
        save_object(state, path)


def load_backbone(pyramid: SwinPyramid, path: str | Path) -> None:
    """Load ImageNet weights of the same Swin V2, in timm's or the original naming; the classifier is left out.

    Raises: ValueError listing what does not fit; as `read_state`.
    """
    state = {n: t for n, t in read_state(path).items() if not n.startswith("head.")}
    state = {n: t for n, t in state.items() if n.rsplit(".", 1)[-1] not in DERIVED}
    if any(n.startswith("layers.0.downsample.") for n in state):  # merges at the end of a stage
        state = {_shift_downsample(n, +1): t for n, t in state.items()}
    _load(pyramid, state, path, allow_unexpected=False, back=str)


def load_trunk(trunk: Trunk, path: str | Path) -> None:
    """Load ArcFace's IR-SE50 as the start of a trunk, as pSp and e4e do; its last layers are left out.

    Raises: ValueError listing what does not fit; as `read_state`.
    """
    state = {n: t for n, t in read_state(path).items() if not n.startswith("output_layer.")}
    _load(trunk, state, path, allow_unexpected=False, back=str)
