"""Extraction profiles: the options of published features under one name."""

import pytest
import torch
from click.testing import CliRunner

from extractors.build import ExtractorChoice, ExtractorError
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from pipeline.cli import main
from pipeline.extraction.choices import resolve_choices
from pipeline.extraction.errors import ExtractionError
from pipeline.extraction.profiles import PROFILES, describe_profile

CPU = torch.device("cpu")


def test_without_a_profile_options_change_the_default() -> None:
    assert resolve_choices(None) == ExtractorChoice("i3d", "tvl1", 5, None, None, REPEAT_LAST_FRAME)
    chosen = resolve_choices(None, flow="dis", crops=1, weights="random:0", extractor=None)
    assert chosen == ExtractorChoice("i3d", "dis", 1, "random:0", None, REPEAT_LAST_FRAME)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("xd-official", ("i3d", "rgb,flow", 5, DROP_TAIL)),
        ("ucf-deepmil", ("i3d", "rgb", 10, REPEAT_LAST_FRAME)),
        ("rtfm-r50", ("i3d_r50", "rgb", 10, REPEAT_LAST_FRAME)),
    ],
)
def test_a_profile_is_what_the_provenance_says(
    profile: str, expected: tuple[str, str, int, str]
) -> None:
    extractor = resolve_choices(profile, weights="random:0").build(CPU)
    provenance = extractor.provenance()
    names = ("extractor", "streams", "crops", "tail_policy")
    assert tuple(provenance[name] for name in names) == expected
    assert str(provenance["crop_order"]).startswith("center,top left,top right")
    assert provenance["fps_policy"] == "native"


def test_the_same_option_may_stand_beside_a_profile_and_another_may_not() -> None:
    resolve_choices("xd-official", crops=5, flow="tvl1", weights="mine.pt")
    with pytest.raises(ExtractionError, match=r"profile xd-official: crops is 5, instead got 10"):
        resolve_choices("xd-official", crops=10)
    with pytest.raises(ExtractionError, match=r"profile must be one of default, xd-.*got ucf$"):
        resolve_choices("ucf")


def test_choices_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ExtractorError, match=r"i3d_r50 has no flow stream, .* give --flow none"):
        resolve_choices(None, extractor="i3d_r50")


@pytest.mark.parametrize("profile", set(PROFILES) - {"default"})
def test_a_profile_owns_up_to_what_is_not_known(profile: str) -> None:
    assert "not known, or different: how frames were resized" in describe_profile(profile)


def test_the_command_offers_every_profile_and_refuses_others() -> None:
    shown = " ".join(CliRunner().invoke(main, ["extract", "--help"]).stdout.split())
    assert f"[{'|'.join(PROFILES)}]" in shown
    result = CliRunner().invoke(main, ["extract", "small.csv", "--profile", "ucf"])
    assert result.exit_code == 2
    assert "'ucf' is not one of 'default', 'xd-official'" in result.stderr
