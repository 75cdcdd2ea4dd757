"""Models of pythae on the job's net; see ``common``. Everything that the job does not name is pythae's default.

Its model is the one that it hands back: the best on the validation rows. The decoder ends in a sigmoid, as pythae's own do.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile

import common
import numpy as np
import torch
from pythae import models, trainers
from pythae.data.datasets import DatasetOutput
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from scipy.special import gammaln, ive
from torch import nn

CONFIGS = {
    "Adversarial_AE": "Adversarial_AE_Config",
    "INFOVAE_MMD": "INFOVAE_MMD_Config",
    "RAE_GP": "RAE_GP_Config",
    "RAE_L2": "RAE_L2_Config",
    "WAE_MMD": "WAE_MMD_Config",
    "VAE_IAF": "VAE_IAF_Config",
}
DETERMINISTIC = {"AE", "RAE_GP", "RAE_L2", "WAE_MMD", "VQVAE"}
TRAINERS = {  # models that pythae trains with several optimisers, and the names of their learning rates
    "Adversarial_AE": ("AdversarialTrainerConfig", ("autoencoder_learning_rate", "discriminator_learning_rate")),
    "FactorVAE": ("AdversarialTrainerConfig", ("autoencoder_learning_rate", "discriminator_learning_rate")),
    "RAE_L2": ("CoupledOptimizerTrainerConfig", ("encoder_learning_rate", "decoder_learning_rate")),
}


class Encoder(BaseEncoder):
    """The trunk, a linear layer for the centre, and one for the spread where the model has one."""

    def __init__(self, widths, latent_dim, second, grid):
        super().__init__()
        self.grid = grid
        self.latent_dim = latent_dim
        self.trunk = common.layers(widths, nn.ReLU())
        self.centre = nn.Linear(widths[-1], latent_dim)
        self.second, width = second, {"log_covariance": latent_dim, "log_concentration": 1}.get(second)
        self.spread = None if second is None else nn.Linear(widths[-1], width)

    def forward(self, x):
        h = self.trunk(x.flatten(1))
        z = self.centre(h)
        out = ModelOutput(embedding=z[:, :, None, None] if self.grid else z)
        if self.spread is not None:
            out[self.second] = self.spread(h)
        return out


class Decoder(BaseDecoder):
    """The mirrored net, with a sigmoid behind it."""

    def __init__(self, widths):
        super().__init__()
        self.net = common.layers(widths, nn.Sigmoid())

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z.flatten(1)))


def fit(job, train, valid):
    """Train the job's model, and return how its codes are read."""
    return read(job["model"], train_model(job, train, valid))


def train_model(job, train, valid):
    """Train the job's model; return the one that pythae saves as its final model."""
    name, width = job["model"], train.shape[1]
    logging.disable(logging.CRITICAL)
    torch.manual_seed(job["seed"])
    second = None if name in DETERMINISTIC else "log_concentration" if name == "SVAE" else "log_covariance"
    config = getattr(models, CONFIGS.get(name, f"{name}Config"))(
        input_dim=(width,), latent_dim=job["latent_dim"], **job["options"]
    )
    widths = [width, *job["hidden"]]
    # a grid of one place makes the code one symbol; of a flat code pythae quantises each number by itself
    encoder = Encoder(widths, job["latent_dim"], second, grid=name == "VQVAE")
    model = getattr(models, name)(config, encoder=encoder, decoder=Decoder([job["latent_dim"], *widths[::-1]]))
    kind, rates = TRAINERS.get(name, ("BaseTrainerConfig", ("learning_rate",)))
    rate = {} if job["learning_rate"] is None else dict.fromkeys(rates, job["learning_rate"])
    os.chdir(tempfile.mkdtemp(dir=os.path.dirname(job["out"])))
    training = getattr(trainers, kind)(
        output_dir="out",
        num_epochs=job["epochs"],
        per_device_train_batch_size=job["batch"],
        per_device_eval_batch_size=job["batch"],
        seed=job["seed"],
        no_cuda=True,
        **rate,
    )
    pipeline = TrainingPipeline(model=model, training_config=training)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pipeline(train_data=train, eval_data=valid)
    return pipeline.trainer._best_model.eval()


def read(name, model):
    """Return how codes are read: the centre of the posterior, not pythae's random ``embed``."""
    if name == "VQVAE":

        def run(x):
            return model(DatasetOutput(data=x))

        return common.Fitted(
            lambda x: (run(x).z.flatten(1), run(x).recon_x),
            symbols=lambda x: run(x).quantized_indices.flatten(1),
            n_codes=model.model_config.num_embeddings,
        )

    def centre(x):
        z = model.encoder(x).embedding
        return z / z.norm(dim=1, keepdim=True) if name == "SVAE" else z

    def encode(x):
        z = centre(x)
        return z, model.decoder(z).reconstruction

    if name in DETERMINISTIC:
        return common.Fitted(encode)

    if name == "VAE_IAF":  # a flow over the Gaussian: its density is not read

        def encode_through(x):
            z = model.iaf_flow.inverse(centre(x)).out
            return z, model.decoder(z).reconstruction

        return common.Fitted(encode_through)

    def draw(state):
        if name == "SVAE":
            z, ratio = draw_on_sphere(model, *state)
        else:
            z, ratio = common.normal_draw(*state, log_prior=model._log_p_z if name == "VAMP" else None)
        return z, model.decoder(z).reconstruction, ratio

    def posterior(x):
        out = model.encoder(x)
        if name == "SVAE":
            return centre(x), nn.functional.softplus(out.log_concentration) + 1
        return out.embedding, out.log_covariance

    return common.Fitted(encode, posterior, draw)


def draw_on_sphere(model, mean, concentration):
    """Draw from the von Mises-Fisher posterior; its log-density less that of the uniform on the sphere."""
    z = model._sample_von_mises(mean, concentration)
    m, kappa = mean.shape[1], concentration[:, 0].double().numpy()
    log_q = (m / 2 - 1) * np.log(kappa) - m / 2 * np.log(2 * np.pi) - np.log(ive(m / 2 - 1, kappa)) - kappa
    log_q = log_q + kappa * (mean * z).sum(1).double().numpy()
    log_p = gammaln(m / 2) - np.log(2) - m / 2 * np.log(np.pi)
    return z, torch.from_numpy(log_q - log_p).float()


if __name__ == "__main__":
    common.main(fit)
