"""How the threads of a computation wait for one another: they look a few microseconds, then they sleep.

Threads that spin for long, OpenMP's default, starve each other where another program wants a core. Threads that sleep
at once pay for waking up: with `OMP_WAIT_POLICY=PASSIVE bridge-edge bench FILE.gguf` a student of 1.5 M parameters
decoded 300 tokens/s on a quiet machine of two cores, without the variable 2,250 (2026-11-22). `SPINS` looks at the flag
cover the gap between two small operators and lose little on a busy machine. It must be set before the library that
computes is loaded. Not covered: OpenMP of LLVM and Intel, which sleep at once.
"""

from __future__ import annotations

import os

SPINS = "5000"  # of GNU's OpenMP, some 10 to 20 microseconds


def wait_briefly() -> None:
    """For this process and those that it starts, unless the user has chosen a policy."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
