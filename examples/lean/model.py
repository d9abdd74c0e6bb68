"""A convolutional network of 1,217,738 parameters for 28 x 28 pictures, few flops."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["LeanCNN"]


class LeanCNN(nn.Module):
    """conv 5x5x16, conv 3x3x32 (stride 2 each), dense 768, dense 10; ReLU behind all but the last.

    Nearly all parameters are those of one dense layer, as in most small networks, so an update has
    a few large coordinates and very many small ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.dense = nn.Linear(32 * 7 * 7, 768)
        self.output = nn.Linear(768, 10)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (rows, 10)."""
        x = self.relu(self.conv1(x.reshape(-1, 1, 28, 28)))
        x = self.relu(self.conv2(x))
        logits: Tensor = self.output(self.relu(self.dense(x.flatten(1))))
        return logits
