"""cornac's models: python cornac_models.py MODEL ROWS.npz OUT.npz SEED EPOCHS

ROWS has ``users``, ``items`` and ``shape`` of what was chosen. OUT has their ``scores`` ``(n_users, n_items)``,
seconds of the processor, of all and of an epoch.
"""

import sys
import time

import numpy as np
import torch
from cornac.data import Dataset
from cornac.models import BPR, VAECF, BiVAECF

torch.set_num_threads(1)
name, rows, out, seed, epochs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
data = np.load(rows)
users, items, (n_users, n_items) = data["users"], data["items"], data["shape"]
made = {
    "VAECF": lambda: VAECF(
        k=200,
        autoencoder_structure=[600],
        act_fn="tanh",
        n_epochs=epochs,
        batch_size=100,
        learning_rate=1e-3,
        beta=0.2,
        seed=seed,
    ),
    "BiVAE": lambda: BiVAECF(
        k=50,
        encoder_structure=[100],
        act_fn="tanh",
        likelihood="pois",
        n_epochs=epochs,
        batch_size=128,
        learning_rate=1e-3,
        seed=seed,
    ),
    "BPR": lambda: BPR(k=200, max_iter=epochs, learning_rate=0.01, lambda_reg=1e-3, seed=seed),
}
train = Dataset.from_uir([(int(u), int(i), 1.0) for u, i in zip(users, items, strict=True)], seed=seed)
began = time.process_time()
model = made[name]()
model.fit(train)
seconds = time.process_time() - began
scores = np.full((n_users, n_items), -1e9, dtype=np.float32)
columns = np.array([train.iid_map[i] for i in sorted(train.iid_map)])
known = np.array(sorted(train.iid_map))
for u, place in train.uid_map.items():
    scores[u, known] = model.score(place)[columns]
np.savez(out, scores=scores, seconds=seconds, epoch=seconds / epochs)
