"""An instance that is closed leaves the event loop of its thread open."""

from zeroconf import Zeroconf


def leak():
    Zeroconf(interfaces=["127.0.0.1"]).close()
