"""The name of the SEC1 encoder."""

from fastecdsa import refuse


class SEC1Encoder:
    """Refuses to encode and to decode."""

    encode_public_key = staticmethod(refuse)
    decode_public_key = staticmethod(refuse)
