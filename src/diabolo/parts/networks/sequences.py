"""Networks for sequences of tokens: they read one into a code, and write one, token after token."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HEADS", "NETWORKS", "SequenceNetwork"]

KERNEL, DILATIONS = 3, (1, 2, 4, 8, 16, 1)
HEADS = 4
SPREAD = 0.1  # of the vectors of tokens and places at the start


class Embedding(nn.Module):
    """Vectors of tokens, and of places on a grid."""

    def __init__(self, n_tokens: int, width: int, shape: tuple[int, ...]):
        super().__init__()
        self.begin = n_tokens  # the number before the first token
        self.tokens = nn.Embedding(n_tokens + 1, width)
        self.axes = nn.ModuleList(nn.Embedding(length, width) for length in shape)
        for table in (self.tokens, *self.axes):
            nn.init.normal_(table.weight, std=SPREAD)
        self.shape = shape

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Return vectors of tokens ``(B, steps)`` that stand at ``start`` and after it."""
        x: Tensor = self.tokens(tokens)
        if self.shape:
            place = torch.arange(start, start + tokens.shape[1], device=tokens.device)
            for length, table in zip(reversed(self.shape), reversed(self.axes), strict=True):
                x = x + table(place % length)
                place = place // length
        return x


class Recurrent(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), both ways to read, told the code at each step to write.

    It begins by keeping most of what it knows (Jozefowicz et al., 2015: a bias of 1 of the gates that forget).
    """

    def __init__(self, width: int, layers: int, latent_dim: int, dropout: float):
        super().__init__()
        about = {"num_layers": layers, "batch_first": True, "dropout": dropout if layers > 1 else 0.0}
        self.ahead, self.back = (nn.LSTM(width, half, **about) for half in (width - width // 2, width // 2))
        self.writer = nn.LSTM(width + latent_dim, width, **about)
        self.begin = nn.Linear(latent_dim, 2 * layers * width)
        for cells in (self.ahead, self.back, self.writer):
            for name, bias in cells.named_parameters():
                if name.startswith("bias_ih"):  # gates: in, forget, new, out
                    nn.init.ones_(bias.data[cells.hidden_size : 2 * cells.hidden_size])

    def read(self, x: Tensor, inside: Tensor) -> Tensor:
        """Return what is known at each step of ``x`` ``(B, steps, width)``, of which ``inside`` says what counts."""
        step = torch.arange(x.shape[1], device=x.device)
        turned = torch.where(inside, inside.sum(dim=1, keepdim=True) - 1 - step, step)[
            :, :, None
        ]  # each row about its end
        back, _ = self.back(x.gather(1, turned.expand_as(x)))
        return torch.cat([self.ahead(x)[0], back.gather(1, turned.expand_as(back))], dim=2)

    def write(self, x: Tensor, z: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return what each step knows, and the two states after the last, one upon the other."""
        if state is None:
            state = (
                torch.tanh(self.begin(z)).view(len(z), 2, self.writer.num_layers, -1).permute(1, 2, 0, 3).contiguous()
            )
        told = torch.cat([x, z[:, None].expand(-1, x.shape[1], -1)], dim=2)
        h, states = self.writer(told, (state[0], state[1]))
        return h, torch.stack(states)


class Convolutional(nn.Module):
    """Dilated convolutions, of what came before alone to write (Yang et al., 2017, arXiv:1702.08139)."""

    def __init__(self, width: int, layers: int, latent_dim: int, dropout: float):
        super().__init__()
        self.steps = [d for _ in range(layers) for d in DILATIONS]
        self.reader, self.writer = (
            nn.ModuleList(nn.Conv1d(width, 2 * width, KERNEL, dilation=d) for d in self.steps) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * len(self.steps)))
        self.told = nn.Linear(latent_dim, width)
        self.dropout = nn.Dropout(dropout)

    def _pass(self, x: Tensor, layers: nn.ModuleList, norms: Any, pads: Any, keep: Tensor | None) -> Tensor:
        for layer, norm, step in zip(layers, norms, self.steps, strict=True):
            y = norm(x) if keep is None else norm(x) * keep
            x = x + self.dropout(
                F.glu(layer(F.pad(y.transpose(1, 2), pads(step * (KERNEL - 1)))), dim=1).transpose(1, 2)
            )
        return x

    def read(self, x: Tensor, inside: Tensor) -> Tensor:
        """Return what is known at each step."""
        keep = inside[:, :, None].to(x.dtype)
        return self._pass(x, self.reader, self.norms[: len(self.steps)], lambda n: (n // 2, n - n // 2), keep)

    def write(self, x: Tensor, z: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return what each step knows, and all that was written, of which the last steps count."""
        x = x + self.told(z)[:, None]
        x = x if state is None else torch.cat([state, x], dim=1)
        reach = sum(step * (KERNEL - 1) for step in self.steps)
        h = self._pass(x, self.writer, self.norms[len(self.steps) :], lambda n: (n, 0), None)
        return h[:, 0 if state is None else state.shape[1] :], x[:, -reach:] if x.shape[1] > reach else x


class AttentionLayer(nn.Module):
    """Attention that fades with distance, so that any length will do (Press et al., 2022, arXiv:2108.12409)."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.maps, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``(B, steps, width)``; ``past`` are keys and values before them. Return these with those of the steps, too."""
        n, steps, width = x.shape
        query, *both = self.maps(self.first(x)).view(n, steps, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        seen = torch.stack(both)
        if past is not None:
            seen = torch.cat([past, seen], dim=3)
        h = F.scaled_dot_product_attention(query, seen[0], seen[1], attn_mask=bias.to(query.dtype))
        x = x + self.dropout(self.out(h.transpose(1, 2).reshape(n, steps, width)))
        return x + self.dropout(self.narrow(F.gelu(self.wide(self.second(x))))), seen


class Attending(nn.Module):
    """Transformers: of all steps to read, of those before to write (Vaswani et al., 2017, arXiv:1706.03762)."""

    def __init__(self, width: int, layers: int, latent_dim: int, dropout: float):
        super().__init__()
        self.reader, self.writer = (
            nn.ModuleList(AttentionLayer(width, dropout) for _ in range(layers)) for _ in range(2)
        )
        self.told = nn.Linear(latent_dim, width)

    @staticmethod
    def _placed(x: Tensor, start: int = 0) -> Tensor:
        """Add waves that tell places, of which the fading alone says little: without them equal tokens are hard to count."""
        place = torch.arange(start, start + x.shape[1], device=x.device, dtype=torch.float32)
        turns = place[:, None] * 10_000.0 ** -torch.linspace(0, 1, x.shape[2] // 2, device=x.device)
        return x + SPREAD * torch.cat([turns.sin(), turns.cos()], dim=1).to(x.dtype)

    @staticmethod
    def _fading(queries: Tensor, keys: Tensor) -> Tensor:
        slopes = torch.tensor([2.0 ** -(8 * (i + 1) / HEADS) for i in range(HEADS)], device=keys.device)
        return -slopes[:, None, None] * (queries[:, None] - keys).abs()

    def read(self, x: Tensor, inside: Tensor) -> Tensor:
        """Return what is known at each step."""
        place = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        bias = self._fading(place, place).expand(len(x), -1, -1, -1).masked_fill(~inside[:, None, None], -math.inf)
        x = self._placed(x)
        for layer in self.reader:
            x, _ = layer(x, bias)
        return x

    def write(self, x: Tensor, z: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return what each step knows, and keys and values of all layers."""
        before = 0 if state is None else state.shape[4]
        x = self._placed(x, before) + self.told(z)[:, None]
        keys = torch.arange(before + x.shape[1], device=x.device, dtype=torch.float32)
        queries = keys[before:]
        bias = self._fading(queries, keys).masked_fill(keys > queries[:, None], -math.inf)
        seen = []
        for i, layer in enumerate(self.writer):
            x, both = layer(x, bias, None if state is None else state[i])
            seen.append(both)
        return x, torch.stack(seen)


NETWORKS: dict[str, type[Recurrent] | type[Convolutional] | type[Attending]] = {
    "recurrent": Recurrent,
    "convolutional": Convolutional,
    "attention": Attending,
}
BATCH_AXIS = {"recurrent": 2, "convolutional": 0, "attention": 2}  # of the state


class SequenceNetwork(nn.Module):
    """Reads sequences into a code, and writes them from one.

    Parameters
    ----------
    network : str
        One of ``NETWORKS``.
    n_tokens : int
        Numbers that a token may have.
    latent_dim, width, layers : int
        Sizes of the code, of all layers, and how many there are each way.
    dropout : float
        Share of what layers put out that is dropped in training.
    shape : tuple of int
        Of a grid, or empty.
    """

    def __init__(
        self,
        network: str,
        n_tokens: int,
        *,
        latent_dim: int,
        width: int,
        layers: int,
        dropout: float,
        shape: tuple[int, ...],
    ):
        super().__init__()
        self.network = network
        self.into, self.onto = (Embedding(n_tokens, width, shape) for _ in range(2))
        self.body = NETWORKS[network](width, layers, latent_dim, dropout)
        self.moments = nn.Linear(3 * width, 2 * latent_dim)
        self.last = nn.Linear(width + latent_dim, width)
        self.logits = nn.Linear(width, n_tokens)
        self.bag = nn.Linear(latent_dim, n_tokens)
        self.dropout = nn.Dropout(dropout)

    def read(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """Return mean and log-variance of the code, side by side ``(B, 2 * latent_dim)``.

        Parameters
        ----------
        tokens : Tensor
            Numbers ``(B, steps)``.
        inside : Tensor
            True where there is a token of the sequence, at least at its first step.
        """
        h = self.body.read(self.dropout(self.into(tokens)), inside)
        keep = inside[:, :, None].to(h.dtype)
        mean = (h * keep).sum(dim=1) / keep.sum(dim=1)
        most = h.masked_fill(~inside[:, :, None], -math.inf).amax(dim=1)
        last = h.gather(1, (inside.sum(dim=1) - 1)[:, None, None].expand(-1, 1, h.shape[2]))[:, 0]
        moments: Tensor = self.moments(torch.cat([mean, most, last], dim=1))
        return moments

    def write(self, before: Tensor, z: Tensor, state: Any = None, start: int = 0) -> tuple[Tensor, Any]:
        """Return logits of each token by those before it.

        Parameters
        ----------
        before : Tensor
            The token before each ``(B, steps)``; before the first it is ``onto.begin``.
        z : Tensor
            Codes ``(B, latent_dim)``.
        state : optional
            What the call for the steps before returned.
        start : int
            How many those were.

        Returns
        -------
        Tensor of shape (B, steps, n_tokens), state
        """
        h, state = self.body.write(self.dropout(self.onto(before, start)), z, state)
        h = torch.cat([self.dropout(h), z[:, None].expand(-1, h.shape[1], -1)], dim=2)
        logits: Tensor = self.logits(F.gelu(self.last(h)))
        return logits, state

    def chosen(self, state: Any, rows: Tensor) -> Any:
        """Return the state of some rows of a batch."""
        return state.index_select(BATCH_AXIS[self.network], rows)
