"""SequenceVAE: what it says of sequences, against closed forms and properties. Decoding is in test_sequences_decoding.py."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

import diabolo
from diabolo import PosteriorCollapseWarning, SequenceVAE
from diabolo.checks import ParameterError
from diabolo.data.tokens import END, UNKNOWN, TokenCodec
from diabolo.latent import concept_vector, diagnose, interpolate, nearest, traverse
from diabolo.parts.networks.sequences import NETWORKS
from diabolo.records import Batch, Schema, Table
from diabolo.tasks.sequence_module import ByLength, FreeInformation, sequence_loss

WORDS = ["".join(w) for w in ("abab", "baba", "aabb", "bbaa", "abba", "a", "", "bbb")] * 4
QUICK = {"width": 16, "max_epochs": 2, "random_state": 0, "device": "cpu", "free_bits": 0.5}


def untrained(network, rows=WORDS, **settings):
    """A model as it is before training, its weights spread so that all they do is seen."""
    model = SequenceVAE(3, network=network, **QUICK | settings)
    model.codec_, _ = TokenCodec.learn(rows, "auto", 100)
    torch.manual_seed(0)
    model.module_ = model._build(model.codec_).eval()
    with torch.no_grad():
        for weight in model.module_.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def constant(chances, moments, rows=("ab", "a", "", "ba")):
    """A model whose every token has the same chances, whatever came before, and every code the same posterior."""
    model = untrained("recurrent", rows)
    with torch.no_grad():
        for weight in model.module_.parameters():
            weight.zero_()
        model.module_.net.logits.bias.copy_(torch.tensor(chances).log())
        model.module_.net.moments.bias.copy_(torch.tensor(moments))
    return model


# what is read ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_is_never_seen(network):
    model = untrained(network)
    x = torch.from_numpy(model.codec_.encode(["abab", "b", "", "bba"]))
    for drawn in (x, torch.nn.functional.pad(x, (0, 7), value=END)):
        trace = model.module_.trace(Batch(drawn), sample=False)
        nats = model.module_.log_prob(trace.raw, Batch(drawn))
        for i, steps in enumerate((5, 2, 1, 4)):
            alone = Batch(x[i : i + 1, :steps])
            found = model.module_.trace(alone, sample=False)
            # sums of float32 in another order
            torch.testing.assert_close(found.code.z, trace.code.z[i : i + 1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.module_.log_prob(found.raw, alone), nats[i : i + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_code_depends_on_every_token_and_on_their_order(network):
    codes = untrained(network).transform(["abba", "bbba", "abbb", "baab", "abb"])
    assert all(np.abs(codes[0] - other).max() > 1e-4 for other in codes[1:])


@pytest.mark.parametrize("network", NETWORKS)
def test_no_token_is_told_by_itself_or_those_after_it(network):
    model = untrained(network)
    net, z = model.module_.net, torch.randn(1, 3)
    before = torch.tensor([[net.onto.begin, 2, 3, 3, 2, 2]])
    changed = before.clone()
    changed[0, 4:] = 3
    first, second = (net.write(tokens, z)[0] for tokens in (before, changed))
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4], second[:, 4])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rows", [WORDS, np.array([[[0, 1, 0], [1, 1, 0]], [[1, 1, 0], [0, 0, 0]]])])
def test_step_by_step_as_all_at_once(network, rows):
    model = untrained(network, rows)
    x = torch.from_numpy(model.codec_.encode(rows[:2])).long()
    z = torch.randn(2, 3)
    together = model.module_.decode(z, None, x)
    net, state, apart = model.module_.net, None, []
    for step in range(x.shape[1]):
        before = x[:, step - 1 : step] if step else torch.full((2, 1), net.onto.begin)
        logits, state = net.write(before, z, state, step)
        apart.append(logits)
    torch.testing.assert_close(torch.cat(apart, dim=1), together, rtol=1e-4, atol=1e-5)  # sums in another order


# likelihood --------------------------------------------------------------------------------------------------------------------


def test_the_bound_by_hand():
    p, mu, logvar = np.array([0.4, 0.1, 0.3, 0.2]), np.array([0.5, -1.0, 0.0]), np.array([0.2, -0.5, 0.0])
    model = constant(
        p, np.concatenate([mu, logvar]), ["aab", "a", "", "ba"]
    )  # a is more frequent: token 2, b is token 3
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum()
    nats = np.log([p[2] * p[2] * p[3] * p[0], p[0], p[2] * p[1] * p[0]])  # each with its end; c is unknown
    for beta in (1.0, 0.1):
        model.module_.bottleneck.beta = beta
        for n in (0, 3):
            scores = model.score_samples(["aab", "", "ac"], n_samples=n, random_state=0)
            np.testing.assert_allclose(scores, nats - kl, rtol=1e-5)  # float32
    # the decoder leaves out the code, and then importance sampling is a mean of p(z) / q(z), which is 1
    found, error = model.log_likelihood(["aab", "", "ac"], n_samples=4000, return_std=True, random_state=0)
    assert (np.abs(found - nats) < 5 * error).all()
    assert (error < 0.1).all()
    assert model.score(["aab", "", "ac"]) == pytest.approx((nats - kl).mean(), rel=1e-5)


def test_likelihood_is_at_least_the_bound():
    model = untrained("recurrent")
    bound = model.score_samples(WORDS[:8], n_samples=300, random_state=0)
    assert (model.log_likelihood(WORDS[:8], n_samples=3000, random_state=0) > bound).all()


def test_chances_of_all_sequences_sum_to_one():
    from itertools import product

    model = untrained("attention", np.array([[0, 1, 1], [1, 0, 0]]))
    model.module_.net.logits.bias.data[[END, UNKNOWN]] = -30.0  # what an array of known tokens teaches
    z = torch.randn(1, 3).expand(8, -1)
    x = torch.tensor(list(product([2, 3], repeat=3)))
    nats = model.module_.log_prob(model.module_.decode(z, None, x), Batch(x))
    assert nats.double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)  # float32


def test_the_training_loss_is_the_bound_and_what_it_adds():
    model = constant([0.4, 0.1, 0.3, 0.2], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # KL of 0.5, 0 and 0 nats
    module, batch = model.module_, Batch(torch.tensor([[2, 2, 3, 0]]))
    module.bottleneck.free_bits = 0.1  # which no unit makes use of: the codes of a single row tell nothing
    nats = -np.log(0.3 * 0.3 * 0.2 * 0.4)
    loss = sequence_loss(0.5, 0.3, 2.0)
    assert loss(module.eval(), batch, 0.25).total.item() == pytest.approx(nats + 0.5, rel=1e-5)
    bag = 2.0 * 4 * np.log(4)  # four tokens, of which a bag of zeros says nothing
    found = loss(module.train(), batch, 0.25)
    assert found.total.item() == pytest.approx(nats + 0.5 * (0.5 + 3 * 0.1) + bag, rel=1e-5)
    assert found.terms["reconstruction"].item() == pytest.approx(nats, rel=1e-5)
    assert loss(module, batch, 1.0).total.item() == pytest.approx(nats + 0.8 + bag, rel=1e-5)
    module.eval()


def test_only_information_is_free():
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(0.3, 1, size=(50, 2)), rng.normal(-1, 0.5, size=(50, 2))
    h = torch.from_numpy(np.hstack([mu, logvar]))
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).mean(axis=0)
    v = mu.var(axis=0) + np.exp(logvar).mean(axis=0)
    off = 0.5 * (mu.mean(axis=0) ** 2 + v - 1 - np.log(v))  # of the normal distribution of all codes together
    told = 0.5 * (np.log(v) - logvar.mean(axis=0))
    np.testing.assert_allclose(off + told, kl)
    code = FreeInformation(2, free_bits=told.mean())  # more than one of the two units tells
    cost = code.train()(h, sample=True).costs["kl"]
    assert cost.mean().item() == pytest.approx((off + np.maximum(told, told.mean())).sum())
    assert code.eval()(h, sample=True).costs["kl"].mean().item() == pytest.approx(kl.sum())


def test_hidden_words_are_hidden():
    model = untrained("recurrent")
    x = torch.from_numpy(model.codec_.encode(["abab", "bbaa"]))
    z = torch.zeros(2, 3)
    almost = 1 - 1e-9
    hidden = model.module_.decode(z, None, x, drop=almost)
    torch.testing.assert_close(hidden[0], hidden[1])
    shown = model.module_.decode(z, None, x)
    assert not torch.allclose(shown[0], shown[1])


# tokens ------------------------------------------------------------------------------------------------------------------------

MELODIES = [[60, 62, 64], [60, 60], [], [64]] * 4
CASES = {
    "characters": (WORDS, "ab", str),
    "words": (["the cat sat down", "a cat sat up here", "the dog"] * 4, "the cat ran", str),
    "integers": (MELODIES, [60, 60, 62], list),
    "tuples": ([[("on", 60), ("off", 60)], [("on", 62)]] * 4, [("on", 60)], list),
    "rows": (np.array([[1, 2, 3], [3, 2, 1]] * 4, dtype=np.int16), [1, 1, 1], np.ndarray),
    "grids": (np.array([[["-", "X"], ["X", "X"]], [["-", "-"], ["X", "-"]]] * 4), [["-", "-"], ["-", "-"]], np.ndarray),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_kind_comes_back_as_it_was(name, network):
    rows, new, kind = CASES[name]
    model = SequenceVAE(3, network=network, **QUICK).fit(rows)
    assert model.transform(rows).shape == (len(rows), 3)
    for made in (
        model.sample(5, random_state=0),
        model.reconstruct(rows[:5]),
        model.inverse_transform(np.zeros((5, 3))),
    ):
        assert len(made) == 5
        assert isinstance(made[0], kind)
        if kind is np.ndarray:
            assert made.shape == (5, *rows.shape[1:])
            assert made.dtype == rows.dtype
        known = set(np.ravel(rows)) if kind is np.ndarray else {t for row in rows for t in row}
        assert all(set(np.ravel(row) if kind is np.ndarray else row) <= known | {" "} for row in made)
    one = np.array([new], dtype=rows.dtype) if kind is np.ndarray else [new]
    assert np.isfinite(model.transform(one)).all()
    assert np.isfinite(model.score_samples(one)).all()


def test_a_pattern_cuts_tokens():
    smiles = ["CCl", "C[NH+]Br", "BrCl"] * 3
    model = SequenceVAE(2, tokens=r"Cl|Br|\[.*?\]|.", **QUICK).fit(smiles)
    assert set(model.codec_.vocabulary) == {"C", "Cl", "[NH+]", "Br"}
    assert model.codec_.decode(model.codec_.encode(smiles)) == smiles


def test_rare_and_new_tokens_are_one():
    model = SequenceVAE(2, max_tokens=2, **QUICK).fit(["aab", "abz", "abb", "ab"])
    assert model.codec_.vocabulary == ("a", "b")
    codes = model.transform(["az", "ay", "ab"])
    np.testing.assert_array_equal(codes[0], codes[1])
    assert np.abs(codes[0] - codes[2]).max() > 0
    with torch.no_grad():
        model.module_.net.logits.bias[UNKNOWN] = 100.0
    options = ({"decoding": "greedy"}, {"decoding": "sample"}, {"decoding": "nucleus"}, {"decoding": "beam"})
    assert all(set("".join(model.sample(20, random_state=0, **o))) <= {"a", "b"} for o in options)


def test_one_token_an_empty_sequence_and_a_long_one():
    for network in NETWORKS:
        model = SequenceVAE(2, network=network, **QUICK).fit(["aaa", "", "a", "aa"] * 3)
        assert model.codec_.vocabulary == ("a",)
        long = "a" * 60
        assert np.isfinite(model.transform(["", long])).all()
        assert model.score_samples([long])[0] < model.score_samples([""])[0]
        made = model.sample(30, random_state=0)
        assert all(set(row) <= {"a"} and len(row) <= 6 for row in made)  # twice the longest
        assert max(map(len, model.sample(30, max_length=1, random_state=0))) == 1
        grid = SequenceVAE(2, network=network, **QUICK).fit(np.ones((4, 2, 3), dtype=int))
        np.testing.assert_array_equal(grid.sample(3, random_state=0), np.ones((3, 2, 3)))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("abc", "a single sequence is a list of one"),
        ([], "the list is empty"),
        (["", ""], "all sequences are empty"),
        ([1.5, 2.5], "sequence 0 is a float"),
        ([["a", 0.5]], "sequence 0 holds 0.5"),
        (["a", ["b"]], "1 strings and 1 others"),
        (np.ones((3, 2)), r"sequence 0 holds 1.0; expected strings, whole numbers"),
        (np.ones((3, 0), dtype=int), r"shape \(3, 0\)"),
        ({"a": 1}, "got a dict"),
        (7, "got a int"),
    ],
)
def test_what_is_no_sequence(rows, said):
    with pytest.raises(ValueError, match=said):
        SequenceVAE(2, **QUICK).fit(rows)


def test_frames_are_no_sequences():
    import pandas as pd

    frame = pd.DataFrame({"text": ["ab", "b"]})
    with pytest.raises(ValueError, match="got a DataFrame"):
        SequenceVAE(2, **QUICK).fit(frame)
    assert SequenceVAE(2, **QUICK).fit(frame["text"]).transform(frame["text"]).shape == (2, 2)


def test_other_errors():
    for tokens, said in (("(a", "no regular expression"), ("(a)|b", "has groups")):
        with pytest.raises(ParameterError, match=said):
            SequenceVAE(2, tokens=tokens, **QUICK).fit(WORDS)
    with pytest.raises(ValueError, match="does not match all of 'ba'"):
        SequenceVAE(2, tokens="a", **QUICK).fit(["a", "ba"])
    with pytest.raises(ParameterError, match="is for strings"):
        SequenceVAE(2, tokens="words", **QUICK).fit(MELODIES)
    with pytest.raises(ParameterError, match="latent_dim"):
        SequenceVAE(0, **QUICK).fit(WORDS)
    with pytest.raises(ParameterError, match="a multiple of 4"):
        SequenceVAE(2, network="attention", **QUICK | {"width": 18}).fit(WORDS)
    model = untrained("recurrent")
    with pytest.raises(ValueError, match="X holds sequences of items; expected strings"):
        model.transform(MELODIES)
    with pytest.raises(ValueError, match="n=0"):
        model.sample(0)
    with pytest.raises(ValueError, match="Z has 2 columns; expected codes of 3"):
        model.inverse_transform([[0, 0]])
    for wrong in ({"decoding": "best"}, {"temperature": -1}, {"top_p": 0}, {"beam_width": 0}, {"max_length": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model.sample(1, **wrong)
    with pytest.raises(ValueError, match="prior='mixture'"):
        model.sample(1, prior="mixture")
    with pytest.raises(TypeError, match="no fitted prior"):
        model.sample(1, condition="a")
    with pytest.raises(TypeError, match="told nothing"):
        model._read(WORDS, reset=False, condition=1)
    with pytest.raises(ValueError, match="n_samples=-1"):
        model.score_samples(WORDS, n_samples=-1)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.log_likelihood(WORDS, n_samples=0)
    from sklearn.exceptions import NotFittedError

    for ask in ("transform", "inverse_transform", "sample", "score_samples", "fit_prior"):
        with pytest.raises(NotFittedError):
            getattr(SequenceVAE(2), ask)(
                [[0.0, 0.0]] if ask == "inverse_transform" else 1 if ask == "sample" else WORDS
            )
    grid = untrained("recurrent", np.zeros((2, 2, 2), dtype=int))
    with pytest.raises(ValueError, match=r"arrays of shape \(4,\); expected arrays of shape \(2, 2\)"):
        grid.transform(np.zeros((2, 4), dtype=int))


# learning ----------------------------------------------------------------------------------------------------------------------

SHORT = ["abc", "cab", "bca", "aabb", "ccc", "b", "", "abcabc", "cba", "bbca"]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_few_sequences_are_learned_by_heart(network):
    own = {
        "recurrent": {"max_epochs": 300, "learning_rate": 5e-3},
        "convolutional": {"max_epochs": 50, "learning_rate": 5e-3},
        "attention": {"max_epochs": 200, "layers": 2},
    }
    settings = {"width": 32, "dropout": 0.0, "word_dropout": 0.0, "validation_fraction": 0.0, "beta": 0.01}
    settings |= {"batch_size": 10, "random_state": 0, "device": "cpu", **own[network]}
    model = SequenceVAE(8, network=network, **settings).fit(SHORT * 2)
    assert model.reconstruct(SHORT) == SHORT
    assert model.reconstruct(SHORT, decoding="beam") == SHORT
    assert model.activity(SHORT).n_active >= 3


def test_codes_are_used_without_tuning():
    rng = np.random.default_rng(0)
    nouns, verbs = ["cat", "dog", "bird", "fish"], ["sees", "likes", "hears", "fears"]
    rows = [f"{rng.choice(nouns)} {rng.choice(verbs)} {rng.choice(nouns)}" for _ in range(600)]
    model = SequenceVAE(8, width=32, max_epochs=60, random_state=0, device="cpu").fit(rows)
    found = diagnose(model, rows, random_state=0)
    assert found.n_active == 8
    assert 0.7 < found.kl.sum() < 1.2  # nats: what is free
    assert (
        found.mutual_information > 0.4
    )  # most of which tells sentences apart, for all that the decoder could do without


def test_a_code_that_means_nothing_is_told():
    settings = {
        "width": 8,
        "beta": 20.0,
        "free_bits": 0.0,
        "bag": 0.0,
        "batch_size": 4,
        "device": "cpu",
        "random_state": 0,
    }
    rows = ["ab", "ba"] * 12
    with pytest.warns(PosteriorCollapseWarning, match="a larger free_bits"):
        SequenceVAE(2, max_epochs=90, validation_fraction=0.0, **settings).fit(rows)
    SequenceVAE(2, max_epochs=2, **settings).fit(rows)  # of a model that is not trained yet it would say nothing


def test_the_same_seed_gives_the_same():
    one, two = (SequenceVAE(2, **QUICK).fit(WORDS) for _ in range(2))
    np.testing.assert_array_equal(one.transform(WORDS), two.transform(WORDS))
    assert one.sample(10, random_state=3) == two.sample(10, random_state=3) != one.sample(10, random_state=4)
    assert clone(one).get_params() == one.get_params()


def test_batches_are_of_like_length_and_hold_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 30, size=200)
    numbers = np.zeros((200, 30), dtype=np.int32)
    for i, steps in enumerate(lengths):
        numbers[i, : steps - 1] = i + 2
    rows = ByLength(Table(Schema("vector", (30,), 200), torch.from_numpy(numbers)), torch.arange(200), lengths)
    for batches in (list(rows.shuffled(16)), list(rows.in_order(16))):
        seen = torch.cat([b.x[:, 0] for b in batches])
        assert sorted(seen.tolist()) == sorted(numbers[:, 0].tolist())
        assert all(b.x[:, -1].eq(0).all() and (b.x.shape[1] == 1 or b.x[:, -2].ne(0).any()) for b in batches)
    assert sum(b.x.numel() for b in rows.shuffled(16)) < 1.3 * lengths.sum()  # of 6000 with all padding


# what comes with it ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_kept_in_a_folder(name, tmp_path):
    rows = CASES[name][0]
    model = SequenceVAE(2, network="attention", **QUICK).fit(rows).fit_prior(rows, "mixture", random_state=0)
    model.save(tmp_path / "model")
    for again in (diabolo.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):  # noqa: S301  # written here
        assert again.get_params() == model.get_params()
        assert again.codec_ == model.codec_
        np.testing.assert_array_equal(again.transform(rows), model.transform(rows))
        np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
        drawn = [m.sample(4, random_state=0) for m in (model, again)]
        assert np.array_equal(*drawn) if isinstance(rows, np.ndarray) else drawn[0] == drawn[1]
        assert again.history_["loss"] == model.history_["loss"]


def test_the_latent_tools_take_it():
    model = SequenceVAE(3, **QUICK).fit(WORDS)
    way = interpolate(model, ["abab"], ["bb"], 5, method="spherical")
    assert len(way) == 5
    assert way[0] == model.reconstruct(["abab"])[0]
    assert way[-1] == model.reconstruct(["bb"])[0]
    index, distance = nearest(model, WORDS[:8], ["abba"], 1)
    assert index[0, 0] == 4
    assert distance[0, 0] < 1e-5  # batches of other sizes round otherwise
    assert len(traverse(model, WORDS, units=[0], n=4).rows) == 4
    assert concept_vector(model, ["aa"], ["bb"]).shape == (3,)
    found = diagnose(model, WORDS, random_state=0)
    assert found.n_units == 3
    assert found.kl.shape == (3,)
    assert found.mutual_information is not None
    assert list(model.get_feature_names_out()) == ["sequencevae0", "sequencevae1", "sequencevae2"]


def test_a_prior_of_classes():
    model = SequenceVAE(2, **QUICK).fit(WORDS)
    model.fit_prior(WORDS, "normal", labels=[w[:1] == "a" for w in WORDS], random_state=0)
    assert len(model.sample(5, condition=True, random_state=0)) == 5
    assert len(model.sample(5, prior="own", random_state=0)) == 5
    assert not hasattr(model.fit(WORDS), "prior_")


def test_blocks_of_any_number():
    model = untrained("recurrent")
    blocks = list(model.sample_blocks(25, rows=10, random_state=0, decoding="greedy"))
    assert [len(block) for block in blocks] == [10, 10, 5]
    assert blocks[0] != blocks[1]
    assert next(model.sample_blocks(10**7, rows=10, random_state=0))  # nothing is made that nobody asked for yet
