"""Rota: sessions as refresh-token families in PostgreSQL."""

__version__ = "0.1.0"
