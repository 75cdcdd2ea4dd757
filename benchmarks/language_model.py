"""A plain language model of tokens, to put beside autoencoders of sequences: an LSTM, written with torch alone."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from torch import nn

END = 0  # ends each sequence, and begins it


class LanguageModel(nn.Module):
    """Predicts each token from those before it; tokens are whole numbers from 1."""

    def __init__(self, n_tokens, width=256, hidden=512, dropout=0.5):
        super().__init__()
        self.embed = nn.Embedding(n_tokens + 1, width)
        self.cells = nn.LSTM(width, hidden, batch_first=True)
        self.drop, self.out = nn.Dropout(dropout), nn.Linear(hidden, n_tokens + 1)

    def forward(self, tokens, state=None):
        h, state = self.cells(self.drop(self.embed(tokens)), state)
        return self.out(self.drop(h)), state

    def nll(self, tokens, lengths):
        """Return the nats of each sequence, its end included; (B, L) tokens padded with ends."""
        begun = nn.functional.pad(tokens, (1, 0))  # END, t1, t2, ... tL
        target = nn.functional.pad(tokens, (0, 1))  # t1, ..., tL, END
        logits, _ = self(begun)
        nats = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        kept = torch.arange(target.shape[1], device=tokens.device) <= lengths[:, None]
        return (nats * kept).sum(1)

    @torch.no_grad()
    def sample(self, n, longest, generator, device):
        """Return ``n`` drawn sequences as lists of tokens."""
        last, state, made = torch.zeros(n, 1, dtype=torch.long, device=device), None, []
        for _ in range(longest):
            logits, state = self(last, state)
            last = torch.multinomial(logits[:, 0].softmax(1), 1, generator=generator)
            made.append(last)
        rows = torch.cat(made, 1).cpu().numpy()
        return [row[: np.flatnonzero(np.append(row, END) == END)[0]].tolist() for row in rows]


def _pad(sequences, device):
    lengths = np.array([len(s) for s in sequences])
    padded = np.zeros((len(sequences), lengths.max()), dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device)


def _batches(sequences, size, rng):
    """Return batches of sequences of like length, in random order."""
    order = np.array([len(s) for s in sequences]) + rng.random(len(sequences))
    order = np.argsort(order)
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    return [parts[i] for i in rng.permutation(len(parts))]


@torch.no_grad()
def nats(model, sequences, device, size=256):
    """Return the nats of each sequence."""
    model.eval()
    parts = [sequences[i : i + size] for i in range(0, len(sequences), size)]
    return np.concatenate([model.nll(*_pad(part, device)).double().cpu().numpy() for part in parts])


def train(model, rows, held_out, *, epochs, batch, seconds, device, seed, learning_rate=1e-3, patience=3):
    """Train until ``held_out`` has not become better for ``patience`` epochs; return the best model and its epochs."""
    model.to(device)
    rng, began = np.random.default_rng(seed), time.monotonic()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    best, kept, since = np.inf, None, 0
    for epoch in range(epochs):
        model.train()
        for part in _batches(rows, batch, rng):
            tokens, lengths = _pad([rows[i] for i in part], device)
            loss = model.nll(tokens, lengths).sum() / (lengths.sum() + len(part))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if time.monotonic() - began > seconds:
                break
        now = float(nats(model, held_out, device).mean())
        print(f"language model, epoch {epoch + 1}: {now:.3f}, {time.monotonic() - began:.0f} s", flush=True)
        since += 1
        if now < best:
            best, kept, since = now, copy.deepcopy(model.state_dict()), 0
        elif since % 2 == 0:  # the usual schedule of such models: halve the rate when it stops to help
            optimizer.param_groups[0]["lr"] /= 2
        if since >= 2 * patience or time.monotonic() - began > seconds:
            break
    model.load_state_dict(kept)
    return model.eval(), epoch + 1


def size_of(module):
    return sum(p.numel() for p in module.parameters())
