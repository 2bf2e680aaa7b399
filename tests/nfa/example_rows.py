"""Rows of a report: measured, trivial, skipped, undefined."""

from dataclasses import replace

from nfa.ansatz.row import AnsatzRow

MEASURED = AnsatzRow(
    layer="layer1.0.conv1",
    kind="conv2d",
    in_features=144,
    out_features=16,
    groups=1,
    power=0.5,
    alignment=0.8781234,
    z=40.25,
    alpha_fit=0.59,
    alpha_r=0.91,
    cosine=0.949,
    null_mean=0.803,
    null_std=0.0123,
    init_cosine=0.744,
    init_alignment=-0.012,
)
SKIPPED = AnsatzRow("rnn", "LSTM", 64, 256, status="skipped: weights of a recurrent layer")
TRIVIAL = AnsatzRow("fc", "linear", 64, 10, power=0.5, cosine=0.97, null_mean=0.97, status="trivial")
UNDEFINED = AnsatzRow("head", "linear", 64, 10, cosine=1.0)


def network(layers: int, **changes) -> list[AnsatzRow]:
    return [replace(MEASURED, layer=f"stage{i // 6}.block{i}.conv", **changes) for i in range(layers)]


def transformer(blocks: int, heads: int = 1) -> list[AnsatzRow]:
    """Rows of attention and MLP of each block, of all heads apart where there are several."""
    attention = [f"attn.{part}" + (f".head{h}" if heads > 1 else "") for part in "qkv" for h in range(heads)]
    parts = [*attention, "attn.out_proj", "mlp.fc1", "mlp.fc2"]
    names = ["embed", *(f"encoder.blocks.{i}.{part}" for i in range(blocks) for part in parts)]
    return [*(replace(MEASURED, layer=name, kind="linear") for name in names), TRIVIAL]
