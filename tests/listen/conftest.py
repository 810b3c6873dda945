"""One gateway for the tests of a module, over a real socket; or one in a process of its own."""

from tests.support.one_gateway import fast_lane, gateway, module_database_url, module_gateway
from tests.support.one_process import large_bodies, served, upstream

__all__ = ["fast_lane", "gateway", "large_bodies", "module_database_url", "module_gateway", "served", "upstream"]
