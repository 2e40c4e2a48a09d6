"""Check a GPU in at most 8 minutes: kernels, their tests, the paper's training steps, speed and memory.

python scripts/check_gpu.py                                    # everything, to docs/results/bench/gpu.json
python scripts/check_gpu.py sections=[build,tests] minutes=4   # a part of it
"""

from hydra import compose

from goae.benchmark.check import check_gpu
from goae.config import CheckGPUConfig, TrainConfig, script, to_object


@script("check_gpu", CheckGPUConfig, TrainConfig)
def main(config: CheckGPUConfig) -> None:
    """Compose what is trained, and check."""
    print(check_gpu(config, to_object(compose("train", overrides=config.full), TrainConfig)))


if __name__ == "__main__":
    main()
