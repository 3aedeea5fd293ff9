# # Execution  [generated from specs/execution/README.md by `poai spec compile`: edit the page]

# What blocks do to accounts. [The specification](../README.md) has all pages in reading order.

# - [trie](trie.md): the map behind a root, and proofs
# - [state](state.md): accounts and the state root
# - [world](world.md): accounts, storage and code as transactions change them
# - [gas](gas.md): what each step costs
# - [evm](evm.md): frames, memory, and how they end
# - [arithmetic](arithmetic.md): instructions that compute
# - [instructions](instructions.md): instructions that read, move, store, jump, log
# - [precompiles](precompiles.md): functions at addresses
# - [calls](calls.md): instructions that open frames
# - [interpreter](interpreter.md): the table of instructions and the loop
# - [transaction](transaction.md): what an owner signs
# - [receipts](receipts.md): what came of it
# - [execution](execution.md): what a transaction does to the world
