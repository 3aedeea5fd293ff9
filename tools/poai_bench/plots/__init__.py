"""The pictures of the documents, and what `--plots` of a bench draws.

`registry` says which pictures there are and what each is drawn from, `style` how all of them look. Each other module
draws those of one subject.
"""
