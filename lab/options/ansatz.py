"""Options of measuring the ansatz: in a run, and by an audit."""

from lab.options.kinds import (
    COUNT,
    COUNT_OR_ZERO,
    FLAG,
    PATH,
    POSITIVE,
    SEED,
    SHARE,
    TEXT,
    choice,
    number,
    whole,
)
from lab.options.option import Table

ANSATZ: Table = {  # callbacks.ansatz, of callbacks.AnsatzMonitor
    "every_n_epochs": COUNT_OR_ZERO.or_null(),
    "every_n_steps": COUNT.or_null(),
    "samples": COUNT,
    "batch_size": COUNT,
    "layers": TEXT.or_list().or_null(),
    "power": POSITIVE,
    "probes": COUNT.or_null(),
    "nulls": whole(0, 1_000_000),
    "chunk": COUNT,
    "pictures": COUNT_OR_ZERO,
    "seed": SEED,
    "budget": POSITIVE.or_null(),
    "fact": choice("mean", "none").or_null(),
}

CATAPULTS: Table = {  # callbacks.catapults, of callbacks.Catapults
    "thresholds": number(above=1).or_list(),
    "eigenvalues": COUNT,
    "every_n_epochs": COUNT,
    "diverged_above": number(above=1),
    "reference": PATH.or_null(),
}

AUDIT: Table = {  # of ``nfa audit``, which checks all of its options itself
    "spec": TEXT,
    "data": TEXT,
    "max_samples": COUNT.or_null(),
    "tolerance": SHARE.or_null(),
    "layers": TEXT.or_list().or_null(),
    "init": FLAG,
    "wandb": TEXT.or_null(),
    "probes": COUNT.or_null(),
    "power": POSITIVE,
    "nulls": COUNT_OR_ZERO,
    "seed": SEED,
    "batch_size": COUNT.or_null(),
    "exact": FLAG,
    "per_head": FLAG,
    "pictures": COUNT_OR_ZERO,
}
