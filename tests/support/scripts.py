"""A script's main in this process, which saves the imports of a new one."""

import runpy
from pathlib import Path
from unittest.mock import patch

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run_script(name: str, *arguments: object) -> int:
    """Run scripts/<name>.py with its arguments. Returns: the exit code."""
    path = str(SCRIPTS / f"{name}.py")
    with patch("sys.argv", [path, *map(str, arguments)]):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0
