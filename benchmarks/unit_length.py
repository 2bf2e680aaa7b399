"""What outputs of length one do to the numbers: small encoders, trained and audited with and without it.

    python benchmarks/unit_length.py        # about three minutes

An MLP (64-96-96-32) and a convolutional network (three convolutions and a linear map to 32 numbers) learn to
tell the digits of scikit-learn, by ten learned prototypes: logits are ten times the cosines of embedding and
prototypes (the length plays no part), or their products. Each is then measured against its logits, against
its embedding scaled to length one, and against the embedding as it is, whose last map is trivial.
"""

import statistics
from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import nfa
from nfa.ansatz.words import show

SEEDS, EPOCHS, TRAIN, SAMPLES = 3, 60, 1400, 300


def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.float32)
    return (x - x.mean(0)) / (x.std(0) + 0.1), torch.tensor(y)


class Encoder(nn.Module):
    """Logits (n, 10) from an embedding (n, 32)."""

    def __init__(self, kind: str, *, normalised: bool):
        super().__init__()
        if kind == "mlp":
            self.body = nn.Sequential(
                nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 32)
            )
        else:
            self.body = nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
                nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 32),
            )  # fmt: skip
        self.prototypes = nn.Parameter(torch.randn(10, 32) / 32**0.5)
        self.normalised = normalised

    def forward(self, x: Tensor) -> Tensor:
        """Of digits (n, 64)."""
        h, prototypes = self.body(x), self.prototypes
        if self.normalised:
            return 10 * F.normalize(h, dim=1) @ F.normalize(prototypes, dim=1).T
        return h @ prototypes.T


class Embedding(nn.Module):
    """The embedding (n, 32) of an encoder, scaled to length one or as it is."""

    def __init__(self, body: nn.Module, *, normalised: bool):
        super().__init__()
        self.body, self.normalised = body, normalised

    def forward(self, x: Tensor) -> Tensor:
        """Of digits (n, 64)."""
        return F.normalize(self.body(x), dim=1) if self.normalised else self.body(x)


def trained(kind: str, *, normalised: bool, seed: int) -> tuple[Encoder, float]:
    """An encoder and its accuracy on digits that it has not seen."""
    torch.manual_seed(seed)
    net, (x, y) = Encoder(kind, normalised=normalised), digits()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(EPOCHS):
        for index in torch.randperm(TRAIN).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
    with torch.no_grad():
        return net, float((net(x[TRAIN:]).argmax(1) == y[TRAIN:]).float().mean())


def rows(kind: str, *, normalised: bool) -> Iterator[str]:
    """What each way of measuring finds, in the mean of the seeds: alignment by layer."""
    found: dict[str, dict[str, list[float]]] = {}
    scores = []
    for seed in range(SEEDS):
        net, score = trained(kind, normalised=normalised, seed=seed)
        scores.append(score)
        samples = list(digits()[0][:SAMPLES].split(50))
        for how, seen in (
            ("logits", net),
            ("length one", Embedding(net.body, normalised=True)),
            ("as it is", Embedding(net.body, normalised=False)),
        ):
            for row in nfa.audit(seen, samples, nulls=0).rows:
                if row.measured or row.trivial:
                    found.setdefault(how, {}).setdefault(row.layer, []).append(row.alignment)
    title = f"{kind}, trained {'with length one' if normalised else 'without'}"
    yield f"{title}: accuracy {statistics.mean(scores):.3f}"
    for how, layers in found.items():
        cells = [show(statistics.mean(values), "+.2f") for values in layers.values()]
        yield f"    {how:12} {'  '.join(cells)}"


def main() -> None:
    print(f"torch {torch.__version__}; alignment by layer, mean of {SEEDS} seeds")
    for kind in ("mlp", "conv"):
        for normalised in (True, False):
            print(*rows(kind, normalised=normalised), sep="\n", flush=True)


if __name__ == "__main__":
    main()
