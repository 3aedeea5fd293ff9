"""The languages that there is an example client in. Imports nothing, since `--help` names them."""

LANGUAGES = {"python": ("client.py", "python3"), "javascript": ("client.js", "node")}
"""Language -> file of the example and the command that runs it."""
