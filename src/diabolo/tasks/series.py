"""Anomaly detection in series: a score for each step of time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Gt, Le, Lt, check_parameters
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.seeding import draw_seed
from diabolo.tasks.alarms import departures, once
from diabolo.tasks.events import Event, Judged, find_events, narrowed
from diabolo.tasks.threshold import Calibrated
from diabolo.tasks.tracks import Segment, Track, Tracks, by_track, learn_scale, learn_step, read_tracks, segments, split
from diabolo.tasks.windows import (
    LONGEST,
    choose_window,
    cover,
    errors_of,
    find_period,
    lack_of,
    learning_windows,
    mean_over_windows,
    scores_of,
    scoring_windows,
)
from diabolo.zoo.vanilla import Autoencoder

__all__ = ["SeriesAnomalyDetector"]

Array = NDArray[Any]

STEPS = 500  # of the optimiser, for the model that nobody named
CODE = 8  # numbers of its code at most
ROUNDS = 2  # in which missing cells are filled by reconstructions
SCORED = 2**20  # numbers in the windows that are scored at a time
LEAST = 4  # rows to learn from
APART = 32  # steps between rows of an event at most, once it is narrowed
USUAL = 0.99  # share of held-out rows that by themselves lack what is usual
TRIMMED = 0.1  # share of the rows that training="contaminated" leaves out
CORE, ODD = (
    1 / 2,
    1 / 8,
)  # shares of the largest lack of a single row from which a row is at the core of an event, and in it


@register
@spec
class SeriesAnomalyDetector(Calibrated, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    r"""Finds stretches of time at which one or many series do what they never did before.

    An autoencoder learns windows of the series. The score of a row is

    .. math:: -\frac1C \sum_c \log\Big(1 + \frac{1}{\sigma_c^2}\, \overline{(x - \hat x)^2_c}\Big)

    where the mean squared error of channel :math:`c` is taken over all windows that cover the row, whole windows, and
    :math:`\sigma_c^2` is the channel's variance in ``fit``: what is odd is odd beside its neighbourhood in time, and no single
    channel outweighs the others. The threshold is set by how a first model, of two thirds of each series, judges the rest.
    scikit-learn's sign holds: a higher score is more normal, and ``predict`` returns -1 for an anomaly.

    Rows are steps of time, columns are channels. A frame may have a column of times, or an index of dates: rows are put on a
    grid of the median step, where a step without a row is missing, and series are cut where nothing is known for a whole
    window. Answers are for the rows that were given. A list of arrays or frames, or a column that names the series, are many
    series, of which one model is learned. Missing cells (NaN) are left out; a row about which nothing is known gets the median
    of the held-out scores.

    {parameters}

    Attributes
    ----------
    autoencoder_ : BaseAutoencoder
        The fitted model of windows, scaled to mean 0 and variance 1 for each channel.
    window_ : int
        Steps of a window.
    period_ : int or None
        Steps after which the series repeat themselves, if they do.
    step_ : float or None
        The median time between rows: nanoseconds of dates, or the unit of the times.
    center_, width_ : ndarray of shape (n_channels,)
        Mean and standard deviation of each channel.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the held-out rows, ascending.
    offset_ : float
        The threshold. It follows ``contamination``: change that with ``set_params``, without fitting again.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import SeriesAnomalyDetector
    >>> t = np.arange(1000)
    >>> x = np.sin(t / 8) + 0.1 * np.random.default_rng(0).normal(size=1000)
    >>> detector = SeriesAnomalyDetector(window=50, random_state=0).fit(x)
    >>> new = np.sin(t / 8)
    >>> new[600:650] = 1.5
    >>> event = detector.events(new)[0]
    >>> 590 < event.first < 625 < event.last < 660
    True
    """

    autoencoder: Annotated[
        BaseAutoencoder | None,
        "the model of windows to fit; None is an Autoencoder with a code of 8 numbers, trained for 500 steps",
    ] = field(default=None, kw_only=False)
    window: Annotated[
        int | Literal["auto"],
        Ge(1),
        "steps of a window; 'auto' is at most 256, at most 1024 numbers and a quarter of the longest series (an eighth of "
        "contaminated ones), in whole periods where the series repeat themselves",
    ] = "auto"
    contamination: Annotated[
        float | Literal["auto"],
        Ge(0),
        Le(0.5),
        "share of rows like those of fit that are to be flagged; 'auto' flags scores more than three robust standard deviations "
        "below the median of the held-out ones, but at most one in twenty of these, and none that noise alone may bring about",
    ] = "auto"
    training: Annotated[
        Literal["clean", "contaminated"],
        "what the rows of fit are: 'clean' ones are normal but for a few; of 'contaminated' ones many may be anomalies: each "
        "third of a series is judged by what was learned of the others, all of them set the threshold, and the tenth that scores "
        "lowest is left out of what is learned in the end",
    ] = "clean"
    causal: Annotated[
        bool,
        "whether the score of a row may depend on nothing after it: it is that of the window that ends there. What is odd is "
        "seen later and less sharply, and the first rows of a series, before there is a window, are not judged. score_stream "
        "needs it",
    ] = False
    time: Annotated[
        str | None, "column of a frame that says when each row was; None takes an index of dates, or even steps"
    ] = None
    series: Annotated[str | None, "column of a frame that says which series each row belongs to"] = None
    calibration_fraction: Annotated[
        float,
        Gt(0),
        Lt(1),
        "share of each series, its last part, that sets the threshold: it is judged by a first model that saw nothing of it; the "
        "one that is kept learns all rows. Of contaminated rows all set the threshold",
    ] = 1 / 3
    random_state: Annotated[int | np.random.RandomState | None, "seed of the model; None leaves the model its own"] = (
        None
    )

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is usual, and calibrate on the last part of each series.

        Parameters
        ----------
        X : array of shape (n, channels) or (n,), frame, or list of either
            One row for each step of time, mostly normal.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        ValueError
            For fewer than 4 rows, times out of order, or a window longer than every series.
        """
        check_parameters(self)
        tracks = read_tracks(self, X, self.time, self.series, reset=True)
        rows = max(len(track.values) for track in tracks.tracks)
        if rows < LEAST:
            raise ValueError(f"expected a series of at least {LEAST} rows, got n_samples={rows}")
        self.channel_names_, self.step_ = tracks.names, learn_step(tracks)
        self.center_, self.width_ = learn_scale(tracks.tracks, tracks.names)
        parts = [self._scaled(s.values) for t in tracks.tracks for s in segments(t, self.step_, LONGEST)]
        self.period_ = find_period(parts)
        room = rows if self.training == "clean" else rows // 2  # what is odd must not lie in most of the windows
        self.window_ = choose_window(room, len(tracks.names), self.period_) if self.window == "auto" else self.window
        thirds = (0.0, 1 / 3, 2 / 3, 1.0)
        folds = split(tracks.tracks, (1 - self.calibration_fraction, 1.0) if self.training == "clean" else thirds)
        longest = min(max(len(part.values) for part in learn) for learn, _ in folds)
        if self.window_ > longest:
            raise ValueError(
                f"window={self.window_} is longer than what is learned of the longest series at a time, {longest} of {rows} "
                "rows. Choose a shorter window, or a smaller calibration_fraction"
            )
        seed = None if self.random_state is None else draw_seed(self.random_state)
        held, own = np.empty((0, len(tracks.names))), np.empty(0)
        for learn, judge in folds:
            self._learn(learn, seed)
            for track, rows_of in judge:
                lacks, alone = self._held(track, rows_of)
                held, own = np.concatenate([held, lacks]), np.concatenate([own, alone])
        scores = scores_of(held)
        if np.isnan(scores).all():
            raise ValueError("the rows of each series that set the threshold have no observed cell")
        self.calibration_scores_ = np.sort(scores[~np.isnan(scores)])
        seen = ~np.isnan(held)
        self.typical_ = np.where(seen, held, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        self.usual_ = float(np.quantile(own, USUAL))
        learned = tracks.tracks
        if self.training == "contaminated":
            low = np.nanquantile(scores, TRIMMED)
            learned = [t.without(part < low) for t, part in by_track(learned, folds, scores)]
        self._learn(learned, seed)
        return self

    def _learn(self, tracks: list[Track], seed: int | None) -> None:
        """Learn scale and model from series."""
        self.center_, self.width_ = learn_scale(tracks, self.channel_names_)
        parts = [self._scaled(s.values) for t in tracks for s in segments(t, self.step_, self.window_)]
        windows = learning_windows(parts, self.window_).astype(np.float32)
        gone = np.isnan(windows)
        whole = ~gone.any(axis=(1, 2))
        windows = windows[whole if 2 * whole.sum() >= len(windows) else ~gone.all(axis=(1, 2))]
        model = self._usual(len(windows)) if self.autoencoder is None else clone(self.autoencoder)
        model.set_params(kind="series", **({} if seed is None else {"random_state": seed}))
        self.autoencoder_ = model.fit(windows)

    def _held(self, track: Track, rows: slice) -> tuple[Array, Array]:
        """Return what held-out rows and single rows of them lack, by windows without any other row where these are enough."""
        if rows.stop - rows.start >= self.window_:
            track, rows = track.part(rows.start, rows.stop), slice(None)
        return self._lacks(track)[rows], self._own(track, np.zeros(len(track.values), dtype=bool))[rows]

    def score_samples(self, X: Any) -> Any:
        """Scores of rows, higher is more normal.

        Parameters
        ----------
        X : array, frame, or list of either
            Rows as in ``fit``. Those of a new series begin anew: what came before them is not known.

        Returns
        -------
        ndarray of shape (n,), or list of these
            Minus the mean over channels of the logarithm of 1 plus the squared error, in variances of the channel.
        """
        tracks = self._read(X)
        return tracks.give([self._known(scores_of(self._lacks(track))) for track in tracks.tracks])

    def explain(self, X: Any) -> Any:
        """Say which channels make rows unusual.

        Parameters
        ----------
        X : array, frame, or list of either
            Rows as in ``fit``.

        Returns
        -------
        array, frame, or list of either
            One column for each channel: what it takes from the score of the row, less what it takes on the mean from
            held-out rows. 0 where nothing is known.
        """
        tracks = self._read(X)
        blames = [self._blame(self._lacks(track)) for track in tracks.tracks]
        return tracks.give_rows(blames)

    def reconstruct(self, X: Any) -> Any:
        """Return what the model makes of rows: the mean over the windows that cover them, in the units of ``X``.

        Parameters
        ----------
        X : array, frame, or list of either
            Rows as in ``fit``.

        Returns
        -------
        array, frame, or list of either
            One column for each channel.
        """
        tracks = self._read(X)
        return tracks.give_rows([self._rebuilt(track) for track in tracks.tracks])

    def events(self, X: Any) -> list[Event]:
        """List the stretches of time that score below the threshold.

        Parameters
        ----------
        X : array, frame, or list of either
            Rows as in ``fit``.

        Returns
        -------
        list of Event
            By series and time. Flagged rows that lie less than half a window apart are one event. Unless ``causal``, an event is
            narrower than they: windows smear what is odd, and the errors of single rows tell where it is.
        """
        return [event for track in self._read(X).tracks for event in self._judge(track).events]

    def score_stream(self, rows: Iterable[Any], history: Any = None) -> Iterator[float]:
        """Score rows one by one as they come, in memory for one window.

        Parameters
        ----------
        rows : iterable
            Each the numbers of the channels at the next step, or one number where there is one channel; NaN is missing.
        history : array or frame, optional
            What came right before, such as the end of the series of ``fit``. Without it the first rows are not judged: until
            there is a whole window they get the median of the held-out scores.

        Yields
        ------
        float
            The score of each row, before the next is asked for: that of :meth:`score_samples`. Below ``offset_`` it is an
            anomaly.

        Raises
        ------
        ValueError
            When the detector was not fitted with ``causal=True``, whose threshold is another.
        """
        check_is_fitted(self, "autoencoder_")
        if not self.causal:
            raise ValueError("score_stream judges rows by what came before them: fit the detector with causal=True")
        window, channels = self.window_, len(self.channel_names_)
        ring, filling, usual = np.empty((2 * window, channels)), 0, float(np.median(self.calibration_scores_))
        if history is not None:
            past = self._read(history).tracks[0].values[-window:]
            ring[: len(past)], filling = self._scaled(past), len(past)
        rebuild = self._rebuilder()
        for row in rows:
            values = np.asarray(row, dtype=np.float64).reshape(-1)
            if values.shape != (channels,):
                raise ValueError(f"expected rows of {channels} number(s), got {values.shape[0]}")
            if np.isinf(values).any():
                raise ValueError(
                    "a row of the stream contains infinity. Write NaN for a missing cell, or clip the value."
                )
            if filling == len(ring):
                ring[: window - 1], filling = ring[window + 1 :], window - 1
            ring[filling] = (values - self.center_) / self.width_
            filling += 1
            if filling < window:
                yield usual
                continue
            recent = ring[None, filling - window : filling].astype(np.float32)
            yield float(self._known(scores_of(lack_of(errors_of(recent, rebuild(recent)), channels)))[0])

    def alarms(
        self, rows: Iterable[Any], history: Any = None, *, level: float = 2.5, hold: int = 100
    ) -> Iterator[bool]:
        """Raise one alarm for each event in a stream that may drift.

        Parameters
        ----------
        rows, history
            As for :meth:`score_stream`.
        level : float
            How many standard deviations the logarithm of the squared error must lie above its mean, both over the held-out
            rows and all rows of the stream so far.
        hold : int
            Steps without such a row after which there can be an alarm again.

        Yields
        ------
        bool
            Whether a row raises an alarm, before the next is asked for.
        """
        if hold < 1:
            raise ValueError(f"hold={hold}: expected a number of steps, at least 1")
        scores = self.score_stream(rows, history)
        return once((far >= level for far in departures(scores, self.calibration_scores_)), hold)

    # how rows are judged ------------------------------------------------------------------------------------------------------

    def _read(self, X: Any) -> Tracks:
        check_is_fitted(self, "autoencoder_")
        return read_tracks(self, X, self.time, self.series, reset=False)

    def _judge(self, track: Track) -> Judged:
        """Return what is said of a series, its windows being looked at once."""
        lacks = self._lacks(track)
        scores, blame = self._known(scores_of(lacks)), self._blame(lacks)
        flagged = scores < self.offset_
        apart = self.window_ // 2
        if flagged.any() and not self.causal:
            flagged = narrowed(flagged, functools.partial(self._own, track), self.usual_, self.window_)
            apart = min(apart, APART)
        return Judged(scores, blame, find_events(track, scores, flagged, blame, self.channel_names_, apart))

    def _auto(self, scores: Array) -> float:
        # Held-out rows are few windows, and scores of neighbours are alike: at least what independent normal errors would do by
        # themselves, whose mean square over m cells has a relative standard deviation of the root of 2 / m.
        noise = 1 + 3 * math.sqrt(2 / (self.window_ * len(self.channel_names_)))
        return min(super()._auto(scores), float(np.median(scores)) * noise)

    def _scaled(self, values: Array) -> Array:
        return np.asarray((values - self.center_) / self.width_)

    def _usual(self, n: int) -> BaseAutoencoder:
        """Return the model of ``n`` windows when none is named."""
        model = Autoencoder(max(1, min(CODE, self.window_ * len(self.channel_names_) // 4)))
        return model.set_params(max_epochs=model._epochs(STEPS, n))

    def _windows(self, segment: Segment) -> Iterator[tuple[Array, Array]]:
        """Yield windows ``(m, window, channels)`` over a segment and their reconstructions, some at a time."""
        rebuild = self._rebuilder()
        windows = scoring_windows(self._scaled(segment.values), self.window_)
        many = max(1, SCORED // (self.window_ * len(self.channel_names_)))
        for start in range(0, len(windows), many):
            part = windows[start : start + many].astype(np.float32)
            yield part, rebuild(part)

    def _rebuilder(self) -> Callable[[Array], Array]:
        """Return what rebuilds scaled windows ``(m, window, channels)``.

        In a second and a third round missing cells are what the round before made of them, so that a gap does not disturb what
        lies around it.
        """
        run = self.autoencoder_._one_by_one()

        def rebuild(windows: Array) -> Array:
            rebuilt = run(windows.transpose(0, 2, 1)).transpose(0, 2, 1)
            gone = np.isnan(windows)
            some = np.flatnonzero(gone.any(axis=(1, 2)))
            for _ in range(ROUNDS if len(some) else 0):
                whole = np.where(gone[some], rebuilt[some], windows[some])
                rebuilt[some] = run(whole.transpose(0, 2, 1)).transpose(0, 2, 1)
            return rebuilt

        return rebuild

    def _lacks(self, track: Track) -> Array:
        """Return what each channel takes from the score of each row ``(n, channels)``; NaN where nothing is known."""
        channels = len(self.channel_names_)
        lacks = np.full((len(track.values), channels), np.nan)
        for segment in segments(track, self.step_, self.window_):
            sums = [errors_of(part, rebuilt) for part, rebuilt in self._windows(segment)]
            totals = cover(np.concatenate(sums), self.window_, len(segment.values), self.causal)
            lacks[segment.rows] = lack_of(totals, channels)[segment.steps]
        return lacks

    def _rebuilt(self, track: Track) -> Array:
        """Return the mean of reconstructions of each row ``(n, channels)``."""
        out = np.full_like(track.values, np.nan)
        for segment in segments(track, self.step_, self.window_):
            pieces = (rebuilt for _, rebuilt in self._windows(segment))
            mean = mean_over_windows(pieces, self.window_, len(segment.values))
            out[segment.rows] = mean[segment.steps] * self.width_ + self.center_
        return out

    def _own(self, track: Track, gone: NDArray[np.bool_]) -> Array:
        """Return what rows themselves lack ``(n,)`` beside what the model makes of the series without those that are gone."""
        rebuilt = self._rebuilt(track.without(gone))
        off = scores_of(np.log1p(np.square((track.values - rebuilt) / self.width_)))
        return np.where(np.isnan(off), 0.0, -off)

    def _blame(self, lacks: Array) -> Array:
        return np.where(np.isnan(lacks), 0.0, (lacks - self.typical_) / len(self.channel_names_))

    def _known(self, scores: Array) -> Array:
        return np.where(np.isnan(scores), np.median(self.calibration_scores_), scores)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        arrays = {
            "scores": self.calibration_scores_,
            "typical": self.typical_,
            "usual": np.array([self.usual_]),
            "center": self.center_,
            "width": self.width_,
        }
        meta = {
            "window": self.window_,
            "period": self.period_,
            "step": self.step_,
            "channels": list(self.channel_names_),
            "named": hasattr(self, "feature_names_in_"),
        }
        return meta, {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.calibration_scores_, self.typical_ = tensors["scores"].numpy(), tensors["typical"].numpy()
        self.center_, self.width_ = tensors["center"].numpy(), tensors["width"].numpy()
        self.usual_ = float(tensors["usual"][0])
        self.window_, self.period_, self.step_ = meta["window"], meta["period"], meta["step"]
        self.channel_names_ = tuple(meta["channels"])
        self.n_features_in_ = len(self.channel_names_)
        if meta["named"]:
            self.feature_names_in_ = np.array(self.channel_names_, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
