"""Published checkpoints <-> this project's names."""

from dsctool.interop.published import load_published, rename

__all__ = ["load_published", "rename"]
