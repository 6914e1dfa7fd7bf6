"""Every figure that `pipeline ablate` prints, against a slow loop over frames and snippets."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.features import Features
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from models.cbcg import Cbcg, CbcgConfig, CbcgOutput
from models.clav_como import ClavComo
from models.clav_como_config import ClavComoConfig
from models.la_net import LaNet, LaNetConfig
from pipeline.datasets.catalog import VideoEntry
from pipeline.evaluation.split_videos import SplitVideo
from pipeline.experiments.ablation_measures import measure
from pipeline.experiments.ablation_results import COLUMNS
from pipeline.scoring.snippet_scores import snippet_scores
from pipeline.training.bag_loading import Bag, collect_bags

CPU = torch.device("cpu")
SNIPPET_LEN = 4
STREAMS = (("rgb", 6), ("flow", 6))
CLAV_COMO = {"stream_dims": STREAMS, "embedding_dim": 16, "relation_dim": 8, "scorer_dim": 8}


def make_video(index, n_frames, start, stop, *, tail_policy=REPEAT_LAST_FRAME):
    """A video of two crops whose frames from start to stop are anomalous."""
    rng = np.random.default_rng(index)
    n = -(-n_frames // SNIPPET_LEN)
    if tail_policy == DROP_TAIL:
        n = (n_frames - 1) // SNIPPET_LEN
    features = Features(
        streams={name: rng.normal(size=(n, 2, dim)).astype("float32") for name, dim in STREAMS},
        snippet_len=SNIPPET_LEN,
        n_frames=n_frames,
        n_missing=0,
        fps=25.0,
        timestamps=np.arange(n_frames) / 25,
        decoder="none",
        tail_policy=tail_policy,
    )
    is_anomalous = np.zeros(n_frames, dtype=bool)
    is_anomalous[start:stop] = True
    label = int(stop > start)
    intervals = ((start, stop),) if label else ()
    entry = VideoEntry(str(index), Path("none"), "test", label, intervals)
    return SplitVideo(entry, features, is_anomalous)


@pytest.fixture
def videos():
    """Of different lengths; half of a snippet is anomalous at some ends of the intervals."""
    return [
        make_video(0, 33, 0, 0),
        make_video(1, 42, 6, 27),
        make_video(2, 24, 0, 0),
        make_video(3, 37, 11, 37),
        make_video(4, 30, 3, 14, tail_policy=DROP_TAIL),
    ]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make_bags(n_snippets=12):
    """Twelve training videos; where the first number of a snippet is positive, it is marked."""
    rng = np.random.default_rng(1)
    bags = []
    for index in range(12):
        features = rng.normal(size=(n_snippets - index % 4, 12)).astype("float32")
        features[:, 0] = -np.abs(features[:, 0])
        if index % 2:
            features[: 1 + index % 5, 0] *= -1
        bags.append(Bag(str(index), features, index % 2))
    return bags


def collected(bags):
    return collect_bags(
        bags, sampler="sequence", bag_len=16, stream_dims=STREAMS, provenance={"extractor": "none"}
    )


def outputs_of(model, video, *, context=None):
    """The model's output for each crop."""
    streams = video.features.streams
    n = len(streams["rgb"])
    outputs = []
    for crop in range(2):
        bag = torch.tensor(np.concatenate([s[:, crop] for s in streams.values()], axis=1))
        options = {}
        if context is not None:
            others = context.features.streams.values()
            other = np.concatenate([s[:, crop] for s in others], axis=1)
            options["context"] = torch.tensor(
                np.stack([other[i * len(other) // n] for i in range(n)])
            )[None]
        with torch.no_grad():
            outputs.append(model(bag[None], torch.ones(1, n).bool(), **options))
    return outputs


def slow_auc(videos, per_crop, *, of_abnormal_videos=False):
    """Pairs of frames ranked right; `per_crop` of each video is one list of snippets per crop."""
    positive, negative = [], []
    for video, crops in zip(videos, per_crop, strict=True):
        if of_abnormal_videos and video.entry.label == 0:
            continue
        for frame, is_anomalous in enumerate(video.labels):
            snippet = min(frame // SNIPPET_LEN, len(crops[0]) - 1)
            score = np.float32(sum(float(crop[snippet]) for crop in crops) / len(crops))
            (positive if is_anomalous else negative).append(score)
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return sum(wins) / len(wins)


def is_snippet_anomalous(video, snippet):
    frames = video.labels[snippet * SNIPPET_LEN : (snippet + 1) * SNIPPET_LEN]
    return sum(frames) >= len(frames) / 2


def unit(vector):
    vector = np.asarray(vector, dtype=np.float64)
    return vector / math.sqrt(sum(v * v for v in vector))


def snippets_by_class(videos, per_crop):
    """Mean over crops of each snippet's vectors, by whether it is anomalous."""
    found = {False: [], True: []}
    for video, crops in zip(videos, per_crop, strict=True):
        for snippet in range(len(crops[0])):
            mean = sum(np.asarray(crop[snippet], dtype=np.float64) for crop in crops) / len(crops)
            found[bool(is_snippet_anomalous(video, snippet))].append(mean)
    return found


def test_every_column_of_the_table_is_measured_here(videos):
    models = (
        ClavComo(ClavComoConfig(**CLAV_COMO)),
        LaNet(LaNetConfig(stream_dims=STREAMS, attention_dim=8, embedding_dim=8)),
        Cbcg(CbcgConfig(stream_dims=STREAMS, hidden_dim=8, embedding_dim=8, cluster_dim=4)),
    )
    found = set()
    for model in models:
        found |= measure(model.eval(), videos, collected(make_bags()), CPU)[0].keys()
    assert found == COLUMNS.keys()


def test_aucs_false_alarms_and_the_gate_are_those_of_loops_over_frames(videos):
    model = ClavComo(ClavComoConfig(**CLAV_COMO)).eval()
    logits = torch.cat([o.logits[0] for video in videos for o in outputs_of(model, video)])
    model.scorer[-1].bias.data -= logits.median()  # scores on both sides of 0.5
    values, per_frame = measure(model, videos, collected(make_bags()), CPU)
    outputs = [outputs_of(model, video) for video in videos]
    scores = [[output.scores[0] for output in crops] for crops in outputs]
    for video, of_video, crops in zip(videos, per_frame, scores, strict=True):
        assert of_video.shape == video.labels.shape
        expected = ((crops[0] + crops[1]) / 2)[:, None].expand(-1, SNIPPET_LEN).flatten().numpy()
        n = min(len(expected), len(of_video))  # a dropped tail has the score of the last snippet
        assert of_video[:n] == pytest.approx(expected[:n], abs=1e-6)
    gates = [[output.gate[0, :, 1] for output in crops] for crops in outputs]
    assert values["AUC"] == pytest.approx(slow_auc(videos, scores), abs=1e-9)
    abnormal = slow_auc(videos, scores, of_abnormal_videos=True)
    assert values["AUC abnormal"] == pytest.approx(abnormal, abs=1e-9)
    assert values["gate AUC"] == pytest.approx(slow_auc(videos, gates), abs=1e-9)
    n_normal = n_false = 0  # frames of normal videos
    for video, crops in zip(videos, scores, strict=True):
        for frame in range(len(video.labels) if video.entry.label == 0 else 0):
            snippet = min(frame // SNIPPET_LEN, len(crops[0]) - 1)
            n_normal += 1
            n_false += float(crops[0][snippet] + crops[1][snippet]) >= 1
    assert 0 < n_false < n_normal
    assert values["false alarms"] == pytest.approx(n_false / n_normal)
    # The gate's own answer replaced by "both classes alike", and put back.
    hooks = [
        block.gate.register_forward_hook(lambda _, inputs, logits: torch.zeros_like(logits))
        for block in model.ica.values()
    ]
    even = [[o.scores[0] for o in outputs_of(model, video)] for video in videos]
    for hook in hooks:
        hook.remove()
    assert values["even gate"] == pytest.approx(slow_auc(videos, even), abs=1e-9)
    assert len({values[name] for name in ("AUC", "gate AUC", "even gate")}) == 3


def test_the_aucs_of_long_videos_are_those_of_their_scores_in_windows(videos):
    two = [videos[0], videos[3]]  # of 9 and 10 snippets
    config = ClavComoConfig(**CLAV_COMO, use_residual=False, window_len=4)
    model = ClavComo(config).eval()
    values, _ = measure(model, two, collected(make_bags()), CPU)
    whole = [[o.scores[0] for o in outputs_of(model, video)] for video in two]
    in_windows = [[snippet_scores(model, video.features, device=CPU)] for video in two]
    assert values["AUC"] == pytest.approx(slow_auc(two, in_windows), abs=1e-9)
    assert values["AUC"] != pytest.approx(slow_auc(two, whole), abs=1e-3)
    even = model.controls()["even gate"].eval()
    of_even = [[snippet_scores(even, video.features, device=CPU)] for video in two]
    assert values["even gate"] == pytest.approx(slow_auc(two, of_even), abs=1e-9)
    swapped = []
    for video, other in ((two[0], two[1]), (two[1], two[0])):
        n = video.features.n_snippets
        context = {
            name: np.stack([of_other[i * len(of_other) // n] for i in range(n)])
            for name, of_other in other.features.streams.items()
        }
        swapped.append([snippet_scores(model, video.features, device=CPU, context=context)])
    assert values["context shuffled"] == pytest.approx(slow_auc(two, swapped), abs=1e-9)
    assert len({values[name] for name in ("AUC", "even gate", "context shuffled")}) == 3


def test_the_gap_is_the_ratio_of_mean_squared_distances_to_the_normal_center(videos):
    model = ClavComo(ClavComoConfig(**CLAV_COMO)).eval()
    values, _ = measure(model, videos, collected(make_bags()), CPU)
    directions = [
        [[unit(e) for e in output.embeddings[0].tolist()] for output in outputs_of(model, video)]
        for video in videos
    ]
    found = snippets_by_class(videos, directions)
    center = sum(found[False]) / len(found[False])
    near, far = (
        sum(sum((v - center) ** 2) for v in found[label]) / len(found[label])
        for label in (False, True)
    )
    assert values["gap"] == pytest.approx(far / near, rel=1e-4)


def test_with_two_videos_the_shuffled_context_is_the_other_ones(videos):
    two = [videos[0], videos[3]]
    model = ClavComo(ClavComoConfig(**CLAV_COMO)).eval()
    values, _ = measure(model, two, collected(make_bags()), CPU)
    swapped = [
        [output.scores[0] for output in outputs_of(model, video, context=other)]
        for video, other in zip(two, reversed(two), strict=True)
    ]
    assert values["context shuffled"] == pytest.approx(slow_auc(two, swapped), abs=1e-9)
    assert values["context shuffled"] != values["AUC"]


def test_the_shuffled_context_is_the_mean_of_five_orders(videos, monkeypatch):
    three = videos[1:4]
    model = ClavComo(ClavComoConfig(**CLAV_COMO, use_residual=False)).eval()
    orders = [[1, 2, 0], [2, 0, 1], [1, 2, 0], [1, 2, 0], [2, 0, 1]]
    to_come = [np.array(order) for order in orders]
    monkeypatch.setattr(
        "pipeline.experiments.ablation_measures.permutation_without_fixed_points",
        lambda n, rng: to_come.pop(0),
    )
    values, _ = measure(model, three, collected(make_bags()), CPU)
    aucs = []
    for order in orders:
        scores = [
            [o.scores[0] for o in outputs_of(model, video, context=three[other])]
            for video, other in zip(three, order, strict=True)
        ]
        aucs.append(slow_auc(three, scores))
    assert aucs[0] != aucs[1]
    assert values["context shuffled"] == pytest.approx(sum(aucs) / 5, abs=1e-9)


def test_steps_of_la_net_are_those_of_loops_over_neighbors(videos):
    config = LaNetConfig(stream_dims=STREAMS, attention_dim=8, embedding_dim=8)
    model = LaNet(config).eval()
    values, _ = measure(model, videos, collected(make_bags()), CPU)
    largest, correlations = {0: [], 1: []}, []
    for video in videos:
        of_crops, per_step = [], []
        for output in outputs_of(model, video):
            scores = output.scores[0].tolist()
            attended = [unit(a) for a in output.attended[0].tolist()]
            pairs = range(len(scores) - 1)
            score_steps = [abs(scores[t + 1] - scores[t]) for t in pairs]
            feature_steps = [1 - sum(attended[t + 1] * attended[t]) for t in pairs]
            of_crops.append(max(score_steps))
            per_step.append([score_steps, feature_steps])
        largest[video.entry.label].append(sum(of_crops) / 2)
        if video.entry.label == 1:
            x, y = ((np.array(a) + np.array(b)) / 2 for a, b in zip(*per_step, strict=True))
            dx, dy = x - x.mean(), y - y.mean()
            correlations.append(sum(dx * dy) / math.sqrt(sum(dx * dx) * sum(dy * dy)))
    gap = sum(largest[1]) / len(largest[1]) - sum(largest[0]) / len(largest[0])
    assert values["step gap"] == pytest.approx(gap, rel=1e-4)
    expected = sum(correlations) / len(correlations)
    assert values["step correlation"] == pytest.approx(expected, rel=1e-3)


def make_cbcg():
    # At this temperature both branches count in the fused score, which is neither of them.
    sizes = {"hidden_dim": 16, "embedding_dim": 12, "cluster_dim": 5}
    config = CbcgConfig(stream_dims=STREAMS, temperature=1.0, **sizes)
    model = Cbcg(config).eval()
    model.memory.copy_(torch.randn(model.memory.shape))
    return model


def test_both_branches_of_cbcg_are_ranked_frame_by_frame(videos):
    model = make_cbcg()
    values, _ = measure(model, videos, collected(make_bags()), CPU)
    outputs = [outputs_of(model, video) for video in videos]
    for name, logits in (("regression", "regression_logits"), ("cluster", "cluster_logits")):
        branch = [[getattr(o, logits)[0].sigmoid() for o in crops] for crops in outputs]
        assert values[f"{name} AUC"] == pytest.approx(slow_auc(videos, branch), abs=1e-9)
    assert len({values[name] for name in ("AUC", "regression AUC", "cluster AUC")}) == 3


def test_the_silhouette_is_that_of_a_loop_over_pairs(videos):
    model = make_cbcg()
    values, _ = measure(model, videos, collected(make_bags()), CPU)
    directions = [[o.directions[0].tolist() for o in outputs_of(model, v)] for v in videos]
    found = snippets_by_class(videos, directions)

    def mean_distance(vector, others):
        return sum(math.dist(vector, other) for other in others) / len(others)

    each = []
    for label, own in found.items():
        for index, vector in enumerate(own):
            a = mean_distance(vector, own[:index] + own[index + 1 :])
            b = mean_distance(vector, found[not label])
            each.append((b - a) / max(a, b))
    assert values["silhouette"] == pytest.approx(sum(each) / len(each), abs=1e-5)


class Marked(Cbcg):
    """Puts marked snippets at one end of the plane and all others at the other."""

    def forward(self, features, mask):
        first = features[..., 0]
        is_marked = (first > 0).to(features.dtype)
        directions = torch.stack([1 - is_marked, is_marked], dim=2)
        return CbcgOutput(first, features, first, directions, first)


def test_the_anomalous_fraction_is_of_real_snippets_in_anomalous_training_bags(videos):
    bags = make_bags()
    model = Marked(CbcgConfig(stream_dims=STREAMS, cluster_dim=2, max_fraction=1.0)).eval()
    values, _ = measure(model, videos, collected(bags), CPU)
    anomalous = [bag.features[:, 0] for bag in bags if bag.label == 1]
    n_marked = sum(int(value > 0) for bag in anomalous for value in bag)
    assert values["anomalous fraction"] == pytest.approx(n_marked / sum(len(b) for b in anomalous))


def test_parameters_are_counted_by_hand(videos):
    config = ClavComoConfig(
        stream_dims=(("rgb", 6), ("flow", 6)),
        embedding_dim=16,
        scorer_dim=8,
        ica="none",
        relation="none",
    )
    values, _ = measure(ClavComo(config).eval(), videos, collected(make_bags()), CPU)
    stem = (6 + 1) * 16 + 2 * 16  # a linear layer and a normalization
    scorer = (16 + 1) * 8 + (8 + 1)
    assert values["parameters"] == 2 * stem + scorer
