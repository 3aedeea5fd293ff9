"""Where peers are: the address prefixes by which those are counted who could have any number of peer ids."""

import ipaddress

from poai_spec.chain.networking import IPV4_PREFIX_BITS, IPV6_PREFIX_BITS


def _parse_host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address of a multiaddr; None where its host is none."""
    parts = address.split("/")
    try:
        host = ipaddress.ip_address(parts[2].partition("%")[0])  # without the interface of a link-local address
    except (IndexError, ValueError):
        return None
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        return host.ipv4_mapped  # how a socket that listens on :: names a peer of the older version
    return host


def get_prefix(address: str) -> str:
    """Return the address prefix (/24, or /48 of IPv6) of a multiaddr; its host where that is no IP address."""
    host = _parse_host(address)
    if host is None:
        return "/".join(address.split("/")[:3])
    bits = IPV4_PREFIX_BITS if host.version == 4 else IPV6_PREFIX_BITS
    return str(ipaddress.ip_network((host, bits), strict=False))


def is_public(address: str) -> bool:
    """Whether a multiaddr can be reached over the internet: not loopback, private, link-local or shared (RFC 6598)."""
    host = _parse_host(address)
    return host is None or host.is_global
