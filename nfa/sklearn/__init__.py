"""Recursive feature machines as estimators of scikit-learn.

    from nfa.sklearn import RFMClassifier, RFMRegressor

    model = RFMClassifier(bandwidth=5.0).fit(X, y)
    model.predict_proba(X_new), model.feature_importances_

Only this package imports scikit-learn (1.6 or later): ``pip install "neural-feature-ansatz[sklearn]"``.
"""

from nfa.errors import NfaError

try:
    from nfa.sklearn.classifier import RFMClassifier
    from nfa.sklearn.regressor import RFMRegressor
except ImportError as error:
    raise NfaError(
        f'nfa.sklearn needs scikit-learn 1.6 or later ({error}): pip install "neural-feature-ansatz[sklearn]"'
    ) from None

__all__ = ["RFMClassifier", "RFMRegressor"]
