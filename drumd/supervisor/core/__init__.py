"""The decisions, pure: states and events in, states, actions and reasons out."""
