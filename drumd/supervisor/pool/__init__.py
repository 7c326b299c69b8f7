"""One pool: its processes and sockets, as the owner's decisions have them."""
