"""The callback of Lightning, of the package `lightning` or `pytorch_lightning`."""

from __future__ import annotations

from typing import Any

from hesspect.training.watcher import Watcher

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback


class LightningCallback(Callback):
    """A Watcher that the steps of Lightning's Trainer drive.

        Trainer(callbacks=[LightningCallback("spool", program="model.pt2", data="data.h5", loss="cross_entropy", every=500)])

    Figures go to every logger of the Trainer, under the step that they are of. The weights are those of the LightningModule, or of the part of it that `part`
    names: a program of `hesspect.export_lightning` has the former's names.
    """

    def __init__(self, spool: Any, *, part: str = "", wait_s: float = 0, **options: Any) -> None:
        """
        :param part: the name of the module that was exported, as "model"; "": the whole
        :param wait_s: how long the end of the training waits for results
        :param options: of Watcher, but for model, optimizer and log
        """
        super().__init__()
        self._spool, self._part, self._wait_s, self._options = spool, part, wait_s, options
        self._trainer: Any = None
        self.watcher: Watcher | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._trainer = trainer
        model = pl_module.get_submodule(self._part)
        self.watcher = Watcher(model, self._spool, optimizer=trainer.optimizers[0] if trainer.optimizers else None, log=self._log, rank=0 if trainer.is_global_zero else 1,
                               **self._options)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.watcher is not None:
            self.watcher.step(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.watcher is not None:
            self.watcher.close(self._wait_s)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.watcher is not None:
            self.watcher.close()

    def _log(self, step: int, figures: dict[str, float]) -> None:
        for logger in self._trainer.loggers:
            logger.log_metrics(figures, step=step)
