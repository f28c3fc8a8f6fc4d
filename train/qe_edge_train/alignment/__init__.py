"""Contrastive alignment of a middle layer across languages, and its probe (mid-align, arXiv 2502.14830)."""
