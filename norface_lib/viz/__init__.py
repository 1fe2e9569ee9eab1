"""Figures as pure functions, controls for notebooks, and predictions over their photographs."""
