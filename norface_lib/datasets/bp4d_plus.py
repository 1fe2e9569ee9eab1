"""BP4D+ (Zhang et al. 2016, also MMSE): 140 subjects, four coded tasks, the labels of BP4D
(PAPER.md 2.2)."""

from norface_lib.datasets.bp4d import BP4D

OCCURRENCE_COLUMNS = (
    1,
    2,
    4,
    5,
    6,
    7,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    22,
    23,
    24,
    27,
    28,
    29,
    *range(30, 40),
)
"""AUs in the order of the columns of an occurrence table: a position is not an AU number."""


class BP4DPlus(BP4D):
    """BP4D+ with a zip of images per subject, image folders, or a video per sequence. ``task`` as
    in :class:`BP4D`.

    Labels beyond the end of a sequence (F041_T7 is known for it) are dropped and counted.
    """

    title = "BP4D+"
    source = BP4D.source.replace("BP4D ", "BP4D+ ")
    tree = """
AUCoding/AU_OCC/F001_T1.csv                  occurrence, with a header of AU numbers
AUCoding/AU_INT/AU06/F001_T1_AU06.csv        intensity, without a header
2D+3D/F001.zip                               holds F001/T1/0.jpg; or folders F001/T1,
                                             or videos F001_T1.mp4"""
    published = "140 subjects, 560 sequences, 197,756 coded frames"
    coded_sequences = ("T1", "T6", "T7", "T8")
    from_zero = True
