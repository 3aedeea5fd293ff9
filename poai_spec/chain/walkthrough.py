# # Walkthrough: one block  [generated from specs/chain/walkthrough.md by `poai spec compile`: edit the page]

# Status: informative, version 1.

# Block 1 of the network `minimal`, made by hand in a Python session: from the config to the genesis block, the header
# core, the quiz, the forward pass, the header, and back through every check. Nothing here is normative. The examples run
# as tests, so the numbers are what the other pages give. To type along, start `python` in a checkout after `make venv`.

# ## The network

# The config is everything that the participants agree on. Its hash is the network id, and the parent of genesis.

# ```pycon
# >>> from poai_spec.basics.parameters import compute_network_id, get_preset
# >>> from poai_spec.chain.upgrades import get_rules
# >>> config = get_preset("minimal")
# >>> rules = get_rules(config, (), height=1)  # no upgrades: the same at every height
# >>> (config.quiz_tokens, config.salt_tokens, config.scored_tokens)
# (32, 6, 2)
# >>> compute_network_id(config).hex()
# '1824dda0cf2ff6e3ebed1d7e53ca2f03a1e75bd0517ef9cc50684018f03b78d4'


# Genesis follows from the config: nobody mines it and nobody sends it.

# ```pycon
# >>> from poai_spec.chain.block import make_genesis
# >>> from poai_spec.basics.containers import compute_block_hash
# >>> genesis = make_genesis(config)
# >>> genesis.header.core.parent_hash == compute_network_id(config)
# True
# >>> chain = [genesis.header]
# >>> compute_block_hash(genesis.header).hex()
# 'f20464541c4e0e9e57407a96a781a34a7a00768c0730c1a8e1310565bdb5d924'


# ## The header core

# A miner fills in all that exists before the forward pass. The state root is the one *after* the block, when the subsidy
# has been credited.

# ```pycon
# >>> from dataclasses import replace
# >>> from poai_spec.chain.production import make_block, make_template
# >>> from poai_spec.execution.state import compute_state_root, process_header
# >>> miner = bytes.fromhex("5a0b54d5dc17e0aadc383d2db43b0a0d3e029c4c")
# >>> core = make_template(chain, {}, rules, miner, config.genesis_timestamp + 1000)
# >>> core = replace(core, nonce=4)
# >>> after = process_header({}, core)
# >>> after[miner].balance == 5 * 10**18, compute_state_root(after) == core.state_root
# (True, True)


# ## The quiz

# Rules, epoch key and core make the quiz seed; the seed makes the quiz. Nonce 4 was not chosen by chance: three of
# four quizzes lose.

# ```pycon
# >>> from poai_spec.proof.lexicon import read_lexicon
# >>> from poai_spec.proof.quiz import get_quiz_name, get_quiz_text
# >>> from poai_spec.proof.work import get_epoch_key, get_quiz
# >>> get_epoch_key(chain, rules).hex()
# '768fac8dfac756683a0bbd6118628fadae24b6bcc262e15fac7ba123df737188'
# >>> lexicon = read_lexicon("mini")
# >>> quiz = get_quiz(core, chain, rules, lexicon)
# >>> get_quiz_name(quiz.salt)
# '0327-023c-0236-02ff-014b-0264'
# >>> print(get_quiz_text(quiz), end="")
# Of blue, plane and table the first in the alphabet is blue
# 542 - 340 = 202
# >>> len(quiz.tokens), quiz.tokens[:7], quiz.scored
# (32, (1, 807, 572, 566, 767, 331, 612), (19, 31))


# The first token is BOS, the next six the salt, and the two scored positions are those of the answers `blue` and, cut off
# by the end, `2` of `202`. Any other core has another quiz, however small the difference:

# ```pycon
# >>> get_quiz_name(get_quiz(replace(core, nonce=5), chain, rules, lexicon).salt)
# '0190-014b-0375-0381-011f-0125'


# ## The forward pass

# poai-mini has three blocks and was made from a seed; it knows nothing about hands or floors. Its integers are those of
# the manifest. The pass takes about a second in plain Python.

# ```pycon
# >>> from poai_engine.models.gguf_file import read_gguf
# >>> from poai_engine.models.model_store import resolve_model
# >>> from poai_engine.engines.reference import ReferenceEngine
# >>> engine = ReferenceEngine(read_gguf(resolve_model("mini")))
# >>> engine.integer_model_root == config.model.integer_model_root
# True
# >>> evaluation = engine.evaluate([quiz.tokens], [quiz.scored])[0]
# >>> evaluation.nlls, evaluation.loss
# ((641639, 943983), 1585622)
# >>> [f"{nll / 65536:.2f} bits" for nll in evaluation.nlls]
# ['9.79 bits', '14.40 bits']
# >>> for entry in evaluation.trace:
# ...     print(entry.hex())
# b78e68279a5fba2db9bb28981e681342f6ca5f592629cb537f457651208b9464
# e6007e3c51dafc81b40d1d022a0ac0dcdd360d71d0b95e1719b000b449c669fa
# 3a020ebc9d73b6550914e8ee7a3323fca5cb959861684c833a8706e0e0f5eb51
# 35f2d18fb67393a69f7274009e6c53a6cee6099d952ef0ad76aa7a6376cc3cbd


# Three layer entries and the output entry. A uniform guess among 905 tokens would cost 9.82 bits; this model is worse.

# ## The header

# ```pycon
# >>> from poai_spec.model.loss import compute_l_hat, compute_trace_digest
# >>> digest = compute_trace_digest(evaluation.trace)
# >>> l_hat = compute_l_hat(quiz.seed, evaluation.loss, digest)
# >>> f"{l_hat:064x}", core.target == 2**254, l_hat < core.target
# ('12836eeded4a93c3bb5a55efe29be321baca1c4c62657c44964db1420286086d', True, True)
# >>> block = make_block(core, evaluation)
# >>> compute_block_hash(block.header).hex()
# '7d2bb17b7cb88b42f1a7bbe41fc2c4c88491adb66018f2cabae7020f9923aec1'
# >>> from poai_spec.basics.encoding import encode
# >>> len(encode(block))
# 356


# ## The verifier's side

# Every rule in the order of the page [block](block.md), the replay last.

# ```pycon
# >>> from poai_spec.chain.block import check_block, make_judge
# >>> judge = make_judge(config, lexicon, engine)
# >>> now = core.timestamp + 50
# >>> state = check_block(block, chain, {}, judge, now)
# >>> state == after
# True


# Whoever changes anything is told what, by the first rule that it breaks. Another miner's name on the same work is another
# quiz, so the old loss and trace do not win:

# ```pycon
# >>> stolen = replace(block, header=replace(block.header, core=replace(core, miner=bytes(20))))
# >>> check_block(stolen, chain, {}, judge, now)  # doctest: +ELLIPSIS
# Traceback (most recent call last):
# poai_spec.basics.notation.Invalid: work/l-hat: l_hat 0x... is not below the target 0x4000...


# A trace that is false from the second layer on can be made to win with hashes alone, here by trying losses; the replay
# stops at the second layer:

# ```pycon
# >>> from itertools import count
# >>> false = (evaluation.trace[0], bytes(32), *evaluation.trace[2:])
# >>> loss = next(n for n in count() if compute_l_hat(quiz.seed, n, compute_trace_digest(false)) < core.target)
# >>> header = replace(block.header, loss=loss, trace_digest=compute_trace_digest(false))
# >>> forged = replace(block, header=header, trace=false)
# >>> check_block(forged, chain, {}, judge, now)  # doctest: +ELLIPSIS
# Traceback (most recent call last):
# poai_spec.basics.notation.Invalid: work/trace: entry 2 of 4 is ..., claimed 0000...


# A body that is not the header's says nothing about the header, and only its sender is blamed:

# ```pycon
# >>> from poai_spec.basics.containers import Body
# >>> check_block(replace(block, body=Body((b"pay me",))), chain, {}, judge, now)  # doctest: +ELLIPSIS
# Traceback (most recent call last):
# poai_spec.basics.notation.Malformed: body/root: the body hashes to ...


# ## Fork choice

# A store that knows genesis receives the block; it becomes the head.

# ```pycon
# >>> from poai_spec.chain.fork_choice import get_head, make_store, on_block
# >>> store = on_block(make_store(judge, now), block, b"a peer", judge)
# >>> get_head(store) == compute_block_hash(block.header)
# True

