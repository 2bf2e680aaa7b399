"""Options of the loggers: those named here are checked, others are passed on."""

from lab.options.kinds import ANY, FLAG, PATH, TEXT, choice, number
from lab.options.option import Table

LOGGER: dict[str, Table] = {  # by class; wandb.init and the writer of TensorBoard take more than these
    "LabWandbLogger": {
        "save_dir": PATH,
        "project": TEXT,
        "mode": choice("auto", "online", "offline", "disabled", "dryrun"),
        "name": TEXT.or_null(),
        "group": TEXT.or_null(),
        "max_artifact_mb": number(0),
        "entity": TEXT.or_null(),
        "job_type": TEXT.or_null(),
        "tags": TEXT.or_list().or_null(),
        "notes": TEXT.or_null(),
        "log_model": FLAG | choice("all"),
    },
    "TensorBoardLogger": {
        "save_dir": PATH,
        "name": ANY,
        "version": ANY,
        "log_graph": FLAG,
        "default_hp_metric": FLAG,
        "prefix": ANY,
        "sub_dir": PATH.or_null(),
    },
}
