"""What is typed behind ``train.py``, before Hydra reads it."""
