"""The commands that a page of docs/ shows."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> dict[str, list[list[str]]]:
    """Heading of a section -> the words of each command in its fenced shell blocks, in order."""
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        found[heading] = [words for line in lines if (words := shlex.split(line, comments=True))]
    return found
