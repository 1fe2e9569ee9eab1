"""Errors, files, folders, devices and run records, which every package uses."""
