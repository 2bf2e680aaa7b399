"""How a job of ``train.py`` runs: command line and options, what it takes from a folder, going on with it."""
