"""Custom network: a small convolutional autoencoder; everything but the network is as in every other model.

``build`` gets the schema, which is what was learned of the data, and returns the parts put together. The encoder takes rows
``(B, *schema.shape)``; the decoder returns the numbers that the likelihood asks for, one a pixel here.
"""

from __future__ import annotations

import argparse

from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from torch import nn

from diabolo import AutoencoderModule, CustomAutoencoder, datasets
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.records import Schema

LATENT_DIM = 8
EPOCHS = 15


def build(schema: Schema) -> AutoencoderModule:
    channels, height, width = schema.shape  # 1, 8, 8; each stride of 2 halves height and width
    encoder = nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), LATENT_DIM),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT_DIM, 32 * (height // 4) * (width // 4)),
        nn.Unflatten(1, (32, height // 4, width // 4)),
        nn.SiLU(),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(16, channels, 4, stride=2, padding=1),
    )
    return AutoencoderModule(
        schema, encoder=encoder, decoder=decoder, bottleneck=Identity(LATENT_DIM), likelihood=Gaussian()
    )


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="A convolutional autoencoder of your own.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    train, test = train_test_split(datasets.load("digits").X, random_state=0)
    model = CustomAutoencoder(build=build, max_epochs=options.epochs, random_state=0).fit(train)
    pca = PCA(LATENT_DIM).fit(train.reshape(len(train), -1))
    flat = test.reshape(len(test), -1)

    results = {
        "mse": float(((model.reconstruct(test) - test) ** 2).mean()),
        "pca_mse": float(((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean()),
    }
    print(
        f"squared error of a pixel: {results['mse']:.2f}; principal components of this size: {results['pca_mse']:.2f}"
    )
    return results


if __name__ == "__main__":
    main()
