"""The callback of Hugging Face's Trainer."""

from __future__ import annotations

from typing import Any

import transformers

from hesspect.training.watcher import Watcher


class TrainerCallback(transformers.TrainerCallback):
    """A Watcher that Trainer's steps drive.

        trainer = Trainer(model, arguments, train_dataset=...)
        TrainerCallback("spool", program="model.pt2", data="data.h5", loss="causal_lm", every=500).attach(trainer)
        trainer.train()

    Attached so, figures go through `Trainer.log`, under the step that they are of: into the history, TensorBoard, Weights & Biases and all that `report_to`
    names. Given as `callbacks=[...]` instead, they go into the history (`trainer.state.log_history`) alone.
    """

    def __init__(self, spool: Any, *, wait_s: float = 0, **options: Any) -> None:
        """
        :param wait_s: how long the end of the training waits for results
        :param options: of Watcher, but for model, optimizer and log
        """
        self._spool, self._wait_s, self._options = spool, wait_s, options
        self._trainer: Any = None
        self._state: Any = None
        self._epochs: dict[int, float | None] = {}
        self.watcher: Watcher | None = None

    def attach(self, trainer: Any) -> TrainerCallback:
        """Adds it to a Trainer, and logs there."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._state = state
        self.watcher = Watcher(kwargs["model"], self._spool, optimizer=kwargs.get("optimizer"), log=self._log, rank=0 if state.is_world_process_zero else 1, **self._options)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.watcher is not None:
            before = self.watcher.taken
            self.watcher.step(state.global_step)
            if self.watcher.taken != before:
                self._epochs[state.global_step] = state.epoch

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.close(self._wait_s)

    def _log(self, step: int, figures: dict[str, float]) -> None:
        state = self._state
        if self._trainer is None:
            state.log_history.append({**figures, "step": step})
            return
        now = state.global_step, state.epoch
        is_to_log = self._trainer.control.should_log  # what the Trainer itself has to log at this step: its log() takes that for done
        state.global_step, state.epoch = step, self._epochs.pop(step, state.epoch)
        try:
            self._trainer.log(dict(figures))
        finally:
            state.global_step, state.epoch = now
            self._trainer.control.should_log = is_to_log
