"""Say whether nvcc is there, and if so compile every CUDA source for sm_80 and sm_90; no GPU is needed.

    python scripts/check_kernels.py

Exit code 1, after the compiler's message, if a source does not compile.
"""

from goae.errors import one_paragraph

import sys
import tempfile
import time
from pathlib import Path

from eg3d.ops.build import compile_cuda_objects, cuda_home


def main() -> int:
    home = cuda_home()
    if home is None:
        print("nvcc not found: CUDA sources not compiled")
        return 0
    print(f"nvcc found: {home / 'bin' / 'nvcc'}")
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            objects = compile_cuda_objects(Path(folder), capabilities=(80, 90))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"compiled for sm_80 and sm_90 in {time.perf_counter() - started:.0f} s: {', '.join(o.stem for o in objects)}"
    )
    return 0


if __name__ == "__main__":
    with one_paragraph():
        sys.exit(main())
