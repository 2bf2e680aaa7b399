"""Radial kernels of a Mahalanobis distance, and products with their matrices."""

from nfa.kernels.distances import distances
from nfa.kernels.metric import Metric
from nfa.kernels.operator import KernelOperator, ScaledOperator, kernel_product
from nfa.kernels.precision import exact_products
from nfa.kernels.profiles import (
    KERNELS,
    Exponential,
    Gaussian,
    Laplace,
    Matern,
    RadialKernel,
    make_kernel,
    median_bandwidth,
    option_names,
)

__all__ = [
    "KERNELS",
    "Exponential",
    "Gaussian",
    "KernelOperator",
    "Laplace",
    "Matern",
    "Metric",
    "RadialKernel",
    "ScaledOperator",
    "distances",
    "exact_products",
    "kernel_product",
    "make_kernel",
    "median_bandwidth",
    "option_names",
]
