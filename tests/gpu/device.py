"""Where these tests run: on a card, or on the device that ``NFA_TEST_DEVICE`` names."""

import os

import pytest
import torch

CARD = torch.cuda.is_available()
DEVICE = os.environ.get("NFA_TEST_DEVICE") or "cuda"
NO_CARD = "no CUDA device is seen"

anywhere = pytest.mark.skipif(DEVICE == "cuda" and not CARD, reason=NO_CARD)  # any device but the CPU
card = pytest.mark.skipif(not CARD, reason=NO_CARD)  # what only CUDA has: its allocator, TF32, nccl
