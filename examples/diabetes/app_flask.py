"""The example model as a WSGI app: `drumd serve app_flask:app`."""

from http import HTTPStatus

from flask import Flask, Response, jsonify, request
from progression import MEASUREMENTS, ProgressionModel

app = Flask(__name__)
model = ProgressionModel()


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), (int, float)) for name in MEASUREMENTS
    )


@app.post("/predict")
def predict() -> tuple[Response, HTTPStatus]:
    """Predict each row of the question."""
    question = request.get_json(silent=True)
    rows = question.get("rows") if isinstance(question, dict) else None
    if not isinstance(rows, list) or not rows or not all(map(_is_row, rows)):
        error = f'cannot read the question: send {{"rows": [...]}} with {", ".join(MEASUREMENTS)}'
        return jsonify(error=error), HTTPStatus.UNPROCESSABLE_ENTITY
    return jsonify(predictions=model.predict(rows)), HTTPStatus.OK


@app.get("/health")
def health() -> Response:
    """Answer as long as this worker can."""
    return jsonify(status="ok")
