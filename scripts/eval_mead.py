"""Measure methods by novel views, as the paper on MEAD (Tables 1 and 2).

python scripts/eval_mead.py run=mini-seed0
python scripts/eval_mead.py world=full run=ffhq-seed0
"""

import hydra
from omegaconf import DictConfig

from goae.config import ProtocolConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.protocol import run_protocol

register(ProtocolConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="eval_mead")
def main(composed: DictConfig) -> None:
    """Compose, check, measure."""
    with one_paragraph():
        print(run_protocol(to_object(composed, ProtocolConfig)))


if __name__ == "__main__":
    main()
