"""A series file: read, drawn, as tables, in trackers. The file is made by hand, after the layout that `hesspect series` writes."""

import csv
import json
import re

import h5py
import numpy as np
import pytest

import hesspect
from conftest import series_eigenvalues, write_result, write_series
from hesspect import plot, series_views, track
from hesspect import tables as tables_command
from hesspect.series import is_series
from hesspect.series_panels import steps
from hesspect.theme import THEMES


@pytest.fixture
def series_file(tmp_path):
    return write_series(tmp_path / "series.h5")


def test_arrays_with_units(series_file):
    series = hesspect.open_series(series_file)
    assert len(series) == 40 and series.step[[0, -1]].tolist() == [100, 4000] and series.name[2] == "ckpt/step_300.safetensors" and series.result[2] == "series/00000300.h5"
    expected = series_eigenvalues(40, 8)
    expected[7] = np.nan
    np.testing.assert_array_equal(series.eigenvalues, expected)
    assert series.fresh.tolist() == [True] + 39 * [False] and np.isnan(series.trace[7]) and np.isnan(series.overlap[0])
    assert series.units["eigenvalues"] == "loss/parameter^2" and "largest first" in series.long_names["eigenvalues"]
    assert repr(series) == f"Series({series_file}, 40 checkpoints, steps 100 to 4000, λ₁ from 8 to {expected[-1, 0]:.6g})"
    assert "40" in series._repr_html_() and "data:image/png" in series._repr_html_()


def test_told_from_a_result(tmp_path, series_file):
    result = write_result(tmp_path / "r.h5")
    assert is_series(series_file) and not is_series(result) and not is_series(tmp_path / "none.h5") and not is_series(tmp_path)
    with pytest.raises(hesspect.ResultError, match="not a series of hesspect"):
        hesspect.open_series(result)
    with pytest.raises(hesspect.ResultError, match="no such file"):
        hesspect.open_series(tmp_path / "none.h5")
    (tmp_path / "cut.h5").write_bytes(series_file.read_bytes()[:4000])
    with pytest.raises(hesspect.ResultError, match="cut.h5: not an HDF5 file, or a broken one"):
        hesspect.open_series(tmp_path / "cut.h5")


@pytest.mark.parametrize("path, values, line", [("trace/value", np.zeros(39), "step and trace have 40 and 39 entries along checkpoint"),
                                                ("eigenvalues/lower", np.zeros((40, 3)), "eigenvalues and eigenvalue_lower have 8 and 3 entries along rank"),
                                                ("density/lambda", np.zeros(40), "lambdas has 1 axes, expected 2: checkpoint, point")])
def test_what_does_not_fit_together(series_file, path, values, line):
    with h5py.File(series_file, "r+") as file:
        del file[f"entry/{path}"]
        file[f"entry/{path}"] = values
    with pytest.raises(hesspect.ResultError, match=re.escape(line)):
        hesspect.open_series(series_file)


def test_the_result_of_a_checkpoint(tmp_path, series_file):
    (tmp_path / "series").mkdir()
    write_result(tmp_path / "series/00000300.h5")
    series = hesspect.open_series(series_file)
    assert series.read(2).trace == 118.7
    with pytest.raises(hesspect.ResultError, match="no such file"):
        series.read(3)


def test_read_while_it_is_replaced(tmp_path, series_file):
    """The writer renames a new file over the old one: whoever has that open keeps it, the next reader has the new one."""
    with h5py.File(series_file, "r", locking=False) as file:
        write_series(tmp_path / "next.h5", checkpoints=41).rename(series_file)
        assert file["entry/checkpoints/step"].shape == (40,) and len(hesspect.open_series(series_file)) == 41


def test_the_heat_map_shows_the_density_where_it_is(series_file):
    """Against the file's own numbers: each column's colour at λ is the density there, and λ₁ lies on its track."""
    series = hesspect.open_series(series_file)
    axes = series_views.draw_part(series, "density").axes[0]
    mesh = axes.collections[0]
    colours = mesh.get_array()
    bounds = mesh.get_coordinates()
    middle = (bounds[1:, 0, 1] + bounds[:-1, 0, 1]) / 2
    for column in (0, 20, 39):
        lam, rho = series.lambdas[column], series.density[column]
        inside = (middle > lam[0]) & (middle < lam[-1])
        expected = np.interp(middle[inside], lam, rho)
        seen = np.asarray(colours[:, column])[inside]
        shown = expected > mesh.norm.vmin * 2
        np.testing.assert_allclose(seen[shown], expected[shown], rtol=0.05, atol=mesh.norm.vmax * 1e-4)
        assert bounds[0, column, 0] < series.step[column] < bounds[0, column + 1, 0]
    assert np.ma.getmaskarray(colours)[:, 7].all() and not np.ma.getmaskarray(colours)[:, 8].any()  # the checkpoint that has failed
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), series.eigenvalues[:, 0])
    assert mesh.norm.vmax / mesh.norm.vmin <= 1.001e6 and axes.get_ylim()[1] > np.nanmax(series.eigenvalues)


def test_tracks_bands_and_the_edge_of_stability(series_file):
    series = hesspect.open_series(series_file)
    axes = series_views.draw_part(series, "eigenvalues").axes[0]
    tracks = [line for line in axes.lines if line.get_label() != "2/η"]
    assert len(tracks) == 8 and len(axes.collections) == 8
    for rank, line in enumerate(tracks):
        np.testing.assert_array_equal(line.get_ydata(), series.eigenvalues[:, rank])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(series.eigenvalue_lower[0, 0]) and band[:, 0].max() == series.step[6]  # the band ends where nothing is known
    (edge,) = [line for line in axes.lines if line.get_label() == "2/η"]
    assert edge.get_ydata() == pytest.approx(100.0)
    assert axes.get_yscale() == "log"
    trace = series_views.draw_part(series, "trace").axes[0]
    assert trace.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(series.trace[0] - 2 * series.trace_stderr[0])


def test_commands(tmp_path, series_file, capsys):
    assert plot.main([str(series_file), "--theme", "dark"]) == 0
    assert series_file.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert plot.main([str(series_file), "--what", "all", "-o", str(tmp_path / "p.svg")]) == 0
    assert sorted(p.name for p in tmp_path.glob("p-*.svg")) == [f"p-{what}.svg" for what in sorted(series_views.PARTS)]
    capsys.readouterr()
    assert plot.main([str(series_file), "--what", "quadrature"]) == 4
    assert "a series has density, eigenvalues, trace, overlap, layers, stability" in capsys.readouterr().err
    assert plot.main([str(write_result(tmp_path / "r.h5")), "--what", "overlap"]) == 4
    assert "overlap is a part of series alone" in capsys.readouterr().err
    with pytest.raises(hesspect.UsageError, match="did you mean 'eigenvalues'"):
        hesspect.open_series(series_file).plot("eigenvalue")


@pytest.mark.parametrize("without, drawn", [(("density",), 4), (("eigenvalues", "trace", "stability", "overlap", "layers"), 1), (("density", "eigenvalues", "trace"), 2)])
def test_draws_what_there_is(tmp_path, without, drawn):
    series = hesspect.open_series(write_series(tmp_path / "s.h5", without=without))
    axes = [a for a in series.plot().axes if a.get_label() != "<colorbar>"]
    assert len(axes) == drawn


def test_one_checkpoint_none_and_nothing_to_draw(tmp_path, capsys):
    one = hesspect.open_series(write_series(tmp_path / "one.h5", checkpoints=1))
    for theme in THEMES:
        one.plot(theme=theme)
    for what in ("density", "layers", "eigenvalues"):
        one.plot(what)
    empty = write_series(tmp_path / "empty.h5", checkpoints=0, without=("layers", "density"))
    assert len(hesspect.open_series(empty)) == 0 and "0 checkpoints" in repr(hesspect.open_series(empty)) and hesspect.open_series(empty)._repr_html_()
    assert plot.main([str(empty)]) == 4
    said = capsys.readouterr().err
    assert "nothing to draw" in said and said.count("\n") == 1
    assert track.main([str(empty), "--to", "tensorboard", str(tmp_path / "t")]) == 4
    assert "no checkpoint yet" in capsys.readouterr().err


def test_steps_that_are_not_ascending(tmp_path):
    path = write_series(tmp_path / "s.h5", checkpoints=5)
    with h5py.File(path, "r+") as file:
        file["entry/checkpoints/step"][...] = [3, 1, 2, 5, 4]
    at, name = steps(hesspect.open_series(path))
    assert at.tolist() == [0, 1, 2, 3, 4] and name == "checkpoint"
    assert [point.step for point in series_views.points(hesspect.open_series(path))] == [1, 2, 3, 4, 5]
    with h5py.File(path, "r+") as file:
        file["entry/checkpoints/step"][2] = -1
    with pytest.raises(hesspect.ResultError, match="the step of step_300.safetensors is not known"):
        series_views.points(hesspect.open_series(path))


def test_tables(tmp_path, series_file, capsys):
    assert tables_command.main([str(series_file), "-o", str(tmp_path / "t")]) == 0
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == ["checkpoints.csv", "columns.csv", "density.csv", "eigenvalues.csv", "layers.csv"]
    rows = list(csv.DictReader(open(tmp_path / "t/eigenvalues.csv")))
    series = hesspect.open_series(series_file)
    assert len(rows) == 39 * 8 and rows[0]["rank"] == "1" and rows[8]["step"] == "200"  # the failed checkpoint's padding is left out
    assert [float(row["value"]) for row in rows[:8]] == series.eigenvalues[0].tolist() and float(rows[3]["lower"]) == series.eigenvalue_lower[0, 3]
    checkpoints = list(csv.DictReader(open(tmp_path / "t/checkpoints.csv")))
    assert len(checkpoints) == 40 and checkpoints[7]["trace"] == "NaN" and float(checkpoints[8]["trace"]) == series.trace[8] and checkpoints[0]["fresh"] == "1"
    layers = list(csv.DictReader(open(tmp_path / "t/layers.csv")))
    assert layers[1]["name"] == "blocks.1.weight" and float(layers[1]["trace"]) == series.layer_traces[0, 1]
    assert tables_command.main([str(series_file), "--format", "json", "-o", str(tmp_path / "j")]) == 0
    assert json.loads((tmp_path / "j/checkpoints.json").read_text())["data"]["trace"][7] is None


def test_frames_and_datasets(series_file):
    pytest.importorskip("pandas")
    series = hesspect.open_series(series_file)
    frames = series.to_pandas()
    assert frames["eigenvalues"]["value"].iloc[0] == series.eigenvalues[0, 0] and frames["eigenvalues"].attrs["units"]["value"] == "loss/parameter^2"
    pytest.importorskip("xarray")
    data = series.to_xarray()
    assert data.eigenvalues.dims == ("checkpoint", "rank") and data.eigenvalues.attrs["units"] == "loss/parameter^2"
    assert data.step.values[3] == 400 and data.layer_traces.sel(layer="blocks.2.weight")[0] == series.layer_traces[0, 2]


def test_smallest_eigenvalues_are_counted_from_the_other_end(tmp_path):
    series = hesspect.open_series(write_series(tmp_path / "s.h5", top=6))
    assert series.top == 6 and series.n_top == 6
    found = track.metrics(series_views.points(series)[0])
    assert found["eigenvalue/6"] == series.eigenvalues[0, 5] and found["eigenvalue/-1"] == series.eigenvalues[0, 7] and "eigenvalue/7" not in found
    assert series_views.tables(series)["eigenvalues"]["rank"][:8] == [1, 2, 3, 4, 5, 6, -2, -1]
    labels = [text.get_text() for text in series.plot("eigenvalues").axes[0].get_legend().get_texts()]
    assert {"λ₁", "λ₆", "smallest", "2/η"} < set(labels) and "λ₈" not in labels


def test_scalars_under_their_steps(tmp_path, series_file, monkeypatch):
    series = hesspect.open_series(series_file)
    found = series_views.points(series)
    first, failed = track.metrics(found[0]), track.metrics(found[7])
    assert first["eigenvalue/1"] == 8.0 and first["trace/value"] == series.trace[0] and first["layer/blocks.0.weight/trace"] == series.layer_traces[0, 0]
    assert "overlap/subspace" not in first and track.metrics(found[1])["overlap/subspace"] == pytest.approx(0.7)
    assert set(failed) == {"stability/learning_rate", "diagnostics/loss", "diagnostics/products/total", "seconds"}  # what a failed checkpoint has
    given = []
    monkeypatch.setitem(track.TRACKERS, "tensorboard", lambda found, folder, name: given.extend(found) or folder / name)
    assert track.main([str(series_file), "--to", "tensorboard", str(tmp_path)]) == 0
    assert [step for step, _ in given] == list(range(100, 4001, 100))
    with pytest.raises(SystemExit):
        track.main([str(series_file), "--to", "tensorboard", str(tmp_path), "--steps", "1"])


def test_tensorboard(tmp_path, series_file):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track.main([str(series_file), "--to", "tensorboard", str(tmp_path / "runs"), "--name", "mine"]) == 0
    events = EventAccumulator(str(tmp_path / "runs/mine"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    series = hesspect.open_series(series_file)
    told = {event.step: event.value for event in events.Scalars("eigenvalue/1")}
    assert told == {int(step): np.float32(value) for step, value in zip(series.step, series.eigenvalues[:, 0]) if np.isfinite(value)}
    assert {"density", "eigenvalues", "trace"} <= set(events.Tags()["images"])


def test_wandb(tmp_path, series_file):
    pytest.importorskip("wandb")
    assert track.main([str(series_file), "--to", "wandb", str(tmp_path / "w"), "--name", "mine"]) == 0
    (log,) = (tmp_path / "w").glob("wandb/offline-run-*/*.wandb")
    assert log.stat().st_size > 10_000
