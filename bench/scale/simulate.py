"""A discrete-event simulation of a group of ranks that shares its parameters: one product, and one Lanczos step.

Each rank has two streams, one that computes and one that sends; a stream takes its tasks in order. A task begins when its stream is free and the
tasks that it waits for are done. A collective begins when all ranks of the group have come to it, and ends for all at once, after the time of a ring.
Ranks differ in speed by a seed. Seconds, bytes and operations throughout.
"""

import heapq
import math
import random
from dataclasses import dataclass, field

# In units of one matrix product per layer, and of that for each vector: values forwards; values, adjoints and what the vectors add to both.
FORWARD, FORWARD_VECTOR, BOTH, BOTH_VECTOR = 1, 2, 2, 6
SMALL_SUMS = 5  # of a Lanczos step: three sums, one to agree on errors, one to stop


@dataclass(frozen=True)
class Link:
    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Machine:
    flops: float  # operations a second of a rank
    memory_rate: float  # bytes a second
    ranks_on_node: int
    inside: Link
    between: Link
    call: float = 0.0  # of every collective
    straggler: float = 0.0  # standard deviation of a task's time, relative; half of it is a rank's own for good
    memory: float = math.inf

    @staticmethod
    def of(values):
        plain = {k: v for k, v in values.items() if k in ("flops", "memory_rate", "ranks_on_node", "call", "straggler", "memory")}
        return Machine(inside=Link(**values["inside"]), between=Link(**values["between"]), **plain)

    def ring(self, ranks, size):
        """An all-gather to `size` bytes, or a reduce-scatter of them, round a ring of neighbours: every step waits for the slowest link."""
        if ranks == 1:
            return 0.0
        nodes = math.ceil(ranks / self.ranks_on_node)
        links = [self.inside] if nodes == 1 else [self.between] if self.ranks_on_node == 1 else [self.inside, self.between]
        steps, across = ranks - 1, nodes - 1
        latency = across * self.between.latency + (steps - across) * self.inside.latency
        return self.call + latency + size / ranks * steps / min(link.bandwidth for link in links)

    def small_sum(self, ranks):
        """An all-reduce of a few numbers, up a tree and down."""
        if ranks == 1:
            return 0.0
        nodes = math.ceil(ranks / self.ranks_on_node)
        inside = math.ceil(math.log2(min(ranks, self.ranks_on_node)))
        return self.call + 2 * (inside * self.inside.latency + math.ceil(math.log2(nodes)) * self.between.latency)


@dataclass(frozen=True)
class Work:
    """What a rank has to do in a product."""

    micro_batches: int = 1
    passes: int = 1  # over the program: each with some of the micro-batches, of which alone something crosses cuts at once
    vectors: int = 1
    ahead: int = 1  # segments that are fetched ahead; 0: none
    sum_buffers: int = 2  # 1: a segment's products must be summed before the next one's are begun
    basis_rows: int = 40  # of the Lanczos basis, that a step passes over twice
    basis_bytes: int = 2  # of an entry


@dataclass(eq=False)
class Task:
    name: str
    stream: str  # "compute" or "send"
    seconds: float
    collective: bool = False
    after: list = field(default_factory=list)  # tasks, by number


def tasks_of_product(program, machine, ranks, work):
    """In the order in which a rank begins them on each stream."""
    k = work.vectors
    segments = program.segments
    visits = [(s, False) for s in range(len(segments) - 1)] + [(s, True) for s in reversed(range(len(segments)))]
    visits = visits * work.passes
    in_pass = -(-work.micro_batches // work.passes)
    fetched_bytes = lambda s: segments[s].parameters * (program.stored_bytes + k * program.run_bytes)
    tasks, gathers, computes, sums = [], [], [], []

    def add(task):
        tasks.append(task)
        return len(tasks) - 1

    def gather(visit):
        # Its buffer was that of the visit before the last: of `ahead` and one in use.
        after = [computes[visit - work.ahead - 1]] if visit > work.ahead else []
        # Parameters and vectors are two calls.
        seconds = machine.ring(ranks, fetched_bytes(visits[visit][0])) + (machine.call if ranks > 1 else 0)
        gathers.append(add(Task(f"gather {visit}", "send", seconds, True, after)))

    for visit in range(min(work.ahead, len(visits))):
        gather(visit)
    for visit, (s, backwards) in enumerate(visits):
        if visit + work.ahead < len(visits):
            gather(visit + work.ahead)
        units = BOTH + k * BOTH_VECTOR if backwards else FORWARD + k * FORWARD_VECTOR
        after = [gathers[visit]]
        if backwards and len(sums) >= work.sum_buffers:
            after.append(sums[-work.sum_buffers])
        computes.append(add(Task(f"compute {visit}", "compute", in_pass * units * segments[s].flops / machine.flops, False, after)))
        if backwards:
            seconds = machine.ring(ranks, k * program.run_bytes * segments[s].parameters)
            sums.append(add(Task(f"sum {visit}", "send", seconds, True, [computes[-1]])))
    return tasks


def lanczos_tasks(program, machine, ranks, work, after):
    """Between products: passes over the basis, and sums of a few numbers."""
    entries = program.parameters / ranks
    seconds = work.vectors * (2 * work.basis_rows * work.basis_bytes + 7 * program.run_bytes) * entries / machine.memory_rate
    tasks = [Task("vectors", "compute", seconds, False, after)]
    return tasks + [Task("small sums", "send", SMALL_SUMS * machine.small_sum(ranks), True, [-1])]


@dataclass
class Outcome:
    seconds: float
    busy: float  # seconds of arithmetic, mean of the ranks
    waiting: float  # the rest
    sending: float  # seconds that the send stream works
    sent_bytes: float
    calls: int
    events: int


def run(tasks, ranks, straggler=0.0, seed=0):
    """Walks through the tasks on all ranks. :return: the time at which the last is done, each rank's time of arithmetic, and the number of events"""
    dice = random.Random(seed)
    own = [max(0.5, 1 + straggler / math.sqrt(2) * dice.gauss(0, 1)) for _ in range(ranks)]
    streams = {"compute": [i for i, t in enumerate(tasks) if t.stream == "compute"], "send": [i for i, t in enumerate(tasks) if t.stream == "send"]}
    place = [{name: 0 for name in streams} for _ in range(ranks)]  # the next of each stream
    free = [{name: True for name in streams} for _ in range(ranks)]
    missing = [[len(t.after) for t in tasks] for _ in range(ranks)]
    readers = [[] for _ in tasks]
    for i, task in enumerate(tasks):
        for before in task.after:
            readers[before].append(i)
    arrived = [0] * len(tasks)
    busy = [0.0] * ranks
    events, queue, number, now = 0, [], 0, 0.0

    def push(time, rank, task):
        nonlocal number
        heapq.heappush(queue, (time, number, rank, task))
        number += 1

    def begin(rank, name):
        """The next task of a stream, if it may."""
        if not free[rank][name] or place[rank][name] == len(streams[name]):
            return
        i = streams[name][place[rank][name]]
        if missing[rank][i] > 0:
            return
        free[rank][name] = False
        if tasks[i].collective:
            arrived[i] += 1
            if arrived[i] == ranks:  # one event ends it for all
                push(now + tasks[i].seconds, -1, i)
            return
        jitter = max(0.5, own[rank] + straggler / math.sqrt(2) * dice.gauss(0, 1)) if straggler else 1.0
        seconds = tasks[i].seconds * jitter
        busy[rank] += seconds
        push(now + seconds, rank, i)

    def end(rank, i):
        name = tasks[i].stream
        free[rank][name] = True
        place[rank][name] += 1
        for reader in readers[i]:
            missing[rank][reader] -= 1
        for stream in streams:
            begin(rank, stream)

    for rank in range(ranks):
        for name in streams:
            begin(rank, name)
    while queue:
        now, _, rank, i = heapq.heappop(queue)
        events += 1
        for each in range(ranks) if rank < 0 else (rank,):
            end(each, i)
    left = [tasks[streams[n][place[r][n]]].name for r in range(ranks) for n in streams if place[r][n] < len(streams[n])]
    if left:
        raise RuntimeError(f"these tasks wait for one another: {sorted(set(left))[:5]}")
    return now, busy, events


def product(program, machine, ranks, work=Work(), seed=0, with_lanczos=False):
    """One product of the group, with what a Lanczos step adds to it where asked."""
    tasks = tasks_of_product(program, machine, ranks, work)
    if with_lanczos:
        last = len(tasks)
        sums = max(i for i, t in enumerate(tasks) if t.name.startswith("sum"))
        for task in lanczos_tasks(program, machine, ranks, work, [sums]):
            task.after = [last if a == -1 else a for a in task.after]
            tasks.append(task)
    seconds, busy, events = run(tasks, ranks, machine.straggler, seed)
    mean = sum(busy) / ranks
    sends = [t for t in tasks if t.collective and t.name != "small sums"]
    sizes = [segment_bytes(program, work, t) for t in sends]
    return Outcome(seconds, mean, seconds - mean, sum(t.seconds for t in tasks if t.stream == "send"), sum(sizes) / ranks * (ranks - 1),
                   sum(2 if t.name.startswith("gather") else 1 for t in sends) if ranks > 1 else 0, events)


def segment_bytes(program, work, task):
    """That a collective carries, whole."""
    kind, visit = task.name.split()
    last = len(program.segments) - 1
    visit = int(visit) % (2 * last + 1)
    s = visit if visit < last else 2 * last - visit
    each = work.vectors * program.run_bytes + (program.stored_bytes if kind == "gather" else 0)
    return program.segments[s].parameters * each


def rank_bytes(program, ranks, work):
    """Memory of a rank: its shares, segments that are whole, a segment's products, and what crosses the cuts (docs/plan.md)."""
    k, e = work.vectors, program.run_bytes
    share = program.parameters / ranks
    largest = max(s.parameters for s in program.segments)
    crossing = [s.crossing * e for s in program.segments]
    return {
        "parameters": share * program.stored_bytes,
        "vectors": (3 * k + 2) * share * e,
        "basis": k * (work.basis_rows * work.basis_bytes) * share,
        "gathered": (1 + work.ahead) * largest * (program.stored_bytes + (1 + k) * e),
        "sums": work.sum_buffers * k * largest * e,
        "crossing": -(-work.micro_batches // work.passes) * (1 + k) * (sum(crossing) + max(crossing)),
    }
