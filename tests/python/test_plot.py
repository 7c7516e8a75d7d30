import numpy as np
import pytest

import hesspect
from conftest import write_result
from hesspect import plot


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_draws_beside_the_result_by_default(result_file, capsys):
    assert plot.main([str(result_file)]) == 0
    picture = result_file.with_suffix(".png")
    assert capsys.readouterr().out.strip() == str(picture)
    assert is_png(picture) and picture.stat().st_size > 20_000
    assert sorted(p.name for p in result_file.parent.iterdir()) == ["result.h5", "result.png"]


def test_the_figure_shows_the_numbers(result_file):
    figure = plot.draw(hesspect.read(result_file), title="A title")
    axes, side = figure.axes
    assert axes.get_title(loc="left") == "A title"
    assert axes.get_yscale() == "log"
    listed = side.texts[0].get_text()
    for piece in ("24,058", "118.7 ± 4.200", "12.40", "smallest\n   1      −1.300", "not converged (2)"):
        assert piece in listed, piece


def test_the_cumulative_density_stands_beside(tmp_path):
    figure = plot.draw(hesspect.read(write_result(tmp_path / "r.h5", layout=2)))
    axes, cumulative, side = figure.axes
    assert axes.get_yscale() == "log" and cumulative.get_ylim()[0] < 0 < 1 < cumulative.get_ylim()[1]
    steps = cumulative.lines[0]
    assert steps.get_drawstyle() == "steps-post" and 0.8 in steps.get_ydata()
    assert "0.0310" in cumulative.get_title(loc="left")
    labels = [text.get_text() for text in cumulative.get_legend().get_texts()]
    assert "90 % band (jackknife)" in labels
    listed = side.texts[0].get_text()
    for piece in ("118.7 ± 7.500", "79 ± 1 %", "1.2 ± 0."):
        assert piece in listed, piece


def test_layers(tmp_path, capsys):
    path = write_result(tmp_path / "r.h5", layout=2)
    axes = plot.draw_layers(hesspect.read(path)).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.4, -0.13]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["stem.weight", "head.weight", "head.bias"]
    assert plot.main([str(path), "--layers"]) == 0
    assert is_png(tmp_path / "r-layers.png")
    capsys.readouterr()
    assert plot.main([str(write_result(tmp_path / "first.h5")), "--layers"]) == 4
    assert "no layers" in capsys.readouterr().err


@pytest.mark.parametrize("parts", [{"density": False}, {"eigenvalues": False}, {"trace": False}, {"density": False, "trace": False}])
def test_draws_what_there_is(tmp_path, parts):
    result = write_result(tmp_path / "r.h5", **parts)
    assert plot.main([str(result), "-o", str(tmp_path / "p.pdf")]) == 0
    assert (tmp_path / "p.pdf").read_bytes()[:4] == b"%PDF"


def test_bad_input_is_one_line_and_code_4(tmp_path, capsys):
    only_trace = write_result(tmp_path / "t.h5", density=False, eigenvalues=False)
    for args in ([str(tmp_path / "none.h5")], [str(only_trace)], [str(write_result(tmp_path / "r.h5")), "-o", str(tmp_path / "no" / "p.png")],
                 [str(tmp_path / "r.h5"), "-o", str(tmp_path / "p.xyz")]):
        assert plot.main(args) == 4
        error = capsys.readouterr().err
        assert error.startswith("hesspect.plot: ") and error.count("\n") == 1, error
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".png", ".xyz")]


def test_a_density_of_nan_is_refused(result_file, capsys):
    import h5py

    with h5py.File(result_file, "r+") as f:
        f["entry/density/density"][5] = np.nan
    assert plot.main([str(result_file)]) == 4
    assert "finite" in capsys.readouterr().err


def test_a_needle_of_a_bulk_is_drawn_again_enlarged(tmp_path):
    lam = np.linspace(-1.0, 50.0, 4000)
    peak = lambda at, sigma: np.exp(-0.5 * ((lam - at) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    needle = hesspect.Result(path=tmp_path / "r.h5", lambdas=lam, density=0.9998 * peak(0.0, 0.05) + 0.0002 * peak(48.0, 0.05))
    assert len(plot.draw(needle).axes[0].child_axes) == 1
    wide = hesspect.Result(path=tmp_path / "r.h5", lambdas=lam, density=peak(20.0, 8.0))
    assert not plot.draw(wide).axes[0].child_axes
