"""The base of every model: a scikit-learn estimator whose dataclass fields are its hyperparameters."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diabolo.checks import ParameterError, check_parameters, parameter_fields
from diabolo.data.arrays import ArrayCodec
from diabolo.data.raw import Raw
from diabolo.data.stream import Stream
from diabolo.declare import ADVICE, refuse_unknown, spec
from diabolo.generation import Generation
from diabolo.inference import Inference, check_support, mse
from diabolo.module import AutoencoderModule, start_rows
from diabolo.objectives import Objective, elbo
from diabolo.parameters import SharedParameters
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.corruptions import Corruption
from diabolo.parts.likelihoods import LIKELIHOODS, Mixed
from diabolo.parts.penalties import Penalty, WeightL1
from diabolo.records import Batch, History, Schema
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.sizing import search_size
from diabolo.training.checkpoint import read_fingerprint
from diabolo.training.device import pays_in_bfloat16, resolve_device
from diabolo.training.layerwise import layer_modules, pretrain_layers
from diabolo.training.loop import Run, Settings, train
from diabolo.training.rows import Rows, Selection
from diabolo.training.streaming import set_aside
from diabolo.warm import go_on, same_features, take_weights

__all__ = ["BaseAutoencoder"]


@spec
class BaseAutoencoder(Saved, SharedParameters, Generation, ABC):
    """Everything that models share; a model says which parts it uses and nothing else.

    Attributes
    ----------
    module_ : AutoencoderModule
        The fitted network.
    history_ : History
        Losses by epoch, and why training ended.
    schema_ : Schema
        What was learned of the data.
    choices_ : dict
        What every ``"auto"`` became.
    seed_ : int
        The seed of this fit.
    n_iter_ : int
        Epochs run.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of str
        Column names, where ``fit`` saw a frame.
    """

    # what a model says ------------------------------------------------------------------------------------------------------

    _module = AutoencoderModule  # not annotated, hence not parameters
    _judge_penalties = False  # whether all of the model's penalties are part of what validation judges

    @abstractmethod
    def _bottleneck(self, schema: Schema) -> Bottleneck:
        """Return the bottleneck."""

    def _corruption(self, schema: Schema) -> Corruption | None:
        """Return what is done to the input in training."""
        return None

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        """Return the terms added to the training loss."""
        return ()

    def _objective(self) -> Objective:
        """Return the loss."""
        return functools.partial(elbo, warmup=self._warmup())

    def _findings(self, module: AutoencoderModule, train: Rows, held_out: Rows) -> list[str]:
        """Look back at a finished fit; return what the user should know, for the events of the history."""
        return []

    def _build(self, schema: Schema) -> AutoencoderModule:
        """Put the parts together, sized from the schema."""
        penalties = self._penalties(schema)
        for penalty in penalties:
            penalty.judged |= self._judge_penalties
        if self.weight_l1 > 0:
            penalties = (*penalties, WeightL1(self.weight_l1))
        corruption = self._corruption(schema)
        if corruption is not None and schema.mixed:
            corruption.by_column([i for i, c in enumerate(schema.columns) for _ in range(c.width)])
        return self._module.from_network(
            self._network(schema),
            schema,
            bottleneck=self._bottleneck(schema),
            likelihood=self._likelihood(schema),
            corruption=corruption,
            penalties=penalties,
        )

    # fit --------------------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn to rebuild the rows of ``X``.

        Parameters
        ----------
        X : array, frame or tensor
            Rows of numbers ``(n, n_features)``, dense or sparse, images ``(n, height, width)`` or
            ``(n, channels, height, width)``, or series: a list of arrays ``(steps,)`` or ``(steps, channels)``, or with
            ``kind="series"`` an array of them, time first.
            A :class:`~diabolo.Stream` holds rows that stay on the disk. NaN marks a missing cell: it is fed in as the centre of
            its column and left out of the loss.
        y : None
            Ignored, but by models with a condition.

        Returns
        -------
        self
            Fitted. A keyboard interrupt ends training early and keeps what was learned.

        Raises
        ------
        ParameterError
            When a hyperparameter is impossible.
        ValueError
            When ``X`` cannot be learned from; the message names the column.
        DivergenceError
            When the loss is not finite even at a much lower learning rate.
        """
        check_parameters(self, ADVICE)
        if isinstance(X, Stream):
            return self._fit_stream(X, y)
        return self._fit(self._read(X, reset=True, condition=y))

    def _fit(self, raw: Raw) -> Self:
        device = resolve_device(self.device)
        codec = ArrayCodec.fit(raw, self._scale())
        source = self._source()
        if source is not None and same_features(codec.schema, source.schema_):
            codec.scaling = source.codec_.scaling
        sizes = search_size(self, raw, codec.schema.size) if self.latent_dim == "search" else None
        if sizes is not None:
            self.latent_dim_ = sizes.chosen
        table = codec.table_of(raw)
        n_valid = self._validation_rows(len(table))
        settings = self._settings(len(table) - n_valid, device, codec.schema.size)

        def digest() -> str:
            found = hashlib.sha256()
            for array in table.contents():
                found.update(np.ascontiguousarray(array).data)
            return found.hexdigest()

        def parts() -> tuple[Batch, Rows, Selection]:
            order = torch.randperm(len(table))
            start = table.take(order[n_valid:][: start_rows(codec.schema.size)])
            there, order = table.to(device), order.to(device)
            return start, Selection(there, order[n_valid:]), Selection(there, order[:n_valid])

        def check(module: AutoencoderModule) -> None:
            for part in table.parts(everything=module.likelihood.bounds is not None or module.meets_rows):
                check_support(module.likelihood, part, codec)
                module.meet(part.x)

        self._learn(codec, settings, device, digest, parts, check)
        if sizes is not None:
            self.choices_["latent_dim_curve"] = {str(k): v for k, v in sizes.curve.items()}
            self.history_.events.insert(
                0, f"a code of {sizes.chosen} loses less than {sizes.tolerance:.1%} of the variance"
            )
        return self

    def _fit_stream(self, stream: Stream, y: Any) -> Self:
        name = type(self).__name__
        if type(self)._learn_condition is not Inference._learn_condition:
            raise TypeError(
                f"{name} is told a condition beside each row, and takes rows in memory; a stream holds rows alone"
            )
        if self.latent_dim == "search":
            raise ParameterError("latent_dim='search' needs rows in memory; give a number to fit a stream")
        if self.pretrain is not None:
            raise ParameterError(f"pretrain={self.pretrain!r} needs rows in memory; use pretrain=None to fit a stream")
        device = resolve_device(self.device)
        codec = ArrayCodec.learn(stream.blocks(None, self.kind), self._scale())
        schema = codec.schema
        self.n_features_in_ = schema.size
        self.__dict__.pop("feature_names_in_", None)
        if codec.container not in ("numpy", "torch"):
            self.feature_names_in_ = np.array([column.name for column in schema.columns], dtype=object)
        n_valid = self._validation_rows(schema.n_rows)
        settings = self._settings(schema.n_rows - n_valid, device, schema.size)

        def digest() -> str:
            found = hashlib.sha256(json.dumps([codec.to_json(), stream.memory]).encode())
            for raw in stream.blocks(None, schema.kind):
                found.update(np.ascontiguousarray(raw.values).data)
            return found.hexdigest()

        def parts() -> tuple[Batch, Rows, Selection]:
            share = n_valid / schema.n_rows
            rows, held_out = set_aside(stream, codec, share, start_rows(schema.size), device)
            return rows.sample, rows, held_out

        def check(module: AutoencoderModule) -> None:
            if (module.likelihood.bounds is not None and schema.values == "real") or module.meets_rows:
                for raw in stream.blocks(None, schema.kind):
                    part = codec.encode(raw)
                    check_support(module.likelihood, part, codec)
                    module.meet(part.x)

        return self._learn(codec, settings, device, digest, parts, check)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on learning from more rows: one pass over them at a tenth of the learning rate; the first call is ``fit``.

        Scales, columns and categories stay those of ``fit``.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.
        y : array-like, optional
            The condition of models that have one.

        Returns
        -------
        self
        """
        if not hasattr(self, "module_"):
            return self.fit(X, y)
        check_parameters(self, ADVICE)
        told = self.codec_.conditions
        go_on(self, self._read(X, reset=False, condition=None if told is None or told.places else y))
        return self

    def _learn(
        self,
        codec: ArrayCodec,
        settings: Settings,
        device: torch.device,
        digest: Callable[[], str],
        parts: Callable[[], tuple[Batch, Rows, Selection]],
        check: Callable[[AutoencoderModule], None],
    ) -> Self:
        """Train a module.

        ``digest`` names the rows, ``parts`` gives rows to start from, to train on and to judge by, and ``check`` refuses rows
        that the likelihood cannot explain.
        """
        augment = self._augmentation(codec.schema)
        source = self._source()
        seed, settings = self._seed(settings, digest)
        with seeded(seed, device):
            start, rows, held_out = parts()
            module = self._build(codec.schema)
            check(module)
            module.start(start)
            taken = None if source is None else take_weights(module, codec.schema, source.module_, source.schema_)
            if self.freeze is not None:
                getattr(module, self.freeze).requires_grad_(False)
            settings = self._precise(settings, module, device)
            module = module.to(device)
            history = train(
                module,
                rows,
                held_out,
                self._objective(),
                settings,
                self.callbacks,
                functools.partial(mse, codec=codec),
                augment,
                self._pretraining(module, rows, held_out, settings),
            )
            history.events += self._findings(module, rows, held_out)
        module.requires_grad_(True)
        if taken is not None:
            self.taken_ = taken
            history.events.insert(0, str(taken))
        for name in ("prior_", "prior_scores_"):  # of the codes of another fit
            self.__dict__.pop(name, None)
        self.codec_, self.schema_, self.module_, self.history_ = codec, codec.schema, module, history
        self.seed_, self.n_iter_ = seed, len(history)
        self.choices_ = self._choices(codec, module, settings)
        return self

    def _source(self) -> BaseAutoencoder | None:
        """Return the model that training starts from."""
        if self.init_from is None:
            return None
        model = self.init_from
        if isinstance(model, str | Path):
            from diabolo.persistence import load

            model = load(model)
        model = getattr(getattr(model, "estimator", model), "autoencoder_", getattr(model, "estimator", model))
        if type(model) is not type(self):
            raise ParameterError(
                f"init_from is a {type(model).__name__}; expected a fitted {type(self).__name__}, or its folder"
            )
        if not hasattr(model, "module_"):
            raise ParameterError(
                "init_from is a model that is not fitted: clone, which grid search and tasks use, forgets what was learned. Give "
                "the folder of a saved model, or sklearn.frozen.FrozenEstimator(model)."
            )
        return model

    def _precise(self, settings: Settings, module: AutoencoderModule, device: torch.device) -> Settings:
        """Settle what ``precision="auto"`` is: what it was for a run that is taken up, and one measurement for all processes."""
        if self.precision != "auto":
            return settings
        precision = settings.fingerprint.get("arithmetic")
        if precision is None:
            pays = pays_in_bfloat16(module, settings.batch_size, device)
            precision = "bfloat16" if settings.ranks.first(bytes([pays]))[0] else settings.precision
        return dataclasses.replace(
            settings, precision=precision, fingerprint=settings.fingerprint | {"arithmetic": precision}
        )

    def _pretraining(
        self, module: AutoencoderModule, rows: Rows, held_out: Selection, settings: Settings
    ) -> Callable[[Run], None] | None:
        if self.pretrain is None or not isinstance(rows, Selection):  # a stream with it is refused before
            return None
        layer_modules(module, rows.schema)  # refuses a network without layers before anything is trained
        epochs = max(5, settings.max_epochs // 5) if self.pretrain_epochs == "auto" else self.pretrain_epochs
        return functools.partial(
            pretrain_layers,
            rows=rows,
            held_out=held_out,
            objective=self._objective(),
            epochs=epochs,
        )

    def _validation_rows(self, n: int) -> int:
        if self.validation_fraction == 0 or n < 2:
            return 0
        return min(n - 1, max(1, round(n * self.validation_fraction)))

    def _choices(self, codec: ArrayCodec, module: AutoencoderModule, settings: Settings) -> dict[str, Any]:
        part = module.likelihood.numbers if isinstance(module.likelihood, Mixed) else module.likelihood
        likelihood = next((k for k, v in LIKELIHOODS.items() if v is type(part)), "custom")
        choices = {
            "likelihood": likelihood,
            "scale": codec.scaling.name,
            "latent_dim": math.prod(module.code_shape),
            "hidden": list(self._hidden(codec.schema)),
            "max_epochs": settings.max_epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "patience": settings.patience,
            "device": str(settings.device),
            "precision": settings.precision,
        }
        if codec.conditions is not None:
            choices["condition"] = codec.conditions.kinds
        return choices

    def _seed(self, settings: Settings, digest: Callable[[], str]) -> tuple[int, Settings]:
        """Draw the seed, or take up that of the run in the checkpoint folder; refuse a folder of another run."""
        ranks = settings.ranks
        seed = int(ranks.first(str(draw_seed(self.random_state)).encode()))
        if settings.checkpoint is None and ranks.world == 1:
            return seed, settings
        fingerprint = {f.name: _plain(getattr(self, f.name)) for f in parameter_fields(type(self))}
        for name in ("verbose", "callbacks", "checkpoint", "max_time", "random_state"):
            del fingerprint[name]
        fingerprint |= {"model": type(self).__name__, "data": digest(), "seed": seed}
        alike = fingerprint | {"checkpoint": settings.checkpoint is not None}
        differs = ranks.differing({k: json.dumps(v).encode() for k, v in alike.items()})
        if differs:
            raise ValueError(
                f"the processes of this run do not agree on {', '.join(differs)}. Each must call fit with the same parameters "
                "and the same rows in the same order; what is drawn before fit needs a fixed seed (random_state)."
            )
        if settings.checkpoint is None:
            return seed, settings
        read = read_fingerprint(settings.checkpoint) if ranks.is_first else None
        found = json.loads(ranks.first(json.dumps(read).encode()))
        if found is not None:
            if not isinstance(self.random_state, int):
                fingerprint["seed"] = seed = found["seed"]
            differs = [k for k in fingerprint if fingerprint[k] != found.get(k)]
            if differs:
                listed = ", ".join(f"{k} was {found.get(k)!r} and is {fingerprint[k]!r}" for k in differs[:4])
                raise ValueError(
                    f"checkpoint={str(settings.checkpoint)!r} holds another run: {listed}. "
                    "Choose another folder, or delete this one to start anew."
                )
            fingerprint["arithmetic"] = found.get("arithmetic")
        return seed, dataclasses.replace(settings, fingerprint=fingerprint)

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters by name; an unknown name is an error that says which was meant."""
        refuse_unknown(type(self).__name__, {k.split("__")[0]: v for k, v in params.items()}, self._get_param_names())
        super().set_params(**params)
        return self

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return all that was fitted, as plain JSON types and named tensors."""
        meta = {
            "data": self.codec_.to_json(),
            "history": self.history_.to_json(),
            "choices": self.choices_,
            "seed": self.seed_,
            "code_shape": list(self.module_.code_shape),
            "prior_scores": getattr(self, "prior_scores_", None),
            "n_features_in": self.n_features_in_,
            "feature_names_in": list(getattr(self, "feature_names_in_", [])) or None,
        }
        tensors = {f"module.{k}": v.detach().cpu() for k, v in self.module_.state_dict().items()}
        tensors |= {k: torch.from_numpy(v) for k, v in self.codec_.arrays().items()}
        return meta, tensors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Become what ``_get_state`` described; raise ``ValueError`` when the tensors do not fit the description."""
        arrays = {k: v.numpy() for k, v in tensors.items() if not k.startswith("module.")}
        codec = ArrayCodec.from_json(meta["data"], arrays)
        if self.latent_dim == "search":
            self.latent_dim_ = meta["choices"]["latent_dim"]
        with seeded(0):
            module = self._build(codec.schema)
        weights = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        found = {k: tuple(v.shape) for k, v in weights.items()}
        differs = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        if differs:
            k = differs[0]
            raise ValueError(
                f"the weights do not fit the network: {k!r} has shape {found.get(k)}, expected {expected.get(k)}"
                f" ({len(differs)} of {len(expected)} differ)"
            )
        module.load_state_dict(weights)
        module.code_shape = tuple(meta["code_shape"])
        self.codec_, self.schema_, self.module_ = codec, codec.schema, module.eval()
        self.history_ = History.from_json(meta["history"])
        self.seed_, self.n_iter_, self.choices_ = meta["seed"], len(self.history_), meta["choices"]
        self.n_features_in_ = meta["n_features_in"]
        if meta.get("prior_scores") is not None:
            self.prior_scores_ = meta["prior_scores"]
        if meta["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "module_" in state:  # a pickle must open on a machine without this device
            state["module_"] = copy.deepcopy(state["module_"]).cpu()
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _plain(value: Any) -> Any:
    """Return a parameter as JSON would give it back."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value if isinstance(value, str | int | float | None) else getattr(value, "__qualname__", repr(value))
