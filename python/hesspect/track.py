"""Results where a training run's other figures are: TensorBoard, Weights & Biases, MLflow; in a folder, without a network.

    python -m hesspect track RESULT.h5 --to tensorboard|wandb|mlflow DIR [--step 1000]
    python -m hesspect track SERIES.h5 --to tensorboard|wandb|mlflow DIR

Several results, as of the checkpoints of one training, go into one run, each at its `--steps`; the checkpoints of a series go in at the steps
that it has. Every single value of the result is a metric under its path (`trace/value`), the outermost eigenvalues are `eigenvalue/1`,
`eigenvalue/2`, ... and `eigenvalue/-1`, the smallest, and layers `layer/NAME`. How the run was started is its configuration; pictures and all
tables go with it. What is not known (NaN) is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hesspect.result import Result, ResultError, read
from hesspect.series import is_series, open_series
from hesspect.series_views import Point, points
from hesspect.tables import tables, write_tables

_OUTER = 10  # eigenvalues of each end


Tracked = Result | Point


def metrics(result: Tracked) -> dict[str, float]:
    """The numbers of a result that a tracker draws over steps, by name."""
    if isinstance(result, Point):
        return result.metrics()
    found: dict[str, float] = {}
    named = tables(result)
    for name, value in zip(named["scalars"]["name"], named["scalars"]["value"], strict=True):
        if isinstance(value, (int, float)) and not name.startswith("process/"):
            found[name] = float(value)
    theta = result.eigenvalues
    if theta is not None and theta.size:
        top = theta.size if result.n_top is None or result.n_magnitude else min(int(result.n_top), theta.size)
        found |= {f"eigenvalue/{i + 1}": float(theta[i]) for i in range(min(top, _OUTER))}
        found |= {f"eigenvalue/{i - theta.size}": float(theta[i]) for i in range(max(top, theta.size - _OUTER), theta.size)}
    for table, prefix, columns in (("layers", "layer", ("mean",)), ("block_summary_index", "block", ("largest", "smallest", "mean"))):
        for column in columns if table in named else ():
            if any(c.name == column for c in named[table].columns):
                found |= {f"{prefix}/{name}/{column}": float(value) for name, value in zip(named[table]["name"], named[table][column], strict=True)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def settings(result: Tracked) -> dict[str, str]:
    """How the run was started, and what on."""
    if isinstance(result, Point):
        return result.settings()
    found: dict[str, str] = {}
    for table in tables(result).values():
        for column in table.columns:
            if column.path.startswith("process/") and column.path != "process/argv":
                found[column.path.removeprefix("process/")] = "\n".join(map(str, column.values))
    scalars = tables(result)["scalars"]
    for name, value in zip(scalars["name"], scalars["value"], strict=True):
        if name.startswith("process/"):
            found[name.removeprefix("process/")] = str(value)
    return {"result": str(result.path), **dict(sorted(found.items()))}


def histogram(result: Tracked) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Edges of bins, and the expected number of eigenvalues in each, from the density."""
    if isinstance(result, Point) or result.density is None or not result.n_parameters:
        return None  # a series does not say how many parameters there are
    at = result.lambdas
    middle = (at[1:] + at[:-1]) / 2
    edges = np.concatenate([[at[0]], middle, [at[-1]]])
    return edges, np.maximum(result.density, 0) * np.diff(edges) * result.n_parameters


def _pictures(result: Tracked) -> dict[str, Any]:
    from hesspect import plot

    if isinstance(result, Point):
        return result.pictures()

    found = {}
    for part in plot.PARTS:
        try:
            found[part] = plot.draw_part(result, part)
        except ResultError:
            continue
    return found


def _close(pictures: dict[str, Any]) -> None:
    import matplotlib.pyplot

    for figure in pictures.values():
        matplotlib.pyplot.close(figure)


def _needs(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ResultError(f"--to {package} needs its library: pip install {package}")


def to_tensorboard(found: Sequence[tuple[int, Tracked]], folder: Path, name: str) -> Path:
    """Scalars, the spectrum as a histogram, pictures, configuration; a run is a folder."""
    _needs("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / name)) as writer:
        for step, result in found:
            for key, value in metrics(result).items():
                writer.add_scalar(key, value, step)
            bins = histogram(result)
            if bins is not None:
                edges, counts = bins
                middle = (edges[1:] + edges[:-1]) / 2
                writer.add_histogram_raw("eigenvalues", min=float(edges[0]), max=float(edges[-1]), num=float(counts.sum()), sum=float((counts * middle).sum()),
                                         sum_squares=float((counts * middle**2).sum()), bucket_limits=edges[1:].tolist(), bucket_counts=counts.tolist(), global_step=step)
            pictures = _pictures(result)
            for part, figure in pictures.items():
                writer.add_figure(part, figure, step)
            _close(pictures)
            writer.add_text("settings", "\n".join(f"    {k}: {v}" for k, v in settings(result).items()), step)
    return folder / name


def to_wandb(found: Sequence[tuple[int, Tracked]], folder: Path, name: str) -> Path:
    """A run of an offline directory: `wandb sync` sends it where it should go."""
    _needs("wandb", "wandb")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(project="hesspect", name=name, dir=str(folder), mode="offline", config=settings(found[-1][1]))
    where = Path(run.dir).parent
    try:
        for step, result in found:
            logged: dict[str, Any] = dict(metrics(result))
            bins = histogram(result)
            if bins is not None:
                edges, counts = _coarse(*bins)
                logged["eigenvalues"] = wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
            pictures = _pictures(result)
            logged |= {f"picture/{part}": wandb.Image(figure) for part, figure in pictures.items()}
            if len(found) == 1 and isinstance(result, Result):
                for table in tables(result).values():
                    if table.name in ("eigenvalues", "layers", "block_summary_index"):
                        logged[f"table/{table.name}"] = wandb.Table(columns=[c.name for c in table.columns],
                                                                    data=[list(row) for row in zip(*(c.values for c in table.columns), strict=True)])
            run.log(logged, step=step)
            _close(pictures)
    finally:
        run.finish()
    return where


def _coarse(edges: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], most: int = 512) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """At most so many bins, each some of the finer ones: Weights & Biases takes no more."""
    take = math.ceil(len(counts) / most)
    starts = np.arange(0, len(counts), take)
    return np.append(edges[starts], edges[-1]), np.add.reduceat(counts, starts)


def to_mlflow(found: Sequence[tuple[int, Tracked]], folder: Path, name: str) -> Path:
    """A run in a folder's store, under the experiment `hesspect`; tables and pictures are artifacts."""
    _needs("mlflow", "mlflow")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=folder.resolve().as_uri())
    experiment = client.get_experiment_by_name("hesspect")
    kept_under = experiment.experiment_id if experiment is not None else client.create_experiment("hesspect")
    run = client.create_run(kept_under, run_name=name).info.run_id
    status = "FAILED"
    try:
        for key, text in settings(found[-1][1]).items():
            client.log_param(run, key, text[:6000])
        for step, result in found:
            for key, number in metrics(result).items():
                client.log_metric(run, _mlflow_name(key), number, step=step)
            with tempfile.TemporaryDirectory() as made:
                base = Path(made) / str(step)
                base.mkdir(parents=True)
                if isinstance(result, Result):
                    write_tables(result, base)
                elif step == found[-1][0]:
                    write_tables(result.series, base)
                pictures = _pictures(result)
                for part, figure in pictures.items():
                    figure.savefig(base / f"{part}.png")
                _close(pictures)
                client.log_artifacts(run, made)
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)
    return folder / str(kept_under) / str(run)


def _mlflow_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


TRACKERS: dict[str, Callable[[Sequence[tuple[int, Tracked]], Path, str], Path]] = {"tensorboard": to_tensorboard, "wandb": to_wandb, "mlflow": to_mlflow}


def _steps(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """Of the command's line."""
    made = argparse.ArgumentParser(prog="hesspect track", description=(__doc__ or "").splitlines()[0])
    made.add_argument("results", type=Path, nargs="+", metavar="RESULT.h5|SERIES.h5")
    made.add_argument("--to", required=True, nargs=2, metavar=("|".join(TRACKERS), "DIR"), help="whose files to write, and the folder of its runs")
    made.add_argument("--name", help="of the run (default: the last result's file)")
    made.add_argument("--step", "--steps", dest="steps", type=_steps, metavar="N,N", help="the training's step of each result (default: 0, 1, ...)")
    return made


def main(argv: list[str] | None = None) -> int:
    own = parser()
    args = own.parse_args(argv)
    tracker, folder = args.to[0], Path(args.to[1])
    if tracker not in TRACKERS:
        own.error(f"no tracker {tracker!r}; there are {', '.join(TRACKERS)}")
    try:
        series = [path for path in args.results if is_series(path)]
        if series:
            if len(args.results) > 1 or args.steps is not None:
                own.error(f"{series[0]} is a series: it goes alone, and has its own steps")
            found: list[tuple[int, Tracked]] = [(point.step, point) for point in points(open_series(series[0]))]
        else:
            steps = args.steps if args.steps is not None else list(range(len(args.results)))
            if len(steps) != len(args.results) or sorted(set(steps)) != steps:
                own.error(f"{len(args.results)} results need as many ascending steps, not {', '.join(map(str, steps))}")
            found = [(step, read(path)) for step, path in zip(steps, args.results, strict=True)]
        where = TRACKERS[tracker](found, folder, args.name or args.results[-1].stem)
    except ResultError as error:
        print(f"hesspect: error: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        print(f"hesspect: error: {folder}: can't be written: {error.strerror or error}", file=sys.stderr)
        return 4
    print(where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
