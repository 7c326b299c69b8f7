"""The example model as an ASGI app: `drumd serve app_fastapi:app`."""

from typing import Annotated

from fastapi import FastAPI
from progression import ProgressionModel
from pydantic import BaseModel, Field


class Patient(BaseModel):
    """One row of the diabetes data, unscaled."""

    age: float
    sex: float
    bmi: float
    bp: float
    s1: float
    s2: float
    s3: float
    s4: float
    s5: float
    s6: float


class Question(BaseModel):
    """The rows to predict."""

    rows: Annotated[list[Patient], Field(min_length=1)]


class Answer(BaseModel):
    """One prediction a row."""

    predictions: list[float]


app = FastAPI(title="Progression of diabetes")
model = ProgressionModel()


@app.post("/predict")
def predict(question: Question) -> Answer:
    """Predict in a thread of the pool: the event loop stays free for other connections."""
    return Answer(predictions=model.predict([row.model_dump() for row in question.rows]))


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer as long as this worker can."""
    return {"status": "ok"}
