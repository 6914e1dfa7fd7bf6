"""Figures: what is plotted is what was measured, point by point."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pipeline.evaluation.metrics import Curves, FrameMetrics
from pipeline.evaluation.results import Evaluation, Measurement, Row
from pipeline.reports.plots import plot_evaluation, plot_losses
from pipeline.scoring.events import EventRule

NOTES = {
    True: None,
    False: "random weights: not pretrained",
    None: "weights not known to be pretrained",
}


def curves(power: float) -> Curves:
    rates = np.array([0.0, 0.5, 1.0])
    return Curves(rates, rates**power, rates[::-1], 1 - rates[::-1] * power)


def evaluation(*, is_pretrained: bool | None) -> Evaluation:
    better = FrameMetrics(0.75, 0.6, 0.5, 0.4, 0.3)
    worse = FrameMetrics(0.65, 0.6, 0.2, 0.4, 0.3)
    rows = (
        Row(
            "model",
            "model",
            (Measurement(better, curves=curves(0.25)), Measurement(worse, curves=curves(0.5))),
        ),
        Row("shuffled", "control", (Measurement(worse),)),
        Row("energy", "control", (Measurement(worse, curves=curves(0.75)),)),
    )
    return Evaluation("mine", "mine", 4, 0, 100, 25, "ab", EventRule(), (0, 1), is_pretrained, rows)


def test_both_curves_of_every_seed_are_drawn_and_named_with_the_mean(tmp_path, figures, points):
    plot_evaluation(evaluation(is_pretrained=True), tmp_path / "curves.png")
    roc, recall = figures[0].axes
    powers = (0.25, 0.5, 0.75)
    assert [points(line) for line in roc.lines] == [
        *([[0, 0], [0.5, 0.5**power], [1, 1]] for power in powers),
        [[0, 0], [1, 1]],
    ]
    assert [points(line) for line in recall.lines] == [
        *([[1, 1 - power], [0.5, 1 - 0.5 * power], [0, 1]] for power in powers),
        [[0, 0.25], [1, 0.25]],
    ]
    for axes in (roc, recall):
        first, second, other, _ = [to_hex(line.get_color()) for line in axes.lines]
        assert first == second != other

    def names(axes):
        return [text.get_text() for text in axes.get_legend().get_texts()]

    assert names(roc) == ["model, AUC 70.0%", "energy, AUC 65.0%", "chance"]
    assert names(recall) == ["model, AP 35.0%", "energy, AP 20.0%", "chance"]
    assert (roc.get_xlabel(), roc.get_ylabel()) == ("false positive rate", "true positive rate")
    assert (recall.get_xlabel(), recall.get_ylabel()) == ("recall", "precision")


@pytest.mark.parametrize("is_pretrained", NOTES)
def test_curves_from_random_or_unknown_weights_say_so(tmp_path, figures, is_pretrained, texts):
    plot_evaluation(evaluation(is_pretrained=is_pretrained), tmp_path / "curves.png")
    shown = [note for note in texts(figures[0]) if note in NOTES.values()]
    assert shown == ([] if is_pretrained else [NOTES[is_pretrained]])


def test_every_loss_term_has_a_panel_with_its_values(tmp_path, figures, points):
    losses = [{"mil": 1.0 / step, "gate": 0.1 * step} for step in (1, 2, 4)]
    plot_losses(losses, [100, 200, 400], tmp_path / "two.png")
    plotted = {axes.get_title("left"): points(axes.lines[0]) for axes in figures[0].axes}
    assert plotted == {
        "mil": [[100, 1.0], [200, 0.5], [400, 0.25]],
        "gate": [[100, 0.1], [200, 0.2], [400, 0.4]],
    }


def test_a_single_epoch_is_a_point_that_can_be_seen(tmp_path, figures, points):
    plot_losses([{"mil": 1.0}], [100], tmp_path / "one.png")
    (line,) = figures[0].axes[0].lines
    assert points(line) == [[100, 1.0]]
    assert line.get_marker() not in ("None", "", None)
