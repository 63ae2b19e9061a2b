"""A Segue transport on one SQLite file: no server, usable by all processes of one machine.

`litequeue:///absolute/path/to/file.db`; the file is created at the first need. Option of the query:

    redelivery=5     seconds after which an unacknowledged delivery comes again

Read `plugin` (how Segue finds it), `file` (SQLite, and waiting), `transport` (the port), then `requests`.
"""
