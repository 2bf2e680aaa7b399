"""Networks a user might bring: plain ``nn.Module`` classes that know nothing of the lab."""

import math

from torch import nn


class DropoutNet(nn.Module):
    """Convolution, BatchNorm and dropout: everything whose training depends on mode and random state."""

    def __init__(self, input_shape, num_outputs, width=8):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(input_shape[0], width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(width * math.prod(input_shape[1:]), num_outputs),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


class LazyNet(nn.Sequential):
    def __init__(self, num_outputs):
        super().__init__(nn.Flatten(), nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(num_outputs))


class TupleNet(nn.Sequential):
    """Returns its logits and something else."""

    def __init__(self, num_outputs):
        super().__init__(nn.Flatten(), nn.Linear(64, num_outputs))

    def forward(self, x):
        return super().forward(x), x


def not_a_module():
    return 3


class Picky(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)
