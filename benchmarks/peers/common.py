"""What every peer's script shares: the rows come in a file, arrays go out in one, and the parent process judges them.

A script runs inside the peer's own environment, which has torch and numpy but not Diabolo::

    $DIABOLO_PEERS/NAME/bin/python benchmarks/peers/NAME_models.py

and reads the path of a job, a JSON file, from each line of its input; to each it answers with a line, empty or the error. The job
names the model, the net and the budget, and the files. The peer trains on ``train`` less its last tenth, which it may use
for validation as it likes. Codes are deterministic: the centre of the posterior.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

ROWS_AT_ONCE = 2000


class Fitted(NamedTuple):
    """A peer's model, fitted: ``encode(x) -> code, rebuilt``; and where it has them its posterior and its symbols."""

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    posterior: Callable[[Tensor], Any] | None = None  # x -> whatever ``draw`` takes
    draw: Callable[[Any], tuple[Tensor, Tensor, Tensor]] | None = None  # -> z, rebuilt, log q(z | x) - log p(z)
    symbols: Callable[[Tensor], Tensor] | None = None  # x -> (n, symbols), whole numbers
    n_codes: int = 0


def layers(widths: list[int], last: nn.Module | None = None) -> nn.Sequential:
    """Linear layers with ReLU between them, and ``last`` behind them."""
    stack: list[nn.Module] = []
    for inp, out in pairwise(widths):
        stack += [nn.Linear(inp, out), nn.ReLU()]
    return nn.Sequential(*stack[:-1], *([] if last is None else [last]))


def normal_draw(
    mean: Tensor, logvar: Tensor, log_prior: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Draw from a diagonal Gaussian, and return the draw and its log q - log p, under N(0, I) by default."""
    z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
    log_q = -0.5 * ((z - mean) ** 2 * (-logvar).exp() + logvar).sum(1)  # constants cancel in the ratio
    log_p = -0.5 * (z**2).sum(1) if log_prior is None else log_prior(z)
    return z, log_q - log_p


@torch.no_grad()
def over(rows: Tensor, f: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Apply ``f`` to some rows at a time."""
    return torch.cat([f(part) for part in rows.split(ROWS_AT_ONCE)]).numpy()


@torch.no_grad()
def bound(fitted: Fitted, rows: Tensor, draws: int) -> dict[str, np.ndarray]:
    """Squared error and log q - log p of each row and draw, and the variance of each unit over the draws of a row."""
    state = fitted.posterior(rows)
    errors, ratios, total, square = [], [], 0.0, 0.0
    for _ in range(draws):
        z, rebuilt, ratio = fitted.draw(state)
        errors.append(((rebuilt - rows) ** 2).sum(1))
        ratios.append(ratio)
        total, square = total + z.double(), square + z.double() ** 2
    noise = (square - total**2 / draws).mean(0) / (draws - 1)
    return {"sse": torch.stack(errors, 1).numpy(), "ratio": torch.stack(ratios, 1).numpy(), "noise": noise.numpy()}


def main(fit: Callable[[dict[str, Any], Tensor, Tensor], Fitted]) -> None:
    """Do the jobs whose paths come in; an error is the answer to its job, and the next one goes on."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # whatever a peer prints is no answer
    for line in sys.stdin:
        try:
            do(fit, json.loads(Path(line.strip()).read_text()))
            answer = ""
        except Exception as error:  # a peer's error, whatever it is, is its result
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        answers.write(answer + "\n")
        answers.flush()


def do(fit: Callable[[dict[str, Any], Tensor, Tensor], Fitted], job: dict[str, Any]) -> None:
    """Fit and time the model, and write what it made of the rows."""
    data = {k: torch.from_numpy(v) for k, v in np.load(job["rows"]).items()}
    train, test = data["train"], data["test"]
    held_out = len(train) // 10
    began = time.process_time()
    fitted = fit(job, train[:-held_out], train[-held_out:])
    out: dict[str, Any] = {"seconds": time.process_time() - began}
    out["code_train"] = over(train, lambda x: fitted.encode(x)[0])
    out["code_test"] = over(test, lambda x: fitted.encode(x)[0])
    out["rebuilt"] = over(test, lambda x: fitted.encode(x)[1])
    if fitted.draw is not None:
        torch.manual_seed(job["seed"])
        for name, rows, draws in (("train", train[:500], 50), ("test", test[:1000], job["draws"])):
            out |= {f"{k}_{name}": v for k, v in bound(fitted, rows, draws).items()}
    if fitted.symbols is not None:
        out["symbols"], out["n_codes"] = over(train, fitted.symbols), fitted.n_codes
    np.savez(job["out"], **out)
