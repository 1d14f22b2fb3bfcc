"""Jobs: recordings that a scheduler's tasks transcribe. Everything about a job lies in its folder."""
