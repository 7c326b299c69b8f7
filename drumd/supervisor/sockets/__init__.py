"""Listening sockets: binding, steering, and the depth of their queues."""
