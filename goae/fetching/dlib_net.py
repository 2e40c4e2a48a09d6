"""Reading the layers of a network file of dlib (`.dat`): no code is in it, only numbers.

The file is the network's layers from the input on. Each computing layer starts with its version string ("con_4",
"affine_", "fc_2"), written as a length and the bytes; whole numbers are a byte (sign in bit 7, number of bytes in the
low bits) and little-endian magnitude. A tensor is its version (2), four sizes, and little-endian float32.
"""

import math
import re

import numpy as np

_LAYER = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")
MAX_ELEMENTS = 1 << 26


def _whole(data: bytes, at: int) -> tuple[int, int]:
    """One packed whole number at byte `at`. Returns: it, and the position behind it."""
    size = data[at] & 0x0F
    if size > 8 or at + 1 + size > len(data):
        raise ValueError(f"byte {at} does not start a whole number")
    value = int.from_bytes(data[at + 1 : at + 1 + size], "little")
    return (-value if data[at] & 0x80 else value), at + 1 + size


def _tensor(data: bytes, at: int) -> tuple[np.ndarray, int]:
    version, at = _whole(data, at)
    sizes = []
    for _ in range(4):
        size, at = _whole(data, at)
        sizes.append(size)
    count = math.prod(sizes)
    if version != 2 or min(sizes) < 0 or count > MAX_ELEMENTS or at + 4 * count > len(data):
        raise ValueError(f"no tensor before byte {at}: version {version}, sizes {sizes}")
    return np.frombuffer(data, "<f4", count, at).copy(), at + 4 * count


def layers(data: bytes) -> list[tuple[str, np.ndarray]]:
    """(kind, parameters) of every computing layer from the input on; kind is con, affine or fc.

    Raises: ValueError if the file is not such a network.
    """
    found: list[tuple[str, np.ndarray]] = []
    at = 0
    while match := _LAYER.search(data, at):
        kind, at = match.group()[2:].decode().rstrip("_0123456789"), match.end()
        try:
            if kind == "fc":
                for _ in range(2):  # numbers of outputs and inputs
                    _, at = _whole(data, at)
            parameters, at = _tensor(data, at)
        except IndexError as error:
            raise ValueError(f"the file ends inside layer {len(found)}") from error
        found.append((kind, parameters))
    if not found:
        raise ValueError("no layers were found; expected a network file of dlib")
    return found


def face_resnet(data: bytes) -> dict[str, np.ndarray]:
    """The state of `goae.extractors.face_resnet.FaceResNet`: a 7x7 stem, 14 blocks of two 3x3 convolutions, 256 -> 128.

    Raises: ValueError if the layers are not those of the face-recognition network.
    """
    rows = layers(data)
    kinds = [kind for kind, _ in rows]
    if kinds != ["con", "affine"] * 29 + ["fc"]:
        raise ValueError(
            f"not the face-recognition network: it has {len(rows)} layers, {kinds.count('con')} convolutions"
        )
    names = ["stem"] + [f"blocks.{b}.unit{u}" for b in range(14) for u in (1, 2)]
    state: dict[str, np.ndarray] = {}
    channels = 3
    for i, name in enumerate(names):
        taps = 49 if i == 0 else 9
        conv, affine = rows[2 * i][1], rows[2 * i + 1][1]
        width = affine.size // 2  # scales, then shifts
        if conv.size != width * (channels * taps + 1):
            raise ValueError(f"not the face-recognition network: convolution {i} has {conv.size} numbers")
        side = math.isqrt(taps)
        state[f"{name}.conv.weight"] = conv[:-width].reshape(width, channels, side, side)
        state[f"{name}.conv.bias"] = conv[-width:]
        state[f"{name}.scale"], state[f"{name}.shift"] = affine[:width], affine[width:]
        channels = width
    state["embedding.weight"] = rows[-1][1].reshape(channels, -1).T
    return state
