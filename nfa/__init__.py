"""Feature matrices of networks and kernel machines: the neural feature ansatz, measured.

``audit`` measures every layer of a network, ``Monitor`` does so while it trains; ``agop`` and
``neural_feature_matrix`` give the dense matrices; ``FeaturePair`` computes every statistic from a weight and
a sensitivity. ``RFM``, ``DeepRFM``, ``ConvRFM`` and ``DeepConvRFM`` are kernel machines that learn features
by the AGOP alone.
"""

import nfa.command.interrupted  # noqa: F401 - first of all: the others take seconds, in which Ctrl-C may come

# isort: split
from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.row import AnsatzRow
from nfa.audit import AnsatzReport, agop, audit, input_agop, neural_feature_matrix
from nfa.errors import NfaError
from nfa.machines.conv_rfm import ConvRFM
from nfa.machines.deep_conv_rfm import DeepConvRFM
from nfa.machines.deep_rfm import DeepRFM
from nfa.machines.rfm import RFM
from nfa.monitor import Monitor

__version__ = "0.2.0"

__all__ = [
    "RFM",
    "AnsatzReport",
    "AnsatzRow",
    "ConvRFM",
    "DeepConvRFM",
    "DeepRFM",
    "FeaturePair",
    "Monitor",
    "NfaError",
    "agop",
    "audit",
    "input_agop",
    "neural_feature_matrix",
]
