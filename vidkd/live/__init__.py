"""Live video: sources that never end, events as they happen, and where they go."""
