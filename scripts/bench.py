"""Measure speed and memory against the plain reference: `python scripts/bench.py parts=[renderer_forward]`."""

import hydra
from hydra import compose
from omegaconf import DictConfig

from goae.benchmark.parts import Worlds
from goae.benchmark.run import bench
from goae.config import BenchConfig, PriorConfig, TrainConfig, register, to_object
from goae.errors import one_paragraph

register(BenchConfig, PriorConfig, TrainConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="bench")
def main(composed: DictConfig) -> None:
    """Compose, also what is measured, and measure."""
    with one_paragraph():
        config = to_object(composed, BenchConfig)
        full, mini = (to_object(compose("train", overrides=o), TrainConfig) for o in (config.full, config.mini))
        prior = to_object(compose("train_prior", overrides=config.prior), PriorConfig)
        print(bench(config, Worlds(full, mini, prior, config.batch_size)))


if __name__ == "__main__":
    main()
