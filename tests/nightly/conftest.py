from tests.support.one_gateway import fast_lane
from tests.support.one_process import large_bodies, served, upstream

__all__ = ["fast_lane", "large_bodies", "served", "upstream"]
