#!/usr/bin/env python3
"""What stands before a run: `hesspect run` and what it tells before ranks start, presets, completion, the manual page, the help.

zsh and fish read their scripts where these shells are installed.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

import h5py
from harness import BIN, FIXTURES, MPIRUN, Case, Ended, arguments, environment, hesspect

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
USAGE, NOT_CONVERGED, BAD_INPUT, STOPPED = 2, 3, 4, 75
COMMANDS = ("analyze", "density", "eigs", "trace", "inputs", "landscape", "sharpness", "features", "series", "plan", "inspect", "report", "compare", "serve", "submit",
            "queue", "cancel", "wait", "log", "run")
SMALL = {"dtype": "float64", "top": 2, "bottom": 1, "rtol_trace": 0, "density_w1": 0, "steps": 8}
LONG = {"probes": 10**6, "max_hvps": 0, "rtol_trace": 0, "trace_method": "hutchinson", "threads": 1}


@functools.cache
def help_of(command):
    return hesspect(command, "--help", env={"HESSPECT_PYTHON": os.environ["HESSPECT_PYTHON"]}).out


def options_of(command):
    """As its help lists them."""
    return set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", help_of(command), re.M))


# A zsh within a zsh: compadd writes down what it is given, before it is filtered by what is typed already.
ASK_ZSH = r"""
zmodload zsh/zpty
zpty inner zsh -f -i
zpty -w inner "PROMPT=; autoload -Uz compinit; compinit -D -u; source <(BIN completion zsh)"
zpty -w inner 'compadd() { builtin compadd -A __found "$@"; [[ $#__found -gt 0 ]] && print -rl -- $__found >> found.txt; builtin compadd "$@" }; bindkey "^I" complete-word; print -r READY > ready'
for i in {1..200}; do [[ -e ready ]] && break; sleep 0.05; done
: > found.txt
zpty -w -n inner "hesspect $1"$'\t'
for i in {1..60}; do sleep 0.05; [[ -s found.txt ]] && break; done
sleep 0.3
cat found.txt
zpty -d inner
rm -f ready found.txt
"""


class Front(Case):
    def script(self, name, text):
        """A program of that name, found before the real one by `self.path`."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)

    @property
    def path(self):
        return {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def line_of(self, ended):
        """The only line on stderr."""
        lines = [line for line in ended.err.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, ended.err)
        self.assertTrue(lines[0].startswith("hesspect: error: "), ended.err)
        return lines[0].removeprefix("hesspect: error: ")


class BeforeRanksStart(Front):
    """A launcher that says that it was started: nothing of this may come so far, but for the last test."""

    def setUp(self):
        super().setUp()
        self.script("mpirun", f'if [ "$1" = --version ]; then echo "mpirun (Open MPI) 4.1.4"; exit; fi; echo "$@" >>{self.folder}/started; exit 7')
        self.output = self.folder / "r.h5"

    def started(self):
        path = self.folder / "started"
        return path.read_text() if path.exists() else ""

    def refused(self, *args, code=USAGE, env=None):
        ended = hesspect("run", *args, env={**self.path, **(env or {})})
        self.assertEqual(ended.code, code, ended.err)
        self.assertEqual(self.started(), "")
        return self.line_of(ended)

    def test_usage(self):
        good = ["eigs", *arguments("mlp_ce", self.output, "cross_entropy")]
        for args, words in ((["-n", 2], "needs a command"), (["--rank", 2, *good], "did you mean '--ranks'"), (good, "needs --ranks N"),
                            (["-n", "two", *good], "--ranks two: expected an integer"), (["-n", 2, "eig"], "did you mean 'eigs'"),
                            (["-n", 2, "report", "r.h5"], "no work for several ranks: hesspect report"),
                            (["-n", 2, "eigs", "--loss", "mse"], "'eigs' needs --model"), (["-n", 2, *good, "--tpo", 3], "did you mean '--top'"),
                            (["-n", 2, *good, "--top", "many"], "--top many: expected an integer"),
                            (["-n", 2, *good, "--magnitude", 3, "--top", 2], "takes the place of --top"),
                            (["-n", 2, "--hosts", "a:b", *good], "expected HOST or HOST:N"),
                            (["-n", 2, "--hosts", "a", "--hostfile", "b", *good], "give one of them"),
                            (["--launcher", "prun", *good], "expected auto, mpirun or srun")):
            self.assertIn(words, self.refused(*args))
        self.assertIn("HESSPECT_STEPS=none: expected", self.refused("-n", 2, *good, env={"HESSPECT_STEPS": "none"}))
        self.assertIn("without mpirun", self.refused("-n", 2, *good, env={"OMPI_COMM_WORLD_SIZE": "2"}))
        self.assertIn("needs mpirun", self.refused("-n", 2, *good, env={"PATH": str(self.folder)}))

    def test_files(self):
        good = ["-n", 2, "eigs", *arguments("mlp_ce", self.output, "cross_entropy")]
        for option in ("--model", "--data"):
            args = list(good)
            args[args.index(option) + 1] = self.folder / "none"
            self.assertRegex(self.refused(*args, code=BAD_INPUT), f"{option} '.*/none': no such file")
        self.assertIn("no such file", self.refused(*good, "--weights", FIXTURES / "none", code=BAD_INPUT))
        self.output.touch()
        self.assertIn("--force overwrites it", self.refused(*good))
        self.assertIn("does not exist", self.refused(*good, "--eigenvectors", self.folder / "no" / "v.h5", "--force", code=BAD_INPUT))
        # A run that goes on finds its result there, and looks itself; other hosts may have other files.
        for more in (["--resume"], ["--force"]):
            self.assertEqual(hesspect("run", *good, *more, env=self.path).code, 7)
        self.assertEqual(hesspect("run", "--hosts", "a:2", *good[2:], env=self.path).code, 7)
        self.assertEqual(len(self.started().splitlines()), 3)

    def test_what_prints_and_stops_needs_no_ranks(self):
        good = ["-n", 2, "eigs", *arguments("mlp_ce", self.output, "cross_entropy", steps=77)]
        self.assertIn("steps = 77", hesspect("run", *good, "--print-config", env=self.path).out)
        self.assertIn("usage: hesspect eigs", hesspect("run", "-n", 2, "eigs", "--help", env=self.path).out)
        for ended in (hesspect("run", "--help"), hesspect("help", "run")):
            self.assertIn("usage: hesspect run", ended.out)
        self.assertEqual(self.started(), "")

    def test_the_launchers_flags(self):
        """Those of launch/mpirun.sh, and where the ranks are."""
        good = ["eigs", *arguments("mlp_ce", self.output, "cross_entropy")]
        env = environment({**self.path, "HESSPECT_STEPS": "40"})
        env = {name: value for name, value in env.items() if not name.startswith(("OMPI_MCA_", "OMP_"))}
        self.script("mpirun", 'if [ "$1" = --version ]; then echo "mpirun (Open MPI) 4.1.4"; exit; fi; echo "$@"; env | grep ^OMPI_MCA_ | sort')
        by_script = subprocess.run([SOURCE / "launch/mpirun.sh", "-n", "2", "hesspect"], env=env, capture_output=True, text=True).stdout.splitlines()
        by_run = subprocess.run([BIN, "run", "-n", "2", *map(str, good)], env=env, capture_output=True, text=True).stdout.splitlines()
        words = by_run[0].split()
        self.assertEqual(words[:words.index(BIN)], by_script[0].split()[:-1])
        self.assertEqual(words[words.index(BIN) + 1:], list(map(str, good)))
        self.assertEqual(set(by_script[1:]) - set(by_run[1:]), set())
        self.assertEqual(set(by_run[1:]) - set(by_script[1:]), {"OMPI_MCA_odls_base_sigkill_timeout=0"})
        said = subprocess.run([BIN, "run", "--hosts", "a:3,b:2", "--launcher-options", "--mca x y", "--print-command", *map(str, good)], env=env,
                              capture_output=True, text=True).stdout
        self.assertRegex(said, r" -n 5 --host a:3,b:2 -x HESSPECT_STEPS --mca x y \S+hesspect eigs ")

    def test_in_an_allocation(self):
        good = list(map(str, ["eigs", *arguments("mlp_ce", self.output, "cross_entropy")]))
        env = {**self.path, "SLURM_JOB_ID": "1", "SLURM_NTASKS": "3", "SLURM_CPUS_PER_TASK": "4", "SLURMD_NODENAME": "a"}
        for plugins, begin in (("pmix pmi2", "srun --mpi=pmix --kill-on-bad-exit=0 --wait=60 --cpus-per-task=4 -n 3 "), ("none pmi2", "mpirun ")):
            self.script("srun", f'echo "MPI plugin types are..."; echo "  {plugins}"')
            said = hesspect("run", "--print-command", *good, env=env).out
            self.assertEqual(said[said.index(begin.split()[0]):][:len(begin)], begin)
            self.assertIn("-n 3 ", said)
        said = hesspect("run", "--print-command", "--launcher", "srun", "--hosts", "a:1,b:1", "-n", 2, *good, env=env).out
        self.assertIn("-n 2 --nodelist a,b ", said)


class Ranks(Front):
    def run_ranks(self, *args, ranks=2, env=None):
        return hesspect("run", "--ranks", ranks, *args, env=env)

    def test_a_result_as_under_mpirun(self):
        one, two = self.folder / "one.h5", self.folder / "two.h5"
        self.assertDone(hesspect("analyze", *arguments("mlp_ce", one, "cross_entropy", **SMALL), ranks=2))
        ended = self.run_ranks("analyze", *arguments("mlp_ce", two, "cross_entropy", **SMALL))
        self.assertDone(ended)
        self.assertNotIn("mpirun", ended.err)
        with h5py.File(one) as f, h5py.File(two) as g:
            self.assertEqual(g["entry/process/ranks"][()], 2)
            for name in ("eigenvalues/eigenvalue", "quadrature/alpha"):
                self.assertEqual(f["entry"][name][()].tolist(), g["entry"][name][()].tolist())

    def test_an_end_that_is_no_success_is_one_line(self):
        """Told by all ranks, as they agree on it. Under mpirun too: Open MPI 4 lets it."""
        with h5py.File(FIXTURES / "mlp_ce.data.h5") as f, h5py.File(self.folder / "bad.h5", "w") as g:
            for name in f:
                g[name] = f[name][()]
            g["target"][3] = 99
        args = ["eigs", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", data=self.folder / "bad.h5")]
        for ended in (self.run_ranks(*args), self.under_mpirun(*args)):
            self.assertEqual(ended.code, BAD_INPUT, ended.err)
            self.assertIn("target in row 3 is 99", ended.err)
            self.assertNoFrame(ended.err)
            self.assertEqual(ended.err.count("error: "), 1)
        few = ["eigs", *arguments("mlp_ce", self.folder / "few.h5", "cross_entropy", max_steps=3, top=5, dtype="float64"), "--force"]
        for ended in (self.run_ranks(*few), self.under_mpirun(*few)):
            self.assertEqual(ended.code, NOT_CONVERGED, ended.err)
            self.assertNoFrame(ended.err)

    def under_mpirun(self, *args):
        """Without --quiet."""
        command = [*(word for word in MPIRUN if word != "--quiet"), "-n", "2", BIN, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        return Ended(done.returncode, done.stdout, done.stderr, 0)

    def assertNoFrame(self, said):
        self.assertEqual([line for line in said.splitlines() if not line.startswith("hesspect: ")], [])

    def start(self, ranks=2):
        """A run of hours, with its ranks at work; its output is in the file `said`."""
        args = ["trace", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", **LONG)]
        self.said = self.folder / "said"
        with open(self.said, "w") as said:
            job = subprocess.Popen([BIN, "run", "--ranks", str(ranks), *map(str, args)], stdout=said, stderr=said, env=environment(),
                                   start_new_session=True)
        self.addCleanup(job.wait)
        self.addCleanup(job.kill)
        self.wait_until(lambda: " parameters, " in self.said.read_text())
        return job

    def wait_until(self, what):
        until = time.monotonic() + 60
        while not what():
            self.assertLess(time.monotonic(), until, self.said.read_text())
            time.sleep(0.05)

    def ranks(self):
        """Process numbers of this run's ranks."""
        listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
        return [int(line.split()[0]) for line in listed.splitlines() if f"{BIN} trace" in line and str(self.folder) in line and " run " not in line
                and "mpirun" not in line]

    def checkpointed(self):
        return any((self.folder / "r.h5.checkpoint").glob("run-*.json"))

    def test_signals(self):
        for number, ranks in ((signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGUSR1, 2), (signal.SIGINT, 1)):
            with self.subTest(number.name, ranks=ranks):
                shutil.rmtree(self.folder / "r.h5.checkpoint", ignore_errors=True)
                job = self.start(ranks)
                job.send_signal(number)
                self.assertEqual(job.wait(timeout=60), STOPPED, self.said.read_text())
                self.assertTrue(self.checkpointed())
                self.assertNotIn("error", self.said.read_text())
                self.assertNotIn("---", self.said.read_text())

    def test_a_second_interrupt_ends_the_ranks(self):
        job = self.start()
        os.kill(self.ranks()[0], signal.SIGSTOP)  # it will not stop by itself
        job.send_signal(signal.SIGINT)
        time.sleep(1)
        self.assertIsNone(job.poll(), self.said.read_text())
        job.send_signal(signal.SIGINT)
        self.assertNotEqual(job.wait(timeout=60), 0)
        self.wait_until(lambda: not self.ranks())
        self.assertIn("ended at once, as asked", self.said.read_text())

    def test_a_killed_rank_is_one_line(self):
        job = self.start()
        os.kill(self.ranks()[1], signal.SIGKILL)
        self.assertEqual(job.wait(timeout=60), 128 + signal.SIGKILL, self.said.read_text())
        errors = [line for line in self.said.read_text().splitlines() if "error: " in line]
        self.assertEqual(len(errors), 1, self.said.read_text())
        self.assertRegex(errors[0], "process rank 1 .* exited on signal 9.*hesspect plan")
        self.assertNotIn("----", self.said.read_text())

    def test_ranks_that_nobody_looks_after_stop_with_a_checkpoint(self):
        job = self.start()
        job.kill()
        self.wait_until(lambda: not self.ranks())
        self.assertTrue(self.checkpointed())


class Presets(Case):
    def config(self, *args, env=None):
        ended = hesspect("analyze", *args, "--print-config", env=env)
        self.assertDone(ended)
        return dict(line.split(" = ", 1) for line in ended.out.splitlines() if " = " in line)

    def test_the_table_is_what_they_do(self):
        text = (SOURCE / "docs/cli.md").read_text().split("## Presets", 1)[1]
        rows = re.findall(r"^\| `--([a-z0-9-]+)` \| (\S+) \| (\S+) \| (\S+) \|", text, re.M)
        standard = self.config()
        for column, preset in ((1, "quick"), (2, "standard"), (3, "thorough")):
            config = self.config("--preset", preset)
            self.assertEqual(config.pop("preset"), preset)
            differs = {name: value for name, value in config.items() if value != standard.get(name)}
            documented = {row[0]: row[column] for row in rows}
            self.assertEqual({name: documented.get(name) for name in differs}, {name: self.as_written(value) for name, value in differs.items()})
            self.assertEqual({name: value for name, value in documented.items() if value != self.as_written(config[name])}, {})
        self.assertEqual(len(rows), len({name for preset in ("quick", "thorough") for name, value in self.config("--preset", preset).items()
                                         if value != standard[name] and name != "preset"}))

    @staticmethod
    def as_written(value):
        if value in ("true", "false"):
            return {"true": "on", "false": "off"}[value]
        return f"{float(value):g}" if "e" in value or "." in value else value

    def test_what_is_given_wins(self):
        ini = self.folder / "run.ini"
        ini.write_text("preset = thorough\nsteps = 33\n")
        config = self.config("--config", ini)
        self.assertEqual((config["preset"], config["steps"], config["probes"]), ("thorough", "33", "4"))
        config = self.config("--config", ini, "--preset", "quick", "--samples", 5)
        self.assertEqual((config["preset"], config["steps"], config["probes"], config["samples-at-most"]), ("quick", "33", "1", "0"))
        config = self.config("--config", ini, env={"HESSPECT_PRESET": "quick", "HESSPECT_RTOL_TRACE": "0.3"})
        self.assertEqual((config["preset"], config["rtol-trace"], config["rtol-eigs"]), ("quick", "0.3", "0.01"))
        printed = self.folder / "printed.ini"
        printed.write_text(hesspect("analyze", "--preset", "quick", "--top", 7, "--print-config").out)
        self.assertEqual(self.config("--config", printed), self.config("--preset", "quick", "--top", 7))

    def test_the_result_says_what_was_used(self):
        output = self.folder / "r.h5"
        ended = hesspect("analyze", *arguments("mlp_ce", output, "cross_entropy", preset="quick", samples_at_most=10, data_error="off"))
        self.assertIn(ended.code, (0, NOT_CONVERGED), ended.err)
        with h5py.File(FIXTURES / "mlp_ce.data.h5") as f:
            rows = len(f["target"])
        self.assertIn(f"of the {rows} rows only the first 10 are used", ended.err)
        with h5py.File(output) as f:
            config = f["entry/process/config"][()].decode()
            self.assertEqual(f["entry/data/rows"][()] if "data" in f["entry"] and "rows" in f["entry/data"] else 10, 10)
        for line in ("preset = quick", "rtol-trace = 0.1", "steps = 30", "samples-at-most = 10", "true-residuals = false"):
            self.assertIn("\n" + line + "\n", "\n" + config)


class Completion(Front):
    def test_bash(self):
        """In bash itself, a line at a time: the last word is the one that is completed."""
        cases = {"''": {"analyze", "run", "export", "man"}, "analyze --lo": {"--loss", "--loss-weight", "--lock-step", "--lost-after"},
                 "analyze --loss c": {"cross_entropy", "causal_lm"}, "analyze --loss = bc": {"bce", "bce_with_logits"},
                 "analyze --force --preset ''": {"quick", "standard", "thorough"}, "eigs --trace-m": set(), "analyze --top ''": set(),
                 "run --ra": {"--ranks"}, "run --ranks 4 an": {"analyze"}, "run -n 4 --launcher m": {"mpirun"}, "run --ranks 4 rep": set(),
                 "run --ranks 4 landscape --dir": {"--direction", "--directions-file"}, "completion ''": {"bash", "zsh", "fish"},
                 "export h": {"hf"}, "data t": {"text", "table"}, "inspect mod": {"model.pt2", "models"}, "report mod": {"model.pt2", "models"},
                 "analyze --model mo": {"model.pt2", "models"}, "analyze --checkpoint mo": {"models"}, "features --features ''": {"auto", "model.pt2", "models"},
                 "data check --h": {"--help"}, "export hf --ta": {"--task", "--target-seq"},
                 "export hf --task to": {"token-classification"}, "data text f a.txt --split p": {"paragraph"}, "data images --preset im": {"imagenet", "imagenet-v2"},
                 "plot r.h5 --theme ''": {"light", "dark"}, "plot -o mo": {"model.pt2", "models"}, "tables --o": {"--output"}, "export ''": {"hf", "torchvision", "timm", "lightning", "peft"},
                 "help comp": {"compare", "completion"}}
        (self.folder / "models").mkdir()
        (self.folder / "model.pt2").touch()
        lines = ["source <(\"$0\" completion bash)", "complete -p hesspect", 'hesspect=$0', f"cd {self.folder}",
                 'ask() { COMP_WORDS=("$hesspect" "$@"); COMP_CWORD=$#; COMPREPLY=(); _hesspect; echo "${COMPREPLY[*]}"; }']
        lines += [f"ask {words}" for words in cases]
        script = self.folder / "ask.bash"
        script.write_text("\n".join(lines) + "\n")
        env = environment({"HESSPECT_PYTHON": os.environ["HESSPECT_PYTHON"]})
        done = subprocess.run(["bash", "-c", f". {script}", BIN], cwd=self.folder, capture_output=True, text=True, env=env)
        self.assertEqual([line for line in done.stderr.splitlines() if "compopt" not in line], [])
        first, *answers = done.stdout.splitlines()
        self.assertEqual(first, "complete -F _hesspect hesspect")
        self.assertEqual(len(answers), len(cases))
        for (line, wanted), answer in zip(cases.items(), answers):
            got = set(answer.split())
            if line in ("''", "features --features ''"):
                self.assertLessEqual(wanted, got, line)
            else:
                self.assertEqual(got, wanted, line)

    def test_every_option_is_there(self):
        scripts = {shell: hesspect("completion", shell).out for shell in ("bash", "zsh", "fish")}
        for command in COMMANDS:
            options = options_of(command) | {"--help"}
            self.assertGreaterEqual(len(options), 1, command)
            listed = re.search(rf"^    {command}\) words='([^']*)'", scripts["bash"], re.M)[1].split()
            if command != "inspect":  # whose help is one line
                self.assertEqual(set(listed), options, command)
            block = re.search(rf"^        {command}\)\n(.*?)^          ;;", scripts["zsh"], re.M | re.S)[1]
            self.assertEqual(set(re.findall(r"(--[a-z0-9-]+)[=\[]", block)), set(listed), command)
            of_fish = {"--" + name for commands, name in re.findall(r"-n '__fish_seen_subcommand_from ([^';]*)' -l (\S+)", scripts["fish"])
                       if command in commands.split()}
            self.assertEqual(of_fish, set(listed), command)

    def test_the_options_of_pythons_commands(self):
        """What the program knows of them is what their parsers say, and each shell's script has all of it."""
        from hesspect import option_tables

        made = option_tables.table()
        self.assertEqual((SOURCE / "src/config/python_options.inc").read_text(), made, "launch/option_tables writes it")
        self.assertNotRegex(made, r'(?m)^    \{"[^"]*", "[^"]*", "",', "an option without a help text")
        scripts = {shell: hesspect("completion", shell).out for shell in ("bash", "zsh", "fish")}
        for command, kind, parser in option_tables.parsers():
            names = {name for action in parser._actions for name in action.option_strings[-1:] if name.startswith("--")}
            names |= {"--step"} & {name for action in parser._actions for name in action.option_strings}
            names -= {"--steps"}
            with self.subTest(command=command, kind=kind):
                line = re.search(rf"^    {command}\) words='([^']*)'" if not kind else rf"(?ms)^    {command}\)\n      case \$kind in.*?^        {kind}\) words='([^']*)'", scripts["bash"], re.M)
                self.assertEqual(set(line[1].split()), names)
                indent = "    " if kind else "        "
                function = scripts["zsh"].split(f"_hesspect_{command}() {{", 1)[1] if kind else scripts["zsh"]
                block = re.search(rf"^{indent}{kind or command}\)\n(.*?)^ +;;", function, re.M | re.S)[1]
                self.assertEqual(set(re.findall(r"(--[a-z0-9-]+)[=\[]", block)), names)
                seen = f"__fish_seen_subcommand_from {command}" + (f"; and __fish_seen_subcommand_from {kind}" if kind else "")
                self.assertEqual({"--" + name for name in re.findall(rf"-n '{seen}' -l (\S+)", scripts["fish"])}, names)

    def test_fish_and_zsh_complete_them(self):
        """In the shells themselves, where they are installed."""
        self.script("hesspect", f'exec {BIN} "$@"')
        cases = {"data text --fo": {"--force", "--form"}, "data text --form seq": {"seq2seq"}, "export hf --task image": {"image-classification"},
                 "plot --the": {"--theme"}, "plot --theme da": {"dark"}, "tables --format j": {"json"}, "data images --res": {"--resize"}, "export ti": {"timm"},
                 "analyze --loss causal": {"causal_lm"}}
        if shutil.which("fish") is not None:
            with self.subTest("fish"):
                lines = "\n".join(f"echo (complete -C 'hesspect {line}' | string replace -r '\\t.*' '' | string join ' ')" for line in cases)
                script = self.folder / "ask.fish"
                script.write_text(f"{BIN} completion fish | source\n{lines}\n")
                done = subprocess.run(["fish", "--no-config", script], capture_output=True, text=True, env=environment(self.path), cwd=self.folder)
                self.assertEqual(done.stderr, "")
                self.assertEqual([set(line.split()) for line in done.stdout.splitlines()], list(cases.values()))
        if shutil.which("zsh") is not None:
            with self.subTest("zsh"):
                some = list(cases)[1::3]  # a shell each
                self.assertEqual(self.asked_of_zsh(some), [cases[line] for line in some])

    def asked_of_zsh(self, lines):
        """What a zsh on a terminal of its own would put into its menu (compadd's words)."""
        script = self.folder / "ask.zsh"
        script.write_text(ASK_ZSH.replace("BIN", BIN))
        found = []
        for line in lines:
            done = subprocess.run(["zsh", "-f", script, line], capture_output=True, text=True, env=environment(self.path), cwd=self.folder, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            found.append({word.split(" ")[0].rstrip("=") for word in done.stdout.split("\n") if word.startswith(line.split(" ")[-1])})
        return found

    def test_the_shells_read_them(self):
        for shell, check in (("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])):
            with self.subTest(shell):
                if shutil.which(shell) is None:
                    continue
                script = self.folder / f"script.{shell}"
                script.write_text(hesspect("completion", shell).out)
                done = subprocess.run([*check, script], capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_other_shells(self):
        for args, words in ((["completion"], "needs the name of a shell"), (["completion", "fihs"], "did you mean 'fish'"), (["man", "x"], "unexpected")):
            ended = hesspect(*args)
            self.assertEqual(ended.code, USAGE)
            self.assertIn(words, self.line_of(ended))


class Manual(Front):
    def test_it_is_whole_and_clean(self):
        page = self.folder / "hesspect.1"
        page.write_text(hesspect("man").out, encoding="ascii")
        for check in (["man", "--warnings", "-l"], ["groff", "-ww", "-man", "-Tascii", "-z"], ["mandoc", "-T", "lint", "-W", "warning"]):
            if shutil.which(check[0]) is not None:
                done = subprocess.run([*check, page], capture_output=True, text=True, env=environment({"MANPAGER": "cat", "MANWIDTH": "100"}))
                self.assertEqual((done.returncode, done.stderr), (0, ""), check)
        text = page.read_text().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
        for command in COMMANDS:
            self.assertRegex(text, rf"(?m)^{command}$")
            for option in options_of(command):
                self.assertRegex(text, rf"(?m){option}( |$)")


class Threads(unittest.TestCase):
    def test_they_wait_asleep_in_a_crowd(self):
        """What libgomp itself says that it has read, while others want all cores."""
        for _ in range(2 * os.cpu_count()):
            crowd = subprocess.Popen(["sh", "-c", "while :; do :; done"])
            self.addCleanup(crowd.wait)
            self.addCleanup(crowd.kill)
        for given, rounds in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")):
            env = {k: v for k, v in environment({"OMP_DISPLAY_ENV": "verbose"}).items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
            said = subprocess.run([BIN, "--version"], env=env | given, capture_output=True, text=True).stderr
            self.assertEqual(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", said), [rounds])


class Networks(Case):
    def test_none_is_loaded_on_one_host(self):
        """By what the dynamic linker says: libpsm2 alone would take 0.2 s to load. Who chooses transports has them as without hesspect."""
        for ranks in (1, 2):
            for env, is_there in (({}, False), ({"OMPI_MCA_btl": "self,vader"}, True)):
                folder = self.folder / f"{ranks}{is_there}"
                folder.mkdir()
                linker = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(folder / "ld")}
                self.assertDone(hesspect("density", *arguments("mlp_ce", folder / "r.h5", "cross_entropy", steps=2, density_w1=0, rtol_trace=0), ranks=ranks,
                                         env=linker | env))
                said = [path.read_text() for path in folder.glob("ld.*")]
                self.assertGreaterEqual(sum("libtorch_cpu" in text for text in said), ranks)
                self.assertEqual(any("libpsm2" in text for text in said), is_there, (ranks, env))


class Help(Case):
    """The commands that live in the Python package are the program's too."""

    def test_one_help(self):
        from hesspect.__main__ import COMMANDS as PYTHON

        ended = hesspect("--help")
        self.assertDone(ended)
        listed = dict(re.findall(r"^  (\S+) +(\S.*)$", ended.out, re.M))
        self.assertEqual({name: listed.get(name) for name in PYTHON if name != "workloads"},
                         {name: about for name, (_, about) in PYTHON.items() if name != "workloads"})
        self.assertEqual(set(listed), {*COMMANDS, *PYTHON, "completion", "man"} - {"workloads"})
        for name in listed:
            self.assertRegex(help_of(name), rf"^usage: hesspect {name}", name)

    def test_the_kinds_of_pythons_commands(self):
        """Which completion offers."""
        from hesspect.data import cli as data
        from hesspect.exporting import cli as exporting

        script = hesspect("completion", "bash").out
        for name, module in (("export", exporting), ("data", data)):
            (commands,) = [action for action in module.parser()._actions if action.dest == "kind"]
            self.assertIn(f"    {name}) if [ -z \"$kind\" ]; then words='{' '.join(commands.choices)}'", script)


if __name__ == "__main__":
    unittest.main()
