"""Measure speed and memory against the plain reference: `python scripts/bench.py parts=[renderer_forward]`."""

from hydra import compose

from goae.benchmark.parts import Worlds
from goae.benchmark.run import bench
from goae.config import BenchConfig, PriorConfig, TrainConfig, script, to_object


@script("bench", BenchConfig, PriorConfig, TrainConfig)
def main(config: BenchConfig) -> None:
    """Compose what is measured, and measure."""
    full, mini = (to_object(compose("train", overrides=o), TrainConfig) for o in (config.full, config.mini))
    prior = to_object(compose("train_prior", overrides=config.prior), PriorConfig)
    print(bench(config, Worlds(full, mini, prior, config.batch_size)))


if __name__ == "__main__":
    main()
