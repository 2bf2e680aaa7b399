"""Solvers of ``(K + ridge I) A = Y`` for a symmetric positive semi-definite kernel matrix K."""

from nfa.solvers.choice import METHODS, MatrixOperator, cholesky_bytes, planned, solve
from nfa.solvers.common import IllConditionedWarning, NotConvergedWarning, Solution, SolverWarning, room
from nfa.solvers.direct import cholesky
from nfa.solvers.iterative import conjugate_gradients
from nfa.solvers.nystrom import NystromPreconditioner, nystrom
from nfa.solvers.path import RidgePath, ridge_path

__all__ = [
    "METHODS",
    "IllConditionedWarning",
    "MatrixOperator",
    "NotConvergedWarning",
    "NystromPreconditioner",
    "RidgePath",
    "Solution",
    "SolverWarning",
    "cholesky",
    "cholesky_bytes",
    "conjugate_gradients",
    "nystrom",
    "planned",
    "ridge_path",
    "room",
    "solve",
]
