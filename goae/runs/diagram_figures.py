"""The figures that show structure, Fig. 2, 4, 5 and 11: shapes are those of a pass through the networks in hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from eg3d.cameras import canonical_label
from torch import Tensor, nn

from goae import build
from goae.config import FiguresConfig
from goae.inversion import Inverter
from goae.loading import read_generator
from goae.models.goae import GOAE
from goae.runs.inversion_figures import available, chosen, write
from goae.runs.setup import device_of, open_run, run_inverter
from goae.viz.diagram import Box, block_diagram, listings

TREE_DEPTH = 2


def generator_diagram(config: FiguresConfig) -> Path:
    """Fig. 2: from z and p to planes, image and depth."""
    device = device_of(config)
    generator = read_generator(config.generator_path).to(device)
    z, c = torch.zeros(1, generator.config.z_dim), canonical_label()
    with torch.inference_mode():
        ws = generator.mapping(z.to(generator.w_avg), c.to(generator.w_avg))
        features = generator.features(ws, generator.config.plane_resolution // 4)
        planes = generator.planes(features, ws)
        view = generator.render(planes, c.to(planes))
        image = generator.superresolve(view.image_raw, view.feature_image, ws)
    boxes = {
        "z": Box(0, 0, f"z, p\n{size(z)}, {size(c)}"),
        "w": Box(1, 0, f"mapping → w\n{size(ws)}"),
        "F": Box(2, 0, f"layers → F\n{size(features.x)}"),
        "T": Box(3, 0, f"F_xy, F_xz, F_yz\n{size(planes)}"),
        "R": Box(4, 0, f"R_dec\n{size(view.feature_image)}"),
        "I": Box(5, 0, f"image\n{size(image)}"),
        "D": Box(5, 1, f"depth\n{size(view.image_depth)}"),
    }
    arrows = [("z", "w"), ("w", "F"), ("F", "T"), ("T", "R"), ("R", "I"), ("R", "D")]
    return write(config, block_diagram(boxes, arrows, caption="Fig. 2: EG3D; sizes without the batch."))


def overview_diagram(config: FiguresConfig) -> Path:
    """Fig. 4: encoder, feature alignment and occlusion-aware mix."""
    inverter = run_inverter(open_run(config, config.ours))
    out, image = example(inverter)
    residual = "I_w+ − I" if inverter.goae.afa.config.subtracts_image else "I − I_w+"
    boxes = {
        "I": Box(0, 1, f"I\n{size(image)}"),
        "E": Box(1, 0, f"E → w+\n{size(out.ws)}"),
        "Tw": Box(2.5, 0, f"G → T_w+\n{size(out.planes_w)}"),
        "Iw": Box(4, 0, f"I_w+\n{size(out.image_w)}"),
        "dI": Box(1, 2, f"ΔI = {residual}"),
        "F": Box(1.75, 1, "F"),
        "A": Box(2.5, 2, f"AFA → F*\n{size(out.features.x)}"),
        "Tf": Box(4, 2, f"G → T_F*\n{size(out.planes_f)}"),
        "M": Box(4, 1, f"mask: V seen, O occluded\n{size(out.visibility)}"),
        "T": Box(5.4, 1, f"T_mix\n{size(out.planes_mix)}"),
        "If": Box(6.6, 1, f"I_F*\n{size(out.view.image)}"),
    }
    arrows = [("I", "E"), ("E", "Tw"), ("Tw", "Iw"), ("I", "dI"), ("E", "F"), ("dI", "A"), ("F", "A"), ("A", "Tf")]
    arrows += [("Tf", "M"), ("Tf", "T"), ("Tw", "T"), ("M", "T"), ("T", "If")]
    caption = "Fig. 4: ΔI is the difference to I_w+, above; sizes without the batch."
    return write(config, block_diagram(boxes, arrows, caption=caption))


def alignment_diagram(config: FiguresConfig) -> Path:
    """Fig. 5: adaptive feature alignment."""
    inverter = run_inverter(open_run(config, config.ours))
    afa, (out, image) = inverter.goae.afa, example(inverter)
    if afa.config.variant != "paper":
        raise ValueError(f"Fig. 5 shows afa.variant=paper, but ours={config.ours} has {afa.config.variant}")
    with torch.inference_mode():
        found = afa.output_layer(afa.body(afa.input_layer(image - out.image_w)))
    star, side = size(out.features.x), found.shape[-1]
    boxes = {
        "dI": Box(0, 1, f"ΔI\n{size(image)}"),
        "CNN": Box(1, 1, f"CNN → F_ΔI\n{size(found)}"),
        "KV": Box(2.2, 1, f"K, V\n{side * side} tokens"),
        "F": Box(1, 0, f"F\n{star}"),
        "Q": Box(2.2, 0.5, f"Q\n{out.features.x.shape[-1] ** 2} tokens"),
        "A": Box(3.4, 1, f"cross-attention, {afa.config.attention_heads} heads\n→ F_align {star}"),
        "g": Box(4.9, 1, f"convolutions → γ, β\n{star}"),
        "S": Box(6.1, 0, f"F* = γ ⊙ F + β\n{star}"),
    }
    arrows = [("dI", "CNN"), ("CNN", "KV"), ("KV", "A"), ("F", "Q"), ("Q", "A"), ("A", "g"), ("g", "S"), ("F", "S")]
    return write(config, block_diagram(boxes, arrows, caption="Fig. 5: feature alignment; sizes without the batch."))


def encoder_trees(config: FiguresConfig) -> Path:
    """Fig. 11: the encoders' modules with their numbers of parameters."""
    wanted = {k: v for k, v in config.compared.items() if v not in build.BASELINES and chosen(12, k, v)}
    methods, missing = available(config, wanted)
    trees = {label: tree(method.goae.encoder) for label, method in methods.items()}  # type: ignore[attr-defined]
    caption = "Fig. 11: modules of the encoders that have parameters, with their thousands."
    if missing:
        caption += f" Not shown, for want of weights: {', '.join(missing)}"
    return write(config, listings(trees, caption=caption))


def tree(module: nn.Module, depth: int = TREE_DEPTH) -> list[str]:
    """A line for each sub-module down to `depth`: name, class, thousands of parameters."""

    def lines(name: str, part: nn.Module, level: int) -> list[str]:
        count = sum(p.numel() for p in part.parameters()) / 1000
        line = f"{'  ' * level}{name}: {type(part).__name__} {count:,.2f}"
        below = [(n, sub) for n, sub in part.named_children() if level < depth and any(True for _ in sub.parameters())]
        return [line, *(text for child, sub in below for text in lines(child, sub, level + 1))]

    return lines("encoder", module, 0)


@torch.inference_mode()
def example(inverter: Inverter) -> tuple[Any, Tensor]:
    """What the full method gives for a grey image from the front, and that image."""
    goae: GOAE = inverter.goae
    side = goae.generator.config.image_resolution
    image = torch.zeros(1, 3, side, side, device=inverter.device)
    return goae(image, canonical_label(goae.generator.config.avg_camera_radius).to(inverter.device)), image


def size(tensor: Tensor) -> str:
    """The shape without the batch, as 3 x 64 x 64."""
    return " x ".join(str(n) for n in tensor.shape[1:])


DIAGRAM_FIGURES: dict[int, Callable[[FiguresConfig], Path]] = {
    2: generator_diagram,
    4: overview_diagram,
    5: alignment_diagram,
    11: encoder_trees,
}
