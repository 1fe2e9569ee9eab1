"""Action units (AU), their intensities, and how an AU is made from ARKit facial actions.

Definitions follow the Facial Action Coding System (FACS; Ekman, Friesen and Hager 2002). The step
from AU to ARKit action is ours (DESIGN: 23 and 25 are approximations): ARKit's actions were named
after AUs but are a rig, not a coding system.
"""

from dataclasses import dataclass
from types import MappingProxyType

BP4D_AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
"""The 12 AUs of BP4D and BP4D+ in the order of every published table (PAPER.md 2.1)."""

BP4D_RATES = (0.211, 0.170, 0.203, 0.461, 0.549, 0.594, 0.562, 0.466, 0.169, 0.344, 0.165, 0.152)
"""Share of BP4D frames in which each of ``BP4D_AUS`` occurs, pooled over the folds (PAPER.md 2.1).
"""

INTENSITY_MAX = 5.0
"""AU intensity runs from 0 (absent) over 1 (A, trace) to 5 (E, maximum)."""

OCCURRENCE_THRESHOLD = 1.0
"""BP4D codes an AU as present at any intensity from A on; DISFA's detection protocol asks for 2
(PAPER.md 2.3)."""

UNKNOWN = 9
"""The label that coders give to an AU they could not see; NaN means the same (PAPER.md 2.1)."""


@dataclass(frozen=True)
class ActionUnit:
    """One AU: its FACS name, the ARKit actions that draw it at intensity 5, and whether its two
    sides move on their own."""

    number: int
    name: str
    actions: MappingProxyType[str, float]
    sided: bool

    @property
    def column(self) -> str:
        """Name of its column in label tables: ``AU04``."""
        return au_column(self.number)


def au_column(number: int) -> str:
    """``4 -> 'AU04'``: two digits, so that names sort as numbers do."""
    return f"AU{number:02d}"


_PRESSED_LIPS = {
    "mouthPressLeft": 1.0,
    "mouthPressRight": 1.0,
    "mouthRollLower": 0.35,
    "mouthRollUpper": 0.35,
}

_STRONGEST = 1.5
"""Where an ARKit action at 1 is too weak for intensity 5 on this head, it is rendered stronger;
beyond this, surfaces cross."""


def _sided(number: int, name: str, **actions: float) -> ActionUnit:
    """An AU of paired actions: ``browDown`` stands for ``browDownLeft`` and ``browDownRight``."""
    both = {
        f"{action}{side}": weight
        for action, weight in actions.items()
        for side in ("Left", "Right")
    }
    return ActionUnit(number, name, MappingProxyType(both), sided=True)


def _single(number: int, name: str, **actions: float) -> ActionUnit:
    return ActionUnit(number, name, MappingProxyType(actions), sided=False)


AUS: MappingProxyType[int, ActionUnit] = MappingProxyType(
    {
        au.number: au
        for au in (
            # ARKit has one action for both sides; `faces.head` halves it
            _sided(1, "inner brow raiser", browInnerUp=1.3),
            _sided(2, "outer brow raiser", browOuterUp=1.1),
            _sided(4, "brow lowerer", browDown=1.2),
            _sided(5, "upper lid raiser", eyeWide=1.3),
            _sided(6, "cheek raiser", cheekSquint=1.3, eyeSquint=0.4),
            _sided(7, "lid tightener", eyeSquint=1.3),
            _sided(9, "nose wrinkler", noseSneer=1.5, mouthUpperUp=0.3, browDown=0.35),
            _sided(10, "upper lip raiser", mouthUpperUp=1.0),
            _sided(12, "lip corner puller", mouthSmile=1.0),
            _sided(14, "dimpler", mouthDimple=1.4),
            _sided(15, "lip corner depressor", mouthFrown=1.3),
            _sided(16, "lower lip depressor", mouthLowerDown=1.1),
            _single(17, "chin raiser", mouthShrugLower=1.2, mouthShrugUpper=0.5),
            _single(18, "lip pucker", mouthPucker=1.1),
            _sided(20, "lip stretcher", mouthStretch=1.4),
            _single(22, "lip funneler", mouthFunnel=1.1),
            # no ARKit action narrows the red of the lips without pressing them: an approximation
            _single(23, "lip tightener", mouthRollLower=0.5, mouthRollUpper=0.5, mouthPucker=0.4),
            ActionUnit(24, "lip pressor", MappingProxyType(_PRESSED_LIPS), sided=False),
            # ARKit parts the lips only by raising the upper or lowering the lower one: an
            # approximation
            _sided(25, "lips part", mouthLowerDown=0.6, mouthUpperUp=0.2),
            _single(26, "jaw drop", jawOpen=0.7),
            _single(28, "lip suck", mouthRollLower=1.3, mouthRollUpper=1.2, jawOpen=0.12),
            _sided(43, "eyes closed", eyeBlink=1.0),
        )
    }
)
"""Every AU that the rendered benchmark can draw, by number."""


EXPRESSION_COLUMNS: tuple[str, ...] = tuple(
    column
    for number, unit in sorted(AUS.items())
    for column in (
        [f"{au_column(number)}{side}" for side in "LR"] if unit.sided else [au_column(number)]
    )
)
"""Columns that hold all of an expression: an AU's intensity, or that of the subject's left and
right side (``AU12L``, ``AU12R``) where they move on their own."""


REGIONS: MappingProxyType[str, tuple[int, ...]] = MappingProxyType(
    {
        "brows": (1, 2, 4),
        "eyes": (5, 7, 43),
        "cheeks and nose": (6, 9),
        "mouth": (10, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 28),
    }
)
"""Where on the face each AU of ``AUS`` is seen first of all."""


def columns(numbers: tuple[int, ...] = BP4D_AUS) -> tuple[str, ...]:
    """Label names of AU numbers, in order: ``(1, 2) -> ('AU01', 'AU02')``."""
    return tuple(au_column(number) for number in numbers)


def facial_actions(
    left: dict[int, float], right: dict[int, float] | None = None
) -> dict[str, float]:
    """ARKit action weights (0..1.5) that draw AU intensities (AU number -> 0..5), for each side of
    the face.

    ``right`` defaults to ``left``. Actions shared by several AUs add up to a limit, as muscles do.
    An AU whose sides cannot move apart takes the mean of both. Raises ``ValueError`` for an unknown
    AU or an intensity outside 0..5.
    """
    right = left if right is None else right
    weights: dict[str, float] = {}
    for number in sorted({*left, *right}):
        if number not in AUS:
            raise ValueError(
                f"AU{number} is not in the rendered benchmark; known: {', '.join(map(str, AUS))}"
            )
        sides = (left.get(number, 0.0), right.get(number, 0.0))
        if not all(0.0 <= value <= INTENSITY_MAX for value in sides):
            raise ValueError(
                f"intensity of AU{number} must be within 0..{INTENSITY_MAX:g}, got {sides}"
            )
        for action, weight in AUS[number].actions.items():
            value = (
                sides[0]
                if action.endswith("Left")
                else sides[1]
                if action.endswith("Right")
                else sum(sides) / 2
            )
            weights[action] = min(
                _STRONGEST, weights.get(action, 0.0) + weight * value / INTENSITY_MAX
            )
    return weights


EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""The eight classes of AffectNet, in the order of its codes (PAPER.md 2.4)."""

_Prototype = tuple[dict[int, float], dict[int, float]]

EMOTION_AUS: MappingProxyType[str, tuple[_Prototype, ...]] = MappingProxyType(
    {
        "neutral": (({}, {}),),
        "happy": (({12: 1.0}, {6: 0.85, 25: 0.6, 26: 0.2, 7: 0.2}),),
        "sad": (
            ({1: 0.9, 15: 0.8}, {4: 0.7, 17: 0.5, 43: 0.15, 25: 0.1}),
            ({1: 0.9, 4: 0.7}, {15: 0.5, 17: 0.4, 6: 0.2, 43: 0.15}),
        ),
        "surprise": (
            ({1: 1.0, 2: 1.0, 26: 0.8}, {5: 0.8, 25: 0.8}),
            ({1: 0.9, 2: 0.9, 5: 0.8}, {25: 0.5, 26: 0.5}),
        ),
        "fear": (
            ({1: 0.9, 2: 0.8, 4: 0.6, 5: 0.9}, {20: 0.6, 25: 0.7, 26: 0.5, 7: 0.3}),
            ({5: 0.9, 20: 0.8, 4: 0.5}, {1: 0.6, 25: 0.7}),
        ),
        "disgust": (
            ({9: 0.9}, {10: 0.6, 4: 0.4, 7: 0.4, 17: 0.4, 25: 0.3, 15: 0.2}),
            ({10: 0.9, 15: 0.5}, {17: 0.5, 4: 0.4, 7: 0.3}),
        ),
        "anger": (
            ({4: 1.0, 7: 0.7}, {5: 0.5, 23: 0.6, 24: 0.3, 17: 0.3}),
            ({4: 0.9, 7: 0.6, 10: 0.6}, {9: 0.2, 25: 0.7, 16: 0.4, 26: 0.3}),
        ),
        "contempt": (({14: 1.0}, {12: 0.3}), ({12: 0.8}, {14: 0.4})),  # on one side of the face
    }
)
"""EMFACS prototypes (Ekman and Friesen 1983): for each emotion its variants, as AUs that must show
(-> usual intensity, a share of the maximum) and AUs that may (-> how often they do). Which
variants, and how often, is our choice."""


def typical(emotion: str) -> dict[int, float]:
    """AU intensities 0..5 of an emotion's first prototype at full strength, with what goes along
    with it at least every other time, at 4."""
    must, may = EMOTION_AUS[emotion][0]
    often = {au: 4.0 for au, share in may.items() if share >= 0.5}
    return often | {au: INTENSITY_MAX * usual for au, usual in must.items()}
