"""Programs as a simulation sees them: segments with parameters, operations and what crosses their ends."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    parameters: int  # that it reads
    flops: float  # of its matrix products, once, for one micro-batch
    crossing: float  # values read behind its end, entries of one micro-batch


@dataclass(frozen=True)
class Program:
    name: str
    segments: tuple[Segment, ...]
    stored_bytes: int = 2  # of an entry, as ranks keep it
    run_bytes: int = 4

    @property
    def parameters(self):
        return sum(s.parameters for s in self.segments)

    @property
    def flops(self):
        return sum(s.flops for s in self.segments)


def joined(segments):
    return Segment(sum(s.parameters for s in segments), sum(s.flops for s in segments), segments[-1].crossing)


def llama(name, hidden, layers, heads, key_heads, intermediate, vocabulary, tokens=2048, rows=1, layers_each=1, parts=1):
    """A Llama in segments of some layers; one micro-batch has so many rows of so many tokens. Attention's scores are taken whole, masked or not.

    :param heads, key_heads: of queries and of keys and values
    :param parts: 2: attention and what follows it are segments of their own; 4: so are the three matrices of the latter
    """
    width = hidden // heads
    projections = 2 * hidden * hidden + 2 * hidden * width * key_heads
    wide = hidden * intermediate
    n = rows * tokens
    attention = Segment(projections + hidden, 2.0 * n * projections + 4.0 * n * tokens * hidden, n * hidden)
    # Behind the gate's matrix its output crosses, beside the input of both and the residual; behind the second their product.
    mlp = [Segment(wide + hidden, 2.0 * n * wide, n * (intermediate + hidden)), Segment(wide, 2.0 * n * wide, n * intermediate),
           Segment(wide, 2.0 * n * wide, n * hidden)]
    layer = {1: [joined([attention, *mlp])], 2: [attention, joined(mlp)], 4: [attention, *mlp]}[parts]
    segments = [Segment(vocabulary * hidden, 0.0, n * hidden)]
    for first in range(0, layers, layers_each):
        count = min(layers_each, layers - first)
        segments += [joined(layer * count)] if count > 1 else layer
    # The last norm goes with the head, whose output is the loss's alone.
    segments.append(Segment(vocabulary * hidden + hidden, 2.0 * n * vocabulary * hidden, 0))
    return Program(name, tuple(segments))


# Public shapes: of Llama 2 7B, and of Llama 3 70B and 3.1 405B.
SHAPES = {
    "7b": dict(hidden=4096, layers=32, heads=32, key_heads=32, intermediate=11008, vocabulary=32000),
    "70b": dict(hidden=8192, layers=80, heads=64, key_heads=8, intermediate=28672, vocabulary=128256),
    "405b": dict(hidden=16384, layers=126, heads=128, key_heads=8, intermediate=53248, vocabulary=128256),
}


def known(name, **options):
    return llama(name, **SHAPES[name], **options)
