"""Watchers of trainings, against a stand-in for `hesspect serve` that takes what lies in the spool; the training itself must not notice."""

import json
import math
import os
import random
import re
import threading
import time

import h5py
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

import hesspect
from conftest import write_result
from dense import eigenvalues_of, program
from hesspect.training import CriticalSharpness, Watcher
from hesspect.training.sharpness import critical_step
from hesspect.training.spool import job_text
from hesspect.training.watcher import host_copy


class Net(nn.Module):
    """With all that a look at a model in training could disturb: dropout, running averages, a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def rows(n=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def queued(spool):
    return sorted((spool / "incoming").glob("*.ini"), key=lambda file: int(re.search(r"name = \w+ (\d+)", file.read_text())[1]))


def options_of(job):
    head, options = re.fullmatch(r"\[job\]\n(.*)\n\[options\]\n(.*)", job.read_text(), re.DOTALL).groups()
    as_pairs = lambda text: [tuple(line.split(" = ", 1)) for line in text.splitlines() if line]
    return dict(as_pairs(head)), as_pairs(options)


def finish(spool, job, state="done", line="", result=None):
    """As the service leaves a job: the result, its record, and then its file beside them."""
    name = job.stem
    output = spool / "done" / f"{name}.h5"
    if state == "done":
        (result or (lambda path, job: write_result(path, layout=2)))(output, job)
    (spool / state / f"{name}.json").write_text(json.dumps({"id": name, "state": state, "line": line, "output": str(output) if state == "done" else ""}))
    os.rename(job, spool / state / job.name)


def until(condition, seconds=100):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("hesspect.training.watcher._POLL_S", 0.02)


def watcher_of(model, spool, **options):
    return Watcher(model, spool, **{"program": "model.pt2", "data": "data.h5", "loss": "cross_entropy", "every": 10, "options": {"top": 2}, **options})


def train(make_watcher, steps=60):
    """A loop with everything that draws random numbers.

    :return: the state dict, and what the generators give next
    """
    torch.manual_seed(3), random.seed(4), np.random.seed(5)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    watcher = make_watcher(model, optimizer)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows()), batch_size=16, shuffle=True)
    step = 0
    while step < steps:
        for x, y in loader:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if watcher is not None:
                watcher.step(step)
    if watcher is not None:
        watcher.close()
    return model, watcher, [torch.rand(3).tolist(), random.random(), np.random.rand()]


def assert_same(model, other):
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_training_does_not_notice(tmp_path):
    """Bit for bit the same weights, buffers and random numbers, with checkpoints taken and a trigger whose loss draws numbers of every kind."""
    plain, _, numbers = train(lambda model, optimizer: None, steps=24)

    def noisy(model):
        assert not model._model.training and not torch.is_grad_enabled()
        torch.rand(2), random.random(), np.random.rand()
        return F.cross_entropy(model(rows()[0]), rows()[1])

    trigger = CriticalSharpness(noisy, factor=1.05)
    watched, watcher, same_numbers = train(lambda model, optimizer: watcher_of(model, tmp_path / "s", optimizer=optimizer, trigger=trigger, every=3, max_queued=100), steps=24)
    assert watcher.submitted >= 1 and trigger.passes > 15
    assert_same(plain, watched)
    assert numbers == same_numbers and plain.training and watched.training and plain.calls == watched.calls
    periodic, watcher, same_numbers = train(lambda model, optimizer: watcher_of(model, tmp_path / "p", max_queued=100, max_in_flight=100), steps=24)
    assert watcher.submitted == 2
    assert_same(plain, periodic)
    assert numbers == same_numbers


def test_a_job_is_whole_and_of_its_step(tmp_path):
    """Each checkpoint has the weights of its step, though the training has gone on since."""
    seen = {}

    def made(model, optimizer):
        watcher = watcher_of(model, tmp_path / "s", max_queued=100, max_in_flight=100, options={"top": 3, "rtol_eigs": 0.5, "params": ["first", "last"]}, priority=4)
        plain = watcher.step
        watcher.step = lambda step: (seen.update({step: {name: value.clone() for name, value in model.state_dict().items()}}), plain(step))
        return watcher

    train(made)
    jobs = queued(tmp_path / "s")
    assert len(jobs) == 6 and sorted(p.name for p in (tmp_path / "s/weights").iterdir()) == sorted(f"step-{10 * (i + 1):08d}-{os.getpid()}.safetensors" for i in range(6))
    for i, job in enumerate(jobs):
        head, options = options_of(job)
        assert re.fullmatch(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}", job.stem)
        assert head["name"] == f"step {10 * (i + 1)}" and head["priority"] == "4" and head["command"] == "eigs" and abs(float(head["submitted"]) - time.time()) < 600
        assert [value for key, value in options if key == "params"] == ["first", "last"]
        plain = dict(options)
        assert plain["top"] == "3" and plain["rtol-eigs"] == "0.5" and plain["loss"] == "cross_entropy" and plain["model"].endswith("/model.pt2")
        saved = load_file(plain["weights"])
        assert all(torch.equal(saved[name], value) for name, value in seen[10 * (i + 1)].items()) and saved.keys() == seen[10].keys()


def test_what_comes_back_is_logged_under_its_step(tmp_path):
    spool, logged = tmp_path / "s", []
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = watcher_of(model, spool, optimizer=optimizer, max_queued=10, log=lambda step, figures: logged.append((step, threading.get_ident(), figures)))
    watcher.step(10)
    until(lambda: len(queued(spool)) == 1)
    for step in range(11, 16):
        watcher.step(step)
    assert not logged and len(list((spool / "weights").iterdir())) == 1
    finish(spool, queued(spool)[0])
    until(lambda: watcher._arrived)
    assert not logged  # until the training's thread comes by
    watcher.step(16)
    (step, thread, figures), = logged
    assert step == 10 and thread == threading.get_ident() and watcher.results == [(10, figures)]
    assert figures["hesspect/lambda_1"] == 12.4 and figures["hesspect/lambda_min"] == -1.3 and figures["hesspect/trace"] == 118.7 and figures["hesspect/trace_half_width"] == 7.5
    assert figures["hesspect/half_lambda_eta"] == pytest.approx(12.4 * 0.1 / 2)
    until(lambda: not list((spool / "weights").iterdir()))  # the checkpoint has done its work
    watcher.step(20)
    assert watcher.close() == 1
    finish(spool, queued(spool)[0])
    assert watcher.collect() == 0 and [step for step, _ in watcher.results] == [10, 20]


def test_checkpoints_are_kept_where_that_is_asked_for(tmp_path):
    with watcher_of(Net(), tmp_path / "s", keep=True, folder=tmp_path / "here") as watcher:
        watcher.step(10)
        until(lambda: queued(tmp_path / "s"))
        finish(tmp_path / "s", queued(tmp_path / "s")[0])
        until(lambda: watcher._arrived)
    assert watcher.results and len(list((tmp_path / "here").iterdir())) == 1 and not (tmp_path / "s/weights").exists()


def test_a_long_queue(tmp_path):
    """Where nobody takes the jobs, or others have handed in many, no more are: the disk does not fill."""
    spool = tmp_path / "s"
    model, watcher, _ = train(lambda model, optimizer: watcher_of(model, spool, max_queued=2))
    assert watcher.submitted == 2 and watcher.skipped == 4 and len(list((spool / "weights").iterdir())) == 2
    watcher = watcher_of(model, spool, max_queued=2)
    watcher.step(10)
    assert watcher.skipped == 1
    finish(spool, queued(spool)[0])
    until(lambda: watcher._queued == 1)
    watcher.step(20)
    watcher.close()
    assert watcher.submitted == 1


def test_a_slow_disk_holds_nothing_up(tmp_path):
    """The writer stands still: the training goes on, and host memory holds as many copies as were allowed."""
    gate, held = threading.Event(), []
    watcher = watcher_of(Net(), tmp_path / "s", every=1, max_queued=100, max_in_flight=3, save=lambda state, path: (held.append(state), gate.wait(20), path.touch()))
    for step in range(1, 201):
        watcher.step(step)
    assert watcher.taken == 3 and watcher.skipped == 197 and watcher.submitted == 0
    gate.set()
    watcher.close()
    assert watcher.submitted == 3 and len(held) == 3


def test_failures_end_the_watching_not_the_training(tmp_path, caplog):
    def full(state, path):
        raise OSError(28, "No space left on device", str(path))

    model, watcher, _ = train(lambda model, optimizer: watcher_of(model, tmp_path / "full", every=2, save=full))
    assert watcher.failed == 3 and watcher.submitted == 0 and "No space left on device" in watcher.stopped
    assert len([record for record in caplog.records if "no more checkpoints are handed in" in record.message]) == 1

    spool = tmp_path / "s"
    watcher = watcher_of(model, spool, max_queued=10)
    for i in range(1, 4):
        watcher.step(10 * i)
        until(lambda: queued(spool))
        finish(spool, queued(spool)[0], "failed", "loss: unknown 'cross_entropyy'")
        until(lambda i=i: watcher.failed == i)
    watcher.step(40)
    watcher.close()
    assert watcher.taken == 3 and "unknown 'cross_entropyy'" in watcher.stopped and len(list((spool / "weights").iterdir())) == 3


def test_what_is_refused(tmp_path):
    for wrong, line in (({"options": {"topp": 2}}, "did you mean 'top'"), ({"command": "plan"}, "no job has the command 'plan'"), ({"every": 0}, "at least 1"),
                        ({"trigger": CriticalSharpness(lambda model: model(1))}, "give optimizer=")):
        with pytest.raises(hesspect.UsageError, match=re.escape(line)):
            watcher_of(Net(), tmp_path / "s", **wrong)
    with pytest.raises(hesspect.UsageError, match="more than one line"):
        job_text("eigs", [("weights", "a\nb")], "n", 0)
    assert 'data = "a #1;\\"b\\\\.h5"' in job_text("eigs", [("data", 'a #1;"b\\.h5')], "n", 0)
    sharded = Net()
    sharded.first.weight.ds_id = 3  # as DeepSpeed marks them
    with pytest.raises(hesspect.UsageError, match="series --follow"):
        watcher_of(sharded, tmp_path / "s")


def test_other_ranks_do_nothing(tmp_path):
    watcher = watcher_of(Net(), tmp_path / "s", rank=1)
    watcher.step(10)
    assert watcher.close() == 0 and not (tmp_path / "s").exists()


def test_wrapped_models_have_their_own_names():
    """torch.compile's wrapper is stood in for, as it takes seconds to import: it keeps the model as `_orig_mod`."""
    model, compiled = Net(), nn.Module()
    compiled._orig_mod = torch.compile(model) if os.environ.get("HESSPECT_LONG") else model
    assert host_copy(nn.DataParallel(model)).keys() == host_copy(compiled).keys() == model.state_dict().keys()


def test_resumed_in_mid_course(tmp_path):
    watcher = watcher_of(Net(), tmp_path / "s", every=100)
    for step in (1234, 1299, 1305):  # a loop that does not come by at each step
        watcher.step(step)
    watcher.close()
    assert [options_of(job)[0]["name"] for job in queued(tmp_path / "s")] == ["step 1305"]


def test_a_job_gives_the_eigenvalues_of_its_step(tmp_path):
    """Through the program, against PyTorch's dense Hessian of the weights as they were."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = rows(24)
    hesspect.export(model, x[:4], tmp_path / "model.pt2")
    hesspect.write_data(tmp_path / "data.h5", (x, y), inputs=["input"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    watcher = Watcher(model, tmp_path / "s", program=tmp_path / "model.pt2", data=tmp_path / "data.h5", loss="cross_entropy", every=5, optimizer=optimizer,
                      options={"top": 3, "bottom": 0, "dtype": "float64", "rtol_eigs": 1e-9})
    for step in range(1, 9):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if step == 5:
            double = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
            double.load_state_dict(model.state_dict())
        watcher.step(step)
    watcher.close()
    exact = eigenvalues_of(F.cross_entropy(double(x.double()), y), list(double.parameters()))[::-1]

    def run(output, job):
        options = tmp_path / "options.ini"
        options.write_text(job.read_text().partition("[options]\n")[2])
        program("eigs", "--config", options, "--output", output)

    finish(tmp_path / "s", queued(tmp_path / "s")[0], result=run)
    assert watcher.collect() == 0
    (step, found), = watcher.results
    assert step == 5 and [found[f"hesspect/lambda_{i}"] for i in (1, 2, 3)] == pytest.approx(exact[:3], abs=1e-8)


# ---------------------------------------------------------------- the trigger


class Bowl(nn.Module):
    """½ Σ h_i w_i²"""

    def __init__(self, h):
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(h), dtype=torch.float64))
        self.h = torch.tensor(h, dtype=torch.float64)

    def forward(self):
        return 0.5 * (self.h * self.w**2).sum()


def test_the_critical_step_of_a_bowl():
    """Along −g the loss of a bowl falls up to 2 gᵀg / gᵀHg, whatever the learning rate."""
    for rate in (1e-4, 0.01, 0.3):
        bowl = Bowl([10.0, 3.0, 1.0])
        optimizer = torch.optim.SGD(bowl.parameters(), lr=rate)
        before = {"w": bowl.w.detach().clone()}
        bowl().backward()
        optimizer.step()
        trigger = CriticalSharpness(lambda model: model())
        assert trigger.check(bowl, before, {"w": bowl.w.detach()}, rate)
        g = bowl.h
        assert trigger.sharpness == pytest.approx(float((g * bowl.h * g).sum() / (g * g).sum()), rel=0.02)
    assert critical_step(lambda t: -t, 1.0) is None and critical_step(lambda t: t, 1.0) is None and critical_step(lambda t: math.nan, 1.0) is None
    assert critical_step(lambda t: t * (t - 7), 1.0) == pytest.approx(7, rel=0.02) and critical_step(lambda t: t * (t - 7), 1000.0) == pytest.approx(7, rel=0.02)


def test_the_same_as_the_program_measures(tmp_path):
    """`hesspect sharpness` finds the critical step along −g by its own search."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = rows(24)
    x = x.double()
    hesspect.export(model, x[:4], tmp_path / "model.pt2")
    hesspect.write_data(tmp_path / "data.h5", (x, y), inputs=["input"])
    program("sharpness", "--model", tmp_path / "model.pt2", "--data", tmp_path / "data.h5", "--loss", "cross_entropy", "--dtype", "float64", "--output", tmp_path / "r.h5",
            "--step-check=false", "--basin-directions", 0, "--measure-probes", 0, "--eigenvectors-tried", 0)
    with h5py.File(tmp_path / "r.h5") as file:
        theirs = float(file["entry/sharpness/critical_step"][()])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    trigger = CriticalSharpness(lambda model: F.cross_entropy(model(x), y))
    trigger.check(model, before, dict(model.named_parameters()), 0.01)
    assert trigger.step == pytest.approx(theirs, rel=0.04)  # each is known to 2 %


def test_a_change_is_seen_and_a_small_one_not():
    bowl, rate, trigger = Bowl([10.0, 10.0]), 0.001, CriticalSharpness(lambda model: model(), factor=1.5)

    def check(h):
        bowl.h[:] = h
        before = {"w": bowl.w.detach()}
        return trigger.check(bowl, before, {"w": bowl.w.detach() * (1 - rate * h)}, rate)

    assert check(10.0) and trigger.sharpness == pytest.approx(10, rel=0.02)
    passes = trigger.passes
    assert not any(check(h) for h in (10.0, 12.0, 8.0, 13.5, 10.0, 7.5))
    assert trigger.passes - passes == 12  # two forward passes each
    found = [check(25.0) for _ in range(6)]
    assert found.count(True) == 1 and trigger.sharpness == pytest.approx(25, rel=0.02)
    found = [check(9.0) for _ in range(6)]
    assert found.count(True) == 1 and trigger.sharpness == pytest.approx(9, rel=0.02)


def test_the_trigger_decides(tmp_path):
    """Jobs are handed in at the start and when the curvature changes, not in between."""
    bowl = Bowl([4.0, 4.0])
    optimizer = torch.optim.SGD(bowl.parameters(), lr=1e-4)
    watcher = watcher_of(bowl, tmp_path / "s", optimizer=optimizer, trigger=CriticalSharpness(lambda model: model()), every=5, max_queued=100, max_in_flight=100)
    for step in range(1, 101):
        if step == 50:
            bowl.h[:] = 40.0
        optimizer.zero_grad()
        bowl().backward()
        optimizer.step()
        watcher.step(step)
    watcher.close()
    steps = [int(options_of(job)[0]["name"].split()[1]) for job in queued(tmp_path / "s")]
    assert len(steps) == 2 and steps[0] == 1 and 51 <= steps[1] <= 70
    assert watcher.trigger.sharpness == pytest.approx(40, rel=0.02)


# ---------------------------------------------------------------- loops of others


def tiny_trainer(folder, callback=None):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    transformers.set_seed(11)
    config = transformers.BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=12, num_labels=3)
    model = transformers.BertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(2)
    data = [{"input_ids": torch.randint(0, 30, (10,), generator=generator), "labels": torch.tensor(i % 3)} for i in range(24)]
    arguments = transformers.TrainingArguments(str(folder), max_steps=12, per_device_train_batch_size=4, logging_steps=4, report_to=[], save_strategy="no", use_cpu=True,
                                               disable_tqdm=True, learning_rate=1e-3)
    trainer = transformers.Trainer(model, arguments, train_dataset=data)
    if callback is not None:
        callback.attach(trainer)
    batch = {"input_ids": torch.stack([row["input_ids"] for row in data[:8]]), "labels": torch.stack([row["labels"] for row in data[:8]])}
    return trainer, batch


def test_hugging_face_trainer(tmp_path):
    pytest.importorskip("accelerate")
    from hesspect.training import TrainerCallback

    plain, batch = tiny_trainer(tmp_path / "a")
    plain.train()
    spool = tmp_path / "s"
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            for job in queued(spool) if (spool / "incoming").is_dir() else []:
                finish(spool, job)
            time.sleep(0.01)

    service = threading.Thread(target=serve)
    service.start()
    try:
        callback = TrainerCallback(spool, program="m.pt2", data="d.h5", loss="output", every=4, max_queued=100, wait_s=100,
                                   trigger=CriticalSharpness(lambda model: model(**batch).loss, factor=1.001))
        trainer, _ = tiny_trainer(tmp_path / "b", callback)
        trainer.train()
    finally:
        stop.set()
        service.join()
    assert_same(plain.model, trainer.model)
    watcher = callback.watcher
    assert watcher.submitted >= 1 and watcher.submitted == len(watcher.results)
    told = {entry["step"]: entry for entry in trainer.state.log_history if "hesspect/lambda_1" in entry}
    assert told.keys() == {step for step, _ in watcher.results} and told[1]["hesspect/lambda_1"] == 12.4 and told[1]["epoch"] == pytest.approx(1 / 6)
    assert told[1]["hesspect/critical_sharpness"] > 0 and trainer.state.global_step == 12
    losses = lambda trainer: [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    assert losses(plain) == losses(trainer)


def test_a_figure_logged_at_a_step_that_logs_itself(tmp_path):
    """Trainer.log takes what is to be logged for done: the training's own loss of that step was lost."""
    pytest.importorskip("accelerate")
    from hesspect.training import TrainerCallback

    callback = TrainerCallback(tmp_path / "s", program="m.pt2", data="d.h5", loss="output", every=4)
    trainer, _ = tiny_trainer(tmp_path / "b", callback)
    plain_step = callback.on_step_end

    def on_step_end(args, state, control, **kwargs):
        plain_step(args, state, control, **kwargs)
        callback._log(max(1, state.global_step - 1), {"hesspect/lambda_1": 1.0})

    callback.on_step_end = on_step_end
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [4, 8, 12]
    assert len([entry for entry in trainer.state.log_history if "hesspect/lambda_1" in entry]) == 12


def test_lightning(tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    from hesspect.training import LightningCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    class Logger(pl.loggers.logger.DummyLogger):
        told = []

        def log_metrics(self, metrics, step=None):
            self.told.append((step, metrics))

    def fit(callbacks, logger):
        pl.seed_everything(7, verbose=False)
        module = Module()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows(40)), batch_size=8, shuffle=True)
        trainer = pl.Trainer(max_steps=20, accelerator="cpu", logger=logger, callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                             default_root_dir=tmp_path)
        trainer.fit(module, loader)
        return module

    plain = fit([], False)
    spool = tmp_path / "s"
    callback = LightningCallback(spool, program="m.pt2", data="d.h5", loss="cross_entropy", every=10, max_queued=10, max_in_flight=10, part="net")
    logger = Logger()
    watched = fit([callback], logger)
    assert_same(plain, watched)
    assert [options_of(job)[0]["name"] for job in queued(spool)] == ["step 10", "step 20"]
    assert load_file(dict(options_of(queued(spool)[0])[1])["weights"]).keys() == watched.net.state_dict().keys()
    for job in queued(spool):
        finish(spool, job)
    assert callback.watcher.collect() == 0
    assert [(step, metrics["hesspect/trace"]) for step, metrics in logger.told if "hesspect/trace" in metrics] == [(10, 118.7), (20, 118.7)]
