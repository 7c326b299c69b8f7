"""The apps that are served: as small as can be, so that the servers are what is measured."""
