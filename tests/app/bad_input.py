#!/usr/bin/env python3
"""Bad input ends every rank with one clear line and the right exit code, within seconds, and leaves no file.

HESSPECT_LONG=1 runs on one rank as well what two ranks have to agree on, and on two what one rank finds by itself; and from the command line
all contradictions of options, of which tests/config/options_test.cpp has the texts.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import unittest

import h5py
import numpy as np
from harness import FIXTURES, LONG, Case, arguments, hesspect

USAGE, BAD_INPUT, OUT_OF_MEMORY = 2, 4, 5
SECONDS = 40  # generous: a loaded machine starts LibTorch in five
CKPT = FIXTURES / "ckpt"


def safetensors(header, data=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Bad(Case):
    def refused(self, code, words, *args, command="analyze", both=True, ranks=None, env=None, preexec=None, kept=()):
        """One line that has all the words, and no new file.

        :param both: the first of its kind: two ranks must agree on it. Others end in the same place of the program, on one rank.
        """
        before = sorted(self.folder.rglob("*"))
        for ranks in ranks or ((1, 2) if LONG else (2,) if both else (1,)):
            with self.subTest(words=words, ranks=ranks):
                ended = hesspect(*([command] if command else []), *args, ranks=ranks, env=env, preexec=preexec)
                self.assertEqual(ended.code, code, ended.err)
                self.assertEqual(len(ended.errors), 1, ended.err)
                for word in words:
                    self.assertIn(word, ended.errors[0])
                self.assertLess(ended.seconds, SECONDS)
                left = [p for p in self.folder.rglob("*") if p not in kept and p.parent not in kept]
                self.assertEqual(sorted(left), before)
        return ended

    def mlp(self, **options):
        return arguments("mlp_ce", options.pop("output", self.folder / "r.h5"), "cross_entropy", **options)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def data(self, name="d.h5", **arrays):
        path = self.folder / name
        with h5py.File(path, "w") as f:
            for key, value in arrays.items():
                f[key] = value
        return path


class Models(Bad):
    def test_no_file_or_a_folder(self):
        self.refused(BAD_INPUT, ["none.pt2"], *self.mlp(model=self.folder / "none.pt2"))
        self.refused(BAD_INPUT, ["directory"], *self.mlp(model=self.folder), both=False)

    def test_truncated_or_random(self):
        whole = (FIXTURES / "mlp_ce.pt2").read_bytes()
        self.refused(BAD_INPUT, ["cut.pt2"], *self.mlp(model=self.file("cut.pt2", whole[: len(whole) // 2])))
        self.refused(BAD_INPUT, ["random.pt2"], *self.mlp(model=self.file("random.pt2", np.random.default_rng(0).bytes(5000))), both=False)
        self.refused(BAD_INPUT, ["empty.pt2"], *self.mlp(model=self.file("empty.pt2", b"")), both=False)
        self.refused(BAD_INPUT, ["state.pt"], *self.mlp(model=CKPT / "state.pt"), both=False)

    def test_programs_that_cannot_be_run(self):
        for path in sorted(FIXTURES.glob("bad_*.pt2")):
            expect = json.loads((FIXTURES / f"{path.stem}.expect.json").read_text())
            data = self.data(f"{path.stem}.h5", x=np.zeros((4, 4), np.float32), ids=np.zeros((4, 5), np.int64), target=np.zeros(4, np.int64))
            args = arguments(path.stem, self.folder / "r.h5", "cross_entropy", data=data)
            if path.stem == "bad_bn_train":
                with h5py.File(data, "a") as f:
                    del f["x"]
                    f["x"] = np.zeros((4, 1, 6, 6), np.float32)
            self.refused(BAD_INPUT, [expect["user_line_contains"].split("(")[0]], *args, both=False)


class Weights(Bad):
    def test_safetensors_that_lie(self):
        one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        files = {
            "huge": safetensors({"a": one}, b"\0" * 8, length=2**63),
            "overlap": safetensors({"a": one, "b": {**one, "data_offsets": [4, 12]}}, b"\0" * 12),
            "range": safetensors({"a": {**one, "data_offsets": [0, 1 << 40]}}, b"\0" * 8),
            "negative": safetensors({"a": {**one, "data_offsets": [8, 0]}}, b"\0" * 8),
            "json": safetensors(b"{not json", b"\0" * 8),
            "cut": (CKPT / "full.safetensors").read_bytes()[:-40],
        }
        for name, content in files.items():
            path = self.file(f"{name}.safetensors", content)
            self.refused(BAD_INPUT, [path.name], *self.mlp(weights=path), both=name == "overlap")
            if LONG or name in ("overlap", "json"):  # data are read by the same reader
                self.refused(BAD_INPUT, [path.name], *self.mlp(data=path), both=False)

    def test_a_pickle_that_calls_a_function(self):
        self.refused(BAD_INPUT, ["state_dict", "posix.system", "nothing in the file was executed"], *self.mlp(weights=CKPT / "evil_state.pt"))
        self.refused(BAD_INPUT, ["layers.1.bias", "Scaled"], *self.mlp(weights=CKPT / "subclass.pt"), both=False)
        self.assertFalse((CKPT / "EVIL_RAN").exists())

    def test_names_and_shapes(self):
        self.refused(BAD_INPUT, ["layers.1.bias"], *self.mlp(weights=CKPT / "missing.safetensors"))
        self.refused(BAD_INPUT, ["layers.9.weight"], *self.mlp(weights=CKPT / "extra.safetensors"), both=False)
        self.refused(BAD_INPUT, ["layers.1.bias", "[3]"], *self.mlp(weights=CKPT / "misshapen.safetensors"), both=False)
        self.refused(BAD_INPUT, ["legacy.pt"], *self.mlp(weights=CKPT / "legacy.pt"), both=False)

    def test_folders_and_keys(self):
        self.refused(BAD_INPUT, ["more than one set", "full.safetensors"], *self.mlp(weights=CKPT), both=False)
        self.refused(BAD_INPUT, ["swa", "--weights-key"], *self.mlp(weights=CKPT / "two_sets.pt", weights_key="swaa"), both=False)
        self.refused(USAGE, ["--weights"], *self.mlp(weights_key="swa"), both=False)

    def test_a_program_without_weights(self):
        folder = CKPT / "weightless"
        args = lambda name, **options: arguments("mlp_ce", self.folder / "r.h5", "causal_lm", model=folder / name, data=folder / "tied.data.h5", **options)
        self.refused(BAD_INPUT, ["8 of its weights", "emb.weight", "--weights"], *args("meta.pt2"))
        self.refused(BAD_INPUT, ["mask", "no data"], *args("meta_constant.pt2", weights=folder / "shared.pt"), both=False)
        self.refused(BAD_INPUT, ["2 missing", "mid.weight"], *args("fake.pt2", weights=folder / "without_mid.safetensors"), both=False)

    def test_nan(self):
        self.refused(BAD_INPUT, ["layers.0.weight"], *self.mlp(weights=CKPT / "nan.safetensors"))


class Data(Bad):
    x, target = np.ones((9, 6), np.float32), np.arange(9) % 4

    def test_no_file_or_another(self):
        self.refused(BAD_INPUT, ["none.h5"], *self.mlp(data=self.folder / "none.h5"))
        self.refused(BAD_INPUT, ["directory"], *self.mlp(data=self.folder), both=False)
        self.refused(BAD_INPUT, ["text"], *self.mlp(data=self.file("text", b"not data at all")), both=False)
        whole = (FIXTURES / "mlp_ce.data.h5").read_bytes()
        self.refused(BAD_INPUT, ["cut.h5"], *self.mlp(data=self.file("cut.h5", whole[: len(whole) // 2])), both=False)

    def test_names_of_inputs(self):
        self.refused(BAD_INPUT, ["no input 'y'", "x"], *self.mlp(input="y=x"))
        self.refused(BAD_INPUT, ["'features'", "did you mean 'feature'"], *self.mlp(data=self.data(feature=self.x, target=self.target), input="x=features"), both=False)
        self.refused(BAD_INPUT, ["'x'", "--input x=DATASET"], *self.mlp(data=self.data(z=self.x, target=self.target)), both=False)
        self.refused(BAD_INPUT, ["'target'", "--target"], *self.mlp(data=self.data(x=self.x)), both=False)

    def test_shapes_and_dtypes(self):
        self.refused(BAD_INPUT, ["x", "7", "6"], *self.mlp(data=self.data(x=np.ones((9, 7), np.float32), target=self.target)))
        self.refused(BAD_INPUT, ["x"], *self.mlp(data=self.data(x=np.ones((9, 6, 1), np.float32), target=self.target)), both=False)
        self.refused(BAD_INPUT, ["target"], *self.mlp(data=self.data(x=self.x, target=self.target + 0.5)), both=False)
        ids = self.data(input_ids=np.ones((4, 12), np.float32), target=np.ones((4, 12), np.int64))
        self.refused(BAD_INPUT, ["input_ids"], *arguments("gpt2", self.folder / "r.h5", "causal_lm", data=ids), both=False)

    def test_rows(self):
        self.refused(BAD_INPUT, ["9", "8"], *self.mlp(data=self.data(x=self.x, target=self.target[:8])))
        self.refused(BAD_INPUT, ["zero rows"], *self.mlp(data=self.data(x=self.x[:0], target=self.target[:0])), both=False)
        self.refused(BAD_INPUT, ["24", "23"], *self.mlp(samples=24), both=False)
        self.refused(BAD_INPUT, ["ignored"], *self.mlp(data=self.data(x=self.x, target=np.full(9, -100))), both=False)

    def test_targets_outside_the_classes(self):
        """On the last row alone, which is one rank's: the other must hear of it."""
        target = self.target.copy()
        target[8] = 4
        self.refused(BAD_INPUT, ["4", "row 8"], *self.mlp(data=self.data(x=self.x, target=target)))

    def test_weights(self):
        """Of classes and of rows, from the command line and from the file."""
        weight = np.ones(9)
        weight[8] = -0.5
        data = self.data(x=self.x, target=self.target, negative=weight, none=np.zeros(9), classes=np.array([1, 2, -3, 4.0]))
        mlp = lambda **options: self.mlp(data=data, **options)
        self.refused(BAD_INPUT, ["--class-weights", "[3]", "4 classes"], *mlp(class_weights="1,2,3"), both=False)
        self.refused(BAD_INPUT, ["--class-weights", "'klasses'", "did you mean 'classes'"], *mlp(class_weights="klasses"), both=False)
        self.refused(BAD_INPUT, ["--class-weights", "'classes'", "negative"], *mlp(class_weights="classes"), both=False)
        self.refused(BAD_INPUT, ["'wait'", "--loss-weight"], *mlp(loss_weight="wait"), both=False)
        self.refused(BAD_INPUT, ["row 8", "-0.5", "not negative"], *mlp(loss_weight="negative"))
        self.refused(BAD_INPUT, ["weight is zero", "no terms"], *mlp(loss_weight="none"), both=False)
        self.refused(BAD_INPUT, [", 6]", "has terms ["], *mlp(loss_weight="x"), both=False)

    def test_probabilities(self):
        soft = np.full((9, 4), 0.25, np.float32)
        soft[8, 1] = 0.5
        self.refused(BAD_INPUT, ["row 8", "sum to 1.25", "probabilities"], *self.mlp(data=self.data(x=self.x, target=soft)))
        logits = arguments("mlp_bce", self.folder / "r.h5", "bce")
        self.refused(BAD_INPUT, ["row ", "[0, 1]", "bce_with_logits"], *logits, both=False)
        self.refused(BAD_INPUT, ["row ", "log-probabilities", "cross_entropy"], *arguments("mlp_ce", self.folder / "r.h5", "nll"), both=False)

    def test_nan(self):
        x = self.x.copy()
        x[8, 2] = np.nan
        self.refused(BAD_INPUT, ["NaN", "'x'", "row 8"], *self.mlp(data=self.data(x=x, target=self.target)))


class Output(Bad):
    def test_folders_that_cannot_be_written(self):
        self.refused(BAD_INPUT, ["does not exist"], *self.mlp(output=self.folder / "none" / "r.h5"))
        plain = self.file("plain", b"")
        self.refused(BAD_INPUT, ["is not a folder"], *self.mlp(output=plain / "r.h5"), both=False)
        self.refused(BAD_INPUT, ["/proc/r.h5"], *self.mlp(output="/proc/r.h5"), both=False)
        self.refused(BAD_INPUT, ["folder"], *self.mlp(output=self.folder), both=False)

    def test_an_earlier_result_is_kept(self):
        earlier = self.file("r.h5", b"earlier")
        self.refused(USAGE, ["--force"], *self.mlp())
        self.assertEqual(earlier.read_bytes(), b"earlier")

    def test_a_device_or_an_input(self):
        self.refused(BAD_INPUT, ["device"], *self.mlp(output="/dev/null"), "--force", both=False)
        data = self.file("d.h5", (FIXTURES / "mlp_ce.data.h5").read_bytes())
        (self.folder / "link.h5").symlink_to(data)
        self.refused(USAGE, ["is the input"], *self.mlp(data=data, output=self.folder / "link.h5"), "--force", both=False)
        self.assertEqual(data.read_bytes(), (FIXTURES / "mlp_ce.data.h5").read_bytes())

    def test_a_disk_that_fills(self):
        """A limit on file sizes: the run is finished when the write fails. One rank: the limit would stop MPI's own files."""

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        output, checkpoint = self.folder / "r.h5", self.folder / "r.h5.checkpoint"
        args = self.mlp(output=output, probes=2, steps=20, density_w1=0)
        ended = self.refused(BAD_INPUT, ["File too large", "--resume writes it again"], *args, command="density", ranks=(1,),
                             preexec=limit, kept=(checkpoint,))
        self.assertIn("  trace  ", ended.err)  # what was found is not lost
        self.assertNotIn("  result  ", ended.err)
        self.assertDone(hesspect("density", *args, "--resume"))
        self.assertTrue(output.exists())
        self.assertFalse(checkpoint.exists())

    def test_a_full_file_system(self):
        """A real one of 16 KiB, in a mount namespace of the child's own; where that is allowed."""
        disk = self.folder / "disk"
        disk.mkdir()
        if os.getuid() != 0 or os.system(f"unshare -m mount -t tmpfs -o size=16k none {disk} 2>/dev/null") != 0:
            self.skipTest("no mount namespaces here")

        def mount():
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
            assert libc.mount(b"none", b"/", None, (1 << 18) | 16384, None) == 0  # private, all below
            assert libc.mount(b"none", str(disk).encode(), b"tmpfs", 0, b"size=16k") == 0

        self.refused(BAD_INPUT, ["No space left on device"], *self.mlp(output=disk / "r.h5", probes=2, steps=20, density_w1=0), command="density", preexec=mount)

    def test_files_of_vectors(self):
        for option in ("eigenvectors", "diagonal"):
            self.refused(BAD_INPUT, ["does not exist"], *self.mlp(**{option: self.folder / "none" / "v.h5"}), both=option == "eigenvectors")
            earlier = self.file("v.safetensors", b"earlier")
            self.refused(USAGE, ["v.safetensors", "--force"], *self.mlp(**{option: earlier}), both=False)
            self.assertEqual(earlier.read_bytes(), b"earlier")
            data = self.file("d.h5", (FIXTURES / "mlp_ce.data.h5").read_bytes())
            self.refused(USAGE, ["is the input"], *self.mlp(data=data, **{option: data}), "--force", both=False)
            self.assertEqual(data.read_bytes(), (FIXTURES / "mlp_ce.data.h5").read_bytes())

    def test_density_from(self):
        result = self.folder / "r.h5"
        self.refused(BAD_INPUT, ["none.h5"], "--from", self.folder / "none.h5", "--output", result, command="density")
        self.refused(BAD_INPUT, ["not a result"], "--from", FIXTURES / "mlp_ce.data.h5", "--output", result, command="density", both=False)
        self.refused(USAGE, ["--sigma"], "--from", result, "--sigma", "-1", "--output", result, command="density", both=False)
        self.assertEqual(hesspect("trace", *self.mlp(output=result)).code, 0)
        self.refused(BAD_INPUT, ["a result of trace"], "--from", result, "--output", self.folder / "s.h5", command="density", both=False)
        self.assertEqual(hesspect("density", *self.mlp(output=result, probes=1, steps=5, density_w1=0), "--force").code, 0)
        self.refused(USAGE, ["--model"], "--from", result, "--model", "m.pt2", "--output", self.folder / "s.h5", command="density", both=False)
        with h5py.File(result, "a") as f:
            f["entry/quadrature/ritz"][0, 0] = np.inf
        self.refused(BAD_INPUT, ["not finite"], "--from", result, "--output", self.folder / "s.h5", command="density", both=False)


class DamagedHdf5(Bad):
    """libhdf5 ends the process, or never comes back, over what is wrong where it keeps texts of variable length: a result
    of an earlier version with one such byte did that to `inspect`. Another process meets it first."""

    def damaged(self, name, change):
        """A result with a text of variable length, and the header of that text's entry (16 bytes) in the heap changed."""
        path, text = self.folder / name, b"a text that stands but once in this file"
        if not (self.folder / "good.h5").exists():
            self.assertEqual(hesspect("trace", *self.mlp(output=self.folder / "good.h5")).code, 0)
        path.write_bytes((self.folder / "good.h5").read_bytes())
        with h5py.File(path, "a") as f:
            del f["entry/process/config"]
            f.create_dataset("entry/process/config", data=text.decode(), dtype=h5py.string_dtype())
        content = bytearray(path.read_bytes())
        at = content.index(text) - 16
        content[at : at + 16] = change(bytes(content[at : at + 16]))
        path.write_bytes(content)
        return path

    def test_a_crash_and_an_endless_loop_are_one_line(self):
        crash = self.damaged("crash.h5", lambda header: header[:8] + struct.pack("<Q", 1 << 40))
        loop = self.damaged("loop.h5", lambda header: bytes(16))
        for path, words in ((crash, "crashed over it by signal"), (loop, "did not come to an end")):
            words = [path.name, "HDF5 cannot read it: it is damaged", words, "copy it again"]
            self.refused(BAD_INPUT, words, path, command="inspect")
            self.refused(BAD_INPUT, words, "--from", path, "--output", self.folder / "s.h5", "--sigma", 0.1, command="density", both=False)
            self.refused(BAD_INPUT, words, *self.mlp(data=path), both=False)

    def test_damage_that_hdf5_tells_is_its_own_line(self):
        cut = self.damaged("cut.h5", lambda header: header)
        cut.write_bytes(cut.read_bytes()[:-3000])
        self.refused(BAD_INPUT, ["cut.h5", "truncated file"], cut, command="inspect", both=False)


class Memory(Bad):
    def test_a_basis_that_cannot_fit(self):
        args = arguments("resnet18", self.folder / "r.h5", "cross_entropy", steps=10**6, probes=1, samples=2)
        self.refused(OUT_OF_MEMORY, ["Krylov basis", "--steps"], *args, command="density")


class Usage(Bad):
    def test_command_line(self):
        self.refused(USAGE, ["--help"], command=None)
        self.refused(USAGE, ["did you mean 'analyze'"], command="analyse", both=False)
        self.refused(USAGE, ["'--modle'", "did you mean '--model'"], "--modle", "m.pt2", both=False)
        self.refused(USAGE, ["--steps", "from 2"], *self.mlp(steps=1), both=False)
        self.refused(USAGE, ["--output-index"], *self.mlp(output_index=1))
        self.refused(USAGE, ["--loss"], "--model", "m", "--data", "d", both=False)

    def test_losses(self):
        regression = lambda loss, **options: arguments("mlp_mse", self.folder / "r.h5", loss, **options)
        self.refused(USAGE, ["--loss", "did you mean 'smooth_l1'"], *regression("smoothl1"), both=False)
        if LONG:
            self.refused(USAGE, ["--label-smoothing", "cross_entropy", "not to mse"], *regression("mse", label_smoothing=0.1))
            self.refused(USAGE, ["--beta 0", "above 0"], *regression("smooth_l1", beta=0), both=False)

    def test_accuracy(self):
        cases = [("density-w1", "nan", "nan"), ("rtol-eigs", "0", "rtol-eigs")]
        if LONG:
            cases += [("rtol-trace", "-1", "at least 0"), ("confidence", "1", "0.9999"), ("max-hvps", "-1", "at least 0")]
        for option, value, word in cases:
            self.refused(USAGE, [f"--{option}", word], *self.mlp(), f"--{option}", value, ranks=(1,))

    def test_eigenvalue_options_that_contradict(self):
        cases = [(["--magnitude", "--top"], "eigs", {"magnitude": 3, "top": 3})]
        if LONG:
            cases += [(["'eigs' needs --top"], "eigs", {"top": 0, "bottom": 0}),
                      (["--max-basis 20", "13 eigenvalues", "21"], "analyze", {"max_basis": 20}),
                      (["--block-size 9", "--max-steps 8"], "eigs", {"block": 9, "max_steps": 8}),
                      (["--method power", "'eigs'"], "analyze", {"method": "power"}),
                      (["--method power", "--magnitude"], "eigs", {"method": "power", "top": 2}),
                      (["--block-size above 1", "--reorthogonalization"], "eigs", {"reorthogonalization": "none", "block": 2})]
        for words, command, options in cases:
            self.refused(USAGE, words, *self.mlp(**options), command=command)

    def test_trace_options_that_contradict(self):
        diagonal = self.folder / "d.h5"
        self.refused(USAGE, ["--diagonal", "xtrace"], *self.mlp(diagonal=diagonal, trace_method="xtrace"), command="trace", both=False)
        if not LONG:
            return
        self.refused(USAGE, ["--diagonal", "hutch++"], *self.mlp(diagonal=diagonal, trace_method="hutch++"), both=False)
        self.refused(USAGE, ["--diagonal", "'density'"], *self.mlp(diagonal=diagonal), command="density", both=False)
        self.refused(USAGE, ["--trace-method", "did you mean"], *self.mlp(trace_method="xtrac"), both=False)
        self.refused(USAGE, ["deflated", "--reorthogonalization"], *self.mlp(trace_method="deflated", reorthogonalization="none"),
                     command="trace", both=False)

    def test_names_of_files_of_vectors(self):
        for option in ("eigenvectors", "diagonal") if LONG else ("eigenvectors",):
            name = self.folder / "v.npz"
            self.refused(USAGE, [f"--{option}", "v.npz", ".safetensors"], *self.mlp(**{option: name}), both=False)
            self.refused(USAGE, [f"--{option}", "--output", "same"], *self.mlp(**{option: self.folder / "r.h5"}), both=False)
        if not LONG:
            return
        same = self.folder / "v.h5"
        self.refused(USAGE, ["--eigenvectors", "--diagonal", "same"], *self.mlp(eigenvectors=same, diagonal=same), both=False)
        self.refused(USAGE, ["--eigenvectors", "'trace'"], *self.mlp(eigenvectors=same), command="trace", both=False)

    def test_ini_file(self):
        ini = self.file("run.ini", b"model = m.pt2\nmicrobatch = 3\n")
        self.refused(USAGE, ["run.ini:2", "'microbatch'", "did you mean 'micro-batch'"], "--config", ini)
        self.refused(USAGE, ["none.ini"], "--config", self.folder / "none.ini", both=False)

    def test_environment(self):
        self.refused(USAGE, ["HESSPECT_STEP", "HESSPECT_STEPS"], *self.mlp(), env={"HESSPECT_STEP": "3"})

    def test_tasks_that_mpi_does_not_see(self):
        self.refused(USAGE, ["srun started 2 tasks", "mpirun"], *self.mlp(), env={"SLURM_STEP_NUM_TASKS": "2"}, ranks=(1,))

    @unittest.skipIf(os.path.exists("/dev/nvidia0"), "there is a GPU")
    def test_no_gpu(self):
        self.refused(USAGE, ["cuda"], *self.mlp(device="cuda"))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    unittest.main(verbosity=2)
