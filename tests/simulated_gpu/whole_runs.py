"""The program as a user runs it with `--device cuda`, on simulated GPUs: its numbers are those of the CPU.

With HESSPECT_LONG=1 on every model of the fixtures; with HESSPECT_TRUE_GPU=1 on the machine's own GPU.
"""

import os
import sys
import unittest
from pathlib import Path

import h5py
import numpy
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(os.environ["HESSPECT_SOURCE"]) / "tests" / "app"))
from harness import BIN, FIXTURES, LONG, Case, arguments, hesspect

TRUE_GPU = os.environ.get("HESSPECT_TRUE_GPU") == "1"
LIBRARIES = Path(BIN).parents[1] / "simulated_gpu"
NOT_CONVERGED, STOPPED = 3, 75
FEW_STEPS = {"max_steps": 6, "max_hvps": 8}

_ops = set()  # that LibTorch was asked for


def tearDownModule():
    """The simulation does every op that CPUs have; a GPU has those that LibTorch has a kernel for."""
    if TRUE_GPU:
        return
    import torch

    composed = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")
    lacking = [op for op in sorted(_ops) if not any(torch._C._dispatch_has_kernel_for_dispatch_key(op, key) for key in ("CUDA", *composed))]
    assert len(_ops) > 20
    assert not lacking, f"LibTorch has no kernel for GPUs for {lacking}"


class OnSimulatedGpus(Case):
    def on(self, device, command, case, loss, ranks=1, may_fail=False, **options):
        output = self.folder / f"{device}.h5"
        if not options.get("resume"):
            output.unlink(missing_ok=True)
        ops = self.folder / "ops"
        env = {}
        if device == "cuda" and not TRUE_GPU:
            env = {"LD_PRELOAD": str(LIBRARIES / "libcudart.so.13"), "LD_LIBRARY_PATH": str(LIBRARIES), "SIMULATED_GPUS": str(ranks), "SIMULATED_GPU_OPS": str(ops)}
        options = {"dtype": "float64", **options}
        flags = ["--resume"] if options.pop("resume", False) else []
        ended = hesspect(command, *arguments(case, output, loss, **options, device=device), *flags, ranks=ranks, env=env, timeout=300)
        if ops.exists():
            _ops.update(ops.read_text().split())
        if may_fail:
            return ended
        self.assertIn(ended.code, (0, NOT_CONVERGED), ended.err[-2000:])
        return self.numbers(output)

    @staticmethod
    def numbers(result):
        found = {}
        with h5py.File(result) as file:
            file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) and item.dtype.kind in "fi" else None)
        return found

    def assert_same(self, here, there, names, tolerance=1e-10):
        for name in names:
            self.assertTrue(numpy.isfinite(here[name]).all(), name)
            ours, theirs = numpy.atleast_1d(here[name]), numpy.atleast_1d(there[name])
            scale = numpy.max(numpy.abs(theirs))
            numpy.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)

    def assert_same_density(self, case, loss, *, cpu=None, tolerance=1e-10, ranks=1, **options):
        options = {**FEW_STEPS, **options}
        there = self.on("cpu", "density", case, loss, ranks=ranks, **{**options, **(cpu or {})})
        here = self.on("cuda", "density", case, loss, ranks=ranks, **options)
        names = ["entry/quadrature/alpha", "entry/quadrature/beta", "entry/diagnostics/loss", "entry/diagnostics/gradient_norm"]
        steps = min(here[names[0]].shape[-1], there[names[0]].shape[-1], FEW_STEPS["max_steps"])
        for numbers in (here, there):
            for name in names[:2]:
                numbers[name] = numbers[name][:1, :steps]
        self.assert_same(here, there, names, tolerance)

    def test_three_families(self):
        for case, loss in [("gpt2", "causal_lm"), ("cnn_bn", "cross_entropy"), ("widedeep", "bce_with_logits")]:
            with self.subTest(case):
                self.assert_same_density(case, loss)

    def test_products(self):
        for options in [{"product": "rebuilt"}, {"product": "segments"}, {"product": "autograd"}, {"curvature": "ggn"}, {"curvature": "empirical_fisher"}]:
            with self.subTest(**options):
                self.assert_same_density("llama", "causal_lm", **options)

    def test_what_autograd_has_a_part_in(self):
        for case, loss in [("complex_parameters", "mse"), ("mixture", "causal_lm")]:
            with self.subTest(case):
                self.assert_same_density(case, loss)

    # The recorder waited for the default stream of the thread's device, which is not the second rank's.
    def test_two_ranks(self):
        self.assert_same_density("cnn_bn", "cross_entropy", ranks=2)
        self.assert_same_density("gpt2", "causal_lm", ranks=2, groups=2)

    # Inputs by shapes were chosen by numbers on the host.
    def test_parameters_in_shards(self):
        self.assert_same_density("widedeep", "bce_with_logits", parameters="sharded")
        self.assert_same_density("gpt2", "causal_lm", parameters="sharded", ranks=2)

    def test_parameters_in_host_memory(self):
        self.assert_same_density("gpt2", "causal_lm", parameters="host", cpu={"parameters": "replicated"})

    def test_rounded_matrix_products(self):
        self.assert_same_density("gpt2", "causal_lm", dtype="float32", precision="bf16", cpu={"precision": "fp32"}, tolerance=0.03)

    # Rows that were read back lay in blocks of other sizes, and products with them rounded otherwise.
    def test_resumed_to_the_same_bits(self):
        options = {"dtype": "float64", "top": 2, "bottom": 1, "rtol_eigs": 1e-9}
        whole = self.on("cuda", "eigs", "mlp_ce", "cross_entropy", **options)
        (self.folder / "cuda.h5").unlink()
        code, starts, seconds = STOPPED, 0, 1e-5  # the first start stops after its first product, on any machine
        while code == STOPPED:
            starts += 1
            ended = self.on("cuda", "eigs", "mlp_ce", "cross_entropy", may_fail=True, **options, max_hours=seconds / 3600, resume=True)
            code, seconds = ended.code, max(0.05, 1.3 * seconds)
        self.assertEqual(code, 0, ended.err)
        self.assertGreater(starts, 1)
        resumed = self.numbers(self.folder / "cuda.h5")
        for name in ("entry/quadrature/alpha", "entry/quadrature/beta", "entry/eigenvalues/eigenvalue"):
            numpy.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)

    # The other weights are on the host.
    def test_distance_from_initial_weights(self):
        with safe_open(FIXTURES / "ckpt" / "full.safetensors", "pt") as trained:
            save_file({name: trained.get_tensor(name) * 1.1 for name in trained.keys()}, self.folder / "start.safetensors")
        options = {"initial_weights": self.folder / "start.safetensors", "params": "layers.1", "top": 1, "bottom": 0}
        here, there = (self.on(device, "eigs", "mlp_ce", "cross_entropy", **options) for device in ("cuda", "cpu"))
        names = [name for name in there if name.startswith("entry/initial_weights/") and there[name].dtype.kind == "f" and numpy.isfinite(there[name]).all()]
        self.assertGreater(len(names), 0)
        self.assert_same(here, there, names)

    # Which waited for the device by the first row of what it had asked for, as if that were a number.
    def test_inputs(self):
        here, there = (self.on(device, "inputs", "cnn_bn", "cross_entropy") for device in ("cuda", "cpu"))
        self.assert_same(here, there, [f"entry/inputs/rows/{name}" for name in ("loss", "gradient_norm", "largest", "change")], 1e-6)

    def test_other_commands(self):
        for command in ("sharpness", "landscape"):
            here, there = (self.on(device, command, "cnn_bn", "cross_entropy") for device in ("cuda", "cpu"))
            names = [name for name in there if name.split("/")[-1] in ("loss", "value") and there[name].dtype.kind == "f" and numpy.isfinite(there[name]).all()]
            self.assertGreater(len(names), 0)
            self.assert_same(here, there, names, 1e-8)

    def test_what_does_not_fit(self):
        ended = self.on("cuda", "density", "gpt2", "causal_lm", memory="200M", may_fail=True)
        self.assertEqual(ended.code, 5)
        self.assertIn("200.00 MiB may be taken, of which 0 B may be planned with", ended.errors[0])

    @unittest.skipUnless(LONG, "with HESSPECT_LONG=1")
    def test_every_model(self):
        for file in sorted(FIXTURES.glob("*.ref.h5")):
            case = file.name.removesuffix(".ref.h5")
            with h5py.File(file) as reference:
                about = dict(reference.attrs)
            options = {"output_index": about["output_index"]}
            if "label_smoothing" in about:
                options["label_smoothing"] = about["label_smoothing"]
            if case not in ("resnet18", "ce_spatial_weights"):
                with self.subTest(case):
                    self.assert_same_density(case, about["loss"], **options)


if __name__ == "__main__":
    unittest.main()
