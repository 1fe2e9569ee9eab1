"""Photographs and videos: faces found, aligned, normalized and read."""
