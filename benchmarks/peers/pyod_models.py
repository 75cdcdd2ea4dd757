"""PyOD's autoencoders: python pyod_models.py MODEL ROWS.npz OUT.npz SEED [THREADS]

ROWS has ``train`` and ``test``, standardised. OUT has the scores of ``test``, higher for anomalies, and seconds: of the
processor, and by the clock.
"""

import sys
import time
import warnings

import numpy as np
import torch
from pyod.models.auto_encoder import AutoEncoder
from pyod.models.vae import VAE

warnings.simplefilter("ignore")
torch.set_num_threads(int(sys.argv[5]) if len(sys.argv) > 5 else 1)
name, rows, out, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
data = np.load(rows)
began, clock = time.process_time(), time.perf_counter()
model = (AutoEncoder if name == "AutoEncoder" else VAE)(random_state=seed, verbose=0)
model.fit(data["train"].astype(np.float32))
scores = model.decision_function(data["test"].astype(np.float32))
seconds, wall = time.process_time() - began, time.perf_counter() - clock
np.savez(out, scores=np.nan_to_num(scores), seconds=seconds, wall=wall)
