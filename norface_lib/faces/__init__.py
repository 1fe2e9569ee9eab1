"""The rendered benchmark: synthetic faces by seed, with exact labels and true normalized images.

Nothing here starts Warp or anny before a face is made: specifications and finished benchmarks can
be read without them.
"""
