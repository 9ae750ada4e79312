from tests.scripted import anyio_backend, home, workspace

__all__ = ["anyio_backend", "home", "workspace"]
