"""Train a network and measure, layer by layer, how well the neural feature ansatz holds.

python train.py model=resnet data=digits
python train.py --help
"""

import os
import signal

if __name__ == "__main__":  # until training starts, Ctrl-C is one line, whatever is being imported
    signal.signal(signal.SIGINT, lambda number, frame: (os.write(2, b"\ninterrupted\n"), os._exit(130)))

import logging
from typing import Any

from omegaconf import DictConfig

from lab import entry
from lab.job import Job, let_interrupt


def train(cfg: DictConfig, job: Job) -> dict[str, Any]:
    """Run one job: build data, model and trainer, fit, test, and show what was found.

    Args:
        cfg: its options.
        job: its folder, its command line, and the sweep it may be of.

    Returns:
        What ``summary.json`` holds.
    """
    import pytorch_lightning as pl

    from callbacks import RunFolder
    from lab.build import build_callbacks, build_data, build_logger, build_trainer
    from lab.describe import describe, plain
    from lab.ending import ending_well, say_finished_before, show
    from lab.multirun.jobs import as_single_run, checkpoint_of_job, summary_of_finished
    from lab.resume.beginning import find_start
    from lab.resume.restoring import restoring
    from lab.resume.whole_epochs import train_by_epochs
    from models import build_model

    let_interrupt()
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch"):  # the last one imported says it all
        logging.getLogger(name).setLevel(logging.WARNING)
    description = describe(cfg)
    if job.sweep:
        if (done := summary_of_finished(job.folder, description["config"])) is not None:
            say_finished_before(job)
            return done
        cfg.ckpt_path = checkpoint_of_job(job.folder, description["config"])
    if cfg.seed is not None:
        pl.seed_everything(cfg.seed, workers=True, verbose=False)

    data = build_data(cfg.data)
    model = build_model(plain(cfg.model), plain(cfg.training), data)
    folder = RunFolder(job.folder, description, job.command)
    callbacks = build_callbacks(cfg.callbacks, job)
    start = find_start(cfg.ckpt_path, job.folder, description, cfg.trainer.get("max_epochs"))
    with ending_well(job):
        logger = build_logger(cfg.logger, model.kind, job, description)
        trainer = build_trainer(cfg, logger, folder, callbacks, model.kind)
        train_by_epochs(trainer, trained=start.trained)
        with as_single_run(job, start.checkpoint):
            with restoring(start.checkpoint):
                trainer.fit(model, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
            trainer.test(model, datamodule=data, verbose=False)
            folder.finish(trainer, model)
        show(trainer, logger, folder, job)
    return folder.summary


def main() -> None:
    """Entry point of ``python train.py``."""
    entry.start(train)


if __name__ == "__main__":
    import train  # by its name, launchers find the job in other processes

    train.main()
