# # The PoAI specification  [generated from specs/README.md by `poai spec compile`: edit the page]

# The rules of PoAI, as pages to read and as a package to run. Each page is markdown with Python. The code blocks together
# are the package `poai_spec`: `poai spec compile` turns every page into the module of the same name and the same line
# numbers, so a traceback, a debugger or a coverage report points into the page. The package is slow and plain on purpose:
# Python integers, no floating point, no state. Faster implementations are compared with it, bit for bit.

# The code is normative. Where prose and code disagree, the code decides and the prose is a defect to report. A rule that is
# broken raises an error whose code, such as `difficulty/target`, begins with a page's name; `poai spec where CODE` prints the
# line that raises it. Each page ends with its own codes; [all of them](../docs/rejection-codes.md) are in one table.


__version__ = "0.1.0"


# ## Reading order

# ![From a header core to a block: seed, quiz, forward pass, loss and trace, hash](../docs/img/quiz-to-block.svg)

# A page imports only from pages above it. For a first look take the [walkthrough](chain/walkthrough.md), then
# [quiz](proof/quiz.md), [inference](model/inference.md), [loss](model/loss.md) and [block](chain/block.md).

# Status is *normative* for what an implementation must do, *informative* for what it may ignore. All pages describe
# version 1.

# The pages [world](execution/world.md) to [execution](execution/execution.md), transactions and the EVM, are written and tested but **not active
# yet**: blocks of version 1 hold no transactions, balances change by subsidies alone, and no rule of a block uses them. A
# client that follows the chain needs none of them today.

# | | page | what it fixes | status |
# | --- | --- | --- | --- |
# | 1 | [notation](basics/notation.md) | integers, hashes, the three classes of errors | normative |
# | 2 | [encoding](basics/encoding.md) | SSZ, one encoding a value | normative |
# | 3 | [parameters](basics/parameters.md) | the numbers of networks and of version 1, models | normative |
# | 4 | [upgrades](chain/upgrades.md) | the rules of a height, fork ids | normative |
# | 5 | [containers](basics/containers.md) | header core, header, body, block, and their hashes | normative |
# | 6 | [drbg](basics/drbg.md) | uniform integers from a seed | normative |
# | 7 | [epoch](proof/epoch.md) | epochs and their keys | normative |
# | 8 | [lexicon](proof/lexicon.md) | the pieces of questions and their token ids | normative |
# | 9 | [corpus](proof/corpus.md) | questions from a text instead | normative |
# | 10 | [questions](proof/questions.md) | the families of questions | normative |
# | 11 | [solvers](proof/solvers.md) | the answer found from the prompt alone | informative |
# | 12 | [quiz](proof/quiz.md) | from a header core to a token sequence | normative |
# | 13 | [fixed-point](model/fixed-point.md) | rounding, powers of two, logarithm, sine | normative |
# | 14 | [weights](model/weights.md) | GGUF tensors as integers | normative |
# | 15 | [integer-model](model/integer-model.md) | rows to int8, what is refused, the model's root | normative |
# | 16 | [engine](model/engine.md) | the interface between a chain and a model | normative |
# | 17 | [loss](model/loss.md) | loss, trace and `l_hat` | normative |
# | 18 | [inference](model/inference.md) | the forward pass, with the bound of every step | normative |
# | 19 | [llama-profile](model/llama-profile.md) | logits from llama.cpp, for private networks of equal machines | normative |
# | 20 | [difficulty](proof/difficulty.md) | target, time stamps, retarget | normative |
# | 21 | [work](proof/work.md) | checking a block's work, cheapest part first | normative |
# | 22 | [economics](proof/economics.md) | subsidy and halving | normative |
# | 23 | [trie](execution/trie.md) | the map behind a root, and proofs | normative |
# | 24 | [state](execution/state.md) | accounts and the state root | normative |
# | 25 | [world](execution/world.md) | accounts, storage and code as transactions change them | normative |
# | 26 | [gas](execution/gas.md) | what each step costs | normative |
# | 27 | [evm](execution/evm.md) | frames, memory, and how they end | normative |
# | 28 | [arithmetic](execution/arithmetic.md) | instructions that compute | normative |
# | 29 | [instructions](execution/instructions.md) | instructions that read, move, store, jump, log | normative |
# | 30 | [precompiles](execution/precompiles.md) | functions at addresses | normative |
# | 31 | [calls](execution/calls.md) | instructions that open frames | normative |
# | 32 | [interpreter](execution/interpreter.md) | the table of instructions and the loop | normative |
# | 33 | [transaction](execution/transaction.md) | what an owner signs | normative |
# | 34 | [receipts](execution/receipts.md) | what came of it | normative |
# | 35 | [execution](execution/execution.md) | what a transaction does to the world | normative |
# | 36 | [body](chain/body.md) | what a block carries beside its header | normative |
# | 37 | [header](chain/header.md) | genesis, and the rules for a header | normative |
# | 38 | [production](chain/production.md) | the next block, seen by its maker | normative |
# | 39 | [block](chain/block.md) | every check of a block, in one total order | normative |
# | 40 | [fork-choice](chain/fork-choice.md) | which chain is the chain | normative |
# | 41 | [networking](chain/networking.md) | what nodes say to each other, limits, and what a fault costs | normative |
# | 42 | [walkthrough](chain/walkthrough.md) | one block from seed to reward, with every number | informative |

# The pages lie in five rooms, each with a list of its own:

# - [basics](basics/README.md): bytes, numbers of networks, containers
# - [proof](proof/README.md): the quiz, its work, and how hard it is
# - [model](model/README.md): the forward pass in integers
# - [execution](execution/README.md): accounts, transactions and the EVM
# - [chain](chain/README.md): headers, blocks, fork choice, upgrades and networking

# `manifests/` holds, as JSON, the pinned models and their lexicons; they are normative too.
