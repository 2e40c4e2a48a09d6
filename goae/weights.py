"""Where pretrained files live: a path from the config, then the cache, else an error that names the command to run.

The cache is `$GOAE_CACHE`, or `~/.cache/goae`. `scripts/fetch_weights.py` fills it; a file that has no public address
can also be put there by hand under the name given in `FILES`.
"""

import logging
import os
from pathlib import Path

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
