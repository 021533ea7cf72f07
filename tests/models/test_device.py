"""What a thread keeps of a device's workers while it waits for a training."""

import os
import subprocess
import sys

import pytest

RESTING = """
import os, torch
from nbtune.models.device import rest_threads
def count(): return len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
numbers = torch.arange(400_000.0)
rest_threads()
without = count()
total = float((numbers * 2).sum())
busy = count()
rest_threads()
print(busy - without, count() - without, float((numbers * 2).sum()) == total, torch.get_num_threads())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP, and its threads in /proc")
def test_a_thread_that_waits_gives_its_workers_up_and_has_them_again_when_it_computes() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run((sys.executable, "-c", RESTING), capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1 0 True 2\n"
