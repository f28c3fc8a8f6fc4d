"""How much adapter each block gets (AlphaLoRA, arXiv 2410.10054).

spectra.py    how well the weights of each block are trained, read off their eigenvalues
allocate.py   a total shared out over the blocks
report.py     both as a table, CSV, JSON and a plot
"""
