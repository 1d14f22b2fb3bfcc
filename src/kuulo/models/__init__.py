"""Whisper models: their files (check), where they are (store), which there are (catalog), how they come (pull)."""
