"""Every option of ``train.py``: its type, its range and its choices, said once.

A table gives an `Option` to every name. The check before a run looks into all of them; the constructors that
take the options look into the same ones, so that they mind them in a library too. Where a class of the user's
own stands in ``_target_``, its options are free.
"""

from lab.options.ansatz import ANSATZ, AUDIT, CATAPULTS
from lab.options.data import DATA, IMAGE_FOLDER, LOCAL_SIGNAL, SAMPLES, SYNTHETIC, TABULAR, TORCHVISION
from lab.options.kinds import COUNT, FLAG, PATH, SEED, TEXT, choice, number, whole
from lab.options.loggers import LOGGER
from lab.options.models import KERNEL_MACHINE, MODEL, VARIANTS
from lab.options.option import Option, Table, check_all
from lab.options.run import RUN, TRAINER, TRAINING
from lab.options.words import shown

__all__ = [
    "ANSATZ",
    "AUDIT",
    "CATAPULTS",
    "COUNT",
    "DATA",
    "FLAG",
    "IMAGE_FOLDER",
    "KERNEL_MACHINE",
    "LOCAL_SIGNAL",
    "LOGGER",
    "MODEL",
    "PATH",
    "RUN",
    "SAMPLES",
    "SEED",
    "SYNTHETIC",
    "TABULAR",
    "TEXT",
    "TORCHVISION",
    "TRAINER",
    "TRAINING",
    "VARIANTS",
    "Option",
    "Table",
    "check_all",
    "choice",
    "number",
    "shown",
    "whole",
]
