"""Seconds that a package takes to fit 784-64-784, inside its own environment: see benchmarks/speed.py.

    $DIABOLO_PEERS/NAME/bin/python benchmarks/peers/speed_fit.py NAME ROWS.npy TEST.npy BATCH EPOCHS TARGET

Prints a line of JSON with the seconds of a fit and the mean squared error of the test rows. With a TARGET above 0 it trains on
until the error of the test rows is at most that, for at most EPOCHS epochs; looking at the test rows is not timed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import warnings

os.environ["KERAS_BACKEND"] = "torch"
warnings.filterwarnings("ignore")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LATENT, RATE = 64, 1e-3


def network(width):
    return nn.Sequential(nn.Linear(width, LATENT), nn.ReLU(), nn.Linear(LATENT, width), nn.Sigmoid())


def keras(X, batch, epochs):
    import keras

    layers = [keras.layers.Input((X.shape[1],)), keras.layers.Dense(LATENT, "relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(X.shape[1], "sigmoid")])
    model.compile(keras.optimizers.Adam(RATE), "mse")
    for _ in range(epochs):
        model.fit(X, X, batch_size=batch, epochs=1, verbose=0)
        yield lambda rows: model.predict(rows, batch_size=1000, verbose=0)


def pyod(X, batch, epochs):
    from pyod.models.auto_encoder import AutoEncoder

    plain = {"hidden_neuron_list": [LATENT], "batch_norm": False, "dropout_rate": 0.0, "preprocessing": False}
    AutoEncoder(lr=RATE, epoch_num=epochs, batch_size=batch, verbose=0, **plain).fit(X)
    yield None


def pythae(X, batch, epochs):
    from pythae.models import AE, AEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.CRITICAL)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(X.shape[1], LATENT)

        def forward(self, x):
            return ModelOutput(embedding=F.relu(self.layer(x)))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(LATENT, X.shape[1])

        def forward(self, z):
            return ModelOutput(reconstruction=self.layer(z).sigmoid())

    from pythae.data.datasets import BaseDataset

    model = AE(AEConfig(input_dim=(X.shape[1],), latent_dim=LATENT), Encoder(), Decoder())
    rows = torch.from_numpy(X)
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=RATE, per_device_train_batch_size=batch
        )
        trainer = BaseTrainer(model, BaseDataset(rows, torch.ones(len(rows))), training_config=config)
        with open(os.devnull, "w") as nowhere:
            sys.stderr, kept = nowhere, sys.stderr
            trainer.train()
            sys.stderr = kept
    yield None


def skorch(X, batch, epochs):
    from skorch import NeuralNetRegressor

    net = NeuralNetRegressor(
        lambda: network(X.shape[1]),
        optimizer=torch.optim.Adam,
        lr=RATE,
        batch_size=batch,
        max_epochs=epochs,
        train_split=None,
        verbose=0,
    )
    net.fit(X, X)
    yield net.predict


def lightning(X, batch, epochs):
    import lightning as L
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network(X.shape[1])

        def training_step(self, batch, _):
            return F.mse_loss(self.net(batch[0]), batch[0])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=RATE)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    loader = DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=batch, shuffle=True)
    L.Trainer(max_epochs=epochs, accelerator="cpu", **quiet).fit(Module(), loader)
    yield None


def loader(X, batch, epochs):
    """PyTorch as tutorials have it: a DataLoader, and a loop by hand."""
    from torch.utils.data import DataLoader, TensorDataset

    net = network(X.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    batches = DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=batch, shuffle=True)
    for _ in range(epochs):
        for (x,) in batches:
            loss = F.mse_loss(net(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield lambda rows: net(torch.from_numpy(rows)).detach().numpy()


def sklearn(X, batch, epochs):
    from sklearn.neural_network import MLPRegressor

    endless = {"tol": 0.0, "n_iter_no_change": epochs + 1}
    model = MLPRegressor(
        hidden_layer_sizes=(LATENT,), batch_size=batch, max_iter=epochs, learning_rate_init=RATE, **endless
    )
    yield model.fit(X, X).predict


def main():
    name, rows, test, batch, epochs, target = sys.argv[1:]
    X, T, fit = np.load(rows), np.load(test), globals()[name]
    for _ in fit(X[: 4 * int(batch)], int(batch), 1):  # imports and first calls are not timed
        pass
    torch.manual_seed(0)
    seconds, done, error = 0.0, 0, None
    began = time.perf_counter()
    for predict in fit(X, int(batch), int(epochs)):
        seconds += time.perf_counter() - began
        done += 1
        if predict is not None and (float(target) > 0 or done == int(epochs)):
            error = float(np.mean((predict(T) - T) ** 2))
            if error <= float(target):
                break
        began = time.perf_counter()
    print(json.dumps({"seconds": seconds, "mse": error, "epochs": done}))


if __name__ == "__main__":
    main()
