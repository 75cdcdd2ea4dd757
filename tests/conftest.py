"""Shared set-up of the tests."""

import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import rows.py
torch.set_num_threads(1)  # the nets here are tiny; threads that wait for each other only cost time
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background jobs ignore interrupts; some tests send them
    signal.signal(signal.SIGINT, signal.default_int_handler)
