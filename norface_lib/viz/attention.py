"""Pictures of where a normalizer looks."""

import numpy as np
from torch import Tensor

from norface_lib.images.arrays import Faces
from norface_lib.networks.attention import attention_maps
from norface_lib.networks.normalizer import Normalizer
from norface_lib.viz.plots.faces import heat_over


def attention_pictures(model: Normalizer, target: Tensor, originals: Faces) -> Faces:
    """Originals (N, S, S, 3) in gray, and red where the normalizer looked for what it drew with the
    ``target`` (1, 3, T, T): what `norface_lib.networks.attention.attention_maps` says of each."""
    maps = attention_maps(model, target, originals)
    return np.stack([heat_over(face, one) for face, one in zip(originals, maps, strict=True)])
