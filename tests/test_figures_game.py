"""The two figures of the theory: what their panels show is what was trained, and files are written whole."""

import math

import numpy as np
import pytest

from pygan import figures, theory
from pygan.figures import canvas, game, gradients


@pytest.fixture
def drawn(monkeypatch):
    """The figures in the order in which they were saved."""
    kept = []

    def save(figure, *arguments, **options):
        kept.append(figure)
        canvas.save(figure, *arguments, **options)

    for module in (game, gradients):
        monkeypatch.setattr(module, "save", save)
    return kept


@pytest.fixture(scope="module")
def played():
    return game._play(600, 0)


@pytest.fixture
def replayed(played, monkeypatch):
    """`figure_1` without its training."""
    monkeypatch.setattr(game, "_play", lambda iterations, seed: played)
    return played


# ---- figure 1 ----


def test_a_short_run_already_goes_through_the_four_stages(played):
    """What the figure says of its panels, at a sixth of its length."""
    moments, (a, b, c, d) = played
    p_data = game._DENSITY.pdf(game._X)

    def error(moment):
        """The mean of |D - D*| under the mean of the densities."""
        both = p_data + moment.p_g
        return np.average(np.abs(moment.d - p_data / both), weights=both)

    divergence = [game._divergence(moments[i]) for i in (0, a, b, c, d)]
    assert divergence[0] > 0.4
    assert divergence[1] < game._NEAR
    assert divergence[2] == divergence[1], "G stood still while D learnt"
    np.testing.assert_array_equal(moments[a].p_g, moments[b].p_g)
    assert error(moments[b]) < 0.5 * error(moments[a])
    assert error(moments[b]) < 0.05
    assert divergence[3] < divergence[2], "G came nearer"
    np.testing.assert_array_equal(moments[b].d, moments[c].d)
    assert divergence[4] < 0.05
    near = np.abs(game._X - game._MEAN) < game._STD
    assert np.abs(moments[d].d[near] - 0.5).max() < 0.15
    assert [moments[i].words.split(",")[0] for i in (b, c, d)] == ["D alone", "G alone", "iteration 600"]


def test_p_g_is_a_density_and_follows_g(played):
    moments, _ = played
    step = game._X[1] - game._X[0]
    for moment in moments:
        assert (moment.p_g >= 0).all()
        assert moment.p_g.sum() * step == pytest.approx(1, abs=0.01)
        # The arrows are of evenly spaced z, so their heads have the density's mean.
        assert moment.g_of_z.mean() == pytest.approx((game._X * moment.p_g).sum() * step, abs=0.1)


def test_the_same_seed_plays_the_same_game():
    first, second, other = (game._play(12, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[-1].d, second[-1].d)
    assert not np.array_equal(first[-1].d, other[-1].d)


def test_each_panel_shows_its_moment(tmp_path, drawn, replayed):
    moments, chosen = replayed
    assert figures.figure_1(tmp_path / "game.png") == [tmp_path / "game.png"]
    above, below = drawn[0].axes[:4], drawn[0].axes[4:]
    assert [axes.get_title("left")[:3] for axes in above] == ["(a)", "(b)", "(c)", "(d)"]
    for axes, arrows, i in zip(above, below, chosen, strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        np.testing.assert_array_equal(lines["$D(x)$"].get_ydata(), moments[i].d)
        np.testing.assert_allclose(lines["generated, $p_g$"].get_ydata() / game._SCALE, moments[i].p_g)
        optimal = lines["$D^*$"].get_ydata()
        assert np.isfinite(optimal).all(), "there is a best answer where both densities are next to nothing, too"
        both = game._DENSITY.pdf(game._X) + moments[i].p_g
        np.testing.assert_allclose(optimal * both, game._DENSITY.pdf(game._X), rtol=1e-9)
        assert lines["data"].get_ydata().max() == pytest.approx(0.798, abs=1e-3)
        assert lines["data"].is_dashed()
        assert lines["$D(x)$"].is_dashed()
        assert not lines["generated, $p_g$"].is_dashed()
        (quiver,) = arrows.collections
        np.testing.assert_allclose(quiver.X + quiver.U, moments[i].g_of_z, err_msg="an arrow ends at G(z)")
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["data", "generated, $p_g$", "$D^*$", "$D(x)$"]


def test_the_animation_shows_the_whole_run(tmp_path, replayed):
    from PIL import Image

    moments, chosen = replayed
    paths = figures.figure_1(tmp_path / "game.pdf", animation=tmp_path / "game.gif")
    assert sorted(tmp_path.iterdir()) == sorted(paths), "no temporary file is left"
    assert paths[1].stat().st_size < 3e6
    with Image.open(paths[1]) as gif:
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    # Pillow joins frames that are equal.
    assert len(durations) <= len(moments)
    expected = 1200 * (len(chosen) - 1) + 2500 + 90 * (len(moments) - len(chosen))
    assert sum(durations) == pytest.approx(expected, abs=10 * len(moments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "game.jpg"}, "a figure's name must end in .png, .pdf, .svg, got 'game.jpg'"),
        ({"path": "game.png", "animation": "game.png"}, "an animation's name must end in .gif, got 'game.png'"),
        ({"path": "game.png", "iterations": 5}, "iterations must be a whole number of at least 10, got 5"),
        ({"path": "game.png", "seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_figure_1_refuses_in_a_sentence(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        figures.figure_1(**arguments)
    assert not list(tmp_path.iterdir())


# ---- the losses ----


@pytest.fixture
def studied(monkeypatch):
    """A measurement that takes no time."""
    study = theory.GradientStudy(*np.array([[0, 1, 10], [0.5, 0.1, 0.01], [1, 0.1, 0.01], [1, 1, 2]]))
    monkeypatch.setattr(gradients, "gradient_study", lambda **_: study)
    return study


def test_the_losses_and_what_was_measured_are_drawn(tmp_path, drawn, studied):
    assert figures.generator_losses(tmp_path / "losses.png") == [tmp_path / "losses.png"]
    values, derivatives, norms = drawn[0].axes
    minimax, non_saturating = (line for line in values.lines if not line.get_label().startswith("_"))
    assert minimax.get_label().startswith("minimax")
    x = minimax.get_xdata()
    d = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(minimax.get_ydata(), np.log(1 - d), rtol=1e-9)
    np.testing.assert_allclose(non_saturating.get_ydata(), -np.log(d), rtol=1e-9)
    np.testing.assert_allclose(derivatives.lines[0].get_ydata(), d, rtol=1e-9)
    np.testing.assert_allclose(derivatives.lines[1].get_ydata(), 1 - d, rtol=1e-9)
    assert derivatives.get_xticks()[3] == pytest.approx(0, abs=1e-12)
    assert derivatives.get_xticklabels()[3].get_text() == "1/2"
    for line, name in zip(norms.lines, ("minimax", "non_saturating", "d_fake"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), studied.steps)
        np.testing.assert_array_equal(line.get_ydata(), getattr(studied, name))
    assert math.isclose(norms.get_xlim()[1], 10)
    assert not any(axes.texts for axes in drawn[0].axes), "words would lie over the curves of some recipe"
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert [name.split(",")[0] for name in names] == ["minimax", "non-saturating", "mean D(G(z))"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "l.gif"}, "a figure's name must end in .png, .pdf, .svg, got 'l.gif'"),
        ({"path": "l.png", "steps": 1}, "steps must be a whole number of at least 2, got 1"),
        ({"path": "l.png", "recipe": "ring"}, "recipe must be one of .* did you mean 'ring8'"),
        ({"path": "l.png", "seed": 0.5}, "seed must be a whole number"),
    ],
)
def test_generator_losses_refuses_in_a_sentence(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        figures.generator_losses(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_short_run_claims_no_equilibrium(tmp_path, drawn):
    figures.figure_1(tmp_path / "game.png", iterations=10)
    titles = [axes.get_title(loc) for axes in drawn[0].axes for loc in ("left", "center", "right")]
    assert {"(b) D alone, 10 steps", "(d) after 10 iterations"} <= set(titles)


# ---- files ----


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_each_format_is_written(tmp_path, replayed, studied, suffix):
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    figures.figure_1(tmp_path / f"game{suffix}")
    figures.generator_losses(tmp_path / f"losses{suffix}")
    assert all(path.read_bytes().startswith(start) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2
