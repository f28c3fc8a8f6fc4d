"""Two trained adapters in one: their deltas added, with weights chosen on dev.

deltas.py   the sum of two LoRA adapters as one LoRA adapter
runs.py     the same for two runs, scored on dev for every pair of weights
"""
