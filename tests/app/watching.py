#!/usr/bin/env python3
"""What `hesspect serve` and `series` show of themselves: metrics on a port and in a file, the spool's page; and the series file in Python."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path

import h5py
import numpy as np
from harness import BIN, MPIRUN, Case, arguments, environment, hesspect

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
sys.path[:0] = [str(SOURCE / "python"), str(SOURCE / "tests/watch")]
os.environ.setdefault("HESSPECT_BIN", BIN)
from exposition import parsed  # noqa: E402
from look_at_page import Page  # noqa: E402

import hesspect as from_python  # noqa: E402
from hesspect import plot, tables  # noqa: E402

USAGE = 2
SMALL = {"dtype": "float64", "top": 2, "bottom": 1, "rtol_trace": 0, "density_w1": 0, "steps": 8, "max_steps": 20}


def value_of(found, name, **labels):
    return found[name][2][tuple(sorted(labels.items()))]


class Serve(Case):
    def setUp(self):
        super().setUp()
        self.spool = self.folder / "spool"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.addCleanup(self.end)
        self.service = None

    def end(self):
        if self.service is not None:
            self.service.kill()
            self.service.communicate()

    def serve(self, *more, ranks=1):
        self.service = subprocess.Popen([*([*MPIRUN, "-n", str(ranks)] if ranks > 1 else []), BIN, "serve", "--spool", str(self.spool), "--allow", "/", "--poll", "0.2", "--metrics-port", str(self.port), *map(str, more)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())

    def scrape(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", "/metrics")
        return parsed(connection.getresponse().read().decode())

    def scraped_when(self, condition):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                found = self.scrape()
                if condition(found):
                    return found
            except (OSError, KeyError):
                pass
            time.sleep(0.1)
        self.fail("it did not come to that")

    def test_what_a_service_shows(self):
        good = hesspect("submit", "--spool", self.spool, "--name", "good one", "analyze", *arguments("mlp_ce", None, "cross_entropy", **SMALL))
        self.assertDone(good)
        bad = self.spool / "incoming" / "20260101-000000-000-00000a.ini"
        bad.write_text("[job]\nname = <b>bad</b>\n[options]\nmodel = none.pt2\n")
        self.serve("--metrics-file", self.folder / "m.prom", ranks=2)
        state = lambda found, name: value_of(found, "hesspect_jobs", state=name)
        found = self.scraped_when(lambda found: state(found, "done") == 1 and state(found, "failed") == 1)
        result = self.spool / "done" / f"{good.out.strip()}.h5"
        with h5py.File(result) as file:
            self.assertEqual(value_of(found, "hesspect_products_total"), file["entry/diagnostics/products/total"][()])
            self.assertEqual(value_of(found, "hesspect_lambda_max"), file["entry/eigenvalues/eigenvalue"][0])
            self.assertEqual(value_of(found, "hesspect_trace"), file["entry/trace/value"][()])
        phases = found["hesspect_phase_seconds_total"][2]
        self.assertTrue(phases and all(seconds > 0 for seconds in phases.values()))
        ranks = subprocess.run(["pgrep", "-P", str(self.service.pid), "-x", "hesspect"], capture_output=True, text=True).stdout.split()
        resident = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in ranks]
        for rank in ("0", "1"):
            self.assertLess(abs(value_of(found, "hesspect_resident_bytes", rank=rank) / np.mean(resident) - 1), 0.5)
        self.assertLess(abs(time.time() - value_of(found, "hesspect_updated_seconds")), 60)

        taken = hesspect("serve", "--spool", self.folder / "other", "--metrics-port", self.port)
        self.assertEqual(taken.code, USAGE, taken.err)
        self.assertEqual(len(taken.errors), 1, taken.err)
        self.assertIn(f"--metrics-port {self.port} is taken on 127.0.0.1 by another program", taken.err)

        self.service.terminate()
        self.service.wait(60)
        page = (self.spool / "index.html").read_text()
        self.assertEqual(Page(page).references, [])
        for piece in ("good one", "&lt;b&gt;bad&lt;/b&gt;", "<b>1</b><span>done", "<b>1</b><span>failed"):
            self.assertIn(piece, page)
        self.assertEqual(value_of(parsed((self.folder / "m.prom").read_text()), "hesspect_jobs", state="failed"), 1)


class Series(Case):
    def test_what_a_series_shows_and_what_python_reads_of_it(self):
        """Each checkpoint's figures in the series file are those of its own result; the metrics are of the last."""
        import torch

        torch.manual_seed(0)
        x, y = torch.randn(60, 4), torch.randint(0, 3, (60,))
        model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
        from_python.export(model, x[:4], self.folder / "model.pt2")
        from_python.write_data(self.folder / "data.h5", (x, y), inputs=["input"])
        (self.folder / "ckpt").mkdir()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for step in range(1, 31):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if step % 10 == 0:
                torch.save(model.state_dict(), self.folder / f"ckpt/step-{step}.pt")
        output, metrics = self.folder / "S.h5", self.folder / "m.prom"
        ended = hesspect("series", "--model", self.folder / "model.pt2", "--data", self.folder / "data.h5", "--loss", "cross_entropy", "--checkpoints", self.folder / "ckpt",
                         "--learning-rate", 0.5, "--output", output, "--metrics-file", metrics, "--dtype", "float64", "--top", 3, "--bottom", 2)
        self.assertDone(ended)
        series = from_python.open_series(output)
        self.assertEqual(series.step.tolist(), [10, 20, 30])
        self.assertEqual((series.top, series.eigenvalues.shape), (3, (3, 5)))
        for i in range(3):
            result = series.read(i)
            np.testing.assert_allclose(series.eigenvalues[i], result.eigenvalues)
            self.assertEqual(series.trace[i], result.trace)
            np.testing.assert_allclose(series.layer_traces[i], result.layer_traces)
            known = np.isfinite(series.lambdas[i])
            np.testing.assert_allclose(series.density[i][known], result.density)
        np.testing.assert_allclose(series.half_lambda_eta, series.eigenvalues[:, 0] * 0.25)
        found = parsed(metrics.read_text())
        self.assertEqual(value_of(found, "hesspect_checkpoints", state="done"), 3)
        self.assertEqual(value_of(found, "hesspect_last_checkpoint_step"), 30)
        self.assertEqual(value_of(found, "hesspect_lambda_max"), series.eigenvalues[2, 0])
        self.assertEqual(value_of(found, "hesspect_trace"), series.trace[2])
        self.assertEqual(value_of(found, "hesspect_products_total"), series.products.sum())
        self.assertEqual(value_of(found, "hesspect_checkpoint_lag_seconds"), 0)
        self.assertEqual(plot.main([str(output)]), 0)
        self.assertEqual(tables.main([str(output), "-o", str(self.folder / "t")]), 0)
        self.assertTrue(re.search(r"^0,10,1,", (self.folder / "t/eigenvalues.csv").read_text(), re.MULTILINE))
        refused = hesspect("analyze", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), "--metrics-file", metrics)
        self.assertEqual(refused.code, USAGE)
        self.assertIn("belong to 'series'", refused.err)


if __name__ == "__main__":
    unittest.main()
