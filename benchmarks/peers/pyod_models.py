"""PyOD's autoencoders: python pyod_models.py MODEL ROWS.npz OUT.npz SEED

ROWS has ``train`` and ``test``, standardised. OUT has the scores of ``test``, higher for anomalies, and the CPU seconds.
"""

import sys
import time
import warnings

import numpy as np
import torch
from pyod.models.auto_encoder import AutoEncoder
from pyod.models.vae import VAE

warnings.simplefilter("ignore")
torch.set_num_threads(1)
name, rows, out, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
data = np.load(rows)
began = time.process_time()
model = (AutoEncoder if name == "AutoEncoder" else VAE)(random_state=seed, verbose=0)
model.fit(data["train"].astype(np.float32))
scores = model.decision_function(data["test"].astype(np.float32))
np.savez(out, scores=np.nan_to_num(scores), seconds=time.process_time() - began)
