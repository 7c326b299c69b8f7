"""The model over HTTP: a service and routes that know no framework, and the two borders."""
