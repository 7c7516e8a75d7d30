#!/usr/bin/env python3
"""The simulation in bench/scale, against arithmetic by hand and what must hold whatever the constants are."""

import io
import math
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import h5py

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "scale"))

import check  # noqa: E402
import curves  # noqa: E402
import programs  # noqa: E402
import simulate  # noqa: E402
from programs import Program, Segment  # noqa: E402
from simulate import Link, Machine, Work  # noqa: E402

PLAIN = Machine(flops=1000, memory_rate=1e12, ranks_on_node=8, inside=Link(10, 0.1), between=Link(5, 0.2))
# The program of tests/plan/sharded_plan_test.cpp: its numbers are worked out there too.
TWO = Program("two", (Segment(6, 1000, 4), Segment(4, 500, 0)))


class OneProduct(unittest.TestCase):
    def test_by_hand(self):
        """Two ranks, two micro-batches: first fetch, three stretches of work, last sum."""
        out = simulate.product(TWO, PLAIN, 2, Work(micro_batches=2))
        work = 2 * (3 * 1.0 + 8 * 0.5 + 8 * 1.0)
        fetch, last = 6 * (2 + 4) / 2 / 10 + 0.1, 6 * 4 / 2 / 10 + 0.1
        self.assertAlmostEqual(out.seconds, fetch + work + last)
        self.assertAlmostEqual(out.busy, work)
        self.assertAlmostEqual(out.waiting, fetch + last)
        # Parameters and vectors of three visits, products of two.
        self.assertEqual(out.calls, 3 * 2 + 2)
        self.assertEqual(out.sent_bytes, (36 + 24 + 16 + 36 + 24) / 2)

    def test_slow_messages_by_hand(self):
        """Sums go in turn with what is fetched: every message follows the one before."""
        slow = replace(PLAIN, inside=Link(0.5, 0.1))
        out = simulate.product(TWO, slow, 2, Work(micro_batches=2))
        first, second = 36 / 2 / 0.5 + 0.1, 24 / 2 / 0.5 + 0.1
        # The third fetch waits for its buffer, which the first visit's work gives back; it does so long before.
        sums = 16 / 2 / 0.5 + 0.1, 24 / 2 / 0.5 + 0.1
        # The second segment's work ends while the first is fetched again; its sum comes after that, beside 16 s of work.
        self.assertAlmostEqual(out.seconds, first + second + first + max(16, sums[0]) + sums[1])

    def test_one_rank_waits_for_nothing(self):
        out = simulate.product(TWO, PLAIN, 1, Work(micro_batches=3))
        self.assertAlmostEqual(out.seconds, 3 * 15)
        self.assertEqual((out.waiting, out.sent_bytes, out.calls), (0, 0, 0))

    def test_without_fetching_ahead_every_message_shows(self):
        out = simulate.product(TWO, PLAIN, 2, Work(micro_batches=2, ahead=0))
        fetches = (36 + 24 + 36) / 2 / 10 + 3 * 0.1
        # The first sum stands before the last fetch, which waits for it.
        sums = (16 + 24) / 2 / 10 + 2 * 0.1
        self.assertAlmostEqual(out.seconds, 30 + fetches + sums)

    def test_one_buffer_of_sums(self):
        """The next segment's products wait until these are summed."""
        slow = replace(PLAIN, inside=Link(0.5, 0.1))
        one = simulate.product(TWO, slow, 2, Work(micro_batches=2, sum_buffers=1))
        two = simulate.product(TWO, slow, 2, Work(micro_batches=2, sum_buffers=2))
        self.assertAlmostEqual(one.seconds - two.seconds, 16)

    def test_passes(self):
        once = simulate.product(TWO, PLAIN, 4, Work(micro_batches=8))
        twice = simulate.product(TWO, PLAIN, 4, Work(micro_batches=8, passes=2))
        self.assertAlmostEqual(once.busy, twice.busy)
        self.assertEqual(2 * once.calls, twice.calls)
        self.assertAlmostEqual(2 * once.sent_bytes, twice.sent_bytes)
        memory = [simulate.rank_bytes(TWO, 4, Work(micro_batches=8, passes=p))["crossing"] for p in (1, 2)]
        self.assertEqual(memory[0], 2 * memory[1])

    def test_messages_do_not_grow_with_micro_batches(self):
        few, many = (simulate.product(TWO, PLAIN, 4, Work(micro_batches=m)) for m in (1, 64))
        self.assertEqual((few.calls, few.sent_bytes), (many.calls, many.sent_bytes))


class Rings(unittest.TestCase):
    def test_across_hosts(self):
        self.assertAlmostEqual(PLAIN.ring(8, 80), 7 * (0.1 + 1))
        # 16 ranks on two hosts: 15 steps, one of them across, all at the pace of the slowest link.
        self.assertAlmostEqual(PLAIN.ring(16, 160), 14 * 0.1 + 0.2 + 15 * 10 / 5)
        self.assertEqual(PLAIN.ring(1, 100), 0)
        self.assertAlmostEqual(PLAIN.small_sum(16), 2 * (3 * 0.1 + 0.2))


class Stragglers(unittest.TestCase):
    machine = replace(PLAIN, straggler=0.1)

    def test_the_seed_decides(self):
        take = lambda seed: simulate.product(TWO, self.machine, 8, Work(micro_batches=4), seed).seconds
        self.assertEqual(take(1), take(1))
        self.assertNotEqual(take(1), take(2))

    def test_all_wait_for_the_slowest(self):
        calm = simulate.product(TWO, PLAIN, 64, Work(micro_batches=64))
        rough = simulate.product(TWO, self.machine, 64, Work(micro_batches=64))
        self.assertGreater(rough.waiting, calm.waiting)
        self.assertGreater(rough.seconds, 1.1 * calm.seconds)


class Models(unittest.TestCase):
    def test_parameters_are_the_public_ones(self):
        # meta-llama's 7B, 70B and 405B: 6,738,415,616, 70,553,706,496 and 405,853,388,800.
        counts = [programs.known(name).parameters for name in programs.SHAPES]
        self.assertEqual(counts, [6_738_415_616, 70_553_706_496, 405_853_388_800])

    def test_layers_in_a_segment(self):
        one, four = programs.known("70b"), programs.known("70b", layers_each=4)
        self.assertEqual(one.parameters, four.parameters)
        self.assertAlmostEqual(one.flops / four.flops, 1)
        self.assertEqual(len(four.segments), 2 + 20)
        for parts in (2, 4):
            cut = programs.known("70b", parts=parts)
            self.assertEqual((cut.parameters, len(cut.segments)), (one.parameters, 2 + 80 * parts))
            self.assertAlmostEqual(cut.flops / one.flops, 1)

    def test_memory_by_hand(self):
        found = simulate.rank_bytes(TWO, 2, Work(micro_batches=3, vectors=2, basis_rows=5))
        self.assertEqual(found, {"parameters": 10, "vectors": 8 * 5 * 4, "basis": 2 * 5 * 2 * 5, "gathered": 2 * 6 * (2 + 3 * 4), "sums": 2 * 2 * 6 * 4,
                                 "crossing": 3 * 3 * (16 + 16)})

    def test_efficiency_falls_with_ranks_and_rises_with_rows(self):
        machine = Machine(2e14, 2.5e12, 8, Link(3.6e11, 3.4e-6), Link(4e10, 9.6e-6))
        at = lambda ranks, rows: curves.point("7b", machine, ranks, rows, Work()).efficiency
        self.assertLess(at(64, 64), at(8, 64))
        self.assertLess(at(64, 64), at(64, 512))
        self.assertTrue(0 < at(64, 64) < 1 and math.isclose(at(1, 64), 1, rel_tol=0.05))


class Check(unittest.TestCase):
    def write(self, folder, ranks, product_s, config="", **more):
        file = Path(folder) / f"{ranks}.h5"
        values = {"hvp_count": 10, "hvp_seconds": 10 * product_s, "communication_seconds": 0.1, "data_ranks": ranks, "groups": 1, "n_parameters_in_use": 100,
                  "message_bytes_per_step": 2 * (ranks - 1) * 4 * -(-100 // ranks), "messages_per_step": 7, "micro_batches": 1, "lock_step": 1,
                  **{f"seconds_{k}": 0.0 for k in ("values", "tangents", "adjoints", "adjoint_tangents", "products")}, **more}
        with h5py.File(file, "w") as f:
            for key, value in values.items():
                f[f"entry/diagnostics/{key}"] = value
            f["entry/process/config"] = "[compute]\ndtype = float32\n" + config
        return file

    def test_against_results(self):
        with tempfile.TemporaryDirectory() as folder:
            # Two ranks: half of 8 s, and 200 bytes each way at 100 bytes/s with 0.5 s a message.
            files = [self.write(folder, 1, 8.0), self.write(folder, 2, 9.0)]
            text = io.StringIO()
            worst = check.compare(files, {"bandwidth": 100, "latency": 0.5}, text)
            self.assertAlmostEqual(worst, 0, delta=1e-9)
            self.assertIn("| 2 | 9000.000 | 9000.000 | +0 % |", text.getvalue())
            self.assertIn("| 400 | 400 |", text.getvalue())
            with self.assertRaisesRegex(SystemExit, "one rank"):
                check.compare(files[1:], {"bandwidth": 100, "latency": 0.5}, text)

    def test_against_sharded_results(self):
        sharded = "parameters = sharded\n"
        with tempfile.TemporaryDirectory() as folder:
            # Two segments, visited 3, 8 and 8 units long: half of 19 s on two ranks. Three gathers of 50 entries, as parameters and as a vector, and two sums: at 100 bytes/s
            # and 0.5 s a message 2.5 s each and 1.5 s each.
            two = dict(messages_per_step=13, message_bytes_per_step=800)
            files = [self.write(folder, 1, 19.0, sharded, messages_per_step=0), self.write(folder, 2, 9.5 + 3 * 2.5 + 2 * 1.5, sharded, **two)]
            text = io.StringIO()
            self.assertAlmostEqual(check.compare(files, {"bandwidth": 100, "latency": 0.5}, text), 0, delta=1e-9)
            self.assertIn("| 800 | 800 |", text.getvalue())
            # Two ranks on one core: no rank is faster than one alone.
            files[1] = self.write(folder, 2, 19 + 3 * 2.5 + 2 * 1.5, sharded, **two)
            self.assertAlmostEqual(check.compare(files, {"bandwidth": 100, "latency": 0.5}, text, cores=1), 0, delta=1e-9)


if __name__ == "__main__":
    unittest.main()
