"""The PoAI node: chain, store, verifier, miner and command line."""
