"""Tables of texts: reading them as a stream, and writing them back with their scores.

- text: bytes of a file or of standard input -> physical lines
- cells: one line -> cells, with or without CSV quotes
- records: physical lines -> records (a quoted cell may hold line breaks)
- quoting: whether a table is CSV-quoted
- columns: which cells hold the texts and the languages
- languages: the language pair of a row: given, in a column, or detected
- detection: languages from the texts
- items: what every input becomes, and how it is written back
- table: a TSV file -> items to be scored
- parallel: two line-aligned text files -> items to be scored
- stream: items -> scorer -> output, counting statuses
- output: where scores go: standard output, or a file that appears only when it is complete
- report: what is said on standard error
"""
