"""The peer fastapi-pipeline of bench/serve.py: a plain route around `transformers.pipeline`; CHECKPOINT and MAX_LENGTH are variables."""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
pipe = pipeline("text-classification", model=os.environ["CHECKPOINT"], dtype=torch.float32, device="cpu", top_k=None)
longest = int(os.environ["MAX_LENGTH"])


class Asked(BaseModel):
    """One text."""

    text: str


@app.post("/predict")
def predict(asked: Asked) -> list[dict[str, str | float]]:
    found: list[dict[str, str | float]] = pipe([asked.text], truncation=True, max_length=longest)[0]
    return found
