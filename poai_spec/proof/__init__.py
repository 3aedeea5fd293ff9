# # The proof of work  [generated from specs/proof/README.md by `poai spec compile`: edit the page]

# Which quiz a header core decides, how its work is checked, and how hard it has to be. [The specification](../README.md) has all pages in reading order.

# - [epoch](epoch.md): epochs and their keys
# - [lexicon](lexicon.md): the pieces of questions and their token ids
# - [corpus](corpus.md): questions from a text instead
# - [questions](questions.md): the families of questions
# - [solvers](solvers.md): the answer found from the prompt alone
# - [quiz](quiz.md): from a header core to a token sequence
# - [difficulty](difficulty.md): target, time stamps, retarget
# - [work](work.md): checking a block's work, cheapest part first
# - [economics](economics.md): subsidy and halving
