"""What a product takes, side by side: all tools hold the same problem at once, and are asked for a product in turn.

    bench/versus/run --products gpt1m minilm64        # adds to build/versus/products.jsonl
    bench/versus/run --products-report                # the tables, from what is there

All on one core, one thread, the same micro-batches and allocator settings; CPU seconds of the process. In its turn a tool takes two products, of which
the second counts. Before any time is taken the tools'
products with one vector are compared: vᵀHv and |Hv| of v = (1, …, 1) / √n. Peak memory is that of the process after two products with one
vector; "above start" is without what it was once libraries, model and data had been loaded. "In turn" are ratios within one alternation,
which what disturbs both leaves alone.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import problems
import runs

HERE = Path(__file__).resolve().parent
MODES = ("kept", "rebuilt", "segments", "autograd", "ggn", "bf16")  # of hesspect; bf16: kept, where the CPU has units for it
PEERS = ("pyhessian", "pyhessian-whole", "curvlinops", "eigenthings")
BLOCK = 4
BLOCK_ROUNDS = 2
BLOCK_PARAMETERS = 20_000_000  # at most: beyond, blocks take minutes
BLOCKS = ("kept", "rebuilt", "segments")  # modes that are also timed with so many vectors at once
OUT = problems.MADE / "products.jsonl"
LIBRARIES = {"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1"}  # a line for each call, with its time
CALL = re.compile(r"MKL_VERBOSE \w*GEMM\w*\(.*\) ([\d.]+)(ns|us|ms|s) CNR|onednn_verbose,.*,exec,cpu,(?:convolution|deconvolution|matmul|inner_product),.*,([\d.]+)$")
UNIT = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


class Server:
    """A process that holds a problem and answers lines."""

    def __init__(self, name, command, core, environment=None):
        self.name, started, self.library_s = name, time.monotonic(), 0.0
        self.said = open(problems.MADE / f"server-{name}.log", "w")
        self.process = subprocess.Popen(["stdbuf", "-oL", "taskset", "-c", str(core), *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
                                        env=os.environ | runs.ENVIRONMENT | runs.ALLOCATOR | (environment or {}))
        word, kept, batches, base = self.line().split()
        self.base_bytes = int(base)
        if word != "ready" or name in ("kept", "autograd", "ggn", "bf16") and kept != batches:
            raise SystemExit(f"{name}: {kept} of {batches} micro-batches are kept")
        print(f"{name}: ready after {time.monotonic() - started:.0f} s", flush=True)

    def line(self):
        """The next line that is not a library's; the seconds that those say add up in library_s."""
        for text in self.process.stdout:
            if call := CALL.search(text.strip()):
                self.library_s += float(call[1]) * UNIT[call[2]] if call[1] else float(call[3]) * 1e-3
            elif "VERBOSE" not in text and not text.startswith("onednn_verbose"):
                return text.strip()
        raise SystemExit(f"{self.name} ended: {Path(self.said.name).read_text()[-1500:]}")

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def numbers(self, text):
        return [float(x) for x in self.ask(text).split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def problem_is_float32(problem):
    return "float32" in str(problem.dtype)


def commands(problem, server):
    """Of each tool that is asked for: name -> command."""
    after = dict(zip(problem.arguments[::2], problem.arguments[1::2]))
    hesspect = [after["--model"], after["--data"], after["--loss"], after["--samples"], after["--micro-batch"], after["--dtype"]]
    hesspect += [after["--weights"]] if "--weights" in after else []
    low = problem_is_float32(problem) and "amx_bf16" in Path("/proc/cpuinfo").read_text()
    every = {mode: [server, mode, *hesspect] for mode in MODES if mode != "bf16" or low}
    for tool in PEERS:
        if tool != "pyhessian-whole" or len(problem.batches) > 1:
            every[tool] = [sys.executable, HERE / "product_peer.py", tool, problem.name]
    return every


def check(servers, tolerance):
    """Compares the tools' products with one vector: {tool: [vᵀHv, |Hv|, whether it is hesspect's]}. (ggn is another matrix, bf16 in low precision.)"""
    found = {s.name: s.numbers("check") for s in servers}
    vhv, norm = found["kept"]
    for name, (a, b) in found.items():
        same = abs(b - norm) <= tolerance * norm and abs(a - vhv) <= tolerance * norm
        if not same and name in ("rebuilt", "segments", "autograd", "pyhessian", "pyhessian-whole"):
            raise SystemExit(f"{name}: vᵀHv {a:.9g}, |Hv| {b:.9g}; hesspect kept has {vhv:.9g}, {norm:.9g}")
        found[name] = [a, b, same or name in ("ggn", "bf16")]
    return found


def share(server):
    """{op: seconds} of one micro-batch's product."""
    ops, text = {}, server.ask("share")
    while text:
        op, seconds = text.rsplit(" ", 1)
        ops[op] = ops.get(op, 0.0) + float(seconds)
        text = server.line()
    return ops


def matrix_share(tool, command, core):
    """Seconds in matrix products and convolutions, as MKL and oneDNN say, and all seconds, of the quickest of three products."""
    server = Server(tool, command, core, LIBRARIES)
    server.numbers("product 1")
    found = []
    for _ in range(3):
        server.library_s = 0.0
        _, wall = server.numbers("product 1")
        found.append((wall, server.library_s))
    server.close()
    wall, library = min(found)
    return [library, wall]


def measure(name, binary, core, rounds, tools):
    """Adds a line with all rounds of one problem to OUT. Blocks, which take longest, are timed in the first BLOCK_ROUNDS alone."""
    problem = problems.problem(name)
    every = commands(problem, Path(binary).parent / "product_server")
    servers = [Server(tool, command, core) for tool, command in every.items() if not tools or tool in tools]
    agreement = check(servers, 2e-3 if problem_is_float32(problem) else 1e-9)
    for s in servers:
        s.numbers("product 1")
    memory = {s.name: [s.numbers("memory")[0], s.base_bytes] for s in servers}
    plan = [(s, 1) for s in servers] + [(s, BLOCK) for s in servers if s.name in BLOCKS and problem.n <= BLOCK_PARAMETERS]
    for s, k in plan:
        if k > 1:
            s.numbers(f"product {k}")
    times, loads = {}, []
    for turn in range(rounds):
        loads.append(os.getloadavg()[0])
        for s, k in plan[turn % len(plan):] + plan[:turn % len(plan)]:
            if k > 1 and turn >= BLOCK_ROUNDS:
                continue
            s.numbers(f"product {k}")  # the caches are full of another tool's arrays; in a run products follow one another
            cpu, wall = s.numbers(f"product {k}")
            times.setdefault(f"{s.name} x{k}" if k > 1 else s.name, []).append((cpu / k, wall / k))
    line = {"problem": name, "n": problem.n, "rows": problems.rows_of(name), "micro_batch": problem.batches[0][1].size(0), "dtype": str(problem.dtype),
            "date": time.strftime("%Y-%m-%d %H:%M"), "loads": loads, "agreement": agreement, "memory": memory, "times": times,
            "precision": next((s.numbers("precision") for s in servers if s.name == "bf16"), None),
            "share": {s.name: share(s) for s in servers if s.name in ("kept", "rebuilt", "segments")}}
    for s in servers:
        s.close()
    line["matrix"] = {tool: matrix_share(tool, every[tool], core) for tool in ("kept", "bf16", "pyhessian", "autograd") if tool in memory}
    with open(OUT, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(table(line), flush=True)


def seconds(line, tool):
    return [cpu for cpu, _ in line["times"][tool]]


def table(line):
    """Markdown of one problem."""
    reference = statistics.median(seconds(line, "kept"))
    out = [f"### {line['problem']}\n", f"{line['n']:,} parameters, {line['rows']} rows in micro-batches of {line['micro_batch']}, {line['dtype'].removeprefix('torch.')}; "
           f"{len(line['loads'])} alternations, load average {min(line['loads']):.1f} to {max(line['loads']):.1f}.\n",
           "| | seconds a product | least–most | over hesspect kept | in turn | peak MiB | above start |", "| --- | --- | --- | --- | --- | --- | --- |"]
    kept = seconds(line, "kept")
    for tool in line["times"]:
        mine = seconds(line, tool)
        turns = [a / b for a, b in zip(mine, kept)]  # of the same alternation: what disturbs both cancels
        middle = statistics.median(mine)
        memory = "{:.0f} | {:.0f}".format(*(b / 2**20 for b in (line["memory"][tool][0], line["memory"][tool][0] - line["memory"][tool][1]))) if tool in line["memory"] else " | "
        out.append(f"| {said(tool)} | {middle:.4g} | {min(mine):.4g}–{max(mine):.4g} | {middle / reference:.2f} | "
                   f"{statistics.median(turns):.2f} ({min(turns):.2f}–{max(turns):.2f}) | {memory} |")
    out.append("")
    for tool, (library, wall) in line["matrix"].items():
        out.append(f"{said(tool)}: {library:.3f} s of {wall:.3f} s are matrix products and convolutions ({100 * library / wall:.0f} %).")
    ops = line["share"].get("kept", {})
    total = sum(ops.values())
    most = ", ".join(f"{op.removesuffix(' own').removesuffix('.default').removeprefix('aten.')} {100 * s / total:.0f} %" for op, s in sorted(ops.items(), key=lambda i: -i[1])[:8])
    out.append(f"Kept, by op: {most}.")
    if line.get("precision"):
        out.append("\nIn bf16 a product is {:.1e} from float32's, relative, with random signs, {:.1e} with the leading eigenvectors.".format(*line["precision"]))
    other = [f"{said(t)}: vᵀHv {a:.6g}, |Hv| {b:.6g}" for t, (a, b, same) in line["agreement"].items() if not same]
    if other:
        a, b, _ = line["agreement"]["kept"]
        out.append(f"\nAnother product than all others' (vᵀHv {a:.6g}, |Hv| {b:.6g}): " + "; ".join(other) + ".")
    return "\n".join(out) + "\n"


def said(tool):
    mode, _, k = tool.partition(" x")
    name = f"hesspect, {mode}" if mode in MODES else {"pyhessian": "PyHessian, kept", "pyhessian-whole": "PyHessian, kept, all rows at once",
                                                      "curvlinops": "curvlinops", "eigenthings": "hessian-eigenthings"}[mode]
    return f"{name}, {k} at once (each)" if k else name


def report():
    """The last line of each problem."""
    lines = {}
    for text in open(OUT):
        line = json.loads(text)
        lines[line["problem"]] = line
    print("\n".join(table(line) for line in lines.values()))
