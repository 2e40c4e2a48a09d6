"""A table of the paper, measured beside printed, or the paper's claims decided on the tables.

python scripts/tables.py table=1
python scripts/tables.py table=2 world=full partial=true
python scripts/tables.py claims=true
"""

import hydra
from omegaconf import DictConfig

from goae.config import TablesConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.tables import make_tables

register(TablesConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="tables")
def main(composed: DictConfig) -> None:
    """Compose, check, measure, write."""
    with one_paragraph():
        for path in make_tables(to_object(composed, TablesConfig)):
            print(path)


if __name__ == "__main__":
    main()
