"""Conformance vectors: what the functions of the specification give, as JSON for clients in any language.

`kinds` describes values and their JSON form, `registry` the functions that vectors call, `cases` how a suite states its
cases, `files` how they are written and read. Each module of `suites` holds one suite: its functions and its cases.
"""
