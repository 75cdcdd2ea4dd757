"""One function from record batches to record batches, for data sets that no memory holds: files, Spark, Ray."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diabolo.checks import did_you_mean
from diabolo.data.stream import ARROW_ADVICE, ParquetSource, parquet_files, parse_bytes
from diabolo.data.tables import read_frame
from diabolo.files import drop_unfinished, make_folder, write_atomic
from diabolo.persistence import load

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BatchScorer", "score_files", "score_spark"]

OPERATIONS = ("embed", "score", "reconstruct", "anomalies")
MANIFEST = "_diabolo.json"  # readers of Parquet folders pass over names that begin so
SHARE = 16  # of the memory that one block may take, as it is read


class BatchScorer:
    """Runs a fitted model over Arrow record batches.

    Rows do not see each other, so the size of batches does not matter. The model is read once in each process that uses the
    object; a pickle of it holds the folder's name alone.

    Parameters
    ----------
    model : path or fitted estimator
        A folder that ``save`` wrote, which every machine must be able to read, or a fitted model for this process.
    operation : {"score", "embed", "reconstruct", "anomalies"}
        What becomes of a row: ``score``, nats, higher is better; the numbers of its code; its reconstruction; or for a detector
        ``score`` and ``anomaly``.
    keep : sequence of str
        Columns of the input that are handed on in front of the results, such as a key.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from diabolo import Autoencoder, BatchScorer
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> model = Autoencoder(2, max_epochs=2, random_state=0).fit(X)
    >>> rows = pa.table({"key": range(100)} | {f"x{j}": X[:, j] for j in range(3)})
    >>> scorer = BatchScorer(model, "score", keep=["key"])
    >>> next(scorer(rows.to_batches())).schema.names
    ['key', 'score']
    """

    def __init__(
        self,
        model: Any,
        operation: Literal["score", "embed", "reconstruct", "anomalies"] = "score",
        *,
        keep: Sequence[str] = (),
    ):
        if operation not in OPERATIONS:
            raise ValueError(
                f"operation={operation!r} is unknown; expected one of {', '.join(OPERATIONS)}."
                f"{did_you_mean(str(operation), OPERATIONS)}"
            )
        self.folder = Path(model) if isinstance(model, str | Path) else None
        self._model: Any = None if self.folder is not None else model
        self.operation, self.keep = operation, tuple(keep)

    def __repr__(self) -> str:
        return f"BatchScorer({self.folder or self._model}, {self.operation!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({} if self.folder is None else {"_model": None})

    @property
    def model(self) -> Any:
        """The fitted model, read at first use."""
        if self._model is None and self.folder is not None:
            self._model = load(self.folder)
        inner = getattr(self._model, "autoencoder_", self._model)
        if self.operation == "anomalies" and inner is self._model:
            raise TypeError(
                f"operation='anomalies' needs an AnomalyDetector; {type(inner).__name__} has no threshold. Use operation='score'"
            )
        if inner.codec_.conditions is not None and not inner.codec_.conditions.places:
            raise TypeError(
                f"{type(inner).__name__} is told a condition beside each row, which a batch of rows does not hold"
            )
        return self._model

    @property
    def names(self) -> list[str]:
        """Names of the columns of results."""
        if self.operation in ("score", "anomalies"):
            return ["score", "anomaly"][: 1 + (self.operation == "anomalies")]
        inner = getattr(self.model, "autoencoder_", self.model)
        if self.operation == "embed":
            return [str(name) for name in inner.get_feature_names_out()]
        named = getattr(inner, "feature_names_in_", None)
        return [str(n) for n in named] if named is not None else [f"x{j}" for j in range(inner.n_features_in_)]

    def schema(self, given: pa.Schema) -> pa.Schema:
        """Return the schema of the results for rows of the schema ``given``."""
        import pyarrow as pa

        for name in self.keep:
            if name not in given.names:
                raise ValueError(f"keep: there is no column {name!r}.{did_you_mean(name, given.names)}")
        clash = sorted(set(self.keep) & set(self.names))
        if clash:
            raise ValueError(f"keep: the result has a column {clash[0]!r} of its own; rename that of the rows")
        kept = [given.field(name) for name in self.keep]
        if self.operation == "reconstruct" and self._mixed:
            own = [pa.field(n, given.field(n).type) for n in self.names if n in given.names]
        else:
            own = [pa.field(n, pa.bool_() if n == "anomaly" else pa.float64()) for n in self.names]
        return pa.schema(kept + own)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Score record batches one by one: what Spark's ``mapInArrow`` takes."""
        done = 0
        for batch in batches:
            yield from self.table(batch, done).to_batches()
            done += batch.num_rows

    def table(self, table: pa.Table | pa.RecordBatch, first: int = 0) -> pa.Table:
        """Score one table or batch: what Ray's ``map_batches`` takes with ``batch_format="pyarrow"``.

        ``first`` is the number of its first row, for messages.
        """
        try:
            import pyarrow as pa
        except ImportError:
            raise ImportError(ARROW_ADVICE) from None
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        schema = self.schema(table.schema)
        if not table.num_rows:
            return schema.empty_table()
        columns = [table.column(name) for name in self.keep]
        try:
            results = self._results(self._rows(table))
        except ValueError as error:
            raise ValueError(f"in the {table.num_rows} rows from row {first} on: {error}") from None
        return pa.table([*columns, *results], schema=schema)

    @property
    def _mixed(self) -> bool:
        """Whether the model knows a mixed table, whose cells come back in their own types."""
        return getattr(self.model, "autoencoder_", self.model).codec_.given is not None

    def _rows(self, table: pa.Table) -> Any:
        inner = getattr(self.model, "autoencoder_", self.model)
        named = getattr(inner, "feature_names_in_", None)
        if named is None:  # fitted on rows without names: all other columns, in their order
            return read_frame(table.select([c for c in table.column_names if c not in self.keep])).values
        absent = [str(n) for n in named if n not in table.column_names]
        if absent:
            raise ValueError(
                f"{len(absent)} column(s) that the model knows are not there: {', '.join(map(repr, absent[:5]))}."
                f"{did_you_mean(absent[0], table.column_names)}"
            )
        return table.select([str(n) for n in named])

    def _results(self, rows: Any) -> list[Any]:
        model = self.model
        inner = getattr(model, "autoencoder_", model)
        if self.operation in ("score", "anomalies"):
            scores = np.asarray(model.score_samples(rows), dtype=np.float64)
            return [scores] if self.operation == "score" else [scores, scores < model.offset_]
        if self.operation == "embed":
            return list(np.asarray(inner.transform(rows), dtype=np.float64).T)
        rebuilt = inner.reconstruct(rows)
        if self._mixed:
            return [rebuilt.column(name) for name in self.names]
        values = read_frame(rebuilt).values if hasattr(rows, "column_names") else rebuilt
        return list(np.asarray(values, dtype=np.float64).reshape(len(values), -1).T)


def score_files(
    model: Any,
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    operation: Literal["score", "embed", "reconstruct", "anomalies"] = "score",
    *,
    keep: Sequence[str] = (),
    memory: int | str = "500MB",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Score Parquet files into a folder of Parquet files, in constant memory, and go on where an earlier call stopped.

    Parameters
    ----------
    model : path or fitted estimator
        As for :class:`BatchScorer`.
    source : path or list of paths
        A Parquet file, a folder of them, a pattern, or a list of files.
    output : path
        A folder. Each part of it, ``part-00000.parquet`` and so on, holds the results of some row groups, in their order;
        parts are written whole or not at all, and those that are there are not made again.
    operation, keep
        As for :class:`BatchScorer`.
    memory : int or str
        About how much memory the rows of a part may take.
    progress : callable, optional
        Called with the number of parts that are done and that of all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        When the folder holds results of another model, other files or another operation, or the rows do not suit the model.
    """
    scorer = BatchScorer(model, operation, keep=keep)
    rows = ParquetSource(parquet_files(source), None, parse_bytes(memory) // SHARE)
    folder = make_folder(Path(output))
    told = json.dumps(_fingerprint(scorer, rows), indent=1)
    manifest = folder / MANIFEST
    if manifest.exists():
        before, now = json.loads(manifest.read_text(encoding="utf-8")), json.loads(told)
        differs = [key for key in now if before.get(key) != now[key]]
        if differs:
            raise ValueError(
                f"{folder} holds results of another run: {', '.join(differs)} differ(s). Choose another folder, or delete "
                "this one"
            )
    elif any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and not a folder of results; choose another")
    else:
        write_atomic(manifest, told.encode())
    from pyarrow import parquet

    n, first = len(rows.sizes), 0
    for i, size in enumerate(rows.sizes):
        path = folder / f"part-{i:05}.parquet"
        drop_unfinished(path)
        if not path.exists():
            (table,) = rows.blocks([i])
            buffer = io.BytesIO()
            parquet.write_table(scorer.table(table, first), buffer)
            write_atomic(path, buffer.getvalue())
        first += size
        if progress is not None:
            progress(i + 1, n)
    return folder


def _fingerprint(scorer: BatchScorer, rows: ParquetSource) -> dict[str, Any]:
    inner = getattr(scorer.model, "autoencoder_", scorer.model)
    digest = hashlib.sha256(json.dumps(inner.codec_.to_json(), default=str).encode())
    for name, tensor in sorted(inner.module_.state_dict().items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    if inner is not scorer.model:
        digest.update(repr(float(scorer.model.offset_)).encode())
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in rows.files]
    told = {"model": digest.hexdigest(), "files": files, "rows of parts": rows.sizes}
    return told | {"operation": scorer.operation, "keep": list(scorer.keep)}


def score_spark(
    frame: Any,
    model: str | Path,
    operation: Literal["score", "embed", "reconstruct", "anomalies"] = "score",
    *,
    keep: Sequence[str] = (),
) -> Any:
    """Score a Spark data frame with ``mapInArrow``; the executors read the model from its folder.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
        Rows.
    model, operation, keep
        As for :class:`BatchScorer`; ``model`` is a folder.

    Returns
    -------
    pyspark.sql.DataFrame
        The columns ``keep`` and the results.
    """
    from pyspark.sql.types import BooleanType, DoubleType, StructField, StructType

    scorer = BatchScorer(model, operation, keep=keep)
    absent = [name for name in scorer.keep if name not in frame.columns]
    if absent:
        raise ValueError(f"keep: there is no column {absent[0]!r}.{did_you_mean(absent[0], frame.columns)}")
    fields = [frame.schema[name] for name in scorer.keep]
    fields += [StructField(n, BooleanType() if n == "anomaly" else DoubleType()) for n in scorer.names]
    return frame.mapInArrow(scorer, StructType(fields))
