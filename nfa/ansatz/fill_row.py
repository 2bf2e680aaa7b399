"""The numbers of one row, from what was measured of a map."""

import math

from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.precision import Precision, without
from nfa.ansatz.sensitivity import Sensitivity


def fill_row(
    pair: FeaturePair,
    sensitivity: Sensitivity,
    power: float,
    draws: int,
    seed: int,
    *,
    halves: bool,
    corrected: bool,
) -> tuple[dict[str, float], Precision]:
    """Columns of `nfa.ansatz.row.AnsatzRow`, and how well the samples pin them down.

    Args:
        pair: of the map.
        sensitivity: its C, in groups.
        power: exponent α.
        draws: rotations behind the null.
        seed: of the null.
        halves: find the drift.
        corrected: C is noisy, as random probes leave it: take the bias off the cosine, its null and the
            alignment. Else they are the exact numbers of these samples.
    """
    null = pair.null_cosines(power, draws, seed)
    known = sensitivity.precision(
        pair, power, halves=halves, corrected=corrected,
        null=null if corrected and draws else None, seed=seed,
    )  # fmt: skip
    cosine, alignment, chance = pair.cosine(power), pair.alignment, float(null.mean()) if draws else math.nan
    if corrected:
        biases = (known.cosine_bias, known.alignment_bias, known.null_bias)
        cosine, alignment, chance = map(without, biases, (cosine, alignment, chance))
    alpha, alpha_r = pair.alpha_fit()
    columns = {
        "power": power,
        "alignment": alignment,
        "z": alignment / pair.alignment_std,
        "alpha_fit": alpha,
        "alpha_r": alpha_r,
        "cosine": cosine,
        "null_mean": chance,
        "null_std": float(null.std()) if draws > 1 else math.nan,
        "null_isotropic": pair.null_isotropic(power),
        "pearson": pair.pearson(power),
        "offdiag": pair.offdiag(power),
        "alignment_stderr": known.alignment,
        "drift": known.drift,
        "stderr": known.cosine,
    }
    return columns, known
