"""Numbers that are defaults and limits of flags. Imports nothing, since `--help` needs it."""

FIDELITY_QUIZZES = 7
PRESCREEN_QUIZZES = 20
LLAMA_BITS_QUIZZES = 20
MAX_LLAMA_BATCH = 256
"""Sequences of a llama.cpp context at most."""
UBATCH = 512
"""llama.cpp's own default, and as fast as any other that was tried."""
BENCH_PERIOD = 10_000
"""Blocks a difficulty period in benches: their chains end before the target follows their pace."""
MAX_BENCH_BLOCKS = 512
"""Blocks of a testnet that is measured: a node remembers so many (`admission.MAX_REMEMBERED`)."""
MAX_QUIZ_TOKENS = 2_048
"""Of the page `parameters`."""
