# # Body  [generated from specs/chain/body.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# What a block carries beside its header. Version 1 activates no transactions, so the only valid body is the empty one,
# and a header alone shows whether it commits to it. The field exists so that transactions need no new block format.


from poai_spec.basics.containers import Block, Body, HeaderCore, compute_body_root
from poai_spec.basics.notation import Hash32, Invalid, Malformed


# ## Constants


EMPTY_BODY = Body(transactions=())
EMPTY_BODY_ROOT: Hash32 = compute_body_root(EMPTY_BODY)


# ## Rules

# ### `check_body_is_empty`


def check_body_is_empty(core: HeaderCore) -> None:
    """Refuse a header that commits to any body but the empty one.

    Raises:
        Invalid: `body/transactions-not-active`; the header decides it, whatever body it came with.
    """
    if core.body_root != EMPTY_BODY_ROOT:
        raise Invalid("body/transactions-not-active", f"body root {core.body_root.hex()} is not the empty body's")


# ### `check_body`


def check_body(block: Block) -> None:
    """Refuse a body that is not the one that the header commits to.

    Raises:
        Malformed: `body/root`; the header may be good, and another sender may have its body.
    """
    root = compute_body_root(block.body)
    if block.header.core.body_root != root:
        raise Malformed("body/root", f"the body hashes to {root.hex()}, not to {block.header.core.body_root.hex()}")


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `body/transactions-not-active` | Invalid | the header commits to something else than the empty body |
# | `body/root` | Malformed | the body that came with the header is not the one it commits to |

# ## Rationale

# - **Two codes, two classes.** A header with a root of its own choice is invalid for ever. A good header with a wrong body
#   attached says nothing about the header: if that marked its hash, anyone could make nodes refuse an honest block
#   (CVE-2012-2459).
# - **An encoding for opaque transactions now** keeps the body root's definition when they are activated; only the rule
#   `body/transactions-not-active` goes.
