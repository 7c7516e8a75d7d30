#!/usr/bin/env python3
"""`hesspect serve` and its queue as users have them: jobs handed in, run, failing alone, stopped, taken over, cancelled; and from Python.

HESSPECT_LONG=1 kills more often.
"""

import ctypes
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

import h5py
import numpy as np
from harness import BIN, FIXTURES, MPIRUN, Case, arguments, environment, hesspect
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(os.environ["HESSPECT_SOURCE"]) / "python"))
os.environ.setdefault("HESSPECT_BIN", BIN)
import hesspect as from_python  # noqa: E402

LONG_RUN = os.environ.get("HESSPECT_LONG") == "1"
USAGE, BAD_INPUT, INTERNAL, STOPPED = 2, 4, 70, 75
SMALL = {"dtype": "float64", "top": 2, "bottom": 1, "rtol_trace": 0, "density_w1": 0, "steps": 8}
LONG = {"dtype": "float64", "micro_batch": 1, "probes": 10**5, "max_hvps": 0, "steps": 60, "top": 0, "bottom": 0, "rtol_trace": 0, "density_w1": 0,
        "checkpoint_minutes": 0}
#: A Lanczos run that lasts, of which no checkpoint keeps anything.
ENDLESS = {"model": FIXTURES / "gpt2.pt2", "data": FIXTURES / "gpt2.data.h5", "loss": "causal_lm", "micro_batch": 1, "probes": 2, "steps": 2000, "max_hvps": 0, "top": 0,
           "bottom": 0, "checkpoint_minutes": 1000}
FOLDERS = ("incoming", "claimed", "done", "failed", "cancelled", "log", "checkpoints")


class Service(Case):
    def setUp(self):
        super().setUp()
        self.spool = self.folder / "spool"
        self.processes = []
        self.addCleanup(self.end_processes)

    def end_processes(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def submit(self, *more, output=None, **options):
        args = arguments("mlp_ce", output, "cross_entropy", **{**SMALL, **options})
        ended = hesspect("submit", "--spool", self.spool, *more, "analyze", *args)
        self.assertEqual(ended.code, 0, ended.err)
        return ended.out.strip()

    def drop(self, name="", priority=0, folder="incoming", **options):
        """The same without the program, which takes longer to start than a job to run.

        :param folder: another one than where a service would find it, by way of the spool
        """
        values = {"model": FIXTURES / "mlp_ce.pt2", "data": FIXTURES / "mlp_ce.data.h5", "loss": "cross_entropy", **SMALL, **options}
        lines = [f"{key.replace('_', '-')} = {value}" for key, value in values.items()]
        job = f"20261130-000000-000-{secrets.token_hex(3)}"
        (self.spool / folder).mkdir(parents=True, exist_ok=True)
        begun = self.spool / folder / f".{job}.tmp"
        begun.write_text("\n".join([f"[job]\nname = {name}\npriority = {priority}\nsubmitted = {time.time()}\n[options]", *lines, ""]))
        begun.rename(self.spool / folder / f"{job}.ini")
        return job

    def serve(self, *more, ranks=1, timeout=100):
        return hesspect("serve", "--spool", self.spool, "--allow", "/", "--until-empty", *more, ranks=ranks, timeout=timeout)

    def start(self, *more, ranks=1, launcher=None, env=None, preexec=None):
        args = [BIN, "serve", "--spool", str(self.spool), "--allow", "/", "--poll", "0.2", *more]
        if ranks > 1:
            args = [*launcher, *args[1:]] if launcher else [*MPIRUN, "-n", str(ranks), *args]
        process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(env), preexec_fn=preexec)
        self.processes.append(process)
        return process

    def until_said(self, service, words):
        """What the service has said up to a line with these words, that one included."""
        said = ""
        for line in service.stdout:
            said += line
            if words in line:
                return said
        self.fail(f"it has not said '{words}', but: {said}")

    def info(self, job):
        return json.loads(next(self.spool.glob(f"*/{job}.json")).read_text())

    def state(self, job):
        """From where its file lies."""
        found = [folder for folder in FOLDERS for path in (self.spool / folder).rglob("*.ini") if path.name in (f"{job}.ini",) or path.name.startswith(f"{job}@")]
        self.assertEqual(len(found), 1, f"{job} lies in {found}")
        return found[0]

    def wait_for(self, what, done, seconds=60):
        until = time.monotonic() + seconds
        while not (found := done()):
            self.assertLess(time.monotonic(), until, f"{what} has not come")
            time.sleep(0.05)
        return found

    def at_work(self, job, products=1):
        """The job's run has a checkpoint."""
        self.wait_for(f"{job} at work", lambda: any((self.spool / "checkpoints" / job).glob("run-*.json")))

    def log(self, job):
        return hesspect("log", "--spool", self.spool, job).out

    def written(self, job):
        """What its runs have said so far, with no program to tell it; nothing before the first."""
        path = self.spool / "log" / f"{job}.log"
        return path.read_text() if path.exists() else ""


class Queue(Service):
    def test_jobs_and_a_bad_one(self):
        """Results are those of runs by themselves, bit for bit; what can't be run fails alone, with its line and its code."""
        alone = self.folder / "alone.h5"
        self.assertDone(hesspect("analyze", *arguments("mlp_ce", alone, "cross_entropy", **SMALL)))
        weights = load_file(FIXTURES / "ckpt" / "full.safetensors")
        name = next(iter(weights))
        weights[name] = np.full_like(weights[name], np.nan)
        save_file(weights, self.folder / "nan.safetensors")
        bad = {"no loss": self.drop(weights=self.folder / "nan.safetensors"),
               "no target": self.drop(target="no_such_array"),
               "no room": self.drop(memory="1M")}
        named = self.folder / "named.h5"
        good = [self.drop(), self.submit("--priority", 7, output=named)]
        order = [job["id"] for job in json.loads(hesspect("queue", "--spool", self.spool, "--json").out)]
        self.assertEqual((order[0], set(order)), (good[1], {*good, *bad.values()}))
        dropped = self.spool / "incoming" / "by_hand.ini"
        dropped.write_text("[job]\ncommand = anayze\n")
        os.utime(dropped, (1, 1))

        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                if ranks == 2:
                    shutil.rmtree(self.spool / "done")
                    (self.spool / "done").mkdir()
                    again = self.drop()
                    self.assertDone(hesspect("analyze", *arguments("mlp_ce", alone, "cross_entropy", **SMALL), "--force", ranks=2))
                    bad["no target"] = self.drop(target="no_such_array")
                ended = self.serve(ranks=ranks)
                self.assertEqual(ended.code, 0, ended.err)
                for job in good[:1] if ranks == 1 else [again]:
                    self.assertEqual(self.state(job), "done", self.log(job))
                    with h5py.File(alone) as f, h5py.File(self.spool / "done" / f"{job}.h5") as g:
                        for field in ("eigenvalues/eigenvalue", "quadrature/alpha", "trace/value", "process/model_sha256", "process/data_sha256"):
                            np.testing.assert_array_equal(f["entry"][field][()], g["entry"][field][()])
                    said = json.loads((self.spool / "done" / f"{job}.json").read_text())
                    with h5py.File(alone) as f:
                        self.assertEqual(said["lambda1"], f["entry/eigenvalues/eigenvalue"][0])
                        self.assertEqual(said["products"], f["entry/diagnostics/hvp_count"][()])
                self.assertEqual(self.state(bad["no target"]), "failed")
                self.assertIn("no_such_array", self.info(bad["no target"])["line"])
                self.assertIn("no_such_array", self.log(bad["no target"]))
                self.assertEqual(list((self.spool / "claimed").iterdir()), [])
        self.assertTrue(named.exists())
        self.assertEqual([(self.info(bad[which])["state"], self.info(bad[which])["exit_code"]) for which in ("no loss", "no target", "no room")],
                         [("failed", 4), ("failed", 4), ("failed", 5)])
        self.assertIn("did you mean 'analyze'", self.info("by_hand")["line"])

    def test_commands(self):
        first, second = self.submit(), self.submit()
        self.assertEqual(hesspect("cancel", "--spool", self.spool, first).out, f"{first} cancelled\n")
        self.assertEqual(self.state(first), "cancelled")
        again = hesspect("cancel", "--spool", self.spool, first)
        self.assertEqual((again.code, len(again.errors)), (USAGE, 1))
        self.assertIn("has ended", again.err)
        self.assertIn("there is no job", hesspect("log", "--spool", self.spool, "nobody").err)
        late = hesspect("wait", "--spool", self.spool, "--timeout", 0.3, second)
        self.assertEqual(late.code, STOPPED)
        self.assertEqual(self.serve().code, 0)
        ended = hesspect("wait", "--spool", self.spool, second)
        self.assertEqual((ended.code, ended.out.split()[:2]), (0, [second, "done"]))
        self.assertIn("result", self.log(second))
        listed = hesspect("queue", "--spool", self.spool).out
        self.assertRegex(listed, rf"(?m)^{second} +done .* largest ")
        for args, words in ((["submit", "--spool", self.spool], "needs a job"), (["submit", "--spool", self.spool, "report", "r.h5"], "a job's command is"),
                            (["queue"], "needs --spool"), (["queue", "--spool", self.folder / "none"], "No such file"),
                            (["submit", "--spool", self.spool, "eigs", "--modle", "x"], "did you mean '--model'"),
                            (["serve", "--spool", self.spool, "--model", "x"], "has no option '--model'")):
            ended = hesspect(*args)
            self.assertIn(ended.code, (USAGE, BAD_INPUT))
            self.assertIn(words, ended.err)

    def test_a_series_as_jobs(self):
        """A job for each checkpoint, by step; what belongs to a series in one process is refused."""
        for step in (9, 10):
            shutil.copy(FIXTURES / "ckpt" / "full.safetensors", self.folder / f"step-{step}.safetensors")
        series = ("series", *arguments("mlp_ce", None, "cross_entropy", **SMALL), "--checkpoints", self.folder / "*.safetensors", "--results", self.folder / "results")
        ended = hesspect("submit", "--spool", self.spool, "--name", "run 3", *series)
        self.assertEqual(ended.code, 0, ended.err)
        ids = ended.out.split()
        self.assertEqual([job["name"] for job in json.loads(hesspect("queue", "--spool", self.spool, "--json", *ids).out)],
                         ["run 3 step-9.safetensors", "run 3 step-10.safetensors"])
        self.assertEqual(self.serve().code, 0)
        self.assertEqual([self.state(job) for job in ids], ["done", "done"])
        self.assertEqual({path.name for path in (self.folder / "results").iterdir()}, {"step-9.h5", "step-10.h5"})
        for more, words in ((("--follow",), "one process"), (("--output", "s.h5"), "one process"), (("--weights", "w"), "--checkpoints, not --weights")):
            ended = hesspect("submit", "--spool", self.spool, *series, *more)
            self.assertEqual((ended.code, len(ended.errors)), (USAGE, 1), ended.err)
            self.assertIn(words, ended.err)
        (self.folder / "step-11.safetensors").write_bytes((FIXTURES / "ckpt" / "full.safetensors").read_bytes()[:100])
        ended = hesspect("submit", "--spool", self.spool, *series)
        self.assertEqual((ended.code, len(ended.errors)), (BAD_INPUT, 1), ended.err)
        self.assertIn("is not whole", ended.err)
        self.assertEqual(list((self.spool / "incoming").iterdir()), [])

    def test_what_may_be_read_and_written(self):
        """Paths stay inside --allow, links and the spool's own folders are no outputs, and files of others are left alone."""
        inside = self.folder / "allowed"
        inside.mkdir()
        for name in ("mlp_ce.pt2", "mlp_ce.data.h5"):
            shutil.copy(FIXTURES / name, inside / name)
        (inside / "link.h5").symlink_to(self.folder / "elsewhere.h5")
        own = {"model": inside / "mlp_ce.pt2", "data": inside / "mlp_ce.data.h5"}
        jobs = {"lies outside": [self.drop(), self.drop(**own, output=self.folder / "out.h5"), self.drop(**own, output=inside / ".." / "out.h5")],
                "symbolic link": [self.drop(**own, output=inside / "link.h5")],
                "of the spool's own": [self.drop(**own, output=self.spool / "incoming" / "x.h5")],
                "is the input": [self.drop(**own, output=inside / "mlp_ce.data.h5")]}
        good = self.drop(**own, output=inside / "good.h5")
        (inside / "sneaky.pt2").symlink_to(FIXTURES / "mlp_ce.pt2")
        jobs["lies outside"].append(self.drop(**{**own, "model": inside / "sneaky.pt2"}))
        incoming = self.spool / "incoming"
        (incoming / "linked.ini").symlink_to(incoming / f"{good}.ini")
        (incoming / "large.ini").write_text("#" * (1 << 17))
        os.mkfifo(incoming / "pipe.ini")
        os.utime(incoming / "large.ini", (1, 1))
        if os.geteuid() == 0:
            (incoming / "another.ini").write_text("[job]\n")
            os.chown(incoming / "another.ini", 12345, -1)
            os.utime(incoming / "another.ini", (1, 1))
        before = (inside / "mlp_ce.data.h5").read_bytes()
        ended = hesspect("serve", "--spool", self.spool, "--allow", inside, "--allow", self.spool, "--until-empty")
        self.assertEqual(ended.code, 0, ended.err)
        for words, several in jobs.items():
            for job in several:
                self.assertEqual(self.state(job), "failed", job)
                self.assertIn(words, self.info(job)["line"])
        self.assertEqual(self.state(good), "done", self.log(good))
        self.assertEqual((inside / "mlp_ce.data.h5").read_bytes(), before)
        self.assertFalse((self.folder / "elsewhere.h5").exists() or (self.folder / "out.h5").exists())
        left = {"linked.ini", "large.ini", "pipe.ini"} | ({"another.ini"} if os.geteuid() == 0 else set())
        self.assertEqual({path.name for path in incoming.iterdir()}, left)
        for name in left - {"linked.ini"}:
            self.assertEqual(ended.err.count(f"{name}'"), 1, ended.err)
        self.spool.chmod(0o777)
        self.assertIn("everybody may write", hesspect("queue", "--spool", self.spool).err)
        self.spool.chmod(0o755)

    def test_from_python(self):
        own = {key: SMALL[key] for key in SMALL}
        job = from_python.submit(FIXTURES / "mlp_ce.pt2", data=FIXTURES / "mlp_ce.data.h5", loss="cross_entropy", spool=self.spool, name="mine", **own)
        bad = from_python.submit(FIXTURES / "mlp_ce.pt2", data=FIXTURES / "mlp_ce.data.h5", loss="cross_entropy", spool=self.spool, target="none", **own)
        gone = from_python.submit(FIXTURES / "mlp_ce.pt2", data=FIXTURES / "mlp_ce.data.h5", loss="cross_entropy", spool=self.spool, **own)
        self.assertEqual([(one.id, one.state, one.name) for one in from_python.queue(self.spool)],
                         [(job.id, "queued", "mine"), (bad.id, "queued", ""), (gone.id, "queued", "")])
        with self.assertRaises(TimeoutError):
            job.result(timeout=0.2)
        self.assertTrue(gone.cancel())
        self.assertFalse(gone.cancel())
        with self.assertRaises(from_python.Stopped):
            gone.result()
        self.start("--until-empty")
        result = job.result(timeout=60)
        self.assertEqual(float(result.eigenvalues[0]), job.info().lambda1)
        self.assertIn("result", job.log())
        with self.assertRaisesRegex(from_python.InputError, "none"):
            bad.result(timeout=60)
        self.assertIsInstance(bad.exception(), from_python.InputError)
        with self.assertRaisesRegex(from_python.UsageError, "did you mean"):
            from_python.submit("m.pt2", data="d.h5", loss="mse", spool=self.spool, tpo=3)


class Stopping(Service):
    def test_signal_and_cancel(self):
        """SIGTERM puts the job at work back with its checkpoint, and the next service goes on with it; cancelling ends it."""
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                job = self.drop(**LONG)
                service = self.start(ranks=ranks)
                self.at_work(job)
                service.send_signal(signal.SIGUSR1)
                said = service.communicate(timeout=60)[0]
                self.assertEqual(service.returncode, STOPPED, said)
                self.assertEqual(self.state(job), "incoming", said)
                self.assertTrue(any((self.spool / "checkpoints" / job).glob("run-*.json")))
                service = self.start("--until-empty", ranks=ranks)
                self.wait_for("a second start", lambda: "resumed" in self.written(job))
                self.assertIn("is being stopped", hesspect("cancel", "--spool", self.spool, job).out)
                said = service.communicate(timeout=60)[0]
                self.assertEqual(service.returncode, 0, said)
                self.assertEqual(self.state(job), "cancelled", said)
                self.assertFalse((self.spool / "checkpoints" / job).exists())

    def test_a_dead_service(self):
        """What it had is taken over at once on its host, tried once more, and given up when that kills a second service and nothing was gained."""
        deadly, other = self.drop(**ENDLESS), self.drop(priority=-1)
        for start in (1, 2):
            service = self.start(ranks=2 if start == 2 else 1)
            self.wait_for("the start", lambda: [p for p in (self.spool / "claimed").glob(f"*/{deadly}@{start}-{start - 1}-0.ini")])
            self.wait_for("its run", lambda: self.written(deadly).count("in micro-batches of") == start)
            if start == 1:
                service.kill()
            else:
                ranks = subprocess.run(["pgrep", "-P", str(service.pid), "-x", "hesspect"], capture_output=True, text=True).stdout.split()
                self.assertEqual(len(ranks), 2)
                os.kill(int(ranks[1]), signal.SIGKILL)
            said = service.communicate(timeout=60)[0]
            self.assertNotEqual(service.returncode, 0, said)
        ended = self.serve()
        self.assertEqual(ended.code, 0, ended.err)
        self.assertEqual((self.state(deadly), self.state(other)), ("failed", "done"))
        self.assertEqual(self.info(deadly)["line"], "the service died while this ran, twice")
        self.assertEqual(list((self.spool / "claimed").iterdir()), [])

    def finished(self, job):
        """Lanczos runs in its newest checkpoint; 0 where there is none."""
        try:
            newest = max((self.spool / "checkpoints" / job).glob("run-*.json"))
            return len(json.loads(newest.read_text().splitlines()[0])["finished"])
        except (ValueError, OSError):
            return 0

    def test_deaths_with_a_gain(self):
        """A job whose checkpoint goes on from one death of its service to the next is not given up."""
        job = self.drop(**LONG)
        before = -1
        for start in (1, 2, 3):
            service = self.start()
            claimed = self.wait_for("the start", lambda: [p.stem for p in (self.spool / "claimed").glob(f"*/{job}@{start}-*.ini")])[0]
            deaths, products = map(int, claimed.split("@")[1].split("-")[1:])
            self.assertEqual(deaths, 0)
            self.assertGreater(products, before)
            if start == 3:
                break
            before = products
            self.wait_for("a gain", lambda: LONG["steps"] * self.finished(job) > before)
            service.kill()
            service.wait()
        hesspect("cancel", "--spool", self.spool, job)
        self.wait_for("its end", lambda: (self.spool / "cancelled" / f"{job}.ini").exists())

    def test_started_again_by_run(self):
        job = self.drop(**LONG)
        service = self.start(launcher=[BIN, "run", "--ranks", "2"], ranks=2)
        self.at_work(job)
        launcher = subprocess.run(["pgrep", "-P", str(service.pid)], capture_output=True, text=True).stdout.split()[0]
        ranks = subprocess.run(["pgrep", "-P", launcher, "-x", "hesspect"], capture_output=True, text=True).stdout.split()
        os.kill(int(ranks[-1]), signal.SIGKILL)
        self.wait_for("the second start", lambda: list((self.spool / "claimed").glob(f"*/{job}@2-*.ini")))
        self.wait_for("its run", lambda: "resumed" in self.written(job))
        hesspect("cancel", "--spool", self.spool, job)
        self.wait_for("its end", lambda: (self.spool / "cancelled" / f"{job}.ini").exists())
        service.send_signal(signal.SIGTERM)
        said = service.communicate(timeout=60)[0]
        self.assertEqual(service.returncode, STOPPED, said)

    def test_two_services(self):
        jobs = [self.drop() for _ in range(6)]
        services = [self.start("--until-empty") for _ in range(2)]
        for service in services:
            said = service.communicate(timeout=100)[0]
            self.assertEqual(service.returncode, 0, said)
        self.assertEqual([self.state(job) for job in jobs], ["done"] * 6)
        self.assertEqual({self.info(job)["starts"] for job in jobs}, {1})


class Hindered(Service):
    def test_told_once(self):
        """What can't be written now is tried again until it can: here a job's record, for `done` is no folder for a while."""
        job = self.drop(output=self.folder / "result.h5")
        waiting = (self.spool / "incoming" / f"{job}.ini").rename(self.folder / f"{job}.ini")
        service = self.start()
        self.wait_for("the service", lambda: list(self.spool.glob("claimed/*/lease")))
        shutil.rmtree(self.spool / "done")
        (self.spool / "done").write_text("in the way")
        waiting.rename(self.spool / "incoming" / f"{job}.ini")
        said = [self.until_said(service, "waiting until that is mended")]
        time.sleep(2.5)
        (self.spool / "done").unlink()
        (self.spool / "done").mkdir()
        self.wait_for("the record", lambda: (self.spool / "done" / f"{job}.ini").exists())
        service.send_signal(signal.SIGTERM)
        said.append(service.communicate(timeout=60)[0])
        self.assertEqual("".join(said).count("mended"), 1, said)
        self.assertIn("goes on", "".join(said))
        self.assertTrue((self.folder / "result.h5").exists())

    def test_a_full_disk(self):
        """A real one, in a mount namespace of the service's own, where that is allowed: the job goes back into the queue, and is done when there is room."""
        disk = self.folder / "disk"
        disk.mkdir()
        if os.geteuid() != 0 or os.system(f"unshare -m mount -t tmpfs -o size=1m none {disk} 2>/dev/null") != 0:
            self.skipTest("no mount namespaces here")

        def mount():
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
            assert libc.mount(b"none", b"/", None, (1 << 18) | 16384, None) == 0  # private, all below
            assert libc.mount(b"none", str(disk).encode(), b"tmpfs", 0, b"size=1m") == 0

        self.spool = disk / "spool"
        service = self.start(preexec=mount)
        self.spool = Path(f"/proc/{service.pid}/root{disk}/spool")
        self.until_said(service, "waits for jobs")
        waiting = self.drop(folder="..")
        filler = self.spool.parent / "filler"
        with filler.open("wb") as f:
            self.fill(f)
        (self.spool.parent / f"{waiting}.ini").rename(self.spool / "incoming" / f"{waiting}.ini")
        said = self.until_said(service, "waiting until that is mended")
        self.assertIn("No space left on device", said)
        time.sleep(2.5)
        self.assertIn(self.state(waiting), ("incoming", "claimed"))
        filler.unlink()
        self.wait_for("its end", lambda: (self.spool / "done" / f"{waiting}.ini").exists())
        self.assertEqual(self.info(waiting)["exit_code"], 0)
        service.send_signal(signal.SIGTERM)
        said += service.communicate(timeout=60)[0]
        self.assertEqual(said.count("waiting until that is mended"), 1, said)
        self.assertIn("goes on", said)

    @staticmethod
    def fill(file):
        """Up to the last page."""
        try:
            while True:
                os.write(file.fileno(), b"x" * 4096)
        except OSError:
            return

    def test_without_permission(self):
        """A folder of the spool that can't be read for a while: said once, and the jobs in it are run when it can."""
        as_user = {}
        self.spool.mkdir()
        if os.geteuid() == 0:  # whom no permission holds back
            self.folder.chmod(0o755)
            os.chown(self.spool, 65534, 65534)
            as_user = {"preexec": lambda: (os.setgid(65534), os.setuid(65534)), "env": {"TMPDIR": str(self.spool), "HOME": str(self.spool)}}
        service = self.start(**as_user)
        self.until_said(service, "waits for jobs")
        (self.spool / "incoming").chmod(0)
        said = self.until_said(service, "waiting until that is mended")
        self.assertIn("Permission denied", said)
        time.sleep(2.5)
        (self.spool / "incoming").chmod(0o700)
        job = self.drop()
        if as_user:
            os.chown(self.spool / "incoming" / f"{job}.ini", 65534, 65534)
        self.wait_for("its end", lambda: (self.spool / "done" / f"{job}.ini").exists())
        service.send_signal(signal.SIGTERM)
        said += service.communicate(timeout=60)[0]
        self.assertEqual(said.count("waiting until that is mended"), 1, said)
        self.assertIn("goes on", said)


class Failing(Service):
    def test_alone(self):
        """A product that is not finite, and memory that is not there when it is asked for: those jobs fail, and the next is run by the same process."""
        import torch
        from messages import Distance, exported

        torch.manual_seed(3)
        a, b = torch.randn(20, 4), torch.randn(20, 4)
        b[17] = a[17]
        exported(self.folder, Distance(), {"a": a, "b": b, "target": torch.rand(20)})
        service = self.start()
        self.until_said(service, "waits for jobs")
        not_finite = self.drop(model=self.folder / "model.pt2", data=self.folder / "data.h5", loss="mse")
        self.wait_for("its end", lambda: (self.spool / "failed" / f"{not_finite}.ini").exists())
        self.assertEqual(self.info(not_finite)["exit_code"], BAD_INPUT)
        self.assertIn("a product with the Hessian is not finite", self.info(not_finite)["line"])
        with h5py.File(FIXTURES / "mlp_ce.data.h5") as small, h5py.File(self.folder / "large.h5", "w") as large:
            for name in small:
                large[name] = np.tile(small[name][()], (20000, *[1] * (small[name].ndim - 1)))
        self.limit(service, 1 << 26)
        too_large = self.drop(data=self.folder / "large.h5", micro_batch=10**6)
        self.wait_for("its end", lambda: (self.spool / "failed" / f"{too_large}.ini").exists())
        self.assertEqual(self.info(too_large)["exit_code"], 5)
        self.assertIn("out of memory", self.info(too_large)["line"])
        self.limit(service, None)
        good = self.drop()
        self.wait_for("its end", lambda: (self.spool / "done" / f"{good}.ini").exists())
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)
        self.assertEqual(service.returncode, STOPPED)

    @staticmethod
    def limit(process, more):
        """So many bytes beyond what it has by now; None: no limit any more."""
        has = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.prlimit(process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY if more is None else has + more, resource.RLIM_INFINITY))


class OneRankAlone(Service):
    def test_the_service_lives(self):
        """A rank that throws by itself, at any message of the run: the job fails with that rank's line, and the next one is run."""
        shim = Path(BIN).parents[1] / "tests" / "libone_rank_throws.so"
        good = self.drop(priority=-1, name="good", probes=3, steps=4)
        trials = 40 if LONG_RUN else 4
        bad = [self.drop(f"bad {i}", probes=3, steps=4) for i in range(trials)]
        args = [*MPIRUN, "-n", "3", "-x", f"LD_PRELOAD={shim}", "-x", f"ONE_RANK_THROWS={trials}", BIN, "serve", "--spool", str(self.spool), "--allow", "/",
                "--until-empty"]
        done = subprocess.run(args, capture_output=True, text=True, env=environment(), timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.state(good), "done", done.stderr)
        self.assertEqual({(self.info(job)["state"], self.info(job)["exit_code"], self.info(job)["line"]) for job in bad}, {("failed", 5, "out of memory")},
                         done.stderr)


if __name__ == "__main__":
    unittest.main()
