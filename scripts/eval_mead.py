"""Measure methods by novel views, as the paper on MEAD (Tables 1 and 2).

python scripts/eval_mead.py run=mini-seed0
python scripts/eval_mead.py world=full run=ffhq-seed0
"""

from goae.config import ProtocolConfig, script
from goae.runs.protocol import run_protocol


@script("eval_mead", ProtocolConfig)
def main(config: ProtocolConfig) -> None:
    """Measure."""
    print(run_protocol(config))


if __name__ == "__main__":
    main()
