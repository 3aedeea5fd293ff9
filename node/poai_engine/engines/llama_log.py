"""llama.cpp without its log: hundreds of lines a model, and warnings that mean nothing here."""

from functools import cache


@cache
def silence() -> object:
    """Drop what llama.cpp logs from now on; its errors reach the caller as results. Needs llama-cpp-python.

    Returns:
        The callback, which has to live as long as the library.
    """
    from llama_cpp import llama_cpp as library  # noqa: PLC0415  the extra is optional

    callback = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(callback, None)
    return callback
