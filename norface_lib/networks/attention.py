"""Where in an original a normalizer looks for what it draws."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.normalizer import Normalizer


@torch.inference_mode()
def attention_maps(model: Normalizer, target: Tensor, faces: Faces) -> NDArray[np.float32]:
    """Where the last merging block looks in each of the originals (N, S, S, 3), on the encoder's
    grid: (N, G, G), values >= 0 that sum to 1.

    Each place of the ``target`` (1, 3, T, T) attends to places of the original. Places count by how
    much the drawn face changes the target there: a brow that is not raised is not asked for.
    """
    device = next(model.parameters()).device
    tokens = model.encoder(to_tensor(faces).to(device))
    features = model.target(target.to(device))
    target_tokens = features.tokens.expand(len(tokens), -1, -1)
    # of the last block: (N, L of the target, L of the original)
    attention = model.merging.attention(target_tokens, tokens, model.expression(tokens))[-1]

    change = (model.synthesize(tokens, features) - features.image).abs().mean(1, keepdim=True)
    grid = model.config.encoder.grid
    weights = F.adaptive_avg_pool2d(change, grid).flatten(1) + 1e-6  # even where nothing changes
    weights = weights / weights.sum(1, keepdim=True)
    maps = weights[:, None] @ attention
    return maps.reshape(-1, grid, grid).float().cpu().numpy()
