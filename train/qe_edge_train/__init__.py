"""Training of tapped regression heads on decoder language models (ALOPE, arXiv 2508.07484)."""
