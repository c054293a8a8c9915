"""The network of NAME, in a separate file: the web process does not import torch."""

from torch import Tensor, nn


class Network(nn.Module):
    """GRU over a series of any length, then a linear layer: float32 (N, 1).

    It gets series float32 (N, L), padded to the longest, and lengths int64 (N,).
    """

    def __init__(self, *, hidden: int = 16) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        """Take the state at the last real step, so that the padding changes nothing."""
        states, _ = self.gru(series[:, :, None])  # (N, L, hidden)
        places = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        last = states.gather(1, places)[:, 0]  # (N, hidden)
        outputs: Tensor = self.out(last)
        return outputs
