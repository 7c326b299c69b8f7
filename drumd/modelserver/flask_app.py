"""The model server as a Flask app: it only translates, the answers are the service's."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect

from drumd.config.modelserver.reading import read_settings
from drumd.modelserver.inference.model import Model
from drumd.modelserver.serving.calls import EXCHANGE, Answer, Call, Exchange, error_answer
from drumd.modelserver.serving.extension import extend
from drumd.modelserver.serving.routes import ROUTES, Route, names_below
from drumd.modelserver.serving.service import Service
from drumd.modelserver.serving.wsgi import Exchanges, header_values, read
from drumd.modelserver.tracing import telemetry

EXTENSION = "custom_flask.py"


def make_app() -> Flask:
    """Load the model that the environment names, and return the app that serves it."""
    return app_of(Model.load(read_settings()))


def app_of(model: Model) -> Flask:
    """Return the app that serves a model; raise `LoadError` when its extension cannot be used."""
    settings = model.settings
    service = Service(model, names_below(settings.url_prefix))
    # Templates of an extension are looked for beside it. Nothing is served as a file by itself.
    app = Flask("model", root_path=str(settings.code_dir), static_folder=None)
    # Else /predict// would be a redirect. (Werkzeug 3.0 takes this when the map is made alone.)
    app.url_map = Map(merge_slashes=False)
    for route in ROUTES:
        view = _view(service, route)
        for url in route.urls(settings.url_prefix):
            app.add_url_rule(
                url, route.name, view, methods=route.methods, provide_automatic_options=False
            )
    app.register_error_handler(HTTPException, lambda error: _http_error(service, error))
    app.register_error_handler(
        Exception, lambda error: _response(service.failure(error, _exchange().request_id))
    )
    if settings.backend is not None:
        from drumd.modelserver.proxy import in_flask as proxy_flask  # noqa: PLC0415 - few need it, and httpx

        proxy_flask.mount(app, settings, settings.backend)
    telemetry.instrument_flask(app, settings)
    extend(app, EXTENSION, settings.code_dir)
    # Last, so that it sees what the extension's own layers answer.
    app.wsgi_app = Exchanges(app.wsgi_app, service)  # type: ignore[method-assign]  # Flask's own way
    return app


def _view(service: Service, route: Route) -> Callable[[], Response]:
    takes_body = route.method == "POST"

    def view() -> Response:
        environ = request.environ
        request_id = _exchange().request_id
        with service.room.place() as place:
            try:
                limit = service.settings.max_body
                body = read(environ, limit, place) if takes_body else b""
                call = Call(
                    method=request.method,
                    path=request.path,
                    query_string=environ.get("QUERY_STRING", "").encode("latin-1"),
                    headers=header_values(environ),
                    body=body,
                    request_id=request_id,
                )
            except Exception as error:  # noqa: BLE001 - what it means is decided in one place
                return _response(service.failure(error, request_id))
            return _response(service.answer(route.handle, call))

    return view


def _exchange() -> Exchange:
    exchange: Exchange = request.environ[EXCHANGE]
    return exchange


def _http_error(service: Service, error: HTTPException) -> Any:
    """Return in our form what the routing, or an extension, refused."""
    if isinstance(error, RequestRedirect) or error.response is not None:
        return error
    if error is request.routing_exception:
        if isinstance(error, MethodNotAllowed):
            allowed = set(error.valid_methods or ())
            return _response(service.not_allowed(request.method, request.path, allowed))
        if isinstance(error, NotFound):
            return _response(service.not_found(request.path))
    answer = error_answer(error.description or error.name, error.code or 500)
    response = _response(answer)
    # Such as WWW-Authenticate, without which no browser asks for a password.
    response.headers.extend(
        (name, value) for name, value in error.get_headers() if name != "Content-Type"
    )
    return response


def _response(answer: Answer) -> Response:
    return Response(
        answer.body,
        status=answer.status,
        headers=dict(answer.headers),
        content_type=answer.content_type,
    )
