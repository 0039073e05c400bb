"""Moving house: everything in one database, as it is, into another one, whatever the engines, or by way of a file.

`source` says what there is to move, `target` brings a database to hold just that and proves it, `lines` and `dumps` are
the file between them (docs/dump-format.md). What is moved at a time is a page; memory does not grow with the data.
"""
