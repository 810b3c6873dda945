"""Limits over a real socket, on both lanes."""

from tests.support.one_gateway import fast_lane, gateway, module_database_url, module_gateway

__all__ = ["fast_lane", "gateway", "module_database_url", "module_gateway"]
