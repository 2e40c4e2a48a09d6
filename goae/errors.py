"""How scripts speak of what went wrong: one paragraph with the remedy and exit code 1, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_paragraph() -> Iterator[None]:
    """Turn the errors that a user can mend into one paragraph on stderr and exit code 1; bugs keep their traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
