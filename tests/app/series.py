#!/usr/bin/env python3
"""`hesspect series`: the checkpoints of a training run, in one process, also while they arrive and when it is killed."""

import json
import os
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np
from harness import BIN, FIXTURES, MPIRUN, Case, arguments, environment, hesspect
from safetensors.numpy import load_file, save_file
from stopping import numbers

RESUBMIT, BAD_INPUT, USAGE = 75, 4, 2
AT_MOST_S = 100

# A run of a tenth of a second, whose numbers don't depend on what a plan measures.
WORK = {"dtype": "float64", "micro_batch": 8, "groups": 1, "lock_step": 1, "probes": 2, "steps": 12, "top": 3, "bottom": 1, "max_steps": 40, "seed": 3,
        "rtol_trace": 0, "density_w1": 0}


def weights(scale, seed=0):
    """The fixture's weights, moved a little."""
    random = np.random.default_rng(seed)
    return {name: (value + scale * random.standard_normal(value.shape)).astype(value.dtype)
            for name, value in load_file(FIXTURES / "ckpt" / "full.safetensors").items()}


class SeriesCase(Case):
    def setUp(self):
        super().setUp()
        self.checkpoints = self.folder / "ckpt"
        self.checkpoints.mkdir()
        self.output = self.folder / "series.h5"

    def save(self, name, scale=0.0, seed=0, whole=True):
        """As trainers do: under another name first, unless it is to be seen half written."""
        path = self.checkpoints / name
        save_file(weights(scale, seed), str(path) if not whole else str(self.folder / "tmp"))
        if whole:
            os.replace(self.folder / "tmp", path)
        return path

    def options(self, *more, checkpoints=None, output=None, **options):
        args = arguments("mlp_ce", output or self.output, "cross_entropy", **{**WORK, **options})
        return [*args, "--checkpoints", checkpoints or self.checkpoints, *more]

    def series(self, *more, ranks=1, **options):
        return hesspect("series", *self.options(*more, **options), ranks=ranks, timeout=AT_MOST_S)

    def start(self, *more, ranks=1, **options):
        command = [BIN, "series", *self.options(*more, **options)]
        command = [str(a) for a in ([*MPIRUN, "-n", str(ranks), *command] if ranks > 1 else command)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def ledger(self):
        path = self.folder / "series.h5.ledger.json"
        return json.loads(path.read_text())["entries"] if path.exists() else []

    def states(self):
        return {entry["name"]: entry["state"] for entry in self.ledger()}

    def wait_for(self, condition):
        until = time.monotonic() + AT_MOST_S
        while not condition():
            self.assertLess(time.monotonic(), until, f"{self.ledger()}")
            time.sleep(0.05)

    def rows(self):
        with h5py.File(self.output) as f:
            return {name: f["entry/checkpoints"][name][()] for name in f["entry/checkpoints"]}

    def names(self):
        return [name.decode() for name in self.rows()["name"]]


class Series(SeriesCase):
    def test_each_is_what_a_run_of_its_own_gives(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                shutil.rmtree(self.folder / "series-results", ignore_errors=True)
                for step, scale in ((9, 0.0), (10, 0.3), (100, 0.6)):  # by number, not by name
                    self.save(f"step-{step}.safetensors", scale)
                done = self.series("--force", "--verbose", "--warm=false", "--learning-rate", "0.5", ranks=ranks)
                self.assertDone(done)
                self.assertEqual(done.err.count("model and data read in"), 1)
                self.assertEqual(done.err.count("other weights read in"), 2)
                self.assertEqual(self.names(), ["step-9.safetensors", "step-10.safetensors", "step-100.safetensors"])
                self.assertEqual(self.rows()["step"].tolist(), [9, 10, 100])
                for i, step in enumerate((9, 10, 100)):
                    own = self.folder / f"own-{step}-{ranks}.h5"
                    alone = hesspect("analyze", *arguments("mlp_ce", own, "cross_entropy", **WORK, weights=self.checkpoints / f"step-{step}.safetensors"), ranks=ranks)
                    self.assertDone(alone)
                    there = numbers(self.folder / "series-results" / f"step-{step}.h5")
                    here = numbers(own)
                    self.assertEqual(there.keys(), here.keys())
                    for name in here:
                        np.testing.assert_array_equal(there[name], here[name], err_msg=name)
                    with h5py.File(own) as f, h5py.File(self.output) as s:
                        e = s["entry"]
                        largest = f["entry/eigenvalues/eigenvalue"][0]
                        self.assertEqual(e["eigenvalues/value"][i, 0], largest)
                        self.assertEqual(e["stability/half_lambda_eta"][i], largest * 0.5 / 2)
                        self.assertEqual(e["trace/value"][i], f["entry/trace/value"][()])
                        np.testing.assert_array_equal(e["layers/trace"][i], f["entry/layers/trace"][()])
                        np.testing.assert_array_equal(np.trim_zeros(np.nan_to_num(e["density/density"][i]), "b"),
                                                      np.trim_zeros(f["entry/density/density"][()], "b"))

    def test_the_change_of_the_trace(self):
        """By the random vectors that two checkpoints have in common, from what each result says of its own."""
        for step, scale in ((1, 0.0), (2, 0.01), (3, 0.02)):
            self.save(f"step-{step}.safetensors", scale)
        self.assertDone(self.series(probes=6))
        with h5py.File(self.output) as s:
            trace = {name: s[f"entry/trace/{name}"][()] for name in s["entry/trace"]}
        self.assertTrue(np.isnan(trace["change"][0]))
        results = [self.folder / "series-results" / f"step-{step}.h5" for step in (1, 2, 3)]
        for i in (1, 2):
            samples = []
            for file in results[i - 1:i + 1]:
                with h5py.File(file) as f:
                    samples.append(dict(zip(f["entry/trace/sample_probe"][()].tolist(), f["entry/trace/sample"][()], strict=True)))
            common = sorted(samples[0].keys() & samples[1].keys())
            pairs = np.array([samples[1][probe] - samples[0][probe] for probe in common])
            self.assertEqual(trace["change_probes"][i], len(common))
            np.testing.assert_allclose(trace["change"][i], pairs.mean(), rtol=1e-9, atol=1e-9 * abs(trace["value"][0]))
            self.assertLess(trace["change_half_width"][i], np.hypot(trace["half_width"][i], trace["half_width"][i - 1]) / 2)

    def test_those_that_fail_are_noted_and_the_others_done(self):
        self.save("step-1.safetensors")
        shutil.copy(FIXTURES / "ckpt" / "nan.safetensors", self.checkpoints / "step-2.safetensors")
        shutil.copy(FIXTURES / "ckpt" / "misshapen.safetensors", self.checkpoints / "step-3.safetensors")
        (self.checkpoints / "step-4.safetensors").write_bytes((FIXTURES / "ckpt" / "full.safetensors").read_bytes()[:-40])
        self.save("step-5.safetensors", 0.2)
        shutil.copy(self.checkpoints / "step-1.safetensors", self.checkpoints / "step-6.safetensors")
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                ended = self.series("--force", ranks=ranks)
                self.assertEqual(ended.code, BAD_INPUT, ended.err)
                states = {entry["step"]: (entry["state"], entry["reason"]) for entry in self.ledger()}
                self.assertEqual([states[step][0] for step in range(1, 7)], ["done", "failed", "failed", "failed", "done", "skipped"])
                self.assertIn("NaN", states[2][1])
                self.assertIn("shape", states[3][1])
                self.assertIn("step-1.safetensors", states[6][1])
                self.assertEqual(self.rows()["step"].tolist(), [1, 5])
                shown = hesspect("inspect", self.output)
                self.assertDone(shown)
                for line in ("series of 2 checkpoints", "step-5.safetensors", "failed: 3", "step-2.safetensors", "skipped: 1", "it has ended"):
                    self.assertIn(line, shown.out)
                again = self.series(ranks=ranks)  # nothing is left to do, and what failed stays told
                self.assertEqual(again.code, BAD_INPUT, again.err)
                self.assertNotIn("checkpoint 1 of", again.err)

    def test_what_may_not_be(self):
        self.save("step-1.safetensors")
        self.assertDone(self.series())
        other = self.series(top=2)
        self.assertEqual(other.code, USAGE)
        self.assertIn("another configuration: 'top = 3' there, 'top = 2' here", other.err)
        for more, text in (((), "matches no checkpoint"),):
            ended = self.series(*more, checkpoints=self.checkpoints / "none-*.pt", output=self.folder / "none.h5")
            self.assertEqual(ended.code, BAD_INPUT)
            self.assertIn(text, ended.err)
        file = self.folder / "other.h5"
        file.write_bytes(b"precious")
        self.assertEqual(self.series(output=file).code, USAGE)
        self.assertEqual(file.read_bytes(), b"precious")

    def test_lists_and_folders(self):
        for step in (5, 10):
            folder = self.checkpoints / f"checkpoint-{step}"
            folder.mkdir()
            save_file(weights(0.01 * step), str(folder / "model.safetensors"))
            (folder / "optimizer.pt").write_bytes(b"no weights")
        self.assertDone(self.series())
        self.assertEqual(self.names(), ["checkpoint-5", "checkpoint-10"])
        listed = self.folder / "list.txt"
        listed.write_text("# the later one first\nckpt/checkpoint-10\nckpt/checkpoint-5/model.safetensors\n")
        self.assertDone(self.series("--order", "listed", checkpoints=listed, output=self.folder / "listed.h5"))
        with h5py.File(self.folder / "listed.h5") as f:
            self.assertEqual(f["entry/checkpoints/step"][()].tolist(), [10, 5])


# Saves weights by torch.distributed.checkpoint, on two ranks in parts, with an optimiser's state beside them.
SAVE_DISTRIBUTED = """
import sys
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
rank, source, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}.meet", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
parts = {name: distribute_tensor(value, mesh, [Shard(0)]) if value.dim() else value for name, value in load_file(source).items()}
moments = {name: {"exp_avg": value * 0} for name, value in parts.items()}
dcp.save({"app": {"model": parts, "optim": {"state": moments}, "step": 7}}, checkpoint_id=folder)
"""


class Distributed(SeriesCase):
    """Folders of torch.distributed.checkpoint, which torchrun's trainings leave."""

    def save_distributed(self, name, scale):
        source = self.save("plain.safetensors", scale).rename(self.folder / f"{name}.safetensors")
        folder = self.checkpoints / name
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
        ranks = [subprocess.Popen([os.environ["HESSPECT_PYTHON"], "-c", SAVE_DISTRIBUTED, str(rank), source, folder], stderr=subprocess.PIPE, text=True, env=environment)
                 for rank in range(2)]
        for rank in ranks:
            _, err = rank.communicate(timeout=AT_MOST_S)
            self.assertEqual(rank.returncode, 0, err)
        (self.checkpoints / f"{name}.meet").unlink(missing_ok=True)
        return folder, source

    def test_parts_of_two_ranks(self):
        folder, source = self.save_distributed("step-5", 0.2)
        self.assertEqual(len(list(folder.glob("*.distcp"))), 2)
        self.assertDone(self.series())
        self.assertEqual(self.names(), ["step-5"])
        plain = self.folder / "plain.h5"
        self.assertDone(self.series(checkpoints=source, output=plain))
        with h5py.File(self.output) as a, h5py.File(plain) as b:
            np.testing.assert_array_equal(a["entry/eigenvalues/value"][()], b["entry/eigenvalues/value"][()])
        # By itself, and what is there.
        own = self.folder / "own.h5"
        self.assertDone(hesspect("analyze", *arguments("mlp_ce", own, "cross_entropy", **WORK, weights=folder)))
        shown = hesspect("inspect", folder)
        self.assertIn("torch.distributed.checkpoint under the key 'app.model', 3 files", shown.out)
        # Cut short, and not written to its end.
        part = max(folder.glob("*.distcp"), key=lambda file: file.stat().st_size)
        content = part.read_bytes()
        part.write_bytes(content[:-1])
        ended = self.series("--force")
        self.assertEqual(ended.code, BAD_INPUT)
        self.assertIn(f"'{part.name}' has {len(content) - 1} bytes, and .metadata tells of {len(content)}", ended.err)
        part.write_bytes(content)
        (folder / ".metadata").rename(self.folder / "metadata")
        ended = self.series("--force")
        self.assertEqual(ended.code, BAD_INPUT)
        self.assertIn("without its .metadata, which is written last", ended.err)


class Follow(SeriesCase):
    def follow(self, *more, **options):
        return self.start("--follow", "--poll", "0.2", "--end-marker", self.folder / "end", *more, **options)

    def finish(self, process, code=0):
        (self.folder / "end").touch()
        _, err = process.communicate(timeout=AT_MOST_S)
        self.assertEqual(process.returncode, code, err)
        return err

    def test_only_whole_ones_are_taken(self):
        process = self.follow("--marker", ".done")
        whole = self.save("step-1.safetensors")
        half = self.checkpoints / "step-2.safetensors"
        content = (FIXTURES / "ckpt" / "full.safetensors").read_bytes()
        half.write_bytes(content[:200])
        (self.checkpoints / "step-2.safetensors.done").touch()
        self.wait_for(lambda: self.states().get("step-1.safetensors") == "found" and self.states().get("step-2.safetensors") == "found")
        time.sleep(1)
        self.assertEqual(set(self.states().values()), {"found"})  # the one lacks its marker, the other its end
        (self.checkpoints / f"{whole.name}.done").touch()
        self.wait_for(lambda: self.states()["step-1.safetensors"] == "done")
        self.assertEqual(self.states()["step-2.safetensors"], "found")
        with open(half, "ab") as f:
            f.write(content[200:-1])
        self.save("step-3.safetensors", 0.1)
        (self.checkpoints / "step-3.safetensors.done").touch()
        self.wait_for(lambda: self.states().get("step-3.safetensors") == "done")
        self.finish(process, BAD_INPUT)  # a byte never came
        entry = {e["step"]: e for e in self.ledger()}[2]
        self.assertEqual(entry["state"], "failed")
        self.assertIn("never became whole", entry["reason"])

    def test_what_comes_and_goes_is_noted(self):
        process = self.follow()
        self.save("step-1.safetensors")
        self.wait_for(lambda: self.states().get("step-1.safetensors") == "done")
        self.save("step-2.safetensors", 0.1).unlink()
        self.save("step-3.safetensors", 0.2)
        self.wait_for(lambda: self.states().get("step-3.safetensors") == "done")
        self.finish(process, BAD_INPUT)
        self.assertEqual(self.states()["step-2.safetensors"], "gone")

    def test_what_is_written_again_is_taken_again(self):
        process = self.follow()
        self.save("step-1.safetensors")
        self.wait_for(lambda: self.states().get("step-1.safetensors") == "done")
        self.save("step-1.safetensors", 0.2)
        self.save("step-2.safetensors", 0.1).unlink()
        self.wait_for(lambda: self.states().get("step-2.safetensors") == "gone" and len(self.ledger()) >= 3)
        self.save("step-2.safetensors", 0.1)  # it is there again
        self.wait_for(lambda: sum(e["state"] == "done" for e in self.ledger()) == 3)
        self.finish(process, BAD_INPUT)
        self.assertEqual(sorted((e["name"], e["state"]) for e in self.ledger()),
                         [("step-1.safetensors", "done"), ("step-1.safetensors", "done"), ("step-2.safetensors", "done"), ("step-2.safetensors", "gone")])
        self.assertEqual(len({e["result"] for e in self.ledger() if e["state"] == "done"}), 3)

    def test_replaced_while_nothing_runs(self):
        """A checkpoint is under way when the series is killed, and is another one when it goes on: what its run has is of no use."""
        path = self.save("step-1.safetensors")
        process = self.start(probes=200)
        self.wait_for(lambda: list((self.folder / "series-results").glob("*.checkpoint/run-*.json")))
        process.kill()
        process.communicate()
        self.assertEqual(self.states(), {"step-1.safetensors": "running"})
        self.save("step-1.safetensors", 0.3)
        done = self.series(probes=200)
        self.assertDone(done)
        self.assertNotIn("resumed from", done.err)
        own = self.folder / "own.h5"
        self.assertDone(hesspect("analyze", *arguments("mlp_ce", own, "cross_entropy", **{**WORK, "probes": 200}, weights=path)))
        with h5py.File(own) as f, h5py.File(self.output) as s:
            self.assertEqual(s["entry/eigenvalues/value"][0, 0], f["entry/eigenvalues/eigenvalue"][0])

    def test_every_and_until(self):
        process = self.start("--follow", "--poll", "0.2", "--every", "2", "--until", "5")
        for step in range(1, 6):
            self.save(f"model_{step}.safetensors", 0.1 * step)
            self.wait_for(lambda step=step: self.states().get(f"model_{step}.safetensors") in ("done", "skipped"))
        _, err = process.communicate(timeout=AT_MOST_S)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual([e["state"] for e in self.ledger()], ["done", "skipped", "done", "skipped", "done"])

    def test_a_signal_stops_it_and_it_goes_on(self):
        process = self.follow(ranks=2)
        self.save("step-1.safetensors")
        self.wait_for(lambda: self.states().get("step-1.safetensors") == "done")
        second = self.series("--follow", ranks=1)
        self.assertEqual(second.code, USAGE)
        self.assertIn("another series is at work", second.err)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=AT_MOST_S)
        self.assertEqual(process.returncode, RESUBMIT, err)
        self.save("step-2.safetensors", 0.1)
        before = (self.folder / "series-results" / "step-1.h5").stat().st_mtime_ns
        self.finish(self.follow(ranks=2))
        self.assertEqual(self.states(), {"step-1.safetensors": "done", "step-2.safetensors": "done"})
        self.assertEqual((self.folder / "series-results" / "step-1.h5").stat().st_mtime_ns, before)

    def test_other_data_are_noticed(self):
        data = self.folder / "data.h5"
        shutil.copy(FIXTURES / "mlp_ce.data.h5", data)
        process = self.follow(data=data)
        self.save("step-1.safetensors")
        self.wait_for(lambda: self.states().get("step-1.safetensors") == "done")
        shutil.copy(data, self.folder / "copy.h5")
        with h5py.File(self.folder / "copy.h5", "r+") as f:
            f["target"][0] = (f["target"][0] + 1) % 3
        os.replace(self.folder / "copy.h5", data)
        self.save("step-2.safetensors", 0.1)
        _, err = process.communicate(timeout=AT_MOST_S)
        self.assertEqual(process.returncode, BAD_INPUT, err)
        self.assertIn("the data file has other content than when the series began", err)


if __name__ == "__main__":
    import unittest

    unittest.main()
