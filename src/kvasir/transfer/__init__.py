"""Everything in one database, unchanged, into another one, whatever their engines, directly or through a file.

`source` says what there is to transfer, `target` makes a database hold exactly that and proves it; `dump_file` and
`dump_lines` are the file in between (docs/dump-format.md). Entries travel a page at a time, so memory does not grow
with the data.
"""
