"""Where live events and pictures go, each beside the engine and none of them in its way."""
