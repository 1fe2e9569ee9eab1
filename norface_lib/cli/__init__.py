"""The command line: commands by subject, speed measurements, and the run of all notebooks."""
