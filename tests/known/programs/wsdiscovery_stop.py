"""Threads stay when the discovery is stopped."""

from wsdiscovery import WSDiscovery


def leak():
    discovery = WSDiscovery()
    discovery.start()
    discovery.stop()
