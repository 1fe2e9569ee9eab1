"""The fault suite: kills, full disks, two processes, damaged inputs and changed weights.

`make faults` runs it through the real commands and prints a table: kind, tries, lost, wrong.
"""
