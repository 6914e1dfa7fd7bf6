"""Which differences between a run's features and others only round, and are said."""

import pytest

from pipeline.runs.compatibility import compare_with_run

RUN = {
    "flow_method": "tvl1",
    "flow_implementation": "triton",
    "flow_tau": 0.25,
    "precision": "bfloat16",
}


def test_the_same_provenance_is_taken_without_a_word():
    assert compare_with_run(RUN, dict(RUN)) == ([], "")


def test_another_implementation_of_the_flow_is_a_notice():
    differences, notice = compare_with_run(RUN, {**RUN, "flow_implementation": "torch"})
    assert differences == []
    assert notice.startswith("flow: computed by torch, the run was trained on flow by triton")


def test_two_differences_that_round_are_both_said():
    found = {**RUN, "flow_implementation": "torch", "precision": "float32"}
    differences, notice = compare_with_run(RUN, found)
    assert differences == []
    assert "precision: features are in float32" in notice
    assert "flow: computed by torch" in notice


@pytest.mark.parametrize(
    "change", [{"flow_tau": 0.1}, {"flow_method": "dis"}, {"flow_implementation": None}]
)
def test_any_other_difference_is_refused(change):
    found = {name: value for name, value in {**RUN, **change}.items() if value is not None}
    differences, _ = compare_with_run(RUN, found)
    assert len(differences) == 1
    assert differences[0].startswith(next(iter(change)))
