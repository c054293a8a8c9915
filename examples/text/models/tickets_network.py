"""The network of `tickets`."""

from torch import Tensor, nn


class TicketNet(nn.Module):
    """Attention over the words: words int64 (N, L), mask bool (N, L) -> logits (N, departments)."""

    def __init__(self, *, words: int = 1, departments: int = 3, width: int = 16) -> None:
        super().__init__()
        self.vectors = nn.Embedding(words, width, padding_idx=0)  # unknown words say nothing
        self.weight = nn.Linear(width, 1)
        self.out = nn.Linear(width, departments)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Give the padding no weight."""
        vectors = self.vectors(words)  # (N, L, width)
        weights = self.weight(vectors)[:, :, 0].masked_fill(~mask, -1e9).softmax(dim=1)  # (N, L)
        logits: Tensor = self.out((vectors * weights[:, :, None]).sum(dim=1))
        return logits
