"""Terms of the loss of the synthesis stage of the normalizer's training, and their weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weight of each term; 0 leaves it out. The first four need pairs, the others do not."""

    reconstruction: float = 1.0  # weighted, softened L1 to the true I_n
    edge: float = 1.0  # L1 of its edges
    reading: float = 0.2  # squared error of AUs read from the expression embedding
    # distance to the true I_n as a frozen network sees it; where no face has one, of the target
    # that was given as original to itself, with the term self_reconstruction
    perceptual: float = 0.0
    expression: float = 0.0  # a frozen network must see the original's expression in I_n
    identity: float = 0.0  # and another the target's identity
    # the target, given as original, must come out as it is: weighted, softened L1
    self_reconstruction: float = 0.0
    # a discriminator must take I_n for a true one; it learns by the same weight
    adversarial: float = 0.0
    r1: float = 0.0  # of the discriminator's gradient penalty, beside that

    def __post_init__(self):
        bad = [name for name, value in asdict(self).items() if not 0 <= value < float("inf")]
        if bad:
            raise ValueError(f"weights of terms must be finite and at least 0: {', '.join(bad)}")

    @property
    def unpaired(self) -> bool:
        """Whether a term learns from faces without a true I_n."""
        return bool(self.expression or self.identity or self.adversarial)


@dataclass(frozen=True, kw_only=True)
class SynthesisTerms:
    """Weights of the terms, and how some of them are computed."""

    weights: LossWeights = LossWeights()
    moving_weight: float = 6.0  # how much more the pixels count that expressions move most
    softness: float = 0.05  # differences below this count squared
    unpaired_share: float = 0.5  # of a batch, where there are faces with and without a true I_n
    degraded_share: float = 0.0  # of the originals that are degraded as poor photographs are
    # of the faces with a true I_n that are drawn from their intensities alone, if the normalizer
    # can (`Normalizer.draw`)
    code_share: float = 0.0
    # for `norface_lib.networks.frozen.frozen_network`, like the next two
    perceptual_network: str = "evaluator"
    expression_network: str = "evaluator"
    identity_network: str = "arcface"

    def __post_init__(self):
        if not 0 < self.unpaired_share < 1:
            raise ValueError(f"unpaired_share must be within (0, 1), got {self.unpaired_share}")
        for name in ("degraded_share", "code_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within [0, 1], got {getattr(self, name)}")


def terms_of(weights: Sequence[str], networks: Sequence[str]) -> SynthesisTerms:
    """The default terms with some changed: weights as ``"perceptual=0.1"``, frozen networks as
    ``"identity=arcface:PATH"``.

    Raises ``ValueError`` for what is not of this form, for an unknown name, and for a weight that
    is no number of at least 0.
    """
    known = {name: str(value) for name, value in asdict(LossWeights()).items()}
    changed = LossWeights(
        **{name: float(value) for name, value in _assignments(weights, known).items()}
    )
    places = {
        name.removesuffix("_network"): value
        for name, value in asdict(SynthesisTerms()).items()
        if "_network" in name
    }
    chosen = _assignments(networks, places)
    networks = {f"{name}_network": value for name, value in chosen.items()}
    return SynthesisTerms(weights=changed, **networks)


def _assignments(texts: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """The known values with those of ``name=value`` texts in their places."""
    values = dict(known)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known or not value:
            raise ValueError(f"{text!r} must be NAME=VALUE with a name of {', '.join(known)}")
        values[name] = value
    return values
