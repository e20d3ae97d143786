"""Pictures, annotated videos and tables for people."""
