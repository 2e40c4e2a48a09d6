"""Where pretrained files live: a path from the config, then the cache, else an error that names the command to run.

The cache is `$GOAE_CACHE`, or `~/.cache/goae`. `scripts/fetch_weights.py` fills it; a file that has no public address
can also be put there by hand under the name given in `FILES`.
"""

import logging
import os
from collections.abc import Collection
from pathlib import Path

from eg3d.foreign import read_tensors
from torch import Tensor

log = logging.getLogger(__name__)

# name for fetch_weights.py -> file in the cache
FILES = {
    # perceptual and identity networks, landmark and mask models carried by the package index
    "alex": "alexnet_trunk.safetensors",
    "vgg": "vgg16_trunk.safetensors",
    "face_resnet": "face_resnet.safetensors",
    "face_landmarks": "face_landmark.tflite",
    "selfie_mask": "selfie_segmentation.tflite",
    # files with a public address
    "ffhqrebalanced512-128": "ffhqrebalanced512-128.pkl",
    "ffhqrebalanced512-64": "ffhqrebalanced512-64.pkl",
    "ffhq512-128": "ffhq512-128.pkl",
    "ffhq512-64": "ffhq512-64.pkl",
    "afhqcats512-128": "afhqcats512-128.pkl",
    "shapenetcars128-64": "shapenetcars128-64.pkl",
    "inception": "weights-inception-2015-12-05-6726825d.pth",
    "facenet": "20180402-114759-vggface2.pt",
    "swin": "swinv2_base_window12to16_192to256.safetensors",
    "segmenter": "deeplabv3_resnet50_coco-cd0a2569.pth",
    # files a user has to bring
    "arcface": "model_ir_se50.pth",
    "parser": "79999_iter.pth",
    "encoder_ffhq": "encoder_FFHQ.pt",
    "afa_ffhq": "afa_FFHQ.pt",
}
# name -> the keys that take its path: of training and the run's own metrics; of protocols and tables; of other scripts
KEYS = {
    "alex": "perception.lpips_path, metrics.lpips_path, lpips_path",
    "vgg": "perception.lpips_path, metrics.lpips_path, distribution.features_path, vgg_path",
    "face_resnet": "perception.identity_path, metrics.identity_independent_path, identity_path, face_resnet_path",
    "inception": "metrics.features_path, distribution.features_path",
    "facenet": "metrics.identity_independent_path, perception.identity_path, identity_path",
    "arcface": "perception.identity_path, metrics.identity_path, identity_path",
    "parser": "perception.background_path, rivals.parts_path, networks.background_path",
    "segmenter": "perception.background_path, rivals.parts_path, networks.background_path",
}


def cache() -> Path:
    """The folder of fetched files: $GOAE_CACHE, or ~/.cache/goae. It need not exist."""
    return Path(os.environ.get("GOAE_CACHE") or Path.home() / ".cache" / "goae").expanduser()


def find(path: str | Path) -> Path:
    """The file at `path`, `~` being the home folder; where it is missing, the published file of this name in the cache.

    Returns: a path of another name as it is, there or not.
    Raises: FileNotFoundError, for a published file that is in neither place, naming the command that gets it.
    """
    file = Path(path).expanduser()
    name = next((name for name, published in FILES.items() if published == file.name), None)
    if name is None or file.is_file():
        return file
    cached = cache() / file.name
    if not cached.is_file():
        raise FileNotFoundError(
            f"{file} does not exist, nor does {cached}. Run `python scripts/fetch_weights.py {name} --accept-licence` "
            f"once you accept its licence: it fetches the file or says where to get it."
        )
    log.info("%s does not exist; %s is read", file, cached)
    return cached


def locate(name: str, path: str | Path | None = None) -> Path:
    """The file of pretrained network `name`: `path` if one is configured, else the cache.

    Args:
        name: a key of `FILES`.
        path: the configured path; None or "" looks into the cache.
    Raises: ValueError for an unknown name; FileNotFoundError naming the command that gets the file.
    """
    if name not in FILES:
        raise ValueError(f"no pretrained file is called {name!r}; expected one of {', '.join(FILES)}")
    file = Path(path).expanduser() if path else cache() / FILES[name]
    if file.is_file():
        return file
    where = f"the configured path {file} does not exist" if path else f"{file} does not exist"
    key = f": {KEYS[name]}, as the script has them" if name in KEYS else ""
    raise FileNotFoundError(
        f"The weights {name!r} are missing: {where}. Run `python scripts/fetch_weights.py {name}`, which fetches them "
        f"or says where to get them; or put a copy at {cache() / FILES[name]}, where all scripts look, or set the key "
        f"of its path{key}."
    )


def remedy(path: str | Path, name: str = "") -> str:
    """Say in a sentence where a file of weights comes from that cannot be read; `name` is a key of `FILES`."""
    name = name or next((name for name, published in FILES.items() if published == Path(path).name), "")
    if not name:
        return "Copy or download it again."
    return f"Delete it and run `python scripts/fetch_weights.py {name}`, which fetches it or says where to get it."


def read_state(
    path: str | Path,
    name: str = "",
    *,
    nests: Collection[str] = ("state_dict",),
    wrappers: Collection[str] = ("module.",),
) -> dict[str, Tensor]:
    """Read the state dict of a .safetensors or of a torch file, on the CPU; nothing in it is executed.

    Args:
        name: key of `FILES`, for the remedy; may be left out for a file of the published name.
        nests: keys under which a file may hold the state.
        wrappers: prefixes that are dropped where all names have them.
    Raises: FileNotFoundError; ValueError naming the file if it is damaged, no file of weights, or holds no state dict.
    """
    content = read_tensors(path, remedy=remedy(path, name))
    state = content
    while isinstance(state, dict) and not _is_state(state):
        state = next((state[key] for key in nests if isinstance(state.get(key), dict)), None)
    if not isinstance(state, dict):
        raise ValueError(
            f"{path} holds no state dict but a {type(content).__name__}; expected a dict of tensors, bare or under one "
            f"of {', '.join(nests)}. {remedy(path, name)}"
        )
    while prefix := next((p for p in wrappers if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_state(content: dict) -> bool:
    return bool(content) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
