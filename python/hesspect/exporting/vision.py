"""Models of torchvision and timm by their names."""

import os
from pathlib import Path
from typing import Any

import torch

from hesspect.errors import InputError, UsageError
from hesspect.exporting.model_export import Exported, export
from hesspect.text import did_you_mean

_ROWS = 3


def _images(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(_ROWS, channels, height, width, generator=torch.Generator().manual_seed(0))


def export_torchvision(name: str, path: str | os.PathLike[str], *, pretrained: bool = False, classes: int | None = None,
                       size: int | None = None) -> Exported:
    """Exports a model of torchvision: of classification, segmentation or video.

    :param pretrained: with torchvision's default weights for it, which it downloads where they are not there
    :param classes: of the last layer, for a model without weights
    :param size: pixels along both sides
    :raises UsageError: torchvision is not there, or has no such model
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise UsageError("a model of torchvision needs the package torchvision: pip install torchvision") from error
    if name not in models.list_models():
        raise UsageError(f"torchvision has no model {name!r}{did_you_mean(name, models.list_models())}")
    default: Any = models.get_model_weights(name)
    best = getattr(default, "DEFAULT", None)
    if pretrained and best is None:
        raise UsageError(f"torchvision has no weights for {name}")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options |= {"init_weights": True, "aux_logits": False}
    if not pretrained:
        options |= {"weights_backbone": None} if "deeplab" in name or "fcn" in name or "lraspp" in name else {}
    try:
        model = models.get_model(name, weights=best if pretrained else None, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"torchvision cannot make {name}: {str(error).splitlines()[0]}") from error
    side = size or _side(best)
    return export(model, _images(3, side, side), path)


def _side(weights: Any) -> int:
    """The size that the weights were trained at; many models take any."""
    smallest = None if weights is None else weights.meta.get("min_size")
    crop = getattr(weights.transforms(), "crop_size", None) if weights is not None else None
    if crop:
        return int(crop[0])
    return max(int(smallest[0]), 224) if smallest else 224


def export_timm(name: str, path: str | os.PathLike[str], *, pretrained: bool = False, classes: int | None = None,
                size: int | None = None) -> Exported:
    """Exports a model of timm.

    :param pretrained: with timm's weights for it, which it downloads where they are not there
    :param classes: of the last layer
    :param size: pixels along both sides
    :raises UsageError: timm is not there, or has no such model
    """
    try:
        import timm
    except ImportError as error:
        raise UsageError("a model of timm needs the package timm: pip install timm") from error
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    try:
        model = timm.create_model(name, pretrained=pretrained, exportable=True, **options)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"timm cannot make {name}: {str(error).splitlines()[0]}") from error
    channels, height, width = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))
    return export(model, _images(channels, size or height, size or width), Path(path))
