"""Evaluations of tiny models whose scores are known beforehand."""

import gc
import math
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import model_class
from models.interface import ModelConfig, Output
from pipeline.config import resolve_config, with_streams
from pipeline.datasets.catalog import Dataset, DatasetError, VideoEntry
from pipeline.evaluation import split_videos
from pipeline.evaluation.measure import measure
from pipeline.evaluation.results import Evaluation, alarms_table, as_json, metrics_table
from pipeline.extraction.feature_file import feature_path, read_features, write_features
from pipeline.runs.checkpoints import Checkpoint
from pipeline.scoring.events import EventRule

PROVENANCE = {"extractor": "i3d", "is_pretrained": True}
CPU = torch.device("cpu")
FPS = 8.0


class Known(torch.nn.Module):
    """The logit of a snippet is its first feature, plus something that differs by seed."""

    config = ModelConfig(stream_dims=(("rgb", 1),))
    accepts_context = False
    members = ()

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> Output:
        return Output(features[..., 0] + self.shift, features)


def checkpoint(shift: float = 0.0, *, seed: int = 0, dataset: str = "home") -> Checkpoint:
    return Checkpoint(Known(shift), "known", PROVENANCE, dataset, seed, 100)


@pytest.fixture
def make_dataset(features_of):
    """A function that writes the features of a dataset's test videos."""

    def make(folder: Path, videos: list[tuple], name: str = "home") -> Dataset:
        """Each video is (logit per snippet, label, anomalies, classes); two frames a snippet."""
        entries = []
        for index, (logits, label, anomalies, classes) in enumerate(videos):
            entries.append(
                VideoEntry(str(index), folder / f"{index}.mp4", "test", label, anomalies, classes)
            )
            streams = {"rgb": np.array(logits, "float32")[:, None, None]}
            features = features_of(streams, snippet_len=2, fps=FPS)
            path = feature_path(folder / name, str(index))
            write_features(path, features, PROVENANCE, video_id=str(index), source_name="none")
        return Dataset(name, tuple(entries))

    return make


VIDEOS = [
    ([-3, 2, -3, -3], 0, (), ()),  # one false alarm
    ([-3, 3, 3, -3], 1, ((1, 6),), ("fall",)),  # one frame late
    ([-3, -2, -3, -3], 1, ((2, 4),), ("fall", "fire")),  # missed
    ([-3, -3], 1, ((0, 2),), ("fire",)),  # missed
]


def run(*arguments, **options) -> Evaluation:
    return measure(*arguments, CPU, **options)


def pairwise_auc(scores, labels) -> float:
    wins = [
        float(a > b) + 0.5 * float(a == b)
        for a, is_a in zip(scores, labels, strict=True)
        for b, is_b in zip(scores, labels, strict=True)
        if is_a and not is_b
    ]
    return sum(wins) / len(wins)


def frames_of(videos) -> tuple[list[float], list[bool]]:
    scores = [logit for logits, *_ in videos for logit in logits for _ in range(2)]
    labels = [
        any(a <= frame < b for a, b in anomalies)
        for logits, _, anomalies, _ in videos
        for frame in range(2 * len(logits))
    ]
    return scores, labels


def test_the_macro_auc_is_computed_where_the_dataset_is_reported_by_it(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, VIDEOS)
    (measured,) = run([checkpoint()], dataset, tmp_path).rows[0].per_seed
    assert np.isnan(measured.frames.auc_macro)
    (tmp_path / dataset.name).rename(tmp_path / "ubnormal")
    (measured,) = run([checkpoint()], replace(dataset, name="ubnormal"), tmp_path).rows[0].per_seed
    per_video = []
    for video in VIDEOS:
        logits, labels = frames_of([video])
        per_video.append(pairwise_auc([*logits, -99, 99], [*labels, False, True]))
    assert measured.frames.auc_macro == pytest.approx(sum(per_video) / 4)


def test_the_figures_are_those_of_the_frames_counted_by_hand(tmp_path, make_dataset):
    evaluation = run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path)
    assert (evaluation.n_videos, evaluation.n_frames, evaluation.n_anomalous) == (4, 28, 9)
    (measured,) = evaluation.rows[0].per_seed
    assert measured.frames.auc == pytest.approx(pairwise_auc(*frames_of(VIDEOS)))
    abnormal = [video for video in VIDEOS if video[1]]
    assert measured.frames.auc_abnormal == pytest.approx(pairwise_auc(*frames_of(abnormal)))
    assert measured.alarms.false_alarm_fraction == pytest.approx(2 / 8)
    assert measured.alarms.false_alarms_per_hour == pytest.approx(3600 / (8 / FPS))
    assert measured.alarms.event_precision == pytest.approx(1 / 2)
    assert measured.alarms.event_recall == pytest.approx(1 / 3)
    assert measured.alarms.delay_seconds == pytest.approx(1 / FPS)


def test_the_hours_of_a_video_whose_rate_varies_are_those_of_its_timestamps(tmp_path, features_of):
    entries = []
    for index, (logits, anomalies) in enumerate([([-3, 2, -3], ()), ([-3, 3, -3], ((2, 4),))]):
        entries.append(
            VideoEntry(str(index), Path("none"), "test", len(anomalies), anomalies, ("fall",))
        )
        streams = {"rgb": np.array(logits, "float32")[:, None, None]}
        # The average frame rate of the file's header is 8: six frames would be 0.75 s.
        features = replace(
            features_of(streams, snippet_len=2, fps=8.0),
            timestamps=np.array([0, 10, 20, 3590, 3595, 3599.0]),  # the last frame lasts 10 s
        )
        path = feature_path(tmp_path / "home", str(index))
        write_features(path, features, PROVENANCE, video_id=str(index), source_name="none")
    evaluation = run([checkpoint()], Dataset("home", tuple(entries)), tmp_path)
    assert evaluation.metrics["false_alarms_per_hour"] == pytest.approx(3600 / 3609)


def test_a_class_is_measured_on_its_own_videos_and_the_normal_ones(tmp_path, make_dataset):
    evaluation = run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path)
    rows = {row.name: row for row in evaluation.rows if row.kind == "class"}
    assert {name: row.n_videos for name, row in rows.items()} == {"fall": 2, "fire": 2}
    for name, row in rows.items():
        chosen = [video for video in VIDEOS if not video[1] or name in video[3]]
        assert row.per_seed[0].frames.auc == pytest.approx(pairwise_auc(*frames_of(chosen)))
        assert row.per_seed[0].alarms is None


def test_each_seed_is_measured(tmp_path, make_dataset):
    seeds = [checkpoint(seed=3), checkpoint(-4, seed=5)]
    evaluation = run(seeds, make_dataset(tmp_path, VIDEOS), tmp_path)
    assert evaluation.seeds == (3, 5)
    first, second = evaluation.rows[0].per_seed
    assert first.frames == second.frames  # a shift changes no rank
    assert second.alarms.event_recall == 0  # but it changes what is an alarm


def test_the_threshold_says_what_an_alarm_is(tmp_path, make_dataset):
    rule = EventRule(threshold=0.9)
    evaluation = run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path, rule=rule)
    assert evaluation.rows[0].per_seed[0].alarms.false_alarm_fraction == 0  # sigmoid(2) = 0.88
    assert "alarms at 0.9" in alarms_table(evaluation).title


def test_a_model_from_another_dataset_is_named_with_both(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, VIDEOS, "abroad")
    evaluation = run([checkpoint(dataset="home")], dataset, tmp_path)
    assert (evaluation.trained_on, evaluation.dataset) == ("home", "abroad")
    assert evaluation.rows[0].name == "known (home -> abroad)"
    at_home = run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path)
    assert at_home.rows[0].name == "known"


def test_the_best_epoch_on_test_is_labeled_optimistic(tmp_path, monkeypatch, make_dataset):
    class Upside(Known):
        def forward(self, features, mask):
            return Output(-features[..., 0], features)

    models = {"1": Upside(), "2": Known(), "3": Upside()}
    monkeypatch.setattr(
        "pipeline.evaluation.measure.load_checkpoint",
        lambda path: Checkpoint(models[path.name], "known", PROVENANCE, "home", 0, 1),
    )
    evaluation = run(
        [Checkpoint(Upside(), "known", PROVENANCE, "home", 0, 1)],
        make_dataset(tmp_path, VIDEOS),
        tmp_path,
        epochs=[[Path("1"), Path("2"), Path("3")]],
    )
    model, best = evaluation.rows[:2]
    assert (model.kind, best.kind) == ("model", "best on test")
    assert "optimistic" in best.name
    assert best.per_seed[0].frames.auc == pytest.approx(pairwise_auc(*frames_of(VIDEOS)))
    assert model.per_seed[0].frames.auc < 0.5
    without = run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path)
    assert not [row for row in without.rows if "optimistic" in row.name]


def test_the_best_epoch_of_an_ensemble_is_said_to_be_the_network_alone(
    tmp_path, make_dataset, monkeypatch
):
    class Together(Known):
        members = ("network", "linear rgb")

    monkeypatch.setattr(
        "pipeline.evaluation.measure.load_checkpoint",
        lambda path: Checkpoint(Known(), "known", PROVENANCE, "home", 0, 1),
    )
    for model, expected in (
        (Together(), "best epoch on test, network alone (optimistic)"),
        (Known(), "best epoch on test (optimistic)"),
    ):
        checkpoints = [Checkpoint(model, "known", PROVENANCE, "home", 0, 1)]
        dataset = make_dataset(tmp_path, VIDEOS)
        evaluation = run(checkpoints, dataset, tmp_path, epochs=[[Path("1")]])
        assert evaluation.rows[1].name == expected


def test_motion_energy_reads_folders_of_frames_at_the_rate_of_their_features(
    tmp_path, make_dataset, write_frames
):
    dataset = make_dataset(tmp_path, VIDEOS)
    entries = [
        replace(entry, path=write_frames(tmp_path / entry.video_id, 2 * len(logits)))
        for entry, (logits, *_) in zip(dataset.entries, VIDEOS, strict=True)
    ]
    frames = replace(dataset, entries=tuple(entries))  # whose own rate is not given
    evaluation = run([checkpoint()], frames, tmp_path, controls=True, no_training="none here")
    assert "motion energy (baseline)" in [row.name for row in evaluation.rows]
    (left_out,) = evaluation.left_out
    assert (left_out.name, left_out.reason) == ("linear MIL, rgb", "none here")


def test_the_checksum_of_the_labels_tells_annotations_apart(tmp_path, make_dataset):
    first = run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path)
    again = run([checkpoint(1)], make_dataset(tmp_path, VIDEOS), tmp_path)
    moved = [*VIDEOS[:-1], ([-3, -3], 1, ((1, 3),), ())]
    other = run([checkpoint()], make_dataset(tmp_path, moved), tmp_path)
    assert first.labels_sha256 == again.labels_sha256 != other.labels_sha256


def test_a_test_split_without_anomalous_frames_is_refused(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, [VIDEOS[0]])
    with pytest.raises(
        DatasetError, match=r"home: an evaluation needs .* 8 normal and 0 anomalous"
    ):
        run([checkpoint()], dataset, tmp_path)


def test_imported_features_of_folders_of_frames_have_the_frame_rate_of_the_dataset(
    tmp_path, make_dataset
):
    dataset = make_dataset(tmp_path, VIDEOS)
    for entry in dataset.entries:
        entry.path.mkdir()  # the folder of frames
        path = feature_path(tmp_path / "home", entry.video_id)
        features = read_features(path).features
        timeless = replace(features, fps=math.nan, timestamps=features.timestamps * math.nan)
        write_features(path, timeless, PROVENANCE, video_id=entry.video_id, source_name="none")
    assert run([checkpoint()], dataset, tmp_path).n_frames == 28


def test_a_class_whose_anomalous_frames_are_all_beyond_the_end_gets_no_row(tmp_path, make_dataset):
    videos = [*VIDEOS, ([-3, -3], 1, ((100, 120),), ("flood",))]
    evaluation = run([checkpoint()], make_dataset(tmp_path, videos), tmp_path)
    assert [row.name for row in evaluation.rows if row.kind == "class"] == ["fall", "fire"]


def test_a_class_that_is_anomalous_throughout_gets_no_row_of_its_own(tmp_path, make_dataset):
    videos = [([-3, 3], 1, ((0, 2),), ("a",)), ([3], 1, ((0, 2),), ("b",))]
    evaluation = run([checkpoint()], make_dataset(tmp_path, videos), tmp_path)
    assert [row.name for row in evaluation.rows] == ["known", "a"]


def test_a_model_that_accepts_another_context_is_measured_with_shuffled_context(
    tmp_path, make_dataset
):
    class Mean(Known):
        """The logit is the mean of the context, which the video's own ranks as it should."""

        accepts_context = True

        def forward(self, features, mask, context=None):
            return Output((features if context is None else context)[..., 0], features)

    one = Checkpoint(Mean(), "mean", PROVENANCE, "home", 0, 1)
    reports = []
    videos = [*VIDEOS, ([-2, -3], 0, (), ())]
    evaluation = run(
        [one], make_dataset(tmp_path, videos), tmp_path, controls=True, report=reports.append
    )
    assert [row.name for row in evaluation.rows[:2]] == ["mean", "mean, context shuffled"]
    model, shuffled = (row.per_seed[0].frames.auc for row in evaluation.rows[:2])
    assert shuffled < model
    # Neither the videos themselves nor a train split are there.
    assert [left_out.name for left_out in evaluation.left_out] == [
        "motion energy",
        "linear MIL, rgb",
    ]
    assert "0.mp4" in evaluation.left_out[0].reason
    assert any("motion energy: left out" in report.message for report in reports)
    lead = evaluation.rows[0].lead_over(evaluation.rows[1])
    assert lead.mean == pytest.approx(model - shuffled)
    assert lead.low < lead.mean < lead.high
    without = run([one], make_dataset(tmp_path, VIDEOS), tmp_path).rows[0]
    assert without.per_seed[0].jackknifed is None  # which nobody asked for


def test_averaged_seeds_are_compared_with_averaged_seeds_of_shuffled_context(
    tmp_path, make_dataset
):
    class Context(Known):
        """The logit is the context's, to which each seed adds noise of its own."""

        accepts_context = True

        def forward(self, features, mask, context=None):
            logits = (features if context is None else context)[..., 0]
            noise = 3 * torch.sin(self.shift * (1 + torch.arange(logits.shape[1])) + logits)
            return Output(logits + noise, features)

    seeds = [Checkpoint(Context(s), "noisy", PROVENANCE, "home", s, 1) for s in (1, 2, 5)]
    dataset = make_dataset(tmp_path, [*VIDEOS, ([-2, -3], 0, (), ())])
    evaluation = run(seeds, dataset, tmp_path, controls=True)
    rows = {row.kind: row for row in evaluation.rows if row.kind != "class"}
    assert [rows["control"].name, rows["averaged control"].name] == [
        "noisy, context shuffled",
        "noisy, context shuffled, 3 seeds averaged",
    ]
    assert len(rows["control"].per_seed) == 3
    aucs = {}
    for name in ("seeds averaged", "averaged control"):
        (measured,) = rows[name].per_seed
        assert measured.jackknifed.auc == pytest.approx(measured.frames.auc)
        aucs[name] = measured.frames.auc
    lead = rows["seeds averaged"].lead_over(rows["averaged control"])
    assert lead.mean == pytest.approx(aucs["seeds averaged"] - aucs["averaged control"])
    assert rows["seeds averaged"].lead_over(rows["control"]) is None
    assert rows["model"].lead_over(rows["averaged control"]) is None
    assert rows["model"].lead_over(rows["control"]).low is not None


def test_the_averaged_seeds_of_shuffled_context_are_those_of_a_loop(tmp_path, make_dataset):
    class Context(Known):
        accepts_context = True

        def forward(self, features, mask, context=None):
            logits = (features if context is None else context)[..., 0]
            return Output(logits * self.shift, features)

    two = [([-3, 2], 0, (), ()), ([1, 4], 1, ((2, 4),), ())]  # one can only be given the other's
    seeds = [Checkpoint(Context(s), "c", PROVENANCE, "home", 0, 1) for s in (1.0, -0.5)]
    evaluation = run(seeds, make_dataset(tmp_path, two), tmp_path, controls=True)
    (row,) = [row for row in evaluation.rows if row.kind == "averaged control"]
    swapped = [logit for logits in ([1, 4], [-3, 2]) for logit in logits for _ in range(2)]
    scores = [sum(1 / (1 + math.exp(-s * x)) for s in (1.0, -0.5)) / 2 for x in swapped]
    expected = pairwise_auc(scores, frames_of(two)[1])
    assert row.per_seed[0].frames.auc == pytest.approx(expected)


def test_training_features_that_do_not_fit_are_read_once_and_named_once(
    tmp_path, features_of, monkeypatch
):
    class TwoStreams(Known):
        config = ModelConfig(stream_dims=(("rgb", 1), ("flow", 1)))

    entries = []
    for index in range(8):
        label, split = index % 2, "train" if index < 4 else "test"
        entries.append(
            VideoEntry(str(index), Path(f"{index}.mp4"), split, label, ((0, 2),) * label)
        )
        values = np.arange(4, dtype="float32")[:, None, None]
        features = features_of({"rgb": values, "flow": values}, snippet_len=2, fps=FPS)
        path = feature_path(tmp_path / "home", str(index))
        provenance = {**PROVENANCE, "extractor": "another"} if index == 3 else PROVENANCE
        write_features(path, features, provenance, video_id=str(index), source_name="none")
    read = []

    def read_and_note(path, **options):
        read.append(path.stem)
        return read_features(path, **options)

    monkeypatch.setattr("pipeline.evaluation.linear_baseline.read_features", read_and_note)
    reports = []
    evaluation = run(
        [Checkpoint(TwoStreams(), "two", PROVENANCE, "home", 0, 1)],
        Dataset("home", tuple(entries)),
        tmp_path,
        controls=True,
        report=reports.append,
    )
    assert read == ["0", "1", "2", "3"]
    (_, left_out) = evaluation.left_out  # the first is motion energy: the videos are not there
    assert left_out.name == "linear MIL, rgb; linear MIL, flow; linear MIL, rgb + flow"
    assert left_out.reason.count("differs from the run in extractor") == 1
    assert [report.message for report in reports if "linear" in report.message] == [
        f"{left_out.name}: left out: {left_out.reason}"
    ]


def test_clav_como_accepts_another_context():
    config = with_streams(resolve_config("clav-como", "none"), (("rgb", 1),))
    assert model_class("clav-como")(config.model).accepts_context
    without = resolve_config("clav-como", "none", settings=["model.relation=none"])
    rgb_alone = with_streams(without, (("rgb", 1),)).model
    assert not model_class("clav-como")(rgb_alone).accepts_context


def test_an_evaluation_holds_the_features_of_one_video_at_a_time(
    tmp_path, monkeypatch, make_dataset
):
    read = []
    most = 0

    def read_and_count(*arguments, **options):
        nonlocal most
        stored = read_features(*arguments, **options)
        read.append(weakref.ref(stored.features.streams["rgb"]))
        gc.collect()
        most = max(most, sum(array() is not None for array in read))
        return stored

    monkeypatch.setattr(split_videos, "read_features", read_and_count)
    run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path)
    assert len(read) == 4
    assert most <= 2  # a video is read before the one before it is let go


@pytest.mark.parametrize(
    ("name", "convention", "n_labels"),
    [
        ("home", "annotation", (37, 33)),
        ("ucf_crime", "whole-snippets", (32, 32)),
        ("ucf_crime", "rtfm", (48, 48)),
        ("xd_violence", "xdviodet", (32, 32)),
    ],
)
def test_scores_are_measured_against_the_ground_truth_of_a_convention(
    tmp_path, name, convention, n_labels, features_of
):
    n_frames, logits = (37, 33), ([-1.0, 2.0, 0.5], [0.0, -2.0, 1.0])
    entries = []
    for index, (length, values) in enumerate(zip(n_frames, logits, strict=True)):
        anomalies = ((20, 34),) if index == 0 else ()
        entries.append(
            VideoEntry(str(index), Path(f"{index}.mp4"), "test", len(anomalies), anomalies)
        )
        features = features_of({"rgb": np.array(values, "float32")[:, None, None]}, length, fps=FPS)
        path = feature_path(tmp_path / name, str(index))
        write_features(path, features, PROVENANCE, video_id=str(index), source_name="none")

    evaluation = run(
        [checkpoint()], Dataset(name, tuple(entries)), tmp_path, ground_truth=convention
    )

    last = 34 if convention == "rtfm" else 33  # the last anomalous frame
    scores = [values[frame // 16] for values, n in zip(logits, n_labels, strict=True)
              for frame in range(n)]  # fmt: skip
    labels = [index == 0 and 20 <= frame <= last for index, n in enumerate(n_labels)
              for frame in range(n)]  # fmt: skip
    assert (evaluation.n_frames, evaluation.n_anomalous) == (len(labels), sum(labels))
    assert evaluation.metrics["auc"] == pytest.approx(pairwise_auc(scores, labels))
    assert evaluation.ground_truth == convention
    title = metrics_table(evaluation).title
    assert title.endswith(f"; ground truth of {convention}") == (convention != "annotation")
    assert as_json(evaluation)["ground_truth"] == convention


def test_a_convention_that_the_dataset_does_not_have_is_refused(tmp_path, make_dataset):
    with pytest.raises(DatasetError, match="home: no ground-truth convention 'rtfm'"):
        run([checkpoint()], make_dataset(tmp_path, VIDEOS), tmp_path, ground_truth="rtfm")
