"""Measure methods by the input view, as the paper on CelebA-HQ (Tables 1 and 3).

python scripts/eval_celebahq.py run=mini-seed0
python scripts/eval_celebahq.py world=full run=ffhq-seed0
"""

from goae.config import ProtocolConfig, script
from goae.runs.protocol import run_protocol


@script("eval_celebahq", ProtocolConfig)
def main(config: ProtocolConfig) -> None:
    """Measure."""
    print(run_protocol(config))


if __name__ == "__main__":
    main()
