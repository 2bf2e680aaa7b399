"""Kernel machines that learn features: recursive feature machines."""
