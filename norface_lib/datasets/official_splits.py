"""Who is in which part, as the field has fixed it: the official subject lists and nothing else.

The lists are those of the code that published them (named at each; PAPER.md 2.1-2.3). What is done
with them is in `protocols`.
"""


def _parts(*lists: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names.split()) for names in lists)


def _numbered(letter: str, numbers: range) -> tuple[str, ...]:
    return tuple(f"{letter}{number:03d}" for number in numbers)


BP4D_FOLDS = _parts(
    "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014",
    "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
    "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
)
"""Test subjects P1, P2, P3 of BP4D (41 subjects) as JAA-Net numbers them; ME-GraphAU counts
backwards (PAPER.md 2.1)."""

BP4D_FERA = (
    _numbered("F", range(1, 24, 2)) + _numbered("M", range(1, 18, 2)),
    _numbered("F", range(2, 23, 2)) + _numbered("M", range(2, 19, 2)),
)
"""Training and test ("development") subjects of BP4D in FERA 2015: odd numbers train, even ones are
tested (PAPER.md 2.1)."""

DISFA_FOLDS = _parts(
    "SN001 SN002 SN009 SN010 SN016 SN026 SN027 SN030 SN032",
    "SN006 SN011 SN012 SN013 SN018 SN021 SN024 SN028 SN031",
    "SN003 SN004 SN005 SN007 SN008 SN017 SN023 SN025 SN029",
)
"""Test subjects P1, P2, P3 of DISFA (27 subjects) as JAA-Net numbers them; ME-GraphAU counts
backwards (PAPER.md 2.3)."""

BP4D_PLUS_FMAE_FOLDS = _parts(
    """
    F004 F013 F014 F019 F020 F026 F033 F038 F039 F044 F046 F047 F053 F057 F061 F066 F071 F072 F076
    F079 M003 M004 M015 M017 M020 M025 M026 M029 M033 M036 M040 M042 M048 M050 M051
    """,
    """
    F012 F016 F022 F024 F028 F030 F031 F032 F034 F056 F060 F065 F074 F075 F077 M001 M005 M009 M011
    M016 M018 M019 M022 M023 M028 M034 M037 M038 M043 M044 M045 M046 M047 M052 M055
    """,
    """
    F001 F002 F008 F009 F017 F021 F027 F029 F035 F040 F042 F043 F045 F050 F052 F054 F058 F062 F063
    F064 F068 F069 F078 F080 M008 M010 M024 M027 M030 M031 M035 M041 M054 M056 M057
    """,
    """
    F003 F005 F006 F007 F010 F011 F015 F018 F023 F025 F036 F037 F041 F048 F049 F051 F055 F059 F067
    F070 F073 F081 F082 M002 M006 M007 M012 M013 M014 M021 M032 M039 M049 M053 M058
    """,
)
"""Test subjects of the four random folds of BP4D+ (140 subjects) that FMAE drew (PAPER.md 2.2 a).
"""

BP4D_PLUS_BIGSMALL_FOLDS = _parts(
    """
    F003 F004 F005 F006 F009 F017 F022 F028 F029 F031 F032 F033 F038 F044 F047 F048 F052 F053 F055
    F061 F063 F067 F068 F074 F075 F076 F081 M003 M005 M006 M009 M012 M019 M025 M026 M028 M031 M036
    M037 M040 M046 M047 M049 M051 M054 M056
    """,
    """
    F001 F002 F008 F018 F021 F025 F026 F035 F036 F037 F039 F040 F041 F042 F046 F049 F057 F058 F060
    F062 F064 F066 F070 F071 F072 F073 F077 F082 M001 M002 M007 M013 M014 M016 M022 M023 M024 M027
    M029 M030 M034 M035 M041 M042 M043 M048 M055
    """,
    """
    F007 F010 F011 F012 F013 F014 F015 F016 F019 F020 F023 F024 F027 F030 F034 F043 F045 F050 F051
    F054 F056 F059 F065 F069 F078 F079 F080 M004 M008 M010 M011 M015 M017 M018 M020 M021 M032 M033
    M038 M039 M044 M045 M050 M052 M053 M057 M058
    """,
)
"""Test subjects of the three folds of BP4D+ that BigSmall drew, as shipped with rPPG-Toolbox
(PAPER.md 2.2 b)."""
