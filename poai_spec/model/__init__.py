# # The model  [generated from specs/model/README.md by `poai spec compile`: edit the page]

# The forward pass in integers: from the weights of a file to the loss and the trace of a quiz. [The specification](../README.md) has all pages in reading order.

# - [fixed-point](fixed-point.md): rounding, powers of two, logarithm, sine
# - [weights](weights.md): GGUF tensors as integers
# - [integer-model](integer-model.md): rows to int8, what is refused, the model's root
# - [engine](engine.md): the interface between a chain and a model
# - [loss](loss.md): loss, trace and `l_hat`
# - [inference](inference.md): the forward pass, with the bound of every step
# - [llama-profile](llama-profile.md): logits from llama.cpp, for private networks of equal machines
