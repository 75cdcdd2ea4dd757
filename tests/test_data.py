"""What the user has -> tensors, and back: no value lost, no input harmed, every refusal with the column's name."""

from __future__ import annotations

import decimal
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

from diabolo.data.arrays import ArrayCodec, read
from diabolo.data.profile import Profile
from diabolo.data.raw import Raw
from diabolo.data.scaling import Scaling, fit_quantiles, fit_scaling
from diabolo.records import Schema

SCALES = ["auto", "standard", "minmax", "quantile", "unit", None]
IMAGE_SCALES = ["auto", "standard", "minmax", "unit", None]


def raw_of(X: Any) -> Raw:
    """Read as an estimator does, which leaves plain matrices to scikit-learn."""
    found = read(X)
    return Raw(X, "vector", "numpy") if found is None else found


def precision(raw: Raw) -> torch.dtype:
    """Wide numbers are inferred in float64, as estimators do."""
    wide = raw.values.dtype.itemsize >= 4 and raw.values.dtype != np.float32
    return torch.float64 if wide else torch.float32


def round_trip(X: Any, scale: str | None) -> Any:
    raw = raw_of(X)
    codec = ArrayCodec.fit(raw, scale)
    table = codec.encode(raw, precision(raw))
    return codec.decode(table.x.numpy(), like=raw)


def assert_same_values(back: Any, values: np.ndarray, like: np.ndarray, scale: str | None) -> None:
    """Compare within rounding: a few units of the precision worked in, relative to the largest value of a column.

    The quantile transform takes a normal quantile and back: near the ends of the normal an error of the transformed value is
    stretched by the gap between two knots, here at most the range times the number of rows. It also takes values within 1e-7 of
    the ends for the ends, in units of the typical distance from the median, which is at most twice the largest value.
    """
    back, values = np.asarray(back, dtype=float), np.asarray(values, dtype=float)
    wide = like.dtype.itemsize >= 4 and like.dtype != np.float32
    eps = np.finfo(np.float64 if wide else np.float32).eps
    magnitude = np.abs(values.reshape(len(values), -1)).max(axis=0).reshape(values.shape[1:])
    slack = 64 * eps * np.maximum(magnitude, magnitude.max() if values.ndim > 2 else 0)
    if scale == "quantile":
        slack = slack * len(values) + 2e-7 * magnitude
    assert (np.abs(back - values) <= slack + np.finfo(np.float32).tiny).all()


DTYPES = [np.float64, np.float32, np.int64, np.uint8, np.bool_]


def numbers(dtype: Any) -> st.SearchStrategy[Any]:
    if np.dtype(dtype).kind == "f":
        values = st.floats(-(2.0**40), 2.0**40, width=np.dtype(dtype).itemsize * 8, allow_subnormal=False)
        # columns smaller than 1e-30 come back in float64 from either precision: see the tests of very small values
        return values.map(lambda v: 0.0 if abs(v) < 1e-20 else v) if dtype == np.float32 else values
    return hnp.from_dtype(np.dtype(dtype))


def matrices(dtype: Any, *, images: bool = False) -> st.SearchStrategy[np.ndarray]:
    dims = st.tuples(st.integers(1, 8), st.integers(1, 4))
    if images:
        dims = st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 3))
    return dims.flatmap(lambda shape: hnp.arrays(dtype, shape, elements=numbers(dtype)))


def names(d: int) -> list[str]:
    return [f"c{j}" for j in range(d)]


CONTAINERS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda a: a,
    "torch": lambda a: torch.from_numpy(a.copy()),
    "pandas": lambda a: pd.DataFrame(a, columns=names(a.shape[1]), index=[f"r{i}" for i in range(len(a))]),
    "polars": lambda a: pl.DataFrame(a, schema=names(a.shape[1])),
    "pyarrow": lambda a: pa.table({n: a[:, j] for j, n in enumerate(names(a.shape[1]))}),
}


# there and back -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("scale", SCALES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_round_trip_of_a_matrix(scale, dtype, data):
    X = data.draw(matrices(dtype))
    before = X.copy()
    back = round_trip(X, scale)
    assert back.shape == X.shape
    assert back.dtype == (np.float64 if precision(raw_of(X)) == torch.float64 else np.float32)
    assert_same_values(back, X, X, scale)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("scale", IMAGE_SCALES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_round_trip_of_images(scale, dtype, channel, data):
    X = data.draw(matrices(dtype, images=True))
    X = X if channel else X[:, 0]
    back = round_trip(X, scale)
    assert back.shape == X.shape
    assert_same_values(back, X, X, scale)
    tensor = round_trip(torch.from_numpy(X.copy()), scale)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), back)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("scale", ["standard", "quantile", None])
def test_round_trip_in_every_container(scale, container, dtype):
    a = (np.random.default_rng(0).normal(size=(12, 3)) * 40 + 100).astype(dtype)
    X = CONTAINERS[container](a)
    back = round_trip(X, scale)
    assert type(back) is type(X)
    assert_same_values(back, a, a, scale)
    if container == "pandas":
        assert back.index.equals(X.index)
        assert back.columns.equals(X.columns)
    elif container == "polars":
        assert back.columns == X.columns
    elif container == "pyarrow":
        assert back.column_names == X.column_names


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_hold_the_same_table(container):
    a = np.random.default_rng(0).normal(size=(12, 3))
    plain, other = raw_of(a), raw_of(CONTAINERS[container](a))
    want, got = ArrayCodec.fit(plain, "auto").encode(plain), ArrayCodec.fit(other, "auto").encode(other)
    assert torch.equal(got.x, want.x)
    assert got.x.dtype == torch.float32
    assert got.mask is None
    assert other.container == container


def test_codes_come_back_in_the_container_of_fit():
    a = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    for container, make in CONTAINERS.items():
        raw = raw_of(make(a))
        codec = ArrayCodec.fit(raw, None)
        assert type(codec.decode(a)) is type(make(a)), container


@pytest.mark.parametrize("columns", [[0, 1], [("a", 1), ("a", 2)], [3.5, "b"]])
def test_column_labels_of_pandas_come_back(columns):
    X = pd.DataFrame(np.arange(8.0).reshape(4, 2), index=list("wxyz"))
    X.columns = pd.MultiIndex.from_tuples(columns) if isinstance(columns[0], tuple) else columns
    back = round_trip(X, "standard")
    pd.testing.assert_frame_equal(back, X)  # its default tolerance, 1e-5, is far above rounding


def test_missing_cells_of_every_frame_are_alike():
    nan = float("nan")
    frames = [
        pd.DataFrame({"a": [1.0, nan, 3.0], "b": [1, 2, 3]}),
        pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [1, 2, 3]}),
        pd.DataFrame({"a": pd.array([1.0, None, 3.0], dtype="double[pyarrow]"), "b": [True, False, True]}),
        pl.DataFrame({"a": [1, None, 3], "b": [1.0, 2.0, 3.0]}),
        pl.DataFrame({"a": [1.0, nan, 3.0], "b": [1.0, 2.0, 3.0]}),
        pa.table({"a": [1, None, 3], "b": [1, 2, 3]}),
    ]
    for X in frames:
        raw = raw_of(X)
        table = ArrayCodec.fit(raw, "standard").encode(raw)
        assert table.mask.tolist() == [[1, 1], [0, 1], [1, 1]], X
        assert table.x[1, 0] == 0
        assert table.x[:, 0].tolist() == [-1, 0, 1]


def test_precision_of_a_frame_with_missing_cells():
    a = np.array([[1, np.nan], [2, 3], [4, 5]], dtype=np.float32)
    for container in ("pandas", "polars", "pyarrow"):
        assert raw_of(CONTAINERS[container](a)).values.dtype == np.float32, container
    nulls = pl.DataFrame({"a": [1.0, None]}, schema={"a": pl.Float32})
    assert raw_of(nulls).values.dtype == np.float32


def test_numbers_that_numpy_does_not_know():
    ones = [decimal.Decimal("1.5"), decimal.Decimal("2.5")]
    for X in (
        pl.DataFrame({"a": ones}),
        pa.table({"a": ones}),
        pl.DataFrame({"a": [1, 2]}, schema={"a": pl.Int128}),
        torch.tensor([[1.5], [2.5]], dtype=torch.bfloat16),
    ):
        raw = raw_of(X)
        assert raw.values.dtype in (np.float64, np.float32)
        np.testing.assert_allclose(raw.values[1] - raw.values[0], 1)


def test_a_column_of_nulls_alone_is_missing_after_fit():
    raw = raw_of(pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 5.0]}))
    codec = ArrayCodec.fit(raw, "standard")
    table = codec.encode(raw_of(pl.DataFrame({"a": [None], "b": [4.0]})))
    assert table.mask.tolist() == [[0, 1]]


# memory -------------------------------------------------------------------------------------------------------------------------


def test_layout_of_memory_does_not_matter(tmp_path):
    a = np.random.default_rng(0).normal(size=(10, 6))
    path = tmp_path / "a.npy"
    np.save(path, a)
    frozen = a.copy()
    frozen.setflags(write=False)
    layouts = {
        "memmap": np.load(path, mmap_mode="r"),
        "fortran": np.asfortranarray(a),
        "negative strides": np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        "every second": np.repeat(a, 2, axis=0)[::2],
        "transposed": np.ascontiguousarray(a.T).T,
        "frozen": frozen,
        "big endian": a.astype(">f8"),
    }
    for scale in SCALES:
        want = ArrayCodec.fit(raw_of(a), scale).encode(raw_of(a)).x
        for name, X in layouts.items():
            got = ArrayCodec.fit(raw_of(X), scale).encode(raw_of(X))
            # sums over another layout run in another order: one unit of float32
            torch.testing.assert_close(got.x, want, rtol=1e-6, atol=1e-6, msg=f"{scale} {name}")
            got.x.add_(1)  # a tensor of our own: nothing of the caller's is written
            np.testing.assert_array_equal(X, a)


def test_images_that_are_views(tmp_path):
    a = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 5), dtype=np.uint8)
    path = tmp_path / "a.npy"
    np.save(path, a)
    want = ArrayCodec.fit(raw_of(a), "auto").encode(raw_of(a)).x
    flipped = np.ascontiguousarray(a[..., ::-1])[..., ::-1]
    last = np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for X in (np.load(path, mmap_mode="r"), flipped, last, torch.from_numpy(a.copy())):
        raw = raw_of(X)
        torch.testing.assert_close(ArrayCodec.fit(raw, "auto").encode(raw).x, want)


def test_tensors_that_need_a_gradient_are_read():
    X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    np.testing.assert_array_equal(raw_of(X).values, X.detach().numpy())


# statistics ---------------------------------------------------------------------------------------------------------------------


def with_gaps(n: int = 300, d: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * [1, 10, 1e-3, 1e6, 5] + [0, 1000, 1, -1e6, 3]
    X[rng.random((n, d)) < 0.2] = np.nan
    return X


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    ("scale", "reference"),
    [
        ("standard", StandardScaler()),
        ("minmax", MinMaxScaler()),
        ("quantile", QuantileTransformer(n_quantiles=200, output_distribution="normal")),
    ],
)
def test_scaling_equals_scikit_learn(scale, reference, gaps):
    X = with_gaps()
    X = X if gaps else np.nan_to_num(X)
    if scale == "quantile":
        reference.set_params(n_quantiles=len(X))
    want = reference.fit_transform(X)
    table = ArrayCodec.fit(raw_of(X), scale).encode(raw_of(X), torch.float64)
    observed = ~np.isnan(X)
    # statistics summed in another order: a few hundred units of float64, and more where a quantile is stretched at the ends
    np.testing.assert_allclose(table.x.numpy()[observed], want[observed], rtol=1e-9, atol=1e-9)
    assert (table.x.numpy()[~observed] == 0).all()
    if gaps:
        np.testing.assert_array_equal(table.mask.numpy(), observed)
    else:
        assert table.mask is None


def test_scaled_table_has_mean_zero_and_variance_one():
    X = np.nan_to_num(with_gaps())
    x = ArrayCodec.fit(raw_of(X), "standard").encode(raw_of(X), torch.float64).x
    torch.testing.assert_close(x.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(x.var(0, correction=0), torch.ones(5, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(X=matrices(np.float64), data=st.data())
def test_missing_cells_never_change_statistics(X, data):
    scale = data.draw(st.sampled_from(["standard", "minmax", "quantile"]))
    blank = np.full((data.draw(st.integers(1, 5)), X.shape[1]), np.nan)
    padded = np.concatenate([X, blank])[data.draw(st.permutations(range(len(X) + len(blank))))]
    one, two = ArrayCodec.fit(raw_of(X), scale), ArrayCodec.fit(raw_of(padded), scale)
    assert one.schema.columns == two.schema.columns
    assert one.schema.values == two.schema.values
    if scale != "quantile":  # whose knots depend on the number of rows, not what they hold
        spread = np.maximum(np.abs(X).max(0), 1)
        # sums in another order: a few units of the largest value
        assert (np.abs(one.scaling.center - two.scaling.center) <= 1e-13 * spread).all()
        assert (np.abs(one.scaling.width - two.scaling.width) <= 1e-13 * spread).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e30, 1e-30, 1e308])
@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_constant_column_keeps_its_unit(scale, value):
    X = np.stack([np.full(1001, value), np.arange(1001.0)], axis=1)
    codec = ArrayCodec.fit(raw_of(X), scale)
    assert codec.scaling.width[0] == 1
    table = codec.encode(raw_of(X))
    assert (table.x[:, 0] == 0).all()
    np.testing.assert_array_equal(codec.decode(table.x.double().numpy())[:, 0], X[:, 0])


def test_constant_column_of_many_rows():
    # a plain sum of a million times 0.1 is off in its eleventh digit: the spread must not be mistaken for one
    codec = ArrayCodec.fit(raw_of(np.full((1_000_003, 2), 0.1)), "standard")
    assert codec.scaling.width.tolist() == [1, 1]


def test_spread_far_from_zero():
    # a plain sum of so many large numbers is off by more than their spread
    offset = 2.0**60
    X = offset + 4096.0 * np.random.default_rng(0).integers(0, 10, (200_000, 2))
    scaling = ArrayCodec.fit(raw_of(X), "standard").scaling
    np.testing.assert_allclose(scaling.width, (X - offset).std(axis=0), rtol=1e-3)
    # float64 holds numbers of this size to 256
    np.testing.assert_allclose(scaling.center - offset, (X - offset).mean(axis=0), atol=512)


def test_minmax_never_leaves_the_unit_interval():
    rng = np.random.default_rng(0)
    for X in (
        rng.normal(size=(50, 3)).astype(np.float32),
        rng.normal(size=(50, 3)) * 1e5,
        1e16 + 2 * rng.integers(0, 2, (9, 3)),
    ):
        codec = ArrayCodec.fit(raw_of(X), "minmax")
        x = codec.encode(raw_of(X)).x
        assert x.min() == 0
        assert x.max() <= 1
        assert codec.schema.values in ("unit", "binary")


def test_images_share_one_width_and_center_each_channel():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3, 4, 4)) * np.array([1, 2, 5]).reshape(3, 1, 1) + np.array([0, 10, 20]).reshape(3, 1, 1)
    scaling = ArrayCodec.fit(raw_of(X), "auto").scaling
    np.testing.assert_allclose(scaling.center.ravel(), X.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(scaling.width.ravel(), np.sqrt(X.var(axis=(0, 2, 3)).mean()))
    low = ArrayCodec.fit(raw_of(X), "minmax").scaling
    np.testing.assert_allclose(low.center.ravel(), X.min())
    np.testing.assert_allclose(low.width.ravel(), X.max() - X.min())


# what "auto" chooses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "scale", "values"),
    [
        (load_digits().data, "shared", "real"),
        (load_digits().images, "shared", "real"),
        (load_iris().data, "standard", "real"),
        (np.eye(6), "none", "binary"),
        (np.eye(6).astype(bool), "none", "binary"),
        (np.where(np.eye(6) == 0, np.nan, 1.0), "none", "binary"),
    ],
    ids=["digits", "digit images", "iris", "zeros and ones", "bool", "ones and gaps"],
)
def test_auto_scale(X, scale, values):
    codec = ArrayCodec.fit(raw_of(X), "auto")
    assert codec.scaling.name == scale
    assert codec.schema.values == values
    assert codec.schema.shared_unit == (scale == "shared")


@pytest.mark.parametrize(
    ("X", "scale", "values"),
    [
        ([[0.0, 0.5], [1.0, 0.2]], "none", "unit"),
        ([[0.0, 1.0], [1.0, 1.0]], "none", "binary"),
        ([[0.0, 5.0], [2.0, 6.0]], "minmax", "unit"),
        ([[-1.0, np.nan], [0.0, 1.0]], "minmax", "unit"),
    ],
)
def test_unit_scale_leaves_what_lies_in_the_unit_interval(X, scale, values):
    codec = ArrayCodec.fit(raw_of(np.array(X)), "unit")
    assert (codec.scaling.name, codec.schema.values) == (scale, values)


# extremes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-150, 1e-50, 1e-30, 1e30, 1e100, 1e150])
@pytest.mark.parametrize("scale", ["auto", "standard", "minmax", "quantile"])
def test_very_large_and_very_small_values(scale, size):
    X = np.random.default_rng(0).normal(size=(40, 2)) * [size, 1]
    codec = ArrayCodec.fit(raw_of(X), scale)
    for dtype in (torch.float32, torch.float64):
        table = codec.encode(raw_of(X), dtype)
        assert torch.isfinite(table.x).all()
        assert table.mask is None
        assert table.x.abs().max() < 10
        # float32 codes lose to 1e-7 of the range, and the quantile transform stretches that by the number of rows
        np.testing.assert_allclose(codec.decode(table.x.numpy()) / [size, 1], X / [size, 1], atol=1e-5)


@pytest.mark.parametrize("scale", ["auto", "standard"])
def test_values_too_large_name_their_column(scale):
    X = pd.DataFrame({"small": [0.0, 1.0, 2.0], "huge": [1e300, -1e300, 5e299]})
    with pytest.raises(ValueError, match=r"column 'huge' has values as large as 1e\+300.*logarithm"):
        ArrayCodec.fit(raw_of(X), scale)
    table = ArrayCodec.fit(raw_of(X), "quantile").encode(raw_of(X))  # as the message advises
    assert torch.isfinite(table.x).all()


def test_values_too_large_name_their_column_under_a_shared_scale():
    X = np.concatenate([np.tile([[0.0], [1.0], [2.0]], 9), [[1e300], [0], [1]]], axis=1)
    with pytest.raises(ValueError, match="column '9' has values as large as"):
        ArrayCodec.fit(raw_of(X), "auto")
    with pytest.raises(ValueError, match="channel 0 has values as large as"):
        ArrayCodec.fit(raw_of(X.reshape(3, 1, 2, 5)), "auto")


def test_values_far_from_those_of_fit_name_their_cell():
    raw = raw_of(pd.DataFrame({"a": np.arange(5.0), "b": np.arange(5.0)}))
    codec = ArrayCodec.fit(raw, "standard")
    far = raw_of(pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 1e300]}))
    with pytest.raises(ValueError, match=r"column 'b' has 1e\+300 in row 1, too far from the values seen in fit"):
        codec.encode(far)
    assert torch.isfinite(codec.encode(far, torch.float64).x).all()


def test_bytes_do_not_overflow():
    X = np.random.default_rng(0).integers(200, 256, (50, 1, 6, 6), dtype=np.uint8)
    for scale in IMAGE_SCALES:
        codec = ArrayCodec.fit(raw_of(X), scale)
        exact = ArrayCodec.fit(raw_of(X.astype(np.float64)), scale)
        np.testing.assert_allclose(codec.scaling.center, exact.scaling.center)
        np.testing.assert_allclose(codec.scaling.width, exact.scaling.width)
        want = exact.encode(raw_of(X.astype(np.float64)), torch.float64).x
        torch.testing.assert_close(codec.encode(raw_of(X)).x.double(), want, rtol=1e-5, atol=1e-5)  # float32


def test_wide_integers_do_not_overflow():
    base = 2**62
    X = base + 2**40 * np.arange(10, dtype=np.int64)[:, None] * np.array([1, 7])
    for scale in ("standard", "minmax"):
        codec = ArrayCodec.fit(raw_of(X), scale)
        table = codec.encode(raw_of(X))
        step = table.x[1:] - table.x[:-1]
        torch.testing.assert_close(step, step[:1].expand_as(step), rtol=1e-4, atol=1e-4)  # evenly spaced, float32
        back = codec.decode(codec.encode(raw_of(X), torch.float64).x.numpy())
        np.testing.assert_allclose(back, X.astype(float), rtol=1e-15)
    negative = ArrayCodec.fit(raw_of(np.array([[-(2**63)], [2**63 - 1]])), "minmax")
    assert negative.scaling.width[0] == 2.0**64


def test_one_row_and_one_column():
    for scale in SCALES:
        back = round_trip(np.array([[3.5]]), scale)
        np.testing.assert_allclose(back, [[3.5]])


# refusals -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame({"a": [1.0, np.inf], "b": [1.0, 2.0]}), r"infinity.*row 1, column 'a'"),
        (pl.DataFrame({"a": [1.0, 2.0], "b": [-np.inf, 2.0]}), r"infinity.*row 0, column 'b'"),
        (torch.tensor([[1.0, 2.0], [3.0, float("inf")]]), r"infinity.*row 1, column '1'"),
        (np.array([[[0.0, 1.0], [np.inf, 1.0]]]), r"infinity.*row 0, pixel \(0, 1, 0\)"),
    ],
)
def test_infinity_names_its_cell(X, message):
    with pytest.raises(ValueError, match=message):
        read(X)


def test_infinity_after_fit_names_its_cell():
    X = np.random.default_rng(0).normal(size=(5, 3))
    codec = ArrayCodec.fit(raw_of(X), "standard")
    X[2, 1] = np.inf
    with pytest.raises(ValueError, match="row 2, column '1'"):
        codec.encode(raw_of(X))


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_columns_that_are_no_numbers_are_all_named(make):
    X = make({"city": ["a", "b"], "age": [1, 2], "name": ["x", "y"]})
    with pytest.raises(ValueError, match=r"2 of 3 are not: 'city' \(String\), 'name' \(String\).*OneHotEncoder"):
        read(X)


def test_dates_and_categories_are_named():
    X = pd.DataFrame({"when": pd.to_datetime(["2020-01-01", "2020-01-02"]), "kind": pd.Categorical(["a", "b"])})
    with pytest.raises(ValueError, match=r"'when' \(Datetime.*'kind' \(Categorical"):
        read(X)


@pytest.mark.parametrize(
    "X",
    [
        torch.ones(3, 2, dtype=torch.complex64),
        torch.ones(3, 2, dtype=torch.complex64).conj(),
        np.ones((3, 2, 2), dtype=complex),
    ],
)
def test_complex_numbers_are_refused(X):
    with pytest.raises(ValueError, match="Complex data not supported"):
        read(X)


def test_complex_column_is_named():
    with pytest.raises(ValueError, match="1 of 2 are not: 'c'"):
        read(pd.DataFrame({"c": [1j, 2j], "d": [1, 2]}))


def test_columns_without_a_value_are_named():
    X = pd.DataFrame({"a": [1.0, 2.0], "empty": [np.nan, np.nan], "void": [np.nan, np.nan]})
    with pytest.raises(ValueError, match=r"2 column\(s\) have no observed value: 'empty', 'void'"):
        ArrayCodec.fit(raw_of(X), "auto")
    with pytest.raises(ValueError, match="'b'"):
        ArrayCodec.fit(raw_of(pl.DataFrame({"a": [1, 2], "b": [None, None]})), "auto")
    images = np.ones((4, 2, 3, 3))
    images[:, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 channel\(s\) have no observed value: '1'"):
        ArrayCodec.fit(raw_of(images), "auto")


def test_a_pixel_that_is_never_seen_is_fine():
    X = np.random.default_rng(0).random((6, 1, 3, 3))
    X[:, 0, 1, 1] = np.nan
    codec = ArrayCodec.fit(raw_of(X), "unit")
    assert codec.schema.values == "unit"
    table = codec.encode(raw_of(X))
    assert (table.mask[:, 0, 1, 1] == 0).all()
    assert table.mask.sum() == 6 * 8


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 4), (0, 1, 4, 4)])
def test_no_rows(shape, scale):
    with pytest.raises(ValueError, match="0 sample"):
        ArrayCodec.fit(raw_of(np.ones(shape)), scale)


@pytest.mark.parametrize("shape", [(3, 0), (3, 0, 4), (3, 1, 4, 0)])
def test_no_columns(shape):
    with pytest.raises(ValueError, match="0 feature"):
        ArrayCodec.fit(raw_of(np.ones(shape)), "auto")


def test_frames_without_rows_or_columns():
    with pytest.raises(ValueError, match="0 sample"):
        ArrayCodec.fit(raw_of(pd.DataFrame({"a": np.ones(0)})), "auto")
    with pytest.raises(ValueError, match="0 feature"):
        ArrayCodec.fit(raw_of(pd.DataFrame(index=range(3))), "auto")


def test_channels_last_is_told_how_to_turn():
    with pytest.raises(ValueError, match=r"channels-last \(5, 8, 9, 3\).*X.transpose\(0, 3, 1, 2\)"):
        read(np.ones((5, 8, 9, 3)))
    for shape in [(5, 3, 8, 3), (5, 2, 3, 3), (5, 1, 1, 1), (5, 6, 2, 3)]:
        assert read(np.ones(shape)).values.shape == shape


@pytest.mark.parametrize("X", [torch.ones(3), torch.tensor(1.0)])
def test_tensors_of_too_few_dimensions(X):
    with pytest.raises(ValueError, match="Expected 2D array, got a tensor of shape"):
        read(X)


@pytest.mark.parametrize("make", [np.ones, torch.ones])
def test_arrays_of_too_many_dimensions(make):
    with pytest.raises(ValueError, match=r"expected rows.*got an array of shape \(2, 1, 3, 3, 3\)"):
        read(make((2, 1, 3, 3, 3)))


def test_images_of_text_are_refused():
    with pytest.raises(ValueError, match="expected images of numbers, got dtype <U1"):
        read(np.full((2, 3, 3), "a"))


def test_images_have_no_quantile_scale():
    with pytest.raises(ValueError, match="scale='quantile' is for tables"):
        ArrayCodec.fit(raw_of(np.ones((3, 4, 4))), "quantile")


def test_rows_of_another_shape_than_in_fit():
    codec = ArrayCodec.fit(raw_of(np.random.default_rng(0).random((4, 1, 3, 3))), "auto")
    with pytest.raises(ValueError, match=r"rows of shape \(1, 3, 4\), expected \(1, 3, 3\) as seen in fit"):
        codec.encode(raw_of(np.ones((2, 1, 3, 4))))


def test_plain_matrices_are_left_to_scikit_learn():
    for X in (np.ones((2, 2)), [[1, 2]], np.ones(3), None):
        assert read(X) is None


# densities ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["standard", "minmax", None, "auto"])
@pytest.mark.parametrize("shape", [(4,), (9,), (2, 3, 3)])
def test_log_volume_is_the_log_jacobian_of_the_scaling(scale, shape):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, *shape)) * rng.uniform(0.1, 50, shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    codec = ArrayCodec.fit(raw_of(X), scale)
    step = 1e-4
    slope = (codec.scaling.forward(X + step, np.float64) - codec.scaling.forward(X - step, np.float64)) / (2 * step)
    mask = rng.random(X.shape) < 0.6
    # p(x) = p(scaled) * slope; central differences of an affine map are exact to rounding, 1e-16 / 1e-4 of the value
    np.testing.assert_allclose(codec.log_volume(None, 20), -np.log(slope).reshape(20, -1).sum(1), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(
        codec.log_volume(mask, 20), -(np.log(slope) * mask).reshape(20, -1).sum(1), rtol=1e-7, atol=1e-7
    )
    assert codec.log_volume(None, 20).shape == (20,)


# files --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("container", ["pandas", "torch", "numpy"])
def test_codec_survives_json(container, scale):
    a = np.random.default_rng(0).normal(size=(30, 3)) * [1, 100, 1e-5]
    raw = raw_of(CONTAINERS[container](a))
    codec = ArrayCodec.fit(raw, scale)
    text = json.dumps(codec.to_json(), allow_nan=False)
    back = ArrayCodec.from_json(json.loads(text), codec.arrays())
    assert back.schema == codec.schema
    assert back.container == container
    assert torch.equal(back.encode(raw).x, codec.encode(raw).x)
    assert type(back.decode(a)) is type(codec.decode(a))
    np.testing.assert_array_equal(np.asarray(back.decode(a)), np.asarray(codec.decode(a)))


def test_image_codec_survives_json():
    raw = raw_of(np.random.default_rng(0).random((5, 4, 4)))
    codec = ArrayCodec.fit(raw, "auto")
    back = ArrayCodec.from_json(json.loads(json.dumps(codec.to_json())), codec.arrays())
    assert back.decode(back.encode(raw).x.numpy()).shape == (5, 4, 4)
    assert back.schema == codec.schema


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    values=st.sampled_from(["real", "unit", "binary"]),
    context=st.integers(0, 4),
)
def test_schema_survives_json(shape, values, context):
    schema = Schema("image", tuple(shape), 3, values, (), context, True)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    assert schema.size == int(np.prod(shape))
    for flat in range(schema.size):
        position = tuple(int(i) for i in np.unravel_index(flat, shape))
        want = f"pixel {position}" if len(shape) > 1 else f"column {flat}"
        assert schema.feature(flat) == want


def test_schema_holds_the_range_of_each_column():
    X = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [7.0, -1.0, 2.0]})
    schema = ArrayCodec.fit(raw_of(X), "standard").schema
    assert [(c.name, c.low, c.high) for c in schema.columns] == [("a", 1, 3), ("b", -1, 7)]
    assert schema.n_rows == 3
    assert schema.feature(1) == "column 'b'"


def test_table_gathers_slices_and_moves():
    X = np.where(np.eye(4) > 0, np.nan, np.arange(16.0).reshape(4, 4))
    raw = raw_of(X)
    table = ArrayCodec.fit(raw, None).encode(raw)
    assert len(table) == 4
    batch = table.take(torch.tensor([3, 0]))
    assert torch.equal(batch.x, table.x[[3, 0]])
    assert torch.equal(batch.mask, table.mask[[3, 0]])
    assert batch.context is None
    part = table.slice(1, 3)
    assert torch.equal(part.x, table.x[1:3])
    assert part.x.data_ptr() == table.x[1:].data_ptr()  # a view, no copy
    assert torch.equal(table.to("cpu").x, table.x)


def test_scaling_arrays_rebuild_a_scaling():
    X = np.random.default_rng(0).normal(size=(30, 2))
    for how in ("none", "standard", "shared", "minmax", "quantile"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            profile = Profile(Raw(X, "vector", "numpy"), moments=True)
            profile.add(X)
            scaling = fit_quantiles(X) if how == "quantile" else fit_scaling(profile, how)
        again = Scaling.from_arrays(how, scaling.arrays())
        np.testing.assert_array_equal(again.forward(X, np.float64), scaling.forward(X, np.float64))
        assert again.name == how
