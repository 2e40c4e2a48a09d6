"""Writing pickles in the layout of EG3D's published files, and hostile ones, without the classes that they name.

Stand-ins say which name, call or object to write; nothing of the kind has to exist. Modules are written as the
released code writes them: persistent ones as a call with source text, some by the name of their class; tensors by
PyTorch itself.
"""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from torch import Tensor

SCALAR = {"old": "numpy.core.multiarray", "new": "numpy._core.multiarray"}


@dataclass(eq=False)
class Name:
    """A global."""

    module: str
    name: str


@dataclass(eq=False)
class Call:
    """`name(*arguments)`, then a state if there is one."""

    function: Any
    arguments: tuple
    state: Any = None


@dataclass(eq=False)
class New:
    """An object of a class, made without a call: its state, or its items if it is a dict."""

    kind: Name
    state: Any = None
    items: dict = field(default_factory=dict)


class Writer(pickle._Pickler):  # type: ignore[name-defined, misc]
    """A pickler that knows the stand-ins, and writes numpy's numbers under the old or the new name."""

    def __init__(self, file: io.BytesIO, protocol: int = 4, numpy_names: str = "new") -> None:
        super().__init__(file, protocol)
        self.numpy_names = numpy_names

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        known = self.memo.get(id(obj))
        if known is not None and isinstance(obj, Name | Call | New | np.generic):
            self.write(self.get(known[0]))
        elif isinstance(obj, Name):
            self._name(obj)
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self._finish(obj, pickle.REDUCE, obj.state)
        elif isinstance(obj, New):
            self.save(obj.kind)
            self.save(())
            self._finish(obj, pickle.NEWOBJ, obj.state)
            self._batch_setitems(obj.items.items())
        elif isinstance(obj, np.generic):
            dtype = Call(
                Name("numpy", "dtype"), (obj.dtype.str[1:], False, True), (3, "<", None, None, None, -1, -1, 0)
            )
            self.save(Call(Name(SCALAR[self.numpy_names], "scalar"), (dtype, obj.tobytes())))
        else:
            super().save(obj, save_persistent_id)

    def _name(self, obj: Name) -> None:
        if self.proto < 4:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)

    def _finish(self, obj: Any, code: bytes, state: Any) -> None:
        self.write(code)
        self.memoize(obj)
        if state is not None:
            self.save(state)
            self.write(pickle.BUILD)


def dumps(content: Any, protocol: int = 4, numpy_names: str = "new") -> bytes:
    """The pickle of a value with stand-ins."""
    file = io.BytesIO()
    Writer(file, protocol, numpy_names).dump(content)
    return file.getvalue()


def source(marker: Path | None) -> str:
    """Source text of a module, as a persistent object carries it, that creates the file `marker` if it is ever run."""
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n" if marker else "import torch\n"


def persistent(class_name: str, state: dict, module_src: str, **changes: Any) -> Call:
    """A module stored with the source of its class."""
    meta = {"type": "class", "version": 6, "module_src": module_src, "class_name": class_name, "state": state}
    return Call(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta | changes,))


def easy(**items: Any) -> New:
    """A dict of the released code's own kind."""
    return New(Name("dnnlib.util", "EasyDict"), items=items)


def module_state(ordered: bool = True, **attributes: Any) -> dict:
    """The `__dict__` of an empty torch module, plus attributes."""
    kind: Any = OrderedDict if ordered else dict
    hooks = (
        "_backward_hooks",
        "_forward_hooks",
        "_forward_pre_hooks",
        "_state_dict_hooks",
        "_load_state_dict_pre_hooks",
    )
    state: dict[str, Any] = {"training": False, "_non_persistent_buffers_set": set()}
    state |= {name: kind() for name in ("_parameters", "_buffers", "_modules")}
    state |= {name: OrderedDict() for name in hooks}
    return state | attributes


def module(tensors: dict[str, Tensor], buffers: set[str], make: Any, prefix: str = "", ordered: bool = True) -> Any:
    """A module and its children from a flat state dict.

    `make(prefix, state)` turns the `__dict__` of the module at `prefix` ("" or "backbone.") into what is written.
    """
    state = module_state(ordered)
    for name, tensor in tensors.items():
        if not name.startswith(prefix):
            continue
        head, dot, _ = name[len(prefix) :].partition(".")
        if dot:
            if head not in state["_modules"]:
                state["_modules"][head] = module(tensors, buffers, make, f"{prefix}{head}.", ordered)
        elif name in buffers:
            state["_buffers"][head] = tensor.clone()
        else:
            state["_parameters"][head] = torch.nn.Parameter(tensor.clone(), requires_grad=False)
    return make(prefix, state)


# A generator as the released code saves it ----------------------------------------------------------------------------

BY_NAME = {
    "decoder.": "training.triplane.OSGDecoder",
    "decoder.net.": "torch.nn.modules.container.Sequential",
    "decoder.net.1.": "torch.nn.modules.activation.Softplus",
    "renderer.": "training.volumetric_rendering.renderer.ImportanceRenderer",
    "renderer.ray_marcher.": "training.volumetric_rendering.ray_marcher.MipRayMarcher2",
    "ray_sampler.": "training.volumetric_rendering.ray_sampler.RaySampler",
}
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


def init_kwargs(config: GeneratorConfig) -> dict[str, Any]:
    """The constructor's arguments, rendering settings included, under the released names."""
    rendering = config.rendering
    render = easy(
        depth_resolution=rendering.depth_resolution,
        depth_resolution_importance=rendering.depth_resolution_importance,
        ray_start="auto" if rendering.ray_start is None else rendering.ray_start,
        ray_end="auto" if rendering.ray_end is None else rendering.ray_end,
        box_warp=rendering.box_warp,
        white_back=rendering.white_back,
        avg_camera_radius=config.avg_camera_radius,
        avg_camera_pivot=config.avg_camera_pivot,
        image_resolution=config.image_resolution,
        disparity_space_sampling=rendering.disparity_space_sampling,
        clamp_mode="softplus",
        superresolution_module=f"training.superresolution.SuperresolutionHybrid{config.superresolution}",
        c_gen_conditioning_zero=config.c_gen_conditioning_zero,
        c_scale=config.c_scale,
        superresolution_noise_mode=config.superresolution_noise_mode,
        density_reg=0.25,
        density_reg_p_dist=0.004,
        reg_type="l1",
        decoder_lr_mul=config.decoder_lr_mul,
        sr_antialias=config.sr_antialias,
    )
    return {
        "z_dim": config.z_dim,
        "c_dim": config.c_dim,
        "w_dim": config.w_dim,
        "img_resolution": config.image_resolution,
        "img_channels": 3,
        "mapping_kwargs": easy(num_layers=config.mapping_layers),
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "fused_modconv_default": "inference_only",
        "num_fp16_res": 0,
        "conv_clamp": None,
        "sr_num_fp16_res": config.sr_num_fp16_res,
        "sr_kwargs": easy(channel_base=config.channel_base, channel_max=config.channel_max),
        "rendering_kwargs": render,
    }


def axes_matrices(plane_axes: str) -> Tensor:
    """The matrices whose inverses' first two columns are the named axes."""
    rows = []
    for pair in plane_axes.split(","):
        (last,) = set("xyz") - set(pair)
        rows.append([AXES[pair[0]], AXES[pair[1]], AXES[last]])
    return torch.linalg.inv(torch.tensor(rows).transpose(1, 2)).contiguous()


def published(
    generator: TriPlaneGenerator,
    *,
    marker: Path | None = None,
    ordered: bool = True,
    kwargs: dict[str, Any] | None = None,
    extra: dict[str, Tensor] | None = None,
    plane_axes: Tensor | str | None = "config",
    **attributes: Any,
) -> Any:
    """The generator as one of the networks in a published file.

    Args:
        marker: a file that the source texts inside would create.
        ordered: write the modules' dicts as OrderedDict, as older versions of PyTorch do.
        kwargs: changes of the constructor's arguments.
        extra: tensors beside those of the generator.
        plane_axes: of the renderer; "config" for those of the generator, None to leave them out.
        attributes: of the generator.
    """
    config, text = generator.config, source(marker)
    axes = axes_matrices(config.rendering.plane_axes) if isinstance(plane_axes, str) else plane_axes
    arguments = init_kwargs(config) | (kwargs or {})
    own = {
        "": ("TriPlaneGenerator", {"_init_args": (), "_init_kwargs": arguments, "_last_planes": None}),
        "superresolution.": (f"SuperresolutionHybrid{config.superresolution}", {"sr_antialias": config.sr_antialias}),
        "renderer.": ("", {} if axes is None else {"plane_axes": axes}),
        "decoder.": ("", {"hidden_dim": 64}),
    }
    root = {
        "rendering_kwargs": arguments["rendering_kwargs"],
        "neural_rendering_resolution": config.neural_rendering_resolution,
    } | attributes

    def make(prefix: str, state: dict) -> Any:
        name, values = own.get(prefix, ("FullyConnectedLayer", {"weight_gain": np.float64(0.5), "activation": "lrelu"}))
        state |= values
        if prefix == "":
            state |= root
            empty = {p: write(p, module_state(ordered)) for p in ("renderer.ray_marcher.", "ray_sampler.")}
            render = write(
                "renderer.",
                module_state(ordered, _modules={"ray_marcher": empty["renderer.ray_marcher."]}) | own["renderer."][1],
            )
            state["_modules"] |= {"renderer": render, "ray_sampler": empty["ray_sampler."]}
        if prefix == "decoder.net.":
            first, last = state["_modules"]["0"], state["_modules"]["2"]
            state["_modules"] = {"0": first, "1": write("decoder.net.1.", module_state(ordered)), "2": last}
        return write(prefix, state, name)

    def write(prefix: str, state: dict, name: str = "") -> Any:
        if prefix not in BY_NAME:
            return persistent(name, state, text)
        return New(Name(*BY_NAME[prefix].rsplit(".", 1)), state)

    buffers = {name for name, _ in generator.named_buffers()} | set(extra or {})
    return module(generator.state_dict() | (extra or {}), buffers, make, ordered=ordered)


def snapshot(generator: TriPlaneGenerator, **options: Any) -> dict[str, Any]:
    """The content of a published file whose G_ema is this generator; options as for `published`."""
    training_set = easy(class_name="training.dataset.ImageFolderDataset", path="x.zip", resolution=512, random_seed=0)
    discriminator = persistent("DualDiscriminator", module_state(c_dim=25), source(options.get("marker")))
    return {
        "training_set_kwargs": training_set,
        "G": published(generator, **options),
        "D": discriminator,
        "G_ema": published(generator, **options),
        "augment_pipe": None,
    }
