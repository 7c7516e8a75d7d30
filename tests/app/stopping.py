#!/usr/bin/env python3
"""Runs that are stopped, killed and resumed: nothing lost, and the same numbers as if nothing had happened.

HESSPECT_LONG=1 does each random trial 50 times, in more pieces, instead of once or twice for each layout of ranks, and takes more layouts.
HESSPECT_SHARDED=1 does all on several ranks with sharded parameters.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from harness import BIN, FIXTURES, LONG, MPIRUN, Case, arguments, environment

SHARDED = os.environ.get("HESSPECT_SHARDED") == "1"
RESUBMIT = 75

# Generous, for machines that do much else.
AT_MOST_S = 300

# A run of some two seconds: a probe that goes on to eigenvalues, others in lock-step, and nothing beyond these counts.
WORK = dict(dtype="float64", micro_batch=1, probes=4, steps=24, top=4, bottom=2, max_steps=64, rtol_eigs=1e-12, seed=3,
            rtol_trace=0, density_w1=0)
# Some seconds too, most of them in some hundred products for the trace after a short Lanczos run.
TRACE = dict(probes=2, steps=20, top=2, bottom=1, max_steps=40, rtol_trace=0.13)


def setUpModule():
    if SHARDED and not LONG:
        raise unittest.SkipTest("with launch/test --long")


def command(output, ranks, *more, verb="analyze", case="gpt2", loss="causal_lm", **options):
    if SHARDED and ranks > 1:
        options["parameters"] = "sharded"
    args = [BIN, verb, *arguments(case, output, loss, **{**WORK, **options}), *more]
    return [str(a) for a in ([*MPIRUN, "-n", str(ranks), *args] if ranks > 1 else args)]


def finish(args):
    """To the end. Exit 3: not all eigenvalues converged, which is no matter here."""
    done = subprocess.run(args, capture_output=True, text=True, env=environment(), timeout=AT_MOST_S)
    assert done.returncode in (0, 3), f"{done.returncode}\n{done.stderr}"
    return done


SAME = {"quadrature": ("alpha", "beta", "ritz", "weight", "steps_taken"),
        "trace": ("value", "half_width", "captured", "sample", "sample_probe", "samples", "deflated"),
        "layers": ("trace", "trace_error", "mean"),
        "cumulative": ("lambda", "cumulative", "cumulative_lower", "cumulative_upper", "w1", "moments"),
        "eigenvalues": ("eigenvalue", "residual", "true_residual", "error", "steps", "thick_restarts"),
        "diagnostics": ("symmetry_error",)}


def numbers(path):
    """What must be the same bit for bit, as far as the run had to find it."""
    with h5py.File(path) as f:
        e = f["entry"]
        return {f"{group}/{name}": e[group][name][()] for group, names in SAME.items() if group in e for name in names
                if name in e[group]}


def products(path):
    with h5py.File(path) as f:
        return int(f["entry/diagnostics/hvp_count"][()])


def vectors(path):
    """All that a file of vectors holds, but for the name of the run."""
    found = {}
    with h5py.File(path) as f:
        f.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    del found["run_id"], found["quantity"]
    return found


def state_of(folder):
    """The newest state of the run that can be read; the run goes on meanwhile."""
    for path in sorted(folder.glob("run-*.json"), reverse=True):
        try:
            return json.loads(path.read_bytes().split(b"\n")[0])
        except (FileNotFoundError, json.JSONDecodeError):
            pass
    return None


def in_the_trace(folder, samples):
    """Probe 0 is finished, and so are this many samples of the trace."""
    state = state_of(folder)
    return state is not None and len(state["finished"]) > 0 and len(state["deflated"]) >= samples


def ranks_of(parent):
    """Process numbers of the hesspect processes under one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True).stdout
    table = [line.split(None, 2) for line in listed.splitlines()]
    under = {str(parent)}
    for _ in range(3):
        under |= {pid for pid, ppid, _ in table if ppid in under}
    return [int(pid) for pid, _, comm in table if pid in under and comm.startswith("hesspect")]


def check_whole(test, folder):
    """Every state and manifest that counts is whole, to the bytes of the vectors it names."""
    states = sorted(folder.glob("run-*.json"))
    manifests = sorted(folder.glob("probe-*/steps-*.json"))
    for path in [*states, *manifests]:
        body, last = path.read_bytes().rstrip(b"\n").rsplit(b"\n", 1)
        digest = hashlib.sha256(body + b"\n").hexdigest()
        test.assertIn(digest, last.decode(), path)
        for piece in json.loads(body).get("pieces", []):
            content = (path.parent / piece["file"]).read_bytes()
            test.assertEqual(hashlib.sha256(content).hexdigest(), piece["sha256"], piece["file"])
    return len(states)


class Whole(NamedTuple):
    """A run that was never stopped."""

    numbers: dict
    seconds: float
    products: int


class Runs(Case):
    wholes = {}

    def of_a_run_never_stopped(self, ranks, *more, **options):
        key = (ranks, *more, *sorted(options.items()))
        if key not in self.wholes:
            output = self.folder / f"reference.{len(self.wholes)}.h5"
            started = time.monotonic()
            finish(command(output, ranks, *more, **options))
            self.wholes[key] = Whole(numbers(output), time.monotonic() - started, products(output))
        return self.wholes[key]

    def assertSame(self, path, reference, rtol=0):
        found = numbers(path)
        self.assertEqual(found.keys(), reference.keys())
        for name, values in found.items():
            if rtol == 0:
                np.testing.assert_array_equal(values, reference[name], err_msg=name)
            elif name.split("/")[1] in ("alpha", "beta", "value", "sample", "trace", "eigenvalue"):  # others are errors, or not continuous
                np.testing.assert_allclose(values, reference[name], rtol=rtol, atol=rtol * np.nanmax(np.abs(reference[name]), initial=0),
                                           err_msg=name)

    def resume_to_the_end(self, output, ranks, *more, **options):
        done = finish(command(output, ranks, "--resume", *more, **options))
        self.assertEqual(list(self.folder.glob("**/*.tmp*")), [])
        self.assertFalse(Path(f"{output}.checkpoint").exists(), "a finished run leaves no checkpoint")
        return done

    def interrupt(self, output, ranks, when, how, *more, **options):
        """Starts, does something to it after a while, and waits for its end."""
        process = subprocess.Popen(command(output, ranks, *more, **options), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True, env=environment())
        if callable(when):
            while process.poll() is None and not when():
                time.sleep(0.01)
        else:
            time.sleep(when)
        if process.poll() is None:
            how(process)
        _, err = process.communicate(timeout=AT_MOST_S)
        return process.returncode, err

    def stopped(self, ranks=2, *more, **options):
        """A run stopped after its first products."""
        output = self.folder / "stopped.h5"
        code = subprocess.run(command(output, ranks, "--max-hours", "1e-9", *more, **options), capture_output=True,
                              text=True, env=environment(), timeout=AT_MOST_S)
        self.assertEqual(code.returncode, RESUBMIT, code.stderr)
        return output


class RandomMoments(Runs):
    """Moments are shares of the time that a run takes which is not stopped: this wants the machine for itself."""

    def test_signal_and_resume(self):
        """SIGUSR1 at random moments, by mpirun to all ranks or to one rank alone; each run in several pieces."""
        chance = random.Random(1)
        stops, trials, pieces = 0, 50 if LONG else 4, 3 if LONG else 1
        for trial in range(trials):
            ranks, more = [(1, ()), (2, ("--groups", "1")), (2, ("--groups", "2")), (4, ("--groups", "2"))][trial % 4]
            with self.subTest(trial=trial, ranks=ranks, groups=more):
                reference, whole_s, _ = self.of_a_run_never_stopped(ranks, *more)
                output = self.folder / f"usr1.{trial}.h5"

                def usr1(process):
                    targets = ranks_of(process.pid) if chance.random() < 0.5 else []
                    os.kill(chance.choice(targets) if targets else process.pid, signal.SIGUSR1)

                for _ in range(pieces):
                    when = chance.uniform(0.35, 0.8) * whole_s  # before it the libraries are still being loaded
                    code, err = self.interrupt(output, ranks, when, usr1, "--resume", *more)
                    if code in (128 + signal.SIGUSR1, -signal.SIGUSR1):  # before the program could listen: nothing was there to lose
                        continue
                    self.assertIn(code, (0, 3, RESUBMIT), err)
                    if code != RESUBMIT:
                        break
                    stops += 1
                    self.assertIn("--resume goes on from it", err)
                    self.assertFalse(output.exists())
                    self.assertGreaterEqual(check_whole(self, Path(f"{output}.checkpoint")), 1)
                if not output.exists():
                    self.resume_to_the_end(output, ranks, *more)
                self.assertSame(output, reference)
        print(f"{trials} runs, {stops} stops by SIGUSR1: all resumed to the same numbers")
        self.assertGreater(stops, trials // 2 if LONG else 0)

    def test_kill_and_resume(self):
        """kill -9 of a random rank or of mpirun at random moments, with checkpoints every 0.1 s."""
        chance = random.Random(2)
        killed = resumed = 0
        trials = 50 if LONG else 3
        for trial in range(trials):
            ranks, more = [(2, ("--groups", "2")), (2, ("--groups", "1")), (1, ())][trial % 3]
            more = (*more, "--checkpoint-minutes", "0.002")
            with self.subTest(trial=trial, ranks=ranks, more=more):
                reference, whole_s, _ = self.of_a_run_never_stopped(ranks, *more[:-2])
                output = self.folder / f"kill.{trial}.h5"

                def kill9(process):
                    targets = ranks_of(process.pid) + [process.pid]
                    victim = chance.choice(targets)
                    os.kill(victim, signal.SIGKILL)
                    ended = time.monotonic()
                    while victim == process.pid and ranks and any_left(targets[:-1]):
                        self.assertLess(time.monotonic() - ended, 30, "ranks outlive a killed mpirun")
                        time.sleep(0.05)

                code, err = self.interrupt(output, ranks, chance.uniform(0.2, 0.7) * whole_s, kill9, *more)
                killed += code not in (0, 3)
                folder = Path(f"{output}.checkpoint")
                if folder.exists():
                    check_whole(self, folder)
                if output.exists():
                    self.assertSame(output, reference)
                done = self.resume_to_the_end(output, ranks, *more)
                resumed += "resumed from" in done.stderr
                self.assertSame(output, reference)
        print(f"{trials} runs, {killed} killed by SIGKILL, {resumed} had a checkpoint to go on from: all the same numbers")
        self.assertGreater(killed, trials // 2)
        self.assertGreater(resumed, 0)


class Stopping(Runs):
    def test_time_limit_in_many_pieces(self):
        """--max-hours lets each start make one step, or take one sample: a run of many pieces is still the same run."""
        short = dict(steps=6, probes=2, top=1, bottom=0, max_steps=8, rtol_trace=1e-6, max_hvps=24) if LONG else dict(
            steps=3, probes=2, top=1, bottom=0, max_steps=4, rtol_trace=1e-6, max_hvps=9)
        more = ("--groups", "2")
        reference = self.folder / "whole.h5"
        finish(command(reference, 2, *more, **short))
        output = self.folder / "pieces.h5"
        for piece in range(40):
            done = subprocess.run(command(output, 2, *more, "--resume", "--max-hours", "1e-9", **short),
                                  capture_output=True, text=True, env=environment(), timeout=AT_MOST_S)
            if done.returncode != RESUBMIT:
                break
        self.assertIn(done.returncode, (0, 3), done.stderr)
        # A start makes a step of each group at least. How many more the other group makes before the stop reaches it is
        # a race of two processes, so that only a part of the pieces is certain.
        self.assertGreater(piece, 4 if LONG else 2)
        self.assertSame(output, numbers(reference))
        with h5py.File(output) as f:
            self.assertEqual(f["entry/diagnostics/starts"][()], piece + 1)

    # --- one pass, in its parts -----------------------------------------------------------------------------------

    def stop_when(self, output, ranks, condition, *more, **options):
        """Stops a run once this start's checkpoint shows what is waited for, and looks at what it leaves.

        States and checkpoints every 0.03 s: what is waited for shows long before the run ends, on a fast machine too.
        """
        folder = Path(f"{output}.checkpoint")
        starts = (state_of(folder) or {"starts": 0})["starts"]

        def now():
            state = state_of(folder)
            return state is not None and state["starts"] > starts and condition(folder)

        code, err = self.interrupt(output, ranks, now, lambda p: p.send_signal(signal.SIGUSR1), "--resume",
                                   "--checkpoint-minutes", "0.0005", *more, **options)
        self.assertEqual(code, RESUBMIT, err)
        check_whole(self, folder)

    def test_stopped_in_the_trace(self):
        """Probe 0's Lanczos run, which samples are corrected by, is taken from its checkpoint: no product is made twice."""
        for ranks, more in ((1, ()), (4 if LONG else 2, ("--groups", "2"))):
            with self.subTest(ranks=ranks):
                reference = self.of_a_run_never_stopped(ranks, *more, **TRACE)
                output = self.folder / f"trace.{ranks}.h5"
                for _ in range(2):
                    self.stop_when(output, ranks, lambda folder: in_the_trace(folder, 4), *more, **TRACE)
                done = self.resume_to_the_end(output, ranks, *more, **TRACE)
                self.assertRegex(done.stderr, r"resumed from .*: 2 Lanczos runs and \d+ samples of the trace are finished")
                self.assertIn("probe 0 goes on after", done.stderr)
                self.assertSame(output, reference.numbers)
                with h5py.File(output) as f:
                    self.assertEqual(f["entry/diagnostics/starts"][()], 3)
                    self.assertGreater(f["entry/trace/samples"][()], 40)
                if more:  # which samples the two groups had under way when there were enough is chance
                    self.assertAlmostEqual(products(output), reference.products, delta=40)
                else:
                    self.assertEqual(products(output), reference.products)

    def test_killed_in_the_trace(self):
        """With probe 0's vectors in a checkpoint, and without: then they are computed again, to the same bits."""
        reference = self.of_a_run_never_stopped(1, **TRACE)
        for lost in (False, True):
            with self.subTest(lost=lost):
                output = self.folder / f"killed.{lost}.h5"
                folder = Path(f"{output}.checkpoint")
                more = ("--checkpoint-minutes", "0.0005")
                code, err = self.interrupt(output, 1, lambda: in_the_trace(folder, 12), lambda p: p.kill(), *more, **TRACE)
                self.assertEqual(code, -signal.SIGKILL, err)
                check_whole(self, folder)
                self.assertTrue(any(folder.glob("probe-000000/steps-*.json")))
                if lost:
                    shutil.rmtree(folder / "probe-000000")
                done = self.resume_to_the_end(output, 1, *more, **TRACE)
                self.assertEqual("probe 0 goes on after" in done.stderr, not lost)
                self.assertSame(output, reference.numbers)
                # No state counts what was done since, but for a few that were taken together with the last sample in it.
                again = products(output) - reference.products
                steps = int(numbers(output)["quadrature/steps_taken"][0]) if lost else 0
                self.assertTrue(steps <= again < steps + 8, f"{again} products again, {steps} of them Lanczos steps")

    def test_thick_restarts(self):
        """Stopped between thick restarts, and again with the basis that they leave."""
        options = dict(probes=1, steps=12, top=2, bottom=1, max_steps=110, max_basis=16, rtol_trace=0.13)
        reference = self.of_a_run_never_stopped(2, "--groups", "1", **options).numbers
        self.assertGreater(reference["eigenvalues/thick_restarts"], 4)
        output = self.folder / "thick.h5"
        for steps in (30, 80):
            self.stop_when(output, 2, lambda folder: any(int(m.stem.split("-")[1]) >= steps for m in
                                                         folder.glob("probe-000000/steps-*.json")),
                           "--groups", "1", **options)
        self.stop_when(output, 2, lambda folder: in_the_trace(folder, 4), "--groups", "1", **options)
        self.resume_to_the_end(output, 2, "--groups", "1", **options)
        self.assertSame(output, reference)

    def test_files_of_vectors(self):
        """The diagonal's sums are not kept: its probes are taken again. Eigenvectors were written before the trace."""
        def files(name):
            return dict(diagonal=self.folder / f"{name}.diagonal.h5", eigenvectors=self.folder / f"{name}.vectors.h5")

        long_trace = {**TRACE, "rtol_trace": 0.1}  # so that it is not over before the signal comes
        reference, output = self.folder / "whole.h5", self.folder / "stopped.h5"
        finish(command(reference, 2, "--groups", "1", **long_trace, **files("whole")))
        self.stop_when(output, 2, lambda folder: in_the_trace(folder, 4), "--groups", "1", **long_trace, **files("stopped"))
        self.assertFalse(files("stopped")["diagonal"].exists())
        self.resume_to_the_end(output, 2, "--groups", "1", **long_trace, **files("stopped"))
        self.assertSame(output, numbers(reference))
        for which, path in files("stopped").items():
            found, expected = vectors(path), vectors(files("whole")[which])
            self.assertEqual(found.keys(), expected.keys())
            self.assertGreater(sum(v.size for v in found.values()), 28_448)
            for name, values in found.items():
                np.testing.assert_array_equal(values, expected[name], err_msg=f"{which} {name}")

    def test_methods_that_start_over(self):
        """What has vectors of its own keeps them in no checkpoint, and begins again, to the same bits."""
        several = dict(verb="eigs", probes=None, steps=None, top=None, bottom=None, magnitude=2, max_steps=120)
        for name, ranks, options in (("xtrace", 2, dict(verb="trace", trace_method="xtrace", rtol_trace=1e-3, max_hvps=120)),
                                     ("block", 2 if LONG else 1, dict(verb="eigs", block=2, max_steps=60)),
                                     ("power", 2 if LONG else 1, dict(several, method="power"))):
            with self.subTest(name):
                reference, output = self.folder / f"{name}.whole.h5", self.folder / f"{name}.h5"
                finish(command(reference, ranks, "--groups", "1", **options))
                self.stop_when(output, ranks, lambda folder: (state_of(folder) or {"products": 0})["products"] >= 8,
                               "--groups", "1", **options)
                self.resume_to_the_end(output, ranks, "--groups", "1", **options)
                self.assertSame(output, numbers(reference))
                self.assertGreater(products(output), products(reference))

    def test_other_ranks_go_on(self):
        """Another number of ranks: the Lanczos vectors are cut anew, the rest is rounding, and the run says so."""
        reference = self.of_a_run_never_stopped(2, "--groups", "1").numbers
        output = self.folder / "recut.h5"
        folder = Path(f"{output}.checkpoint")
        code, err = self.interrupt(output, 2, lambda: any(folder.glob("run-*.json")), lambda p: p.send_signal(signal.SIGUSR1), "--groups", "1")
        self.assertEqual(code, RESUBMIT, err)
        done = self.resume_to_the_end(output, 3, "--groups", "1")
        self.assertIn("3 ranks a group instead of 2", done.stderr)
        self.assertIn("goes on after", done.stderr)
        found = numbers(output)
        scale = np.abs(reference["eigenvalues/eigenvalue"]).max()
        np.testing.assert_allclose(found["quadrature/alpha"], reference["quadrature/alpha"], rtol=0, atol=1e-10 * scale)

    def test_second_signal_ends_at_once(self):
        """On a run whose product takes long: the first signal waits for it, the second does not."""
        output = self.folder / "second.h5"
        big = dict(case="resnet18", loss="cross_entropy", dtype="float32", micro_batch=2, probes=1, steps=40, top=0, bottom=0)
        process = subprocess.Popen(command(output, 1, **big), stderr=subprocess.PIPE, text=True, env=environment())
        while not Path(f"{output}.checkpoint/lock").exists():
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.7)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, RESUBMIT, err)
        self.assertFalse(output.exists())

    def test_terminate_is_a_wish_to_stop(self):
        output = self.folder / "term.h5"
        folder = Path(f"{output}.checkpoint")
        code, err = self.interrupt(output, 1, lambda: any(folder.glob("run-*.json")), lambda p: p.send_signal(signal.SIGTERM))
        self.assertEqual(code, RESUBMIT, err)
        self.resume_to_the_end(output, 1)
        self.assertSame(output, self.of_a_run_never_stopped(1).numbers)

    # --- checkpoints that don't fit -------------------------------------------------------------------------------

    def refused(self, code, text, args, ranks=2):
        ended = subprocess.run(args, capture_output=True, text=True, env=environment(), timeout=AT_MOST_S)
        errors = [line for line in ended.stderr.splitlines() if line.startswith("hesspect: error: ")]
        self.assertEqual(ended.returncode, code, ended.stderr)
        self.assertEqual(len(errors), 1, ended.stderr)
        self.assertIn(text, errors[0])

    def test_a_checkpoint_is_not_overwritten_unasked(self):
        output = self.stopped()
        self.refused(2, "--resume goes on from it, --force discards it", command(output, 2))
        finish(command(output, 2, "--force", steps=5, top=0, bottom=0))

    def test_other_config_model_or_data(self):
        output = self.stopped()
        self.refused(2, "'steps = 24' there, 'steps = 30' here", command(output, 2, "--resume", steps=30))
        self.refused(2, "belongs to another configuration", command(output, 1, "--resume", dtype="float32"))
        data = self.folder / "other.h5"
        shutil.copy(FIXTURES / "gpt2.data.h5", data)
        with h5py.File(data, "r+") as f:
            name = next(k for k in f if k != "target")
            f[name][0, 0] = (f[name][0, 0] + 1) % 5
        self.refused(4, "belongs to data of other content", command(output, 2, "--resume", data=data))
        self.refused(4, "belongs to a model of other content",
                     command(output, 2, "--resume", model=FIXTURES / "gpt2_shifted.pt2"))
        finish(command(output, 2, "--resume"))  # none of that has hurt it

    def test_broken_checkpoints(self):
        """Flipped bytes, lost pieces: the generation before counts, or the probe starts again; never other numbers."""
        short = dict(probes=1, top=2, bottom=1, max_steps=40)
        reference = self.of_a_run_never_stopped(2, "--groups", "1", **short).numbers
        chance = random.Random(4)
        whole = self.folder / "whole.h5.checkpoint"
        code, err = self.interrupt(self.folder / "whole.h5", 2, lambda: len(list(whole.glob("probe-*/steps-*.json"))) >= 2,
                                   lambda p: p.send_signal(signal.SIGUSR1), "--groups", "1",
                                   "--checkpoint-minutes", "0.0005", **short)
        self.assertEqual(code, RESUBMIT, err)
        for harm in ("flip a piece", *(["lose a piece"] if LONG else []), "cut a manifest", "flip a state"):
            with self.subTest(harm):
                output = self.folder / f"{harm.replace(' ', '_')}.h5"
                folder = Path(f"{output}.checkpoint")
                shutil.copytree(whole, folder)
                pieces = sorted(folder.glob("probe-*/basis-*")) + sorted(folder.glob("probe-*/running-*"))
                newest = sorted(folder.glob("probe-*/steps-*.json"))[-1]
                victim = {"flip a piece": lambda: chance.choice(pieces), "lose a piece": lambda: chance.choice(pieces),
                          "cut a manifest": lambda: newest, "flip a state": lambda: sorted(folder.glob("run-*.json"))[-1]}[harm]()
                if harm.startswith("flip"):
                    content = bytearray(victim.read_bytes())
                    content[len(content) // 2] ^= 1
                    victim.write_bytes(content)
                elif harm.startswith("lose"):
                    victim.unlink()
                else:
                    victim.write_bytes(victim.read_bytes()[:-40])
                self.resume_to_the_end(output, 2, "--groups", "1", **short)
                self.assertSame(output, reference)

    def test_no_permission_and_no_room(self):
        """Where no checkpoint can be written the run says so at its start, or goes on without."""
        output = self.folder / "r.h5"
        blocked = self.folder / "file"
        blocked.write_text("in the way")
        self.refused(4, str(blocked), command(output, 2, "--checkpoint", blocked))
        self.assertEqual(blocked.read_text(), "in the way")

    def test_force_discards_only_when_the_new_run_can_begin(self):
        output = self.stopped()
        self.refused(4, "no_such.pt2", command(output, 2, "--force", model=self.folder / "no_such.pt2"))
        self.refused(5, "may be taken", command(output, 2, "--force", memory="1M"))
        finish(command(output, 2, "--resume"))

    def test_what_never_began_leaves_nothing(self):
        output = self.folder / "r.h5"
        self.refused(4, "no_such.pt2", command(output, 2, model=self.folder / "no_such.pt2"))
        self.refused(5, "may be taken", command(output, 2, memory="1M"))
        self.assertEqual(list(self.folder.iterdir()), [])
        self.refused(2, "name the same", command(output, 1, "--checkpoint", output))

    def test_an_idle_rank_hears_the_signal(self):
        """A group that found no probe waits for the others: a wish to stop that comes to it alone still counts."""
        for rank in (0, 1):  # which of the two groups gets the one probe is chance
            output = self.folder / f"idle.{rank}.h5"
            folder = Path(f"{output}.checkpoint")

            def to_one_rank(process):
                variable = f"OMPI_COMM_WORLD_RANK={rank}\0".encode()
                time.sleep(0.3)
                os.kill(next(p for p in ranks_of(process.pid) if variable in Path(f"/proc/{p}/environ").read_bytes()),
                        signal.SIGUSR1)

            code, err = self.interrupt(output, 2, lambda: any(folder.glob("run-*.json")), to_one_rank, "--groups", "2",
                                       "--graph-memory", "0", probes=1, steps=1000, top=0, bottom=0)
            self.assertEqual(code, RESUBMIT, err)

    def test_resumed_in_less_memory(self):
        """What the numbers don't depend on may be asked for anew."""
        output = self.stopped(2, "--groups", "1", "--lock-step", "2")
        finish(command(output, 2, "--groups", "1", "--resume", "--lock-step", "3", "--graph-memory", "0"))
        with h5py.File(output) as f:
            d = f["entry/diagnostics"]
            self.assertEqual((d["lock_step"][()], d["kept_graphs"][()]), (3, 0))
        # Three products together round differently from two.
        self.assertSame(output, self.of_a_run_never_stopped(2, "--groups", "1").numbers, rtol=1e-8)

    def test_files_are_known_by_their_digests_however_long_that_takes(self):
        """A data file of 2 GiB, most of it a hole behind the arrays, and a run of a moment."""
        data = self.folder / "large.h5"
        shutil.copy(FIXTURES / "gpt2.data.h5", data)
        os.truncate(data, 2 << 30)
        output = self.folder / "r.h5"
        finish(command(output, 1, data=data, probes=1, steps=2, top=0, bottom=0))
        with h5py.File(output) as f:
            self.assertEqual([len(s) for s in f["entry/process/data_sha256"].asstr()], [64])
        output = self.stopped(1, data=data)
        with open(data, "r+b") as f:  # same size, other content
            f.seek(1 << 30)
            f.write(b"x")
        self.refused(4, "belongs to data of other content", command(output, 1, "--resume", data=data))

    def test_a_full_disk_in_the_middle(self):
        """A limit on the size of files stands for it: the Krylov vectors don't fit, the result does."""
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        reference = self.of_a_run_never_stopped(1).numbers
        output = self.folder / "full.h5"
        ended = subprocess.run(command(output, 1, "--checkpoint-minutes", "0.005"), capture_output=True, text=True,
                               env=environment(), timeout=AT_MOST_S, preexec_fn=limit)
        self.assertIn(ended.returncode, (0, 3), ended.stderr)
        self.assertIn("warning: no checkpoint: cannot write", ended.stderr)
        self.assertSame(output, reference)
        # Asked to stop, it cannot keep what it has: one line, no half-written file.
        output = self.folder / "full2.h5"
        ended = subprocess.run(command(output, 1, "--max-hours", "1e-4"), capture_output=True, text=True,
                               env=environment(), timeout=AT_MOST_S, preexec_fn=limit)
        self.assertEqual(ended.returncode, 4, ended.stderr)
        errors = [line for line in ended.stderr.splitlines() if line.startswith("hesspect: error: ")]
        self.assertEqual(len(errors), 1, ended.stderr)
        self.assertIn("cannot write", errors[0])
        check_whole(self, Path(f"{output}.checkpoint"))
        self.assertEqual(list(self.folder.glob("**/*.tmp*")), [])

    def test_a_silent_rank_is_lost(self):
        """A rank that is there but says nothing, as on a host that hangs: the launcher sees nothing wrong."""
        output = self.folder / "silent.h5"
        folder = Path(f"{output}.checkpoint")
        process = subprocess.Popen(command(output, 3, "--groups", "3", "--lost-after", "3"), stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True, env=environment())
        while not any(folder.glob("run-*.json")):
            time.sleep(0.01)
        victims = ranks_of(process.pid)
        stopped = next(v for v in victims if b"OMPI_COMM_WORLD_RANK=2\0" in Path(f"/proc/{v}/environ").read_bytes())
        started = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        _, err = process.communicate(timeout=AT_MOST_S)
        self.assertLess(time.monotonic() - started, 30)
        self.assertEqual(process.returncode, 6, err)
        self.assertIn(f"rank 2 on {os.uname().nodename} has not been heard of", err)
        while any_left(victims):
            self.assertLess(time.monotonic() - started, 30)
            time.sleep(0.1)
        self.resume_to_the_end(output, 3, "--groups", "3")

    def test_two_runs_in_one_folder(self):
        output = self.folder / "twice.h5"
        process = subprocess.Popen(command(output, 1, probes=10**4), stderr=subprocess.DEVNULL, env=environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        folder = Path(f"{output}.checkpoint")
        while not (folder / "lock").exists():
            time.sleep(0.01)
        self.refused(2, "another", command(self.folder / "other.h5", 1, "--checkpoint", folder))
        self.assertIsNone(process.poll())

    def test_finished_already(self):
        """A job that is submitted again after its end has nothing to do, and its result stays as it is."""
        output = self.folder / "done.h5"
        small = dict(steps=5, probes=1, top=0, bottom=0)
        finish(command(output, 2, "--resume", **small))
        before = output.read_bytes()
        done = finish(command(output, 2, "--resume", **small))
        self.assertIn("the result is there already", done.stderr)
        self.assertEqual(output.read_bytes(), before)
        self.refused(2, "exists", command(output, 2, "--resume", **{**small, "steps": 6}))


def any_left(pids):
    return any(Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text() for pid in pids)


if __name__ == "__main__":
    unittest.main()
