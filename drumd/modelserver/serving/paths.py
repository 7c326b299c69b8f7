"""The paths that clients ask, below the prefix; each is answered with a slash at its end, too."""

PREDICT = ("/predict", "/predictions", "/invocations")
TRANSFORM = ("/transform",)
UNSTRUCTURED = ("/predictUnstructured", "/predictionsUnstructured")
CHAT = ("/chat/completions", "/v1/chat/completions")
MODELS = ("/models", "/v1/models")
PROXIED = {"directAccess": "direct_access", "nim": "nim"}
"""Names of the routes whose paths go on to a backend, by the first part of these paths."""
