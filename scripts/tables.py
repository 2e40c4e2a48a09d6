"""A table of the paper, measured beside printed, or the paper's claims decided on the tables.

python scripts/tables.py table=1
python scripts/tables.py table=2 world=full partial=true
python scripts/tables.py claims=true
"""

from goae.config import TablesConfig, script
from goae.runs.tables import make_tables


@script("tables", TablesConfig)
def main(config: TablesConfig) -> None:
    """Measure and write."""
    for path in make_tables(config):
        print(path)


if __name__ == "__main__":
    main()
