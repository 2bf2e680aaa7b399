"""What people have their data in, to tensors, and what comes out of a machine back to that."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import _num_samples, validate_data
from torch import Tensor

from nfa.checks import told
from nfa.errors import NfaError
from nfa.inputs.tables.frames import is_frame, table_of_frame
from nfa.inputs.tables.table import is_number

if TYPE_CHECKING:
    from nfa.inputs.tables import Table

_FLOATS = (np.float64, np.float32)


def count(data: Any) -> int:
    """Number of samples."""
    return len(data) if isinstance(data, Tensor) and data.dim() else _num_samples(data)


def take(data: Any, rows: np.ndarray) -> Any:
    """Some rows (m,) of arrays, tensors, DataFrames or lists."""
    if isinstance(data, Tensor):
        return data[torch.from_numpy(rows).to(data.device)]
    return _safe_indexing(data, rows)


def weights_of(sample_weight: Any, n: int) -> np.ndarray | None:
    """Weights (n,) float64, or None where there are none.

    Raises:
        NfaError: not one finite number of 0 or more for each of n samples, or all of them 0.
    """
    if sample_weight is None:
        return None
    given = plain_array(sample_weight)
    try:
        weights = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise NfaError(f"expected sample_weight as numbers ({n},), got {told(sample_weight)}") from None
    weights = np.full(n, float(weights)) if weights.ndim == 0 else weights
    if weights.shape != (n,):
        raise NfaError(f"expected sample_weight of shape ({n},), one a sample, got {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise NfaError("sample_weight must be finite numbers of 0 or more")
    if not weights.any():
        raise NfaError("sample_weight is zero for all samples: give some of them a weight above 0")
    return weights


def plain_array(data: Any) -> Any:
    """A tensor, wherever it is, as an array; all else as it is."""
    return data.detach().cpu().numpy() if isinstance(data, Tensor) else data


# ---- inputs ------------------------------------------------------------------------------------------------


def text_table(X: Any) -> "Table | None":
    """The table of a DataFrame that does not hold plain numbers alone; None for anything else."""
    if not is_frame(X) or all(kind.kind in "fiub" for kind in X.dtypes):
        return None
    table = table_of_frame(X)
    plain = all(is_number(values) and name not in table.about for name, values in table.columns.items())
    return None if plain else table


def points_of(estimator: BaseEstimator, X: Any, *, reset: bool) -> Tensor:
    """Points (n, d) of numbers; a tensor stays where it is.

    Sets or compares ``n_features_in_`` and ``feature_names_in_``.

    Args:
        estimator: whose data these are.
        X: an array, a DataFrame, a list of lists, or a tensor.
        reset: whether the estimator is being fitted.

    Raises:
        ValueError: as scikit-learn has it: other columns than in the fit, sparse matrices, missing values.
        NfaError: tensors that are no points.
    """
    if isinstance(X, Tensor):
        return _of_tensor(estimator, X, reset=reset)
    X = validate_data(estimator, X, dtype=_FLOATS, reset=reset)
    X = np.ascontiguousarray(X)
    return torch.from_numpy(X if X.flags.writeable else X.copy())


def _of_tensor(estimator: BaseEstimator, X: Tensor, *, reset: bool) -> Tensor:
    if X.layout == torch.strided and not (X.is_floating_point() or X.is_complex() or X.is_quantized):
        X = X.to(torch.get_default_dtype())
    if X.dim() != 2:
        raise NfaError(f"expected points (n, d), got a tensor of shape {tuple(X.shape)}")
    if reset:
        estimator.n_features_in_ = X.shape[1]
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif X.shape[1] != estimator.n_features_in_:
        raise NfaError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return X.detach()


# ---- targets -----------------------------------------------------------------------------------------------


def labels_of(estimator: BaseEstimator, y: Any) -> np.ndarray:
    """Labels (n,) as they are, of any kind."""
    _check_given(estimator, y)
    return check_array(plain_array(y), ensure_2d=False, dtype=None, input_name="y", estimator=estimator)


def numbers_of(estimator: BaseEstimator, y: Any) -> np.ndarray:
    """Numbers (n,) or (n, outputs), float32 or float64."""
    _check_given(estimator, y)
    return check_array(plain_array(y), ensure_2d=False, dtype=_FLOATS, input_name="y", estimator=estimator)


def _check_given(estimator: BaseEstimator, y: Any) -> None:
    if y is None:
        raise NfaError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")


# ---- outputs -----------------------------------------------------------------------------------------------


def as_given(values: Tensor, X: Any) -> Any:
    """What a machine gives, as a tensor on the device of X if that is a tensor, else as an array."""
    return values.to(X.device) if isinstance(X, Tensor) else values.cpu().numpy()
