"""Faces as arrays: crops, image files, contact sheets and distances between images."""
