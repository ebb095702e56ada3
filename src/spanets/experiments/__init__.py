"""Studies that train: factors × seeds, intervals, and verdicts by rules written before.

`spanets.analysis.study` measures networks that exist; this room trains the ones it compares.
"""
