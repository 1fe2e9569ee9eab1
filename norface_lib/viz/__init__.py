"""Figures as pure functions, and controls for notebooks."""

from norface_lib.common.errors import needs

with needs("notebooks"):
    import ipywidgets  # noqa: F401
    import seaborn  # noqa: F401
