"""One run of one peer in a process of its own: reads a JSON request on stdin, prints a JSON answer as its last line.

Request: problem, tool, seed, options of the adapter, and tasks {name: settings}. Times are core-seconds, user and system
together. Start-up (imports; model and data) is measured apart; what an adapter does when it is made (PyHessian: the first
gradient) counts as `setup` of the computation.
"""

import json
import sys
import time


def peak_bytes():
    """Not getrusage's, which remembers the process that this one was forked from."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


def main():
    request = json.load(sys.stdin)
    import torch

    torch.set_num_threads(1)
    import peers
    import problems

    {"pyhessian": lambda: __import__("pyhessian"), "curvlinops": lambda: __import__("curvlinops"),
     "eigenthings": lambda: __import__("hessian_eigenthings")}[request["tool"]]()
    imported = time.process_time()
    problem = problems.problem(request["problem"])
    torch.manual_seed(request["seed"])
    loaded, before = time.process_time(), peak_bytes()
    adapter = peers.ADAPTERS[request["tool"]](problem, **request.get("options", {}))
    ready = time.process_time()
    answer = {"imports_s": imported, "load_s": loaded - imported, "setup_s": ready - loaded, "start_bytes": before, "tasks": {}}
    for task, settings in request["tasks"].items():
        count, start, wall = adapter.products, time.process_time(), time.monotonic()
        found = adapter.top(10, **settings) if task == "top" else getattr(adapter, task)(**settings)
        found |= {"core_s": time.process_time() - start, "wall_s": time.monotonic() - wall, "products": adapter.products - count, "peak_bytes": peak_bytes()}
        answer["tasks"][task] = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in found.items()}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
