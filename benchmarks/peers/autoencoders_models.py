"""Models of the package autoencoders on the job's net; see ``common``. What the job does not name is the package's default.

Its model is the one in memory after ``fit``, that of the last epoch. Its "mlp" leaves out the activation of the layer before the
code, so that two linear maps would follow each other; modules of its own base class make the net the same as everybody's.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile

import autoencoders as package
import common
import torch
from autoencoders.data.base import DatasetLoaders, TensorSpec
from autoencoders.modules.base import BaseAutoencoderModule, BaseAutoencoderModuleConfig
from torch import nn
from torch.utils.data import DataLoader

NAMES = {
    "AE": "Autoencoder",
    "VAE": "VariationalAutoencoder",
    "BetaVAE": "BetaVariationalAutoencoder",
    "BetaTCVAE": "BetaTCVariationalAutoencoder",
    "FactorVAE": "FactorVariationalAutoencoder",
    "DIPVAE": "DIPVariationalAutoencoder",
    "InfoVAE": "InformationVariationalAutoencoder",
    "WAE": "WassersteinAutoencoder",
    "AAE": "AdversarialAutoencoder",
    "CAE": "ContractiveAutoencoder",
    "DAE": "DenoisingAutoencoder",
    "SAE": "SparseAutoencoder",
    "KLSAE": "KLSparseAutoencoder",
    "TopKSAE": "TopKSparseAutoencoder",
    "VampPriorVAE": "VampPriorVariationalAutoencoder",
    "VQVAE": "VectorQuantizedAutoencoder",
    "RQVAE": "ResidualQuantizedAutoencoder",
    "FSQ": "FiniteScalarQuantizedAutoencoder",
    "HVAE": "HierarchicalVariationalAutoencoder",
}
VARIATIONAL = {"VAE", "BetaVAE", "BetaTCVAE", "FactorVAE", "DIPVAE", "InfoVAE", "VampPriorVAE", "HVAE"}
QUANTISED = {"VQVAE", "RQVAE", "FSQ"}


class Net(BaseAutoencoderModule):
    """Linear layers with ReLU between them, before them (``first``) and behind them (``last``)."""

    def __init__(self, widths, shape=(), *, first=None, last=None):
        spec = [TensorSpec(shape=(*shape, w)) for w in (widths[0], widths[-1])]
        super().__init__(config=BaseAutoencoderModuleConfig(), input_spec=spec[0])
        self.output_spec = spec[1]
        self.net = nn.Sequential(*([] if first is None else [first]), *common.layers(widths, last))

    def forward(self, inputs):
        return self.net(inputs)


def build(job, width):
    """Return the model, on 784-200-200-16-200-200-784 or what the job says."""
    name, hidden, latent = job["model"], job["hidden"], job["latent_dim"]
    shape = (1,) if name == "VQVAE" else ()  # its codebook wants a sequence of vectors: one
    if (
        name == "AAE"
    ):  # its optimisers leave out the layer before the code and the one behind it, so these are given to the net
        encoder = Net([width, *hidden, latent])
        decoder = Net([latent, *hidden[::-1], width])
    elif name in VARIATIONAL:
        encoder = Net([width, *hidden], last=nn.ReLU())
        decoder = Net([latent, *hidden[::-1], width])
    else:
        encoder = Net([width, *hidden], shape, last=nn.ReLU())
        decoder = Net([*hidden[::-1], width], shape, first=nn.ReLU())
    size = {"latent_dim": latent // 2, "top_latent_dim": latent // 2} if name == "HVAE" else {"latent_dim": latent}
    config = getattr(package, f"{NAMES[name]}Config")(**size, **job["options"])
    spec = TensorSpec(shape=(*shape, width))
    return getattr(package, f"{NAMES[name]}Model")(config=config, sample_spec=spec, encoder=encoder, decoder=decoder)


def fit(job, train, valid):
    name = job["model"]
    torch.manual_seed(job["seed"])
    model = build(job, train.shape[1])
    kind = {"AAE": "AdversarialAutoencoder", "FactorVAE": "FactorVariationalAutoencoder"}.get(name, "")
    made = {"AAE": "AdversarialAutoencoderTrainer", "FactorVAE": "FactorVAETrainer"}.get(name)
    if made is None:
        made = "VQTrainer" if name in QUANTISED else "VAETrainer" if name in VARIATIONAL else "AETrainer"
    os.chdir(tempfile.mkdtemp(dir=os.path.dirname(job["out"])))
    rate = {} if job["learning_rate"] is None else {"learning_rate": job["learning_rate"]}
    args = getattr(package, f"{kind}TrainingConfig")(
        output_dir="out", epochs=job["epochs"], batch_size=job["batch"], seed=job["seed"], device="cpu", **rate
    )

    def rows(x):
        return list(x[:, None] if name == "VQVAE" else x)

    loaders = DatasetLoaders(
        train=DataLoader(rows(train), batch_size=job["batch"], shuffle=True),
        validation=DataLoader(rows(valid), batch_size=job["batch"]),
        test=DataLoader(rows(valid), batch_size=job["batch"]),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        getattr(package, made)(model=model, args=args).fit(loaders, metadata={})
    return read(name, model.eval())


def read(name, model):
    """Return how codes are read: what ``forward`` returns in evaluation mode, where its latents are the centre."""

    def run(x):
        return model(inputs=x[:, None] if name == "VQVAE" else x, return_dict=True)

    def encode(x):
        out = run(x)
        code = out.quantized_latents if name in QUANTISED else out.latents
        return code.flatten(1), out.reconstruction.flatten(1)

    if name in QUANTISED:
        size = model.config.num_levels if name == "FSQ" else model.config.codebook_size
        return common.Fitted(encode, symbols=lambda x: run(x).codebook_indices.reshape(len(x), -1), n_codes=size)
    if name not in VARIATIONAL or name == "HVAE":  # the second layer's posterior of HVAE hangs on the first's draw
        return common.Fitted(encode)

    def log_prior(z):
        means, logvars = model.encode(model.pseudo_inputs)
        each = -0.5 * ((z[:, None] - means) ** 2 * (-logvars).exp() + logvars).sum(2)
        return each.logsumexp(1) - math.log(len(means))

    def draw(state):
        z, ratio = common.normal_draw(*state, log_prior=log_prior if name == "VampPriorVAE" else None)
        return z, model.decode(model.prepare_decoder_inputs(z)), ratio

    return common.Fitted(encode, model.encode, draw)


if __name__ == "__main__":
    common.main(fit)
