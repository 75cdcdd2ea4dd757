"""Quantised autoencoders against hand-written numpy, the formulas of the papers, and plain counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from torch import nn

import diabolo
from diabolo import VQVAE, AutoencoderModule, CustomAutoencoder, FSQAutoencoder, LFQAutoencoder, ResidualVQVAE
from diabolo.checks import ParameterError
from diabolo.parts.likelihoods import Gaussian
from diabolo.records import Batch, Code, Schema, Trace
from diabolo.seeding import seeded
from diabolo.zoo.quantisers import (
    CodeEntropy,
    FiniteScalarQuantiser,
    SignQuantiser,
    VectorQuantiser,
    k_means,
    nearest,
    tally,
    to_channels,
    to_vectors,
)

X = load_iris().data
GRIDS = [(), (3,), (2, 3)]
F64 = 1e-10  # relative error of a handful of float64 operations, with room
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0}
MODELS = [
    VQVAE(4, n_codes=8, **QUICK),
    ResidualVQVAE(4, n_codes=8, n_codebooks=3, **QUICK),
    FSQAutoencoder(4, levels=(4, 5), **QUICK),
    LFQAutoencoder(8, bits=4, **QUICK),
]
KINDS = [type(m).__name__ for m in MODELS]


def quantiser(n_codebooks: int = 1, **options: float) -> VectorQuantiser:
    """Return one of width 6, in vectors of 2, with 5 codes, in float64."""
    with seeded(0):
        return VectorQuantiser(6, 2, 5, n_codebooks, **options).double().train()


def rows(n: int, width: int, *grid: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, width, *grid)))


# shapes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_channels_are_cut_into_vectors_and_joined_again(grid):
    h = rows(4, 6, *grid)
    vectors = to_vectors(h, 2)
    assert vectors.shape == (4, 3, *grid, 2)
    assert torch.equal(vectors[:, 1, ..., 0], h[:, 2])
    assert torch.equal(to_channels(vectors), h)


def everyone(grid: tuple[int, ...]) -> list[nn.Module]:
    """Return each quantiser of width 6, where it has one started on rows of this grid."""
    learned = [quantiser(), quantiser(3)]
    with seeded(0):
        for q in learned:
            q.on_encoded(rows(40, 6, *grid, seed=2))
    return [*learned, FiniteScalarQuantiser(6, (4, 5)).double(), SignQuantiser(6, 3, 0.25).double()]


@pytest.mark.parametrize("grid", GRIDS)
def test_codes_stand_for_what_was_rounded(grid):
    h = rows(7, 6, *grid)
    for q in everyone(grid):
        code = q.eval()(h, sample=False)
        assert code.z.shape == h.shape
        assert code.z.dtype == torch.float64
        assert code.aux["codes"].shape == (7, q.n_symbols, *grid)
        assert code.aux["codes"].dtype == torch.int64
        assert 0 <= int(code.aux["codes"].min()) <= int(code.aux["codes"].max()) < q.n_codes
        assert torch.equal(q.look_up(code.aux["codes"]), code.z)
        assert torch.equal(q(h, sample=True).z, code.z)  # nothing is drawn
        again = q(code.z, sample=False)
        if q.n_codebooks == 1 and not isinstance(q, FiniteScalarQuantiser):
            assert torch.equal(again.z, code.z)  # what is rounded already stays
        for cost in code.costs.values():
            assert cost.shape == (7,)


# the gradient -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("q", [quantiser(), quantiser(3), SignQuantiser(6, 3, 0.25)], ids=["vq", "residual", "sign"])
def test_the_gradient_passes_straight_through(q, grid):
    h = rows(5, 6, *grid).requires_grad_()
    weights = rows(5, 6, *grid, seed=3)
    (q(h, sample=True).z * weights).sum().backward()
    # bitwise for a float64 codebook; the signs compute in their own float32
    torch.testing.assert_close(h.grad, weights, rtol=1e-6 if isinstance(q, SignQuantiser) else 0, atol=0)


def test_the_gradient_of_levels_is_that_of_the_bound():
    q = FiniteScalarQuantiser(2, (4, 5)).double()
    h = rows(6, 2).requires_grad_()
    q(h, sample=True).z.sum().backward()
    # by central differences of the bound, divided by half the width of each number
    step = 1e-6
    slope = (q.bound(h.detach() + step) - q.bound(h.detach() - step)) / (2 * step) / torch.tensor([2.0, 2.0])
    torch.testing.assert_close(h.grad, slope, rtol=1e-7, atol=1e-9)  # the differences' own error is of the order step^2


# the cost and the moving averages against numpy ---------------------------------------------------------------------------------


def reference_codes(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    return np.array([np.argmin([np.sum((v - e) ** 2) for e in codebook]) for v in vectors])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n_codebooks", [1, 3])
def test_commitment_is_the_sum_of_squares_of_a_row(n_codebooks, grid):
    q = quantiser(n_codebooks, commitment=0.7)
    h = rows(6, 6, *grid)
    want = np.zeros(6)
    for b in range(6):
        vectors = np.moveaxis(h[b].numpy().reshape(3, 2, -1), 1, 2).reshape(-1, 2)
        rounded = np.zeros_like(vectors)
        for codebook in q.codebooks.numpy():
            rounded += codebook[reference_codes(vectors - rounded, codebook)]
            want[b] += 0.7 * ((vectors - rounded) ** 2).sum()
    cost = q(h, sample=True).costs["commitment"]
    np.testing.assert_allclose(cost.numpy(), want, rtol=F64)
    np.testing.assert_allclose(q.eval()(h, sample=False).costs["commitment"].numpy(), want, rtol=F64)


def test_the_commitment_pulls_the_encoder_and_not_the_codebook():
    q = quantiser(commitment=0.5)
    h = rows(4, 6).requires_grad_()
    code = q(h, sample=True)
    code.costs["commitment"].sum().backward()
    torch.testing.assert_close(h.grad, 2 * 0.5 * (h.detach() - code.z.detach()), rtol=F64, atol=0)
    assert not list(q.parameters())


@pytest.mark.parametrize("n_codebooks", [1, 2])
def test_the_codebook_follows_moving_averages(n_codebooks):
    q = quantiser(n_codebooks, decay=0.8, revive_below=0.0)
    books = q.codebooks.numpy().copy()
    counts, sums = np.ones((n_codebooks, 5)), books.copy()
    for step in range(6):
        h = rows(3, 6, seed=step)
        q(h, sample=True)
        np.testing.assert_allclose(q.codebooks.numpy(), books, rtol=F64)  # nothing moves before the step is taken
        q.after_step()
        vectors = h.numpy().reshape(9, 2)
        for r in range(n_codebooks):
            k = reference_codes(vectors, books[r])
            left = vectors - books[r][k]
            for j in range(5):
                counts[r, j] = 0.8 * counts[r, j] + 0.2 * (k == j).sum()
                sums[r, j] = 0.8 * sums[r, j] + 0.2 * vectors[k == j].sum(axis=0)
            books[r] = sums[r] / counts[r][:, None]
            vectors = left
        np.testing.assert_allclose(q.counts.numpy(), counts, rtol=F64)
        np.testing.assert_allclose(q.sums.numpy(), sums, rtol=F64, atol=1e-14)
        np.testing.assert_allclose(q.codebooks.numpy(), books, rtol=F64)


def test_the_codebook_moves_in_training_alone_and_once_for_each_step():
    q = quantiser(2)
    before = q.codebooks.clone()
    q.eval()(rows(9, 6), sample=True)
    q.after_step()
    assert torch.equal(q.codebooks, before)
    q.train()(rows(9, 6), sample=False)
    q.after_step()
    after = q.codebooks.clone()
    assert not torch.equal(after, before)
    q.after_step()
    assert torch.equal(q.codebooks, after)
    assert {"codebooks", "counts", "sums", "frequency"} == set(q.state_dict())


def test_codes_out_of_use_move_to_the_batch():
    q = quantiser(decay=0.9, revive_below=0.1)
    q.codebooks[0, 3] = q.sums[0, 3] = 1e3  # no vector is ever near
    far = []
    with seeded(0):
        for step in range(8):
            h = rows(20, 6, seed=step)
            q(h, sample=True)
            q.after_step()
            far.append(float(q.codebooks[0, 3].abs().max()))
            if far[-1] < 1e3:
                break
    # after n steps an unused code has 0.9^n, and the mean, on the way from 1 to 60 vectors / 5 codes, 0.9^n + 12 (1 - 0.9^n)
    first = next(n for n in range(1, 20) if 0.9**n < 0.1 * (0.9**n + 12 * (1 - 0.9**n)))
    assert len(far) == first == 6
    assert set(far[:-1]) == {1e3}
    vectors = to_vectors(h, 2).reshape(-1, 2)
    assert bool((vectors == q.codebooks[0, 3]).all(dim=1).any())
    torch.testing.assert_close(q.sums[0, 3], q.codebooks[0, 3] * q.counts[0, 3])


def test_a_code_that_is_never_used_stays_finite():
    q = quantiser(decay=0.1, revive_below=0.0)
    q.codebooks[0, 3] = 1e3
    for step in range(400):  # 0.1^400 is zero even in float64
        q(rows(4, 6, seed=step % 3), sample=True)
        q.after_step()
    assert torch.isfinite(q.codebooks).all()
    assert (q.codebooks[0, 3] == 1e3).all()


def test_helpers_equal_loops():
    vectors, book = rows(30, 3), rows(7, 3, seed=5)
    index = nearest(vectors, book)
    assert index.tolist() == reference_codes(vectors.numpy(), book.numpy()).tolist()
    counts, sums = tally(vectors, index, 7)
    for j in range(7):
        assert counts[j] == (index == j).sum()
        torch.testing.assert_close(sums[j], vectors[index == j].sum(dim=0))


def test_k_means_finds_clusters_and_takes_few_vectors():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    with seeded(1):
        vectors = centres.repeat(50, 1) + 0.01 * rows(150, 2)
        found = k_means(vectors, 12)
        few = k_means(vectors[:2], 5)
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.05  # five times the spread of a cluster
    assert {tuple(v) for v in few.tolist()} == {tuple(v) for v in vectors[:2].tolist()}


# several codebooks --------------------------------------------------------------------------------------------------------------


def test_the_error_falls_with_each_codebook_and_the_sum_of_entries_is_the_code():
    q, h = quantiser(4), rows(300, 6)
    with seeded(0):
        q.on_encoded(h)
    code = q.eval()(h, sample=False)
    vectors, symbols = to_vectors(h, 2), code.aux["codes"].reshape(300, 4, 3)
    rounded, errors = torch.zeros_like(vectors), [float(vectors.square().sum())]
    for r in range(4):
        rounded = rounded + q.codebooks[r][symbols[:, r]]
        errors.append(float((vectors - rounded).square().sum()))
    # a centre is the mean of its vectors, so on the rows of the start the error cannot grow
    assert all(b < a for a, b in itertools.pairwise(errors))
    torch.testing.assert_close(to_channels(rounded), code.z, rtol=F64, atol=1e-12)


def test_more_codebooks_rebuild_rows_better():
    errors = []
    for n_codebooks in (1, 4):
        model = ResidualVQVAE(2, n_codes=4, n_codebooks=n_codebooks, max_epochs=15, random_state=0).fit(X)
        errors.append(float(np.mean((model.reconstruct(X) - X) ** 2)))
    assert errors[1] < 0.8 * errors[0]


# levels and signs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_levels", [2, 3, 4, 5, 8, 9])
def test_levels_follow_the_formula_of_the_paper(n_levels):
    q = FiniteScalarQuantiser(1, (n_levels,)).double()
    h = torch.linspace(-20, 20, 4001, dtype=torch.float64)[:, None]
    got = q(h, sample=False)
    # Mentzer et al., appendix A.1
    half = (n_levels - 1) * (1 - 1e-3) / 2
    offset = 0.5 if n_levels % 2 == 0 else 0.0
    bounded = np.tanh(h.numpy() + np.tan(offset / half)) * half - offset
    want = np.round(bounded) / (n_levels // 2)
    np.testing.assert_allclose(got.z.numpy(), want, rtol=0, atol=0)
    assert len(np.unique(got.z.numpy())) == n_levels
    assert got.aux["codes"].unique().tolist() == list(range(n_levels))
    assert (got.aux["codes"].diff(dim=0) >= 0).all()
    assert got.costs == {}


def test_there_are_as_many_codes_as_the_product_of_levels():
    levels = (3, 4, 2)
    q = FiniteScalarQuantiser(3, levels).double()
    assert q.n_codes == 24
    z = q.look_up(torch.arange(24)[:, None])
    assert len(z.unique(dim=0)) == 24
    want = [[(d - n // 2) / (n // 2) for d, n in zip(digits, levels, strict=True)] for digits in np.ndindex(*levels)]
    assert sorted(z.tolist()) == sorted(want)
    assert z[5].tolist() == [(5 % 3 - 1) / 1, (5 // 3 % 4 - 2) / 2, -1.0]  # the first number is the lowest digit


def test_signs_and_bits():
    q = SignQuantiser(4, 2, 0.5).double()
    h = torch.tensor([[0.3, -2.0, -0.1, -0.1], [1.0, 1.0, -3.0, 4.0]], dtype=torch.float64)
    code = q(h, sample=True)
    assert code.z.tolist() == [[1, -1, -1, -1], [1, 1, -1, 1]]
    assert code.aux["codes"].tolist() == [[1, 0], [3, 2]]
    torch.testing.assert_close(code.costs["commitment"], 0.5 * (h - code.z).square().sum(1), rtol=F64, atol=0)


def test_code_entropy_equals_a_softmax_over_all_codes():
    bits, weight = 3, 0.3
    h = rows(10, 6)
    penalty = CodeEntropy(weight, bits)(None, Trace(Batch(h), h, Code(h, {}, {"h": h}), h))
    vectors = h.numpy().reshape(20, bits)
    codes = np.array(list(itertools.product((-1.0, 1.0), repeat=bits)))
    logits = -((vectors[:, None] - codes) ** 2).sum(axis=2)
    q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p)).sum(axis=-1)

    want = weight * 2 * (entropy(q).mean() - entropy(q.mean(axis=0)))  # two symbols a row
    assert float(penalty) == pytest.approx(want, rel=1e-9)
    sure = torch.tensor([[500.0, -500.0, 500.0]], requires_grad=True)
    extreme = CodeEntropy(1.0, bits)(None, Trace(Batch(sure), sure, Code(sure, {}, {"h": sure}), sure))
    extreme.backward()
    assert torch.isfinite(extreme)
    assert torch.isfinite(sure.grad).all()


# models -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=KINDS)
def test_rows_go_to_integers_and_back(model):
    frame = pd.DataFrame(X, columns=list("abcd"))
    model.fit(frame)
    codes = model.encode_codes(frame)
    quantiser = model.module_.bottleneck
    assert codes.shape == (150, quantiser.n_symbols)
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(codes, model.encode_codes(frame))
    back = model.decode_codes(codes)
    assert list(back.columns) == list("abcd")
    # the same network on the same numbers, in float64
    np.testing.assert_allclose(back, model.reconstruct(frame), rtol=1e-9)
    np.testing.assert_allclose(back, model.inverse_transform(model.transform(frame)), rtol=1e-9)
    np.testing.assert_array_equal(model.decode_codes(codes[:3].tolist()), back[:3])
    once = np.unique(codes, axis=0)
    assert len(np.unique(model.transform(frame), axis=0)) == len(once)  # rows with equal symbols have equal codes


@pytest.mark.parametrize("model", MODELS, ids=KINDS)
def test_usage_and_perplexity_are_counted_over_the_rows_of_fit(model, tmp_path):
    model.fit(X)
    quantiser = model.module_.bottleneck
    codes = model.encode_codes(X).reshape(150, quantiser.n_codebooks, -1)
    used, entropy = [], []
    for r in range(quantiser.n_codebooks):
        share = np.bincount(codes[:, r].ravel(), minlength=quantiser.n_codes) / codes[:, r].size
        used.append((share > 0).mean())
        entropy.append(-sum(p * math.log(p) for p in share if p > 0))
    # shares are kept in float32
    assert model.codebook_usage_ == pytest.approx(np.mean(used), rel=1e-6)
    assert model.perplexity_ == pytest.approx(math.exp(np.mean(entropy)), rel=1e-5)
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    assert (again.codebook_usage_, again.perplexity_) == (model.codebook_usage_, model.perplexity_)
    np.testing.assert_array_equal(again.encode_codes(X), model.encode_codes(X))


def test_a_mixture_of_clusters_uses_the_codebook():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(16, 8)) * 5
    rows_ = centres[rng.integers(16, size=1000)] + 0.3 * rng.normal(size=(1000, 8))
    model = VQVAE(4, n_codes=16, max_epochs=10, batch_size=64, random_state=0).fit(rows_)
    assert model.codebook_usage_ >= 0.9
    assert model.perplexity_ >= 8
    one = VQVAE(2, n_codes=16, max_epochs=10, batch_size=64, random_state=0).fit(
        rows_
    )  # one symbol a row, as many as clusters
    assert one.codebook_usage_ >= 0.9
    error = np.mean((one.reconstruct(rows_) - rows_) ** 2) / rows_.var(axis=0).mean()
    assert error < 0.4  # two linear components leave more than half


def test_a_few_symbols_beat_as_many_principal_components_on_digits():
    digits = load_digits().data
    train, test = digits[:1300], digits[1300:]
    pca = PCA(8).fit(train)
    linear = np.mean((pca.inverse_transform(pca.transform(test)) - test) ** 2)
    model = VQVAE(16, n_codes=256, max_epochs=6, batch_size=64, random_state=0).fit(train)
    assert model.encode_codes(test).shape == (497, 8)
    assert np.mean((model.reconstruct(test) - test) ** 2) < linear  # 8 symbols of 8 bits against 8 real numbers


def test_the_loss_holds_the_commitment_in_nats_per_row():
    model = VQVAE(4, n_codes=8, commitment=0.5, validation_fraction=0, **QUICK).fit(X)
    row = model.history_.rows[-1]
    assert row["loss"] == pytest.approx(row["reconstruction"] + row["commitment"], rel=1e-6)  # float32
    free = model.module_
    table = model.codec_.encode(model._read(X, reset=False), torch.float32)
    trace = free.trace(table.slice(0, 150), sample=False)
    bare = free.log_prob(trace.raw, trace.batch) - trace.code.costs["commitment"]
    want = bare.detach().double().numpy() - model._log_volume(model._read(X, reset=False))
    np.testing.assert_allclose(model.score_samples(X), want, rtol=1e-3, atol=1e-4)  # float32 against float64


def test_the_codebook_starts_where_the_encoder_is():
    model = VQVAE(2, n_codes=16, max_epochs=1, learning_rate=1e-12, random_state=0).fit(X)
    h = model._apply(model._read(X, reset=False), lambda m, b: m.encoder(b.x))
    # a random codebook would leave about a tenth of the variance; k-means from the rows leaves less than a twentieth
    assert np.mean((model.transform(X) - h) ** 2) < 0.05 * h.var(axis=0).mean()


@pytest.mark.parametrize("model", MODELS, ids=KINDS)
def test_a_killed_run_goes_on_bit_for_bit(model, tmp_path):
    def kill(run):
        if run.epoch == 2:
            raise OSError("gone")

    params = {"max_epochs": 4, "checkpoint": tmp_path / "run"}
    with pytest.raises(OSError, match="gone"):
        type(model)(**model.get_params() | params | {"callbacks": (kill,)}).fit(X)
    resumed = type(model)(**model.get_params() | params).fit(X)
    whole = type(model)(**model.get_params() | {"max_epochs": 4}).fit(X)
    for name, tensor in whole.module_.state_dict().items():
        assert torch.equal(tensor, resumed.module_.state_dict()[name]), name


@pytest.mark.parametrize("model", MODELS, ids=KINDS)
def test_a_loss_that_was_not_finite_leaves_no_trace_in_the_codebook(model):
    poisoned = []

    class Poison(diabolo.Callback):
        def on_epoch_end(self, run):
            if run.epoch == 1 and not poisoned:
                poisoned.append(True)

                def spoil(encoder, inputs, h):
                    handle.remove()  # one batch alone
                    return h * float("nan")

                handle = run.module.encoder.register_forward_hook(spoil)

    again = type(model)(**model.get_params() | {"callbacks": (Poison(),)}).fit(X)
    assert any("not finite" in event for event in again.history_.events)
    assert all(torch.isfinite(v).all() for v in again.module_.state_dict().values())


@pytest.mark.parametrize("model", MODELS, ids=KINDS)
def test_small_and_holey_data(model):
    one = type(model)(**model.get_params()).fit(X[:1])
    assert one.decode_codes(one.encode_codes(X[:1])).shape == (1, 4)
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    holey = type(model)(**model.get_params()).fit(holes)
    assert np.isfinite(holey.reconstruct(holes)).all()
    np.testing.assert_array_equal(holey.encode_codes(holes), holey.encode_codes(holes))
    column = type(model)(**model.get_params()).fit(X[:, :1])
    assert column.reconstruct(X[:, :1]).shape == (150, 1)


def test_a_codebook_larger_than_the_data():
    model = VQVAE(2, n_codes=512, max_epochs=30, decay=0.5, revive_below=0.9, random_state=0).fit(X[:12])
    assert np.isfinite(model.reconstruct(X)).all()
    assert model.codebook_usage_ <= 12 / 512


def test_images_on_a_grid():
    """A convolutional encoder that keeps a grid: codes are one symbol for each place."""
    digits = load_digits().images[:80]

    def build(schema: Schema) -> AutoencoderModule:
        bottleneck = VectorQuantiser(4, 4, 16)
        encoder = nn.Conv2d(1, bottleneck.in_features, 4, stride=4)
        decoder = nn.ConvTranspose2d(bottleneck.out_features, 1, 4, stride=4)
        return AutoencoderModule(schema, encoder=encoder, decoder=decoder, bottleneck=bottleneck, likelihood=Gaussian())

    model = CustomAutoencoder(build=build, max_epochs=3, random_state=0).fit(digits)
    assert model.transform(digits).shape == (80, 16)  # four numbers on a grid of 2 x 2
    np.testing.assert_allclose(model.inverse_transform(model.transform(digits)), model.reconstruct(digits), rtol=1e-9)
    table = model.codec_.encode(model._read(digits, reset=False), torch.float32)
    assert model.module_.encode(table.x).aux["codes"].shape == (80, 1, 2, 2)


@pytest.mark.parametrize("model", MODELS, ids=KINDS)
def test_convolutions_keep_the_symbols_on_a_grid(model):
    digits = load_digits().images[:60]
    params = model.get_params() | {"network": "conv", "hidden": (8,)}
    found = type(model)(**params).fit(digits)
    width, *grid = found.module_.code_shape
    assert width == model.latent_dim
    assert math.prod(grid) > 1
    codes = found.encode_codes(digits)
    assert codes.shape == (60, found.module_.bottleneck.n_symbols * math.prod(grid))
    np.testing.assert_allclose(found.decode_codes(codes), found.reconstruct(digits), rtol=1e-9, atol=1e-12)


# bad input ----------------------------------------------------------------------------------------------------------------------


def test_a_width_that_cannot_be_cut_is_refused():
    with pytest.raises(ParameterError, match=r"latent_dim=7: expected a multiple of 2.*use latent_dim=8"):
        VQVAE(7).fit(X)
    with pytest.raises(ParameterError, match=r"latent_dim=6: expected a multiple of 4"):
        FSQAutoencoder(6).fit(X)
    with pytest.raises(ParameterError, match=r"latent_dim=4: expected a multiple of 8"):
        LFQAutoencoder(4).fit(X)
    assert VQVAE(code_dim=3, **QUICK).fit(X).transform(X).shape == (150, 3)  # 'auto' is rounded up


def test_impossible_levels_are_refused():
    with pytest.raises(ParameterError, match=r"levels=\(5, 1\): expected tuple of int >= 2"):
        FSQAutoencoder(levels=(5, 1)).fit(X)
    with pytest.raises(ParameterError, match=r"levels=\(\)"):
        FSQAutoencoder(levels=()).fit(X)
    with pytest.raises(ParameterError, match=r"makes 1073741824 codes; expected .* at most 1048576"):
        FSQAutoencoder(levels=(8,) * 10).fit(X)


def test_codes_that_cannot_be_decoded_are_refused():
    model = VQVAE(4, n_codes=8, **QUICK).fit(X)
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected \(n, 2\)"):
        model.decode_codes([[0, 1, 2], [0, 1, 2]])
    with pytest.raises(ValueError, match=r"shape \(0,\); expected \(n, 2\)"):
        model.decode_codes([])
    with pytest.raises(ValueError, match="type float64; expected whole numbers"):
        model.decode_codes([[0.0, 1.0]])
    with pytest.raises(ValueError, match="codes has 8; expected whole numbers from 0 to 7"):
        model.decode_codes([[0, 8]])
    with pytest.raises(ValueError, match="codes has -1; expected"):
        model.decode_codes([[-1, 0]])
