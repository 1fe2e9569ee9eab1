"""Experiments, measures of networks, and published numbers."""
