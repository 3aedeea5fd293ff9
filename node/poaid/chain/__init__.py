"""The chain: headers, admission of blocks, replays, and chains as files."""
