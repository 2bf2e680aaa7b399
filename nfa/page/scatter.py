"""The chart of a layer's directions: how sensitive the outputs are to each, over how much W amplifies it."""

import math

from markupsafe import Markup

from nfa.ansatz.scatter import Scatter
from nfa.page import svg
from nfa.page.svg import Band, Series, line_chart

_MOST = 150  # points: beyond, one cannot be told from the next
_FLOOR = 1e-6  # of the mean, below which a direction is none
_MARGIN = 1.5  # factor between what is drawn and the edge
_WIDTH = 360  # px


def scatter_chart(layer: str, scatter: Scatter) -> Markup:
    """Draw the points on logarithmic axes, with the fitted line and what chance gives.

    Args:
        layer: its name, for whoever hears the chart.
        scatter: its points.
    """
    x, y = _thinned(scatter)
    ends = [max(x), min(x)]
    fit = [math.exp(scatter.level + scatter.slope * math.log(end)) for end in ends]
    limits = _limits([*y, *fit])
    low, high = (min(max(1 + k * scatter.chance, limits[0]), limits[1]) for k in (-2, 2))
    points = Series("directions", x, y, svg.BLUE, line=False)
    line = Series(f"fit, α {scatter.alpha:.2f}", ends, fit, svg.VERMILLION, dashed=True)
    bands = [Band("chance, ± 2 sd", ends, [low] * 2, [high] * 2)] if math.isfinite(scatter.chance) else []
    return line_chart(
        [points, line] if math.isfinite(scatter.level) else [points],
        title="Sensitivity by direction",
        name=f"Sensitivity by direction of {layer}",
        x_label="σ², relative",
        y_label="uᵀCu, relative",
        x_log=True,
        y_log=True,
        y_range=limits,
        bands=bands,
        width=_WIDTH,
        plot_height=230,
    )


def _limits(values: list[float]) -> tuple[float, float]:
    """What holds the points and the line; of a band that reaches to zero, which has no logarithm, a part."""
    known = [value for value in (*values, 1.0) if math.isfinite(value)]
    return max(min(known), _FLOOR) / _MARGIN, max(known) * _MARGIN


def _thinned(scatter: Scatter) -> tuple[list[float], list[float]]:
    """So many points that they can be told apart, evenly by their place, with the first and the last."""
    n = len(scatter.amplified)
    chosen = range(n) if n <= _MOST else sorted({round(i * (n - 1) / (_MOST - 1)) for i in range(_MOST)})
    x, y = scatter.amplified.tolist(), scatter.sensitive.tolist()
    return [max(x[i], _FLOOR) for i in chosen], [y[i] if y[i] > _FLOOR else math.nan for i in chosen]
