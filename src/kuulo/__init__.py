"""Kuulo: offline transcription with one grammar over every implementation."""

__version__ = "0.1.0"
