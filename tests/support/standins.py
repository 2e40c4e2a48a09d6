"""Stand-ins for what is downloaded: data sets after EG3D's preprocessing, and networks with random weights."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from eg3d.cameras import intrinsics_from_focal, join_label, pose_from_angles
from PIL import Image
from torch import Tensor, nn


def write_crops(folder: Path, names: Sequence[str], *, side: int, unposed: Sequence[str] = ()) -> Path:
    """Smooth random pictures with cameras around the head; those of `unposed` have no label."""
    rng = torch.Generator().manual_seed(3)
    labels = []
    for i, name in enumerate(names):
        coarse = torch.tanh(torch.randn(1, 3, 5, 5, generator=rng))
        image = nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0].clamp(-1, 1)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(folder / name)
        c = join_label(pose_from_angles(0.3 * (i % 4) - 0.4, 0.1), intrinsics_from_focal())
        if name not in unposed:
            labels.append([name, c.flatten().tolist()])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def random_inception() -> dict[str, Tensor]:
    """Tensors of the shapes of FID's published Inception."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    torch.manual_seed(0)
    made: dict[str, Tensor] = {}
    original, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *args, **kwargs: made
    load = module.FeatureExtractorInceptionV3.load_state_dict
    module.FeatureExtractorInceptionV3.load_state_dict = lambda self, content: None
    try:
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    finally:
        module.load_state_dict_from_url = original
        module.FeatureExtractorInceptionV3.load_state_dict = load
    made.update(network.state_dict())
    return made
