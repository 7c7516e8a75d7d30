from pathlib import Path

import numpy as np
import pytest

import hesspect
from conftest import write_blocks, write_landscape, write_result
from hesspect import plot
from hesspect.theme import THEMES


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
    assert axes.get_yscale() == cumulative.get_yscale() == "log" and axes.get_xscale() == cumulative.get_xscale() == "symlog"
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


def test_both_tails_of_the_cumulative_density(tmp_path):
    """As many of the n = 24,058 eigenvalues as F says lie beyond λ: it was one bare step at zero."""
    figure = plot.draw_part(hesspect.read(write_result(tmp_path / "r.h5", layout=2)), "cumulative")
    left, right = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    n = 24058
    assert left.get_xdata().tolist() == [-1.3, 0.0] and left.get_ydata() == pytest.approx([0.01 * n] * 2)
    assert right.get_xdata().tolist() == [0.0, 0.0, 0.3, 12.4, 12.4]
    assert right.get_ydata() == pytest.approx([0.99 * n, 0.2 * n, 0.01 * n, 0.5, 0.5])  # none beyond the last: the axis' foot
    band = figure.axes[0].collections[1].get_paths()[0].vertices
    at_bulk = band[(band[:, 0] > 0) & (band[:, 0] < 0.3001), 1]
    assert at_bulk.min() == 0.5 and at_bulk.max() == pytest.approx((1 - 0.75) * n)


def test_bulk_and_outlier_are_both_wide(tmp_path):
    """A needle of a bulk a thousandth as wide as the picture takes a good part of it."""
    lam = np.linspace(-1.0, 50.0, 4000)
    peak = lambda at, sigma: np.exp(-0.5 * ((lam - at) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    needle = hesspect.Result(path=tmp_path / "r.h5", lambdas=lam, density=0.9998 * peak(0.0, 0.05) + 0.0002 * peak(48.0, 0.05), sigma=0.05)
    axes = plot.draw(needle).axes[0]
    at = lambda x: axes.transAxes.inverted().transform(axes.transData.transform((x, 1.0)))[0]
    assert at(0.15) - at(-0.15) > 0.2 and at(48.0) - at(5.0) > 0.1
    ticks = [at(x) for x in axes.get_xticks()]
    assert len(ticks) > 3 and min(np.diff(ticks)) > 0.04  # their names don't run into each other


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_for_each_part(tmp_path, capsys, theme):
    path = write_result(tmp_path / "r.h5", layout=2)
    assert plot.main([str(path), "--what", "all", "--theme", theme]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / f"r-{what}.png") for what in ("density", "cumulative", "eigenvalues", "layers", "quadrature")]
    assert all(is_png(Path(picture)) for picture in written)
    figure = plot.draw_part(hesspect.read(path), "density", theme=THEMES[theme])
    assert figure.get_facecolor()[:3] == pytest.approx((1, 1, 1) if theme == "light" else (0x12 / 255, 0x16 / 255, 0x1C / 255))
    assert plot.main([str(path), "--what", "blocks"]) == 4
    assert "no blocks" in capsys.readouterr().err


def test_what_can_be_told_apart():
    """Okabe and Ito's colours on their paper: a contrast of 3 at least, as WCAG asks of graphics."""
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), parts))

    for theme in THEMES.values():
        for colour in (theme.line, theme.top, theme.negative, theme.ink, theme.soft):
            bright, dim = sorted((luminance(colour), luminance(theme.paper)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 3, (theme.name, colour)


def test_a_landscape_beside_its_quadratic_model(tmp_path, capsys):
    line = write_landscape(tmp_path / "l.h5")
    axes = plot.draw_part(hesspect.read(line), "landscape").axes[0]
    loss, model = axes.lines[:2]
    assert loss.get_ydata()[[0, 5, 10]] == pytest.approx([2.5, 0.5, 2.5]) and model.get_ydata()[0] == pytest.approx(1.5)
    assert axes.patches[0].get_x() == pytest.approx(-0.3) and axes.patches[0].get_width() == pytest.approx(0.6)
    surface = write_landscape(tmp_path / "s.h5", directions=2)
    assert plot.draw_part(hesspect.read(surface), "landscape").axes[0].get_ylabel() == "along random 0"
    for path in (line, surface):  # there is nothing else to draw
        assert plot.main([str(path), "--theme", "dark"]) == 0
        assert is_png(path.with_suffix(".png"))
    capsys.readouterr()
    assert plot.main([str(write_result(tmp_path / "r.h5")), "--what", "landscape"]) == 4
    assert "no landscape" in capsys.readouterr().err


def test_blocks_and_their_distances(tmp_path):
    path = write_blocks(tmp_path / "b.h5")
    bars, heat, *_ = plot.draw_part(hesspect.read(path), "blocks").axes
    assert [text.get_text() for text in bars.get_yticklabels()] == ["embed", "layer.0", "head"]
    largest = bars.lines[0]
    assert largest.get_xdata().tolist() == [3.0, 12.0] and largest.get_ydata().tolist() == [0, 1]
    assert heat.images[0].get_array()[0, 2] == 0.9 and "mean 0.6667" in heat.get_title(loc="left")
    assert plot.main([str(path), "--what", "blocks", "--theme", "dark"]) == 0
    assert is_png(tmp_path / "b-blocks.png")
