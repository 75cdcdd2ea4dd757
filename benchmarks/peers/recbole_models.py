"""RecBole's models: python recbole_models.py MODEL ROWS.npz OUT.npz SEED EPOCHS

ROWS has ``users`` and ``items`` of what was chosen, and ``histories``, ``places`` and ``shape`` of rows to score, who need not be
users of training. OUT has their ``scores``, seconds of the processor, of all and of an epoch. A tenth of the choices is for
stopping early, by NDCG@20.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

torch.set_num_threads(1)
name, rows, out, seed, epochs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
data = np.load(rows)
n_rows, n_items = data["shape"]
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder) / "rows"
    place.mkdir()
    lines = [f"{u}\t{i}" for u, i in zip(data["users"], data["items"], strict=True)]
    (place / "rows.inter").write_text("user_id:token\titem_id:token\n" + "\n".join(lines) + "\n")
    options = {
        "data_path": folder,
        "epochs": epochs,
        "seed": seed,
        "train_neg_sample_args": None,
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"mode": "full", "group_by": "user", "split": {"RS": [0.9, 0.1, 0.0]}, "order": "RO"},
        "metrics": ["NDCG"],
        "topk": [20],
        "valid_metric": "NDCG@20",
        "use_gpu": False,
        "show_progress": False,
        "train_batch_size": 100,
        "mlp_hidden_size": [600],
        "latent_dimension": 200,
        "checkpoint_dir": folder,
    }
    sys.argv = sys.argv[:1]
    config = Config(model=name, dataset="rows", config_dict=options)
    init_seed(seed, True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    seen: list[float] = []
    inner = trainer._train_epoch

    def timed(*args, **options):
        clock = time.process_time()
        result = inner(*args, **options)
        seen.append(time.process_time() - clock)
        return result

    trainer._train_epoch = timed
    began = time.process_time()
    trainer.fit(train, valid, saved=False, show_progress=False)
    seconds = time.process_time() - began
    names = dataset.field2id_token["item_id"]
    columns = np.array([int(t) for t in names[1:]])  # the first is padding
    model.eval()
    scores = np.full((n_rows, n_items), -1e9, dtype=np.float32)
    histories, places = data["histories"], data["places"]
    with torch.no_grad():
        for start in range(0, n_rows, 500):
            dense = np.zeros((min(500, n_rows - start), n_items), dtype=np.float32)
            there = (histories >= start) & (histories < start + 500)
            dense[histories[there] - start, places[there]] = 1
            x = torch.zeros(len(dense), len(names))
            x[:, 1:] = torch.from_numpy(dense[:, columns])
            found = model.forward(x, model.dropout_prob)[0] if name == "RecVAE" else model.forward(x)[0]
            scores[start : start + len(dense), columns] = found.numpy()[:, 1:]
np.savez(out, scores=scores, seconds=seconds, epoch=float(np.median(seen)))
