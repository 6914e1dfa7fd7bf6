"""TensorBoard files, read back with TensorBoard's own reader."""

import pytest

from pipeline.training.training_loop import EpochRecord

tensorboard = pytest.importorskip("pipeline.training.tensorboard", exc_type=ImportError)


@pytest.mark.slow
def test_every_loss_term_of_every_epoch_is_in_the_files_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    records = [
        EpochRecord(epoch, 10 * epoch, 3.0 / epoch, {"mil": 2.0 / epoch, "gate": 0.5}, 1e-3, 1.0, 9)
        for epoch in (1, 2, 3)
    ]
    first = tensorboard.with_tensorboard(iter(records[:2]), tmp_path)
    assert list(first) == records[:2]
    assert list(tensorboard.with_tensorboard(iter(records[2:]), tmp_path)) == records[2:]
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "loss/mil", "loss/gate", "learning_rate"} <= set(found.Tags()["scalars"])
    values = [(scalar.step, scalar.value) for scalar in found.Scalars("loss/mil")]
    assert values == [(10, 2.0), (20, 1.0), (30, pytest.approx(2 / 3))]
