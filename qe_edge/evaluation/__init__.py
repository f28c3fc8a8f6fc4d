"""How well scores agree with human scores: `qe-edge eval` (docs/evaluation.md).

- reading: a table -> its number and label columns
- grouping: which rows are evaluated together
- comparison: groups of rows -> measures with bootstrap intervals, macro averages, differences between score columns
- caveats: what a reader of the figures has to know
- report: the result as a text table and as JSON
"""
