"""Rota: sessions as refresh-token families in PostgreSQL."""

__version__ = "0.2.0.dev0"
