"""Torchvision's RAFT, and the conversion of tensor names from the authors' files.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020,
https://arxiv.org/abs/2003.12039; the authors' files are those of
https://github.com/princeton-vl/RAFT.
"""

import re

from torch import Tensor, nn

# Of torchvision's default weights.
ADDRESSES = {
    "raft-small": "https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth",
    "raft-large": "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
}

# From the authors' names to torchvision's, applied in this order. In the authors' encoders conv1
# outside of the layers is the first convolution and conv2 the last; norm3 of a block is a second
# name of the normalization in `downsample`.
_RENAMINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^module\.", ""),
        (r"^fnet\.", "feature_encoder."),
        (r"^cnet\.", "context_encoder."),
        (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
        (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
        (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
        (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
        (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
        (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
        (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
        (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
        (r"^update_block\.gru\.conv([zrq])\.", r"update_block.recurrent_block.convgru1.conv\1."),
        (
            r"^update_block\.gru\.conv([zrq])(\d)\.",
            r"update_block.recurrent_block.convgru\2.conv\1.",
        ),
        (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
        (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
    )
)
_SECOND_NAME = ".norm3."


def build(variant: str) -> nn.Module:
    """Build a RAFT with initial weights.

    Args:
        variant: A key of `ADDRESSES`.
    """
    # torchvision takes seconds to import and brings a compiler along: only where RAFT is used.
    from torchvision.models import optical_flow  # noqa: PLC0415

    builders = {"raft-small": optical_flow.raft_small, "raft-large": optical_flow.raft_large}
    network: nn.Module = builders[variant](weights=None)
    return network


def torchvision_names(content: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a RAFT file to torchvision's names, if it has the authors'."""
    if not any("fnet." in name for name in content):
        return content
    renamed = {}
    for name, tensor in content.items():
        if _SECOND_NAME in name:
            continue
        for pattern, replacement in _RENAMINGS:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed


def variant_of(content: dict[str, Tensor]) -> str:
    """Return the RAFT that a file's tensors belong to: only the large one learns its upsampling."""
    return "raft-large" if any("mask" in name for name in content) else "raft-small"
