# # Walkthrough: one block  [generated from specs/walkthrough.md by `poai spec compile`: edit the page]

# Status: informative, version 1.

# Block 1 of the network `minimal`, made by hand in a Python session: from the config to the genesis block, the header
# core, the quiz, the forward pass, the header, and back through every check. Nothing here is normative. The examples run
# as tests, so the numbers are what the other pages give. To type along, start `python` in a checkout after `make venv`.

# ## The network

# The config is everything that the participants agree on. Its hash is the network id, and the parent of genesis.

# ```pycon
# >>> from poai_spec.parameters import compute_network_id, get_preset
# >>> config = get_preset("minimal")
# >>> (config.quiz_tokens, config.salt_tokens, config.scored_tokens)
# (32, 6, 2)
# >>> compute_network_id(config).hex()
# 'b46e474942189fa046a22d2a37a95893d709341ddd1db0bdfcdf91dc956bf8ce'


# Genesis follows from the config: nobody mines it and nobody sends it.

# ```pycon
# >>> from poai_spec.block import make_genesis
# >>> from poai_spec.containers import compute_block_hash
# >>> genesis = make_genesis(config)
# >>> genesis.header.core.parent_hash == compute_network_id(config)
# True
# >>> chain = [genesis.header]
# >>> compute_block_hash(genesis.header).hex()
# '0871aeca9a2db33bb50e1f698832eef6c1f6b7b95065d6685d5ff0961e8ac951'


# ## The header core

# A miner fills in all that exists before the forward pass. The state root is the one *after* the block, when the subsidy
# has been credited.

# ```pycon
# >>> from dataclasses import replace
# >>> from poai_spec.body import EMPTY_BODY, EMPTY_BODY_ROOT
# >>> from poai_spec.containers import Block, Header, HeaderCore
# >>> from poai_spec.difficulty import compute_target
# >>> from poai_spec.state import compute_state_root, process_header
# >>> core = HeaderCore(
# ...     version=1,
# ...     height=1,
# ...     parent_hash=compute_block_hash(genesis.header),
# ...     timestamp=config.genesis_timestamp + 1000,
# ...     target=compute_target(chain, config),
# ...     miner=bytes.fromhex("5a0b54d5dc17e0aadc383d2db43b0a0d3e029c4c"),
# ...     body_root=EMPTY_BODY_ROOT,
# ...     state_root=bytes(32),
# ...     nonce=6,
# ... )
# >>> after = process_header({}, core)
# >>> after[core.miner].balance == 5 * 10**18
# True
# >>> core = replace(core, state_root=compute_state_root(after))


# ## The quiz

# Network, epoch key and core make the quiz seed; the seed makes the quiz. Nonce 6 was not chosen by chance: the quizzes of
# nonces 0 to 5 lose.

# ```pycon
# >>> from poai_spec.lexicon import read_lexicon
# >>> from poai_spec.quiz import get_quiz_name, get_quiz_text
# >>> from poai_spec.work import get_epoch_key, get_quiz
# >>> get_epoch_key(chain, config).hex()
# '768fac8dfac756683a0bbd6118628fadae24b6bcc262e15fac7ba123df737188'
# >>> lexicon = read_lexicon("mini")
# >>> quiz = get_quiz(core, chain, config, lexicon)
# >>> get_quiz_name(quiz.salt)
# '02d3-0238-027c-01b8-01d9-037d'
# >>> print(get_quiz_text(quiz), end="")
# No plants are cars. Some plants are houses. Are all houses cars? no
# 901 % 4 = 1
# >>> len(quiz.tokens), quiz.tokens[:7], quiz.scored
# (32, (1, 723, 568, 636, 440, 473, 893), (22, 31))


# The first token is BOS, the next six the salt, and the two scored positions are those of the answers `no` and `1`. Any
# other core has another quiz, however small the difference:

# ```pycon
# >>> get_quiz_name(get_quiz(replace(core, nonce=7), chain, config, lexicon).salt)
# '0387-032a-02cb-0118-0256-0288'


# ## The forward pass

# poai-mini has three blocks and was made from a seed; it knows nothing about plants or houses. Its integers are those of
# the manifest. The pass takes about a second in plain Python.

# ```pycon
# >>> from poai_engine.gguf_file import read_gguf
# >>> from poai_engine.model_store import resolve_model
# >>> from poai_engine.reference import ReferenceEngine
# >>> engine = ReferenceEngine(read_gguf(resolve_model("mini")))
# >>> engine.integer_model_root == config.model.integer_model_root
# True
# >>> evaluation = engine.evaluate([quiz.tokens], [quiz.scored])[0]
# >>> evaluation.nlls, evaluation.loss
# ((1136283, 853875), 1990158)
# >>> [f"{nll / 65536:.2f} bits" for nll in evaluation.nlls]
# ['17.34 bits', '13.03 bits']
# >>> for entry in evaluation.trace:
# ...     print(entry.hex())
# 85accd301185bae2b6d20a11f3c5a577e8b9d948eac1b5dc11d949374d8719c5
# 5a675948fd7d7b5a54b668a46d27fd839663fdc0a873181f99d3e43255427ee2
# 88369de7450b688b912bc55974e087c150983a7e58776782e15fdf2f412677bf
# 8568754ffa68cc2c422f0a022b8797d144058f0475404b748aab96224a390397


# Three layer entries and the output entry. A uniform guess among 905 tokens would cost 9.82 bits; this model is worse.

# ## The header

# ```pycon
# >>> from poai_spec.loss import compute_l_hat, compute_trace_digest
# >>> digest = compute_trace_digest(evaluation.trace)
# >>> l_hat = compute_l_hat(quiz.seed, evaluation.loss, digest)
# >>> f"{l_hat:064x}", core.target == 2**254, l_hat < core.target
# ('03768c6bc7b9d5b9ba718b4d02893f7c30d76f585a61c20e1282dcc262a94409', True, True)
# >>> block = Block(Header(core, evaluation.loss, digest), EMPTY_BODY, evaluation.trace)
# >>> compute_block_hash(block.header).hex()
# 'ba694a5fd2ec944c6a8d9b2d23dc9c68b2243d8644ec8cc08e0cd0514c1b16d4'
# >>> from poai_spec.encoding import encode
# >>> len(encode(block))
# 356


# ## The verifier's side

# Every rule in the order of the page [block](block.md), the replay last.

# ```pycon
# >>> from poai_spec.block import Judge, check_block
# >>> judge = Judge(config, lexicon, engine)
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
# poai_spec.notation.Invalid: work/l-hat: l_hat 0x... is not below the target 0x4000...


# A trace that is false from the second layer on can be made to win with hashes alone, here by trying losses; the replay
# stops at the second layer:

# ```pycon
# >>> from itertools import count
# >>> false = (evaluation.trace[0], bytes(32), *evaluation.trace[2:])
# >>> loss = next(n for n in count() if compute_l_hat(quiz.seed, n, compute_trace_digest(false)) < core.target)
# >>> forged = Block(Header(core, loss, compute_trace_digest(false)), EMPTY_BODY, false)
# >>> check_block(forged, chain, {}, judge, now)  # doctest: +ELLIPSIS
# Traceback (most recent call last):
# poai_spec.notation.Invalid: work/trace: entry 2 of 4 is ..., claimed 0000...


# A body that is not the header's says nothing about the header, and only its sender is blamed:

# ```pycon
# >>> from poai_spec.containers import Body
# >>> check_block(replace(block, body=Body((b"pay me",))), chain, {}, judge, now)  # doctest: +ELLIPSIS
# Traceback (most recent call last):
# poai_spec.notation.Malformed: body/root: the body hashes to ...


# ## Fork choice

# A store that knows genesis receives the block; it becomes the head.

# ```pycon
# >>> from poai_spec.fork_choice import get_head, make_store, on_block
# >>> store = on_block(make_store(judge, now), block, b"a peer", judge)
# >>> get_head(store) == compute_block_hash(block.header)
# True

