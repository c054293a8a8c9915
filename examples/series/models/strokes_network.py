"""The network of `strokes`."""

from torch import Tensor, nn


class StrokeNet(nn.Module):
    """GRU: moves float32 (N, L, 2), padded, and lengths int64 (N,) -> logits (N, 3)."""

    def __init__(self, *, hidden: int = 16) -> None:
        super().__init__()
        self.gru = nn.GRU(2, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 3)

    def forward(self, moves: Tensor, lengths: Tensor) -> Tensor:
        """Answer at the last real step; the padding comes later."""
        states, _ = self.gru(moves)  # (N, L, hidden)
        last = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        logits: Tensor = self.out(states.gather(1, last)[:, 0])
        return logits
