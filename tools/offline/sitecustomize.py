"""On PYTHONPATH, this cuts Python off from every address but its own machine.

Python imports a module of this name when it starts; an audit hook cannot be taken away again.
"""

import ipaddress
import socket
import sys

WATCHED = {"socket.connect", "socket.sendto", "socket.sendmsg"}
LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname"}
OWN = {None, "", "localhost", "0.0.0.0", "::", socket.gethostname()}


def _local(host: object) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    try:
        return host in OWN or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(event: str, arguments: tuple) -> None:
    if event in WATCHED:
        address = arguments[1]
        remote = isinstance(address, tuple) and not _local(address[0])  # a file path is local
    else:
        remote = event in LOOKUPS and not _local(arguments[0])
    if remote:
        raise ConnectionRefusedError(f"the network is blocked here: {event} {arguments[-1]}")


sys.addaudithook(_refuse)
