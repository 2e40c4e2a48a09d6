"""Check a GPU in at most 8 minutes: kernels, their tests, the paper's training steps, speed and memory.

python scripts/check_gpu.py                                    # everything, to docs/results/bench/gpu.json
python scripts/check_gpu.py sections=[build,tests] minutes=4   # a part of it
"""

import hydra
from hydra import compose
from omegaconf import DictConfig

from goae.benchmark.check import check_gpu
from goae.config import CheckGPUConfig, TrainConfig, register, to_object
from goae.errors import one_paragraph

register(CheckGPUConfig, TrainConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="check_gpu")
def main(composed: DictConfig) -> None:
    """Compose, also what is trained, and check."""
    with one_paragraph():
        config = to_object(composed, CheckGPUConfig)
        print(check_gpu(config, to_object(compose("train", overrides=config.full), TrainConfig)))


if __name__ == "__main__":
    main()
