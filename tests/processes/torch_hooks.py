"""A transform that needs torch in its worker."""

from __future__ import annotations

from typing import Any

import torch


class TorchTransform:
    """Noise of torch's global generator, and how many threads it may use."""

    def __call__(self, crop: Any) -> torch.Tensor:
        threads = torch.tensor([float(torch.get_num_threads())])
        return torch.cat([torch.rand(3), threads, torch.as_tensor(crop).float().flatten()[:4]])
