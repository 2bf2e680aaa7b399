"""Measurements while a network trains: which samples, when, what they cost; knows of no framework."""

from nfa.monitor.monitor import Monitor

__all__ = ["Monitor"]
