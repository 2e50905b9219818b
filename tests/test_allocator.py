r"""The allocator's settings, by the page faults that the kernel counts."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from deepinv_lvtino._allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = {keep}
np.ones(2**24)
before = faults()
for _ in range(8):
    np.ones(2**24)
print(kept, (faults() - before) / 8)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_freed_memory_is_used_again():
    def run(keep):
        command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout

    known, with_it = run("keep_freed_memory()").split()
    if known != "True":
        pytest.skip("another C library than glibc")
    without = float(run("None").split()[1])
    # 128 MB of pages of 4 KB to 2 MB
    assert without >= 64
    assert float(with_it) < without / 10
