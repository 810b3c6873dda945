from tests.support.one_gateway import gateway, module_database_url, module_gateway

__all__ = ["gateway", "module_database_url", "module_gateway"]
