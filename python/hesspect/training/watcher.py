"""Watches a training from within: every so many steps the weights go to a file and a job to the spool of `hesspect serve`, and what comes back is logged.

The training's thread copies the weights to host memory and goes on; a thread of the watcher writes, submits, and looks for what has ended. At most
`max_in_flight` copies wait for the disk, and no job is handed in while `max_queued` wait: then the step is left out, which `skipped` counts.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn

from hesspect.errors import ProgramNotFound, UsageError
from hesspect.result import Result, ResultError, read
from hesspect.training.quiet import bare
from hesspect.training.sharpness import CriticalSharpness
from hesspect.training.spool import Spool, job_value

_log = logging.getLogger("hesspect.training")
_FAILURES = 3  #: in a row, after which no more jobs are handed in
_POLL_S = 1.0
_COMMANDS = ("analyze", "density", "eigs", "trace")

Log = Callable[[int, dict[str, float]], Any]
State = dict[str, torch.Tensor]


def figures(result: Result) -> dict[str, float]:
    """What is logged of a result: its eigenvalues with the widths of what is known of them, its trace, what is below zero, and what it took."""
    found: dict[str, float] = {}
    theta = result.eigenvalues
    if theta is not None and theta.size:
        top = theta.size if result.n_top is None or result.n_magnitude else min(int(result.n_top), theta.size)
        found |= {f"lambda_{i + 1}": float(theta[i]) for i in range(min(top, 5))}
        found |= {"lambda_min": float(theta[-1])} if theta.size > top else {}
        if result.eigenvalue_errors is not None:
            found["lambda_1_error"] = float(result.eigenvalue_errors[0])
    for name, value in (("trace", result.trace), ("trace_half_width", result.trace_half_width), ("negative_mass", result.negative_mass), ("loss", result.loss),
                        ("products", result.hvp_count)):
        if value is not None:
            found[name] = float(value)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _require_whole(model: nn.Module) -> None:
    """:raises UsageError: parameters are shared out over ranks: rank 0 can't write them by itself"""
    sharded = any(type(module).__name__ in ("FullyShardedDataParallel", "FSDPModule") for module in model.modules()) or \
        any(type(parameter).__name__ in ("DTensor", "ShardedTensor") or hasattr(parameter, "ds_id") for parameter in model.parameters())
    if sharded:
        raise UsageError("the model's parameters are shared out over ranks: let the training write its checkpoints, and follow them with 'hesspect series --follow'")


def option_pairs(command: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Options by their Python names as lines of a job. Where the program is on this machine they are looked up there.

    :raises UsageError: a command that is no job, a name that the command does not have, or a value of the wrong kind
    """
    if command not in _COMMANDS:
        raise UsageError(f"no job has the command {command!r}; there are {', '.join(_COMMANDS)}")
    from hesspect.running import options as command_line

    try:
        words = command_line.arguments(command, options)
    except ProgramNotFound:
        return [(key.replace("_", "-"), job_value(one)) for key, value in options.items() if value is not None for one in (value if isinstance(value, (list, tuple)) else [value])]
    pairs: list[tuple[str, str]] = []
    while words:
        word, *words = words
        if "=" in word:
            name, _, value = word.partition("=")
        elif words and not words[0].startswith("--"):
            name, (value, *words) = word, words
        else:
            name, value = word, "true"
        pairs.append((name.removeprefix("--"), value))
    return pairs


def host_copy(model: nn.Module) -> State:
    """The model's state dict in host memory, as it is now. The training waits for this copy, and for nothing else."""
    state: State = {}
    for name, value in bare(model).state_dict().items():
        if not isinstance(value, torch.Tensor):
            continue  # what get_extra_state gives is no weight
        state[name] = value.detach().to("cpu", copy=True).contiguous()
    return state


def write_state(state: State, path: Path) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        save_file(state, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclasses.dataclass
class _Snapshot:
    step: int
    rate: float | None
    state: State | None
    trigger: float | None  # its sharpness
    file: Path
    job: str = ""


class Watcher:
    """See the module; docs/training.md has an example of each loop."""

    def __init__(self, model: nn.Module, spool: str | os.PathLike[str], *, program: str | os.PathLike[str], data: str | os.PathLike[str], loss: str, every: int = 1000,
                 command: str = "eigs", options: Mapping[str, Any] | None = None, optimizer: torch.optim.Optimizer | None = None,
                 trigger: CriticalSharpness | None = None, log: Log | None = None, figures: Callable[[Result], dict[str, float]] = figures, prefix: str = "hesspect/",
                 folder: str | os.PathLike[str] | None = None, keep: bool = False, max_in_flight: int = 1, max_queued: int = 2, priority: int = 0, name: str = "step",
                 save: Callable[[State, Path], None] = write_state, rank: int | None = None) -> None:
        """
        :param model: the one that is trained; also wrapped in DistributedDataParallel or compiled
        :param spool: the folder that `hesspect serve --spool` looks after; made where there is none
        :param program: the model as `hesspect.export` wrote it, with the loss and data that a job names
        :param every: steps from one checkpoint to the next; with a trigger, from one check to the next
        :param command: eigs, analyze, density or trace
        :param options: of the command, as {"top": 5, "rtol_eigs": 0.01}
        :param optimizer: whose updates the trigger looks at, and whose learning rate is logged with λ₁ (λ₁ η / 2)
        :param log: called with step and figures on the thread that calls `step` or `close`; None: they are in `results` alone
        :param folder: of the checkpoints, where the service may read (`--allow`); default: `weights` in the spool
        :param keep: checkpoints stay when their result is there
        :param max_in_flight: copies of the weights in host memory at most
        :param max_queued: jobs that wait in the spool, whoever's, from which on none is handed in
        :param save: writes a state dict, where the program has other names
        :param rank: of this process; only 0 does anything. Default: torch.distributed's
        """
        if every < 1 or max_in_flight < 1 or max_queued < 1:
            raise UsageError("every, max_in_flight and max_queued must be at least 1")
        if trigger is not None and optimizer is None:
            raise UsageError("a trigger looks at the optimizer's updates: give optimizer=")
        _require_whole(model)
        self.model, self.every, self.command, self.trigger, self.log = model, every, command, trigger, log
        self.optimizer, self.figures, self.prefix, self.keep, self.priority, self.name, self.save = optimizer, figures, prefix, keep, priority, name, save
        self.max_in_flight, self.max_queued = max_in_flight, max_queued
        self.options = [("model", str(Path(program).resolve())), ("data", str(Path(data).resolve())), ("loss", loss), *option_pairs(command, options or {})]
        self.results: list[tuple[int, dict[str, float]]] = []  #: what has come back, by step
        self.taken = self.submitted = self.skipped = self.failed = 0  #: copies made; jobs handed in; steps left out; what came to nothing
        self.stopped = ""  #: why no more jobs are handed in; "" while they are
        if rank is None:
            rank = torch.distributed.get_rank() if torch.distributed.is_available() and torch.distributed.is_initialized() else int(os.environ.get("RANK", "0"))
        self.active = rank == 0
        if not self.active:
            return
        self.spool = Spool(spool)
        self.folder = Path(folder).resolve() if folder is not None else self.spool.folder / "weights"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._last: int | None = None
        self._wanted = self._held = False  # by the trigger; until there is room
        self._since_check = every - 1  # the first update is looked at
        self._before: State | None = None
        self._hooks: list[Any] = []
        self._waiting: queue.SimpleQueue[_Snapshot | None] = queue.SimpleQueue()
        self._in_flight = 0  # under _lock, as all that both threads write
        self._queued = self.spool.queued()
        self._lock = threading.Lock()
        self._outstanding: list[_Snapshot] = []
        self._arrived: collections.deque[tuple[int, dict[str, float]]] = collections.deque()
        self._failures = 0
        if trigger is not None:
            torch_optimizer: Any = optimizer
            while hasattr(torch_optimizer, "optimizer"):  # accelerate's
                torch_optimizer = torch_optimizer.optimizer
            self.optimizer = torch_optimizer
            self._hooks = [torch_optimizer.register_step_pre_hook(self._keep_parameters), torch_optimizer.register_step_post_hook(self._check_update)]
        self._thread = threading.Thread(target=self._work, name="hesspect-watcher", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ on the training's thread

    def step(self, step: int) -> None:
        """Call it after each step of the optimizer, with the step's number."""
        if not self.active:
            return
        self._deliver()
        last = step - 1 if self._last is None else self._last
        self._last = step
        due = self._wanted if self.trigger is not None else step // self.every > last // self.every
        if not due or self.stopped:
            return
        with self._lock:
            room = self._in_flight < self.max_in_flight and self._queued < self.max_queued
            self._in_flight += room
        if not room:
            self.skipped += not self._held
            self._held = self._wanted  # what the trigger wants is taken as soon as there is room
            return
        self._wanted = self._held = False
        self.taken += 1
        file = self.folder / f"{self.name}-{step:08d}-{os.getpid()}.safetensors"
        self._waiting.put(_Snapshot(step, self._rate(), host_copy(self.model), self.trigger.sharpness if self.trigger is not None else None, file))

    def close(self, wait_s: float = 0) -> int:
        """Writes and hands in what is under way, waits up to `wait_s` seconds for results, logs those that are there. `collect` gets later ones.

        :return: how many jobs have not ended
        """
        if not self.active:
            return 0
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        return self.collect(wait_s)

    def collect(self, wait_s: float = 0) -> int:
        """After `close`: logs what has come back since.

        :return: how many jobs have not ended
        """
        until = time.monotonic() + wait_s
        while True:
            self._look()
            self._deliver()
            if not self._outstanding or time.monotonic() >= until:
                return len(self._outstanding)
            time.sleep(min(0.2, max(0.0, until - time.monotonic())))

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rate(self) -> float | None:
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer is not None else None

    def _deliver(self) -> None:
        while self._arrived:
            step, found = self._arrived.popleft()
            self.results.append((step, found))
            if self.log is not None:
                self.log(step, found)

    def _keep_parameters(self, *_: Any) -> None:
        self._since_check += 1
        if self._wanted or self.stopped or self._since_check < self.every:
            return
        self._since_check = 0
        self._before = {name: parameter.detach().clone() for name, parameter in bare(self.model).named_parameters()}

    def _check_update(self, *_: Any) -> None:
        before, self._before = self._before, None
        if before is None or self.trigger is None:
            return
        model = bare(self.model)
        after = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._wanted = self.trigger.check(model, before, after, self._rate() or 0.0)

    # ------------------------------------------------------------ on its own

    def _work(self) -> None:
        while True:
            try:
                snapshot = self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                self._look()
                continue
            if snapshot is None:
                return
            self._hand_in(snapshot)
            self._look()

    def _hand_in(self, snapshot: _Snapshot) -> None:
        try:
            assert snapshot.state is not None
            self.save(snapshot.state, snapshot.file)
            snapshot.job = self.spool.submit(self.command, [*self.options, ("weights", str(snapshot.file))], name=f"{self.name} {snapshot.step}", priority=self.priority)
        except Exception as error:  # a full disk, no permission: the training goes on
            self._note_failure(f"step {snapshot.step}: {error}")
        else:
            with self._lock:
                self.submitted += 1
                self._queued += 1
                self._outstanding.append(snapshot)
        finally:
            snapshot.state = None
            with self._lock:
                self._in_flight -= 1

    def _look(self) -> None:
        """What waits, and what has ended."""
        try:
            queued = self.spool.queued()
            ended = [(snapshot, outcome) for snapshot in list(self._outstanding) if (outcome := self.spool.outcome(snapshot.job)) is not None]
        except OSError as error:  # a spool that has gone away
            _log.debug("%s", error)
            return
        with self._lock:
            self._queued = queued
        for snapshot, outcome in ended:
            self._outstanding.remove(snapshot)
            if outcome.output is None or not outcome.output.exists():
                self._note_failure(f"step {snapshot.step}: job {snapshot.job} {outcome.state}: {outcome.line or 'no result'}")
                continue
            try:
                self._take(snapshot, read(outcome.output))
            except (ResultError, OSError) as error:
                self._note_failure(f"step {snapshot.step}: {error}")

    def _take(self, snapshot: _Snapshot, result: Result) -> None:
        self._failures = 0
        found = self.figures(result)
        if snapshot.rate is not None and "lambda_1" in found:
            found["half_lambda_eta"] = found["lambda_1"] * snapshot.rate / 2
        if snapshot.trigger is not None:
            found["critical_sharpness"] = snapshot.trigger
        self._arrived.append((snapshot.step, {self.prefix + key: value for key, value in found.items()}))
        if not self.keep:
            snapshot.file.unlink(missing_ok=True)

    def _note_failure(self, line: str) -> None:
        self.failed += 1
        self._failures += 1
        _log.warning("%s", line)
        if self._failures == _FAILURES and not self.stopped:
            self.stopped = f"{_FAILURES} checkpoints in a row came to nothing, the last: {line}"
            _log.warning("no more checkpoints are handed in: %s", self.stopped)
