# Included by CMake when llama-cpp-python enters llama.cpp's project (see LLAMA_CMAKE in the Makefile).
# llama-cpp-python forces this cache entry to ON, but loads only libllama and libggml; a plain variable wins over it.
set(LLAMA_BUILD_COMMON OFF)
