"""How fast a bundle runs on this machine, and how far that is from what the machine can do.

peak.py        the machine's matrix peak
operators.py   time and arithmetic of every operator of a graph
measure.py     a whole measurement
tune.py        the settings that run fastest
"""
