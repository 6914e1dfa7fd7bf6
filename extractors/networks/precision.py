"""The networks' floating-point type: float32, or bfloat16 where the device supports it natively."""

import torch

from extractors.names import PRECISIONS

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in PRECISIONS}


def best_precision(device: torch.device) -> str:
    """Return the fastest precision that is accurate enough.

    Features in bfloat16 have a cosine of 0.9996 to 0.9999 with those in float32.

    >>> best_precision(torch.device("cpu")) in PRECISIONS
    True
    """
    return "bfloat16" if _has_bfloat16(device) else "float32"


def check_precision(precision: str, device: torch.device) -> None:
    """Check that a precision exists and that the device supports it natively.

    A CPU that emulates bfloat16 is about a hundred times as slow.

    Raises:
        ValueError: If not.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, instead got {precision}")
    if precision == "bfloat16" and not _has_bfloat16(device):
        raise ValueError(
            f"precision must be float32 on a device without bfloat16, instead got {precision}"
        )


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
