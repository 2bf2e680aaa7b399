"""How a job of ``train.py`` runs: its command line, what it takes from a folder, its options, how it is gone on with."""
